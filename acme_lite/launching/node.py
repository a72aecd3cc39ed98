"""The node of a Launchpad program whose object other nodes call: like Launchpad's CourierNode, but private.

It listens on the host of the address that the launcher gives it (loopback, by `launching.launch` as by Launchpad's
local launchers), asks for a token, and takes arrays as arguments.
"""

from __future__ import annotations

import dataclasses
import importlib
import secrets
import threading
from collections.abc import Callable, Sequence
from typing import Any

from acme_lite import _runtime, checks
from acme_lite.launching import calls

_runtime.load_python_library()
lp = _runtime.import_extra("launchpad", "distributed", "A distributed program")
base = importlib.import_module("launchpad.nodes.base")

_import_lock = threading.Lock()


@dataclasses.dataclass(frozen=True)
class CallOptions:
    """How a node is called.

    Attributes:
        token: what a caller must show; ASCII. A fresh one unless given.
        timeout_seconds: how long a call from another node may take in all, waiting for this node's server included.
        max_concurrent_calls: how many calls run at a time; others wait.
    """

    token: str = dataclasses.field(default_factory=lambda: secrets.token_urlsafe(24), repr=False)
    timeout_seconds: float = 300.0
    max_concurrent_calls: int = 64

    def __post_init__(self) -> None:
        checks.positive(self, "timeout_seconds")
        checks.at_least(self, 1, "max_concurrent_calls")
        if not self.token or not self.token.isascii():
            raise ValueError("CallOptions.token must be ASCII and not empty")


class CallHandle(base.Handle):  # type: ignore[misc, name-defined]  # Launchpad has no types here
    """What other nodes take as an argument; when they run, it has become a client of the node's object."""

    def __init__(self, address: Any, options: CallOptions):
        self._address = address
        self._options = options

    def dereference(self) -> calls.Client:
        return calls.connect(
            self._address.resolve(),
            self._options.token,
            timeout_seconds=self._options.timeout_seconds,
            stopping=_stop_event(),
        )

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"a handle has no attribute {name!r}: it becomes a client where a node takes it")


class CallNode(lp.PyClassNode):  # type: ignore[misc, name-defined]  # likewise
    """Constructs an object and serves its public methods to the nodes that were given the handle.

    A `run` method is not served: it is the node's main, and when it returns, the node has finished. Without one, the
    node serves until the program stops. Methods run in threads beside `run`, several at a time.

    Args:
        constructor: makes the object, in the node's process; handles among the arguments become clients.
        *args: its arguments.
        call_options: how the node is called.
        imports: modules that its process imports and the launcher's does not; nodes that are forked get them for
            nothing, since the process that they are forked from imports them once.
        **kwargs: its keyword arguments.
    """

    def __init__(
        self,
        constructor: Callable[..., Any],
        *args: Any,
        call_options: CallOptions | None = None,
        imports: Sequence[str] = (),
        **kwargs: Any,
    ):
        super().__init__(constructor, *args, **kwargs)
        self.imports = tuple(imports)
        self.call_options = CallOptions() if call_options is None else call_options
        self.address = lp.Address("calls")
        self.allocate_address(self.address)

    def create_handle(self) -> CallHandle:
        return self._track_handle(CallHandle(self.address, self.call_options))

    def run(self) -> None:
        """Constructs the object, serves it, and runs its `run`, in the node's process."""
        # Launchpad's own launcher can run nodes in threads of one process, whose imports would meet half-way.
        with _import_lock:
            for name in self.imports:
                importlib.import_module(name)
        instance = self._construct_instance()
        has_main = self._should_run and callable(getattr(instance, "run", None))
        server = calls.Server(
            instance,
            self.address.resolve(),
            self.call_options.token,
            max_concurrent_calls=self.call_options.max_concurrent_calls,
            hidden=frozenset({"run"}) if has_main else frozenset(),
        )
        try:
            if has_main:
                instance.run()
            else:
                lp.wait_for_stop()
        finally:
            server.stop()


def _stop_event() -> threading.Event | None:
    try:
        return lp.stop_event()
    except RuntimeError:  # outside of a node's main thread
        return None
