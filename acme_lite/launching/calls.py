"""Calls between processes: any object served on an address, and clients that call its methods.

A call carries a token, which the server compares before it reads anything else: what follows it is a pickle, and
whoever can make a process load a pickle can run any code in it. Neither the token nor the data are encrypted, so the
address is one of the loopback interface unless whoever starts the program decides otherwise.

Calls are sent at least once: one that a dying server had begun is sent again to the server that takes its place.
"""

from __future__ import annotations

import concurrent.futures
import functools
import hmac
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable
from typing import Any

from acme_lite import _runtime
from acme_lite.launching import serialization

grpc = _runtime.import_extra("grpc", "distributed", "Calling other processes")

_LOGGER = logging.getLogger(__name__)
_METHOD = "/acme_lite.Calls/call"
_TOKEN_KEY = "acme-lite-token"
_OPTIONS = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.enable_http_proxy", 0),
    # Whoever starts a program holds its ports with SO_REUSEPORT, so that nobody takes one while a node restarts.
    ("grpc.so_reuseport", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_TICK_SECONDS = 0.2
_RETRY_SECONDS = 0.1
_NEWS_OF_STOP_SECONDS = 2.0  # after a server has ended in the middle of a call
_WARNING_SECONDS = 15.0
# Python's signal handlers run in the main thread, and a KeyboardInterrupt while gRPC notes a new call there leaves a
# channel that waits for ever when it is closed. So calls of the main thread are handed over.
_SENDER = concurrent.futures.ThreadPoolExecutor(1, thread_name_prefix="calls-sender")
_STOPPING_SECONDS = 1.0  # how long calls under way may go on once the program stops


class RemoteError(RuntimeError):
    """A call raised something that cannot be raised here; the message holds the remote traceback."""


class CallTimeoutError(TimeoutError):
    """A call was not answered in time."""


class ProgramStoppedError(RuntimeError):
    """A call was given up because the program stops."""


class _RemoteTraceback(Exception):
    def __str__(self) -> str:
        return f"in the process that was called:\n\n{self.args[0]}"


def host_and_port(address: str) -> tuple[str, int]:
    """Returns the two parts of `host:port`, with `localhost` as 127.0.0.1.

    Raises:
        ValueError: the address has another form.
    """
    host, separator, port = address.rpartition(":")
    if not separator or not host or not port.isdigit():
        raise ValueError(f"address must be host:port, got {address!r}")
    return ("127.0.0.1" if host == "localhost" else host), int(port)


def is_listening(address: str, timeout_seconds: float = 0.5) -> bool:
    """Returns whether something accepts connections at an address."""
    try:
        with socket.create_connection(host_and_port(address), timeout=timeout_seconds):
            return True
    except OSError:
        return False


class Server:
    """Serves the public methods of an object until it is stopped.

    Methods run in threads, several at a time.

    Args:
        target: the object.
        address: `host:port` to listen on.
        token: what calls must carry; ASCII.
        max_concurrent_calls: how many methods run at a time; others wait.
        hidden: names of public methods that are not served.

    Raises:
        OSError: the address is taken.
    """

    def __init__(
        self,
        target: Any,
        address: str,
        token: str,
        *,
        max_concurrent_calls: int = 64,
        hidden: frozenset[str] = frozenset(),
    ):
        self._target = target
        self._token = token.encode()
        self._hidden = hidden
        host, port = host_and_port(address)
        if port and is_listening(address):
            raise OSError(f"address {address} is taken: another process listens there")
        self._server = grpc.server(
            concurrent.futures.ThreadPoolExecutor(max_concurrent_calls, thread_name_prefix="calls"),
            handlers=[_Handlers(self._service)],
            options=_OPTIONS,
        )
        try:
            bound = self._server.add_insecure_port(f"{host}:{port}")
        except RuntimeError as error:
            raise OSError(f"address {address} is taken or not one of this machine's: {error}") from error
        self.address = f"{host}:{bound}"
        self._server.start()

    def stop(self) -> None:
        """Refuses new calls, gives those under way a second, and ends."""
        self._server.stop(_STOPPING_SECONDS).wait()

    def _service(self, details: Any) -> Any:
        if details.method != _METHOD:
            return None
        token = dict(details.invocation_metadata).get(_TOKEN_KEY, "")
        token = token if isinstance(token, bytes) else token.encode()
        if hmac.compare_digest(token, self._token):
            return grpc.unary_unary_rpc_method_handler(self._answer)
        # A handler of streams reads nothing before it asks for it.
        return grpc.stream_unary_rpc_method_handler(_refuse)

    def _answer(self, request: bytes, context: Any) -> bytes:
        try:
            name, args, kwargs = serialization.loads(request)
            return serialization.dumps((self._method(name)(*args, **kwargs), None))
        except BaseException as error:
            return serialization.dumps((None, _describe(error)))

    def _method(self, name: str) -> Callable[..., Any]:
        served = not name.startswith("_") and name not in self._hidden
        method = getattr(self._target, name, None) if served else None
        if not callable(method):
            raise AttributeError(f"{type(self._target).__name__} at {self.address} serves no method {name!r}")
        return method


class _Handlers(grpc.GenericRpcHandler):  # type: ignore[misc, name-defined]  # an optional import has no types
    def __init__(self, service: Callable[[Any], Any]):
        self._service = service

    def service(self, handler_call_details: Any) -> Any:
        return self._service(handler_call_details)


def _refuse(requests: Any, context: Any) -> bytes:
    context.abort(grpc.StatusCode.UNAUTHENTICATED, "wrong token")
    raise AssertionError("abort raises")


def _describe(error: BaseException) -> tuple[bytes | None, str, str]:
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    pickled = None
    if isinstance(error, Exception):  # SystemExit and the like end the server's call, not the caller
        try:
            pickled = serialization.dumps(error)
        except Exception:
            _LOGGER.debug("an exception that cannot be pickled is sent as text", exc_info=True)
    return pickled, f"{type(error).__name__}: {error}", text


def _rebuild(pickled: bytes | None, summary: str, text: str) -> Exception:
    error: Any = None
    if pickled is not None:
        try:
            error = serialization.loads(pickled)
        except Exception:
            _LOGGER.debug("an exception that cannot be loaded is raised as RemoteError", exc_info=True)
    if not isinstance(error, Exception):
        error = RemoteError(summary)
    error.__cause__ = _RemoteTraceback(text)
    return error


class Client:
    """Calls the methods of an object that another process serves.

    `client.method(*args, **kwargs)` waits for the answer; `client.futures.method(...)` returns a
    `concurrent.futures.Future`. An exception of the method is raised here, with the remote traceback as its cause.
    While nobody serves the address, calls wait for a server there; a server that restarts there is found again.
    Signal handlers run while a call waits, and an exception that they raise (Ctrl-C) ends it. Use `connect`.
    """

    def __init__(
        self,
        address: str,
        token: str,
        timeout_seconds: float,
        stopping: threading.Event | None,
        stopping_seconds: float = _STOPPING_SECONDS,
    ):
        self._settings = (address, token, timeout_seconds)
        self._stopping, self._stopping_seconds = stopping, stopping_seconds
        host, port = host_and_port(address)
        self._channel = grpc.insecure_channel(f"{host}:{port}", options=_OPTIONS)
        self._rpc = self._channel.unary_unary(_METHOD)

    @property
    def futures(self) -> Any:
        """The same methods, each returning a `concurrent.futures.Future` of its answer."""
        return _Futures(self._submit)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(f"names with an underscore are not served: {name!r}")
        return functools.partial(self._call, name)

    def __repr__(self) -> str:
        return f"<client of {self._settings[0]}>"

    def __reduce__(self) -> Any:
        return _reconnect, self._settings

    def __dir__(self) -> list[str]:
        return ["futures"]

    def _call(self, name: str, /, *args: Any, **kwargs: Any) -> Any:
        future = self._submit(name, *args, **kwargs)
        started = time.monotonic()
        warned = started
        stop_seen: float | None = None
        try:
            while True:
                try:
                    return future.result(timeout=_TICK_SECONDS)
                except concurrent.futures.TimeoutError:
                    if future.done():
                        return future.result()  # perhaps the method's own TimeoutError
                now = time.monotonic()
                if now - warned > _WARNING_SECONDS:
                    warned = now
                    _LOGGER.warning("%s (for %.0f s so far)", self._waited_for(name), now - started)
                if self._stopping is not None and self._stopping.is_set():
                    stop_seen = stop_seen or now
                    if now - stop_seen > self._stopping_seconds:
                        raise ProgramStoppedError(f"the program stops; {self._waited_for(name)}")
        finally:
            future.cancel()

    def _waited_for(self, name: str) -> str:
        address = self._settings[0]
        if is_listening(address):
            return f"waited for the server at {address} to answer {name}"
        return f"waited for a server to listen at {address}, to call {name}"

    def _submit(self, name: str, /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[Any]:
        future: concurrent.futures.Future[Any] = concurrent.futures.Future()
        deadline = time.monotonic() + self._settings[2]
        task = (future, name, serialization.dumps((name, args, kwargs)), deadline)
        if threading.current_thread() is threading.main_thread():
            _SENDER.submit(self._send, *task)
        else:
            self._send(*task)
        return future

    def _send(self, future: concurrent.futures.Future[Any], name: str, request: bytes, deadline: float) -> None:
        _, token, _ = self._settings
        try:
            rpc = self._rpc.future(
                request,
                timeout=max(deadline - time.monotonic(), 0.0),
                metadata=((_TOKEN_KEY, token),),
                wait_for_ready=True,
            )
        except Exception as error:  # the channel has been closed: the process ends
            if future.set_running_or_notify_cancel():
                future.set_exception(error)
            return

        def finish(rpc: Any) -> None:
            code = rpc.code()
            if code is grpc.StatusCode.UNAVAILABLE and not future.done() and time.monotonic() < deadline:
                retry = threading.Timer(_RETRY_SECONDS, self._send, (future, name, request, deadline))
                retry.daemon = True
                retry.start()
            elif code is grpc.StatusCode.CANCELLED and self._stopping is not None and not future.done():
                # The server has ended in the middle of the call: perhaps because the program stops, which comes here
                # a moment later.
                threading.Thread(target=settle, args=(rpc, code, self._stopping), daemon=True).start()
            else:
                settle(rpc, code)

        def settle(rpc: Any, code: Any, stopping: threading.Event | None = None) -> None:
            if stopping is not None:
                stopping.wait(_NEWS_OF_STOP_SECONDS)
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(self._outcome(rpc, code, name))
                except Exception as error:
                    future.set_exception(error)

        future.add_done_callback(lambda done: rpc.cancel() if done.cancelled() else None)
        rpc.add_done_callback(finish)

    def _outcome(self, rpc: Any, code: Any, name: str) -> Any:
        address, _, timeout_seconds = self._settings
        if code is grpc.StatusCode.OK:
            result, error = serialization.loads(rpc.result())
            if error is None:
                return result
            raise _rebuild(*error)
        if code is grpc.StatusCode.UNAUTHENTICATED:
            raise PermissionError(f"the server at {address} refused the token of the call {name}")
        if code in (grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE):
            raise CallTimeoutError(f"{self._waited_for(name)}, for {timeout_seconds:g} s")
        if self._stopping is not None and self._stopping.is_set():  # the server has stopped first
            raise ProgramStoppedError(f"the program stops; the call {name} to {address} was given up")
        raise RemoteError(f"the call {name} to {address} failed: {code}: {rpc.details()}")


class _Futures:
    def __init__(self, submit: Callable[..., concurrent.futures.Future[Any]]):
        self._submit = submit

    def __getattr__(self, name: str) -> Callable[..., concurrent.futures.Future[Any]]:
        if name.startswith("_"):
            raise AttributeError(f"names with an underscore are not served: {name!r}")
        return functools.partial(self._submit, name)


def patient(client: Client, stopping_seconds: float) -> Client:
    """Returns a client of the same object whose calls may take so long, and not a second, once the program stops."""
    return Client(*client._settings, client._stopping, stopping_seconds)


def is_served(client: Client) -> bool:
    """Returns whether something listens where a client's calls go."""
    return is_listening(client._settings[0])


def connect(
    address: str, token: str, *, timeout_seconds: float = 300.0, stopping: threading.Event | None = None
) -> Client:
    """Returns a client of the object served at an address; from any process, a notebook's too.

    Nothing is sent yet, and nobody need be there yet.

    Args:
        address: `host:port`.
        token: what the server was given.
        timeout_seconds: how long a call may take in all, waiting for the server included.
        stopping: once it is set, calls that wait are given up.

    Raises:
        ValueError: the address is not `host:port`, or the time is not positive.
    """
    if not timeout_seconds > 0:
        raise ValueError(f"timeout_seconds must be greater than 0, got {timeout_seconds!r}")
    host_and_port(address)
    return Client(address, token, timeout_seconds, stopping)


def _reconnect(address: str, token: str, timeout_seconds: float) -> Client:
    return connect(address, token, timeout_seconds=timeout_seconds)
