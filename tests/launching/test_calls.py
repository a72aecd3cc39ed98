"""Calls between processes: a server in a thread of this process, clients beside it."""

import concurrent.futures
import os
import pickle
import signal
import socket
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import _runtime
from acme_lite.launching import serialization

_runtime.load_python_library()
grpc = pytest.importorskip("grpc", reason="calls need the extra 'distributed'")

from acme_lite import launching  # noqa: E402  # after the check for gRPC
from acme_lite.launching import calls  # noqa: E402

TOKEN = "open sesame"
LIMIT = 60.0
LOADED = []


class CannotBePickled(Exception):
    def __reduce__(self):
        raise TypeError("not this one")


class Target:
    def __init__(self):
        self.release = threading.Event()
        self.entered = threading.Event()
        self.barrier = threading.Barrier(2)

    def echo(self, value, *, twice=False):
        return (value, value) if twice else value

    def add_one(self, array):
        array += 1
        return array

    def fail(self, names):
        raise KeyError(names)

    def fail_strangely(self):
        raise CannotBePickled("strange")

    def give_lock(self):
        return threading.Lock()

    def meet(self):
        self.barrier.wait(LIMIT)
        return "met"

    def block(self):
        self.entered.set()
        assert self.release.wait(LIMIT)
        return "released"

    def signal_and_block(self, number):
        os.kill(os.getpid(), number)
        return self.block()

    def run(self):
        return "run"

    def _private(self):
        return "private"


@pytest.fixture
def target():
    target = Target()
    yield target
    target.release.set()


@pytest.fixture
def server(target):
    server = calls.Server(target, "127.0.0.1:0", TOKEN, hidden=frozenset({"run"}))
    yield server
    target.release.set()
    server.stop()


@pytest.fixture
def client(server):
    return launching.connect(server.address, TOKEN, timeout_seconds=LIMIT)


@pytest.fixture
def free_address():
    with socket.socket() as held:  # bound and not listening: nobody else takes the port, and connections are refused
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


def as_before(value):
    return serialization.loads(serialization.dumps(value))


@pytest.mark.parametrize("size", [3, 5000])
def test_arrays_come_back_equal_and_as_writable_as_they_were(size):
    array = np.arange(size, dtype=np.float32)
    fixed = array.copy()
    fixed.flags.writeable = False
    got, got_fixed, got_strided = as_before([array, fixed, array[::2]])
    np.testing.assert_array_equal(got, array)
    np.testing.assert_array_equal(got_fixed, array)
    np.testing.assert_array_equal(got_strided, array[::2])
    assert got.flags.writeable and not got_fixed.flags.writeable


def test_jax_arrays_arrive_as_numpy_arrays_and_keys_as_keys():
    got = as_before({"low": jnp.ones(5000, jnp.bfloat16), "key": jax.random.key(3)})
    assert type(got["low"]) is np.ndarray and got["low"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(got["low"].astype(np.float32), np.ones(5000, np.float32))
    assert (jax.random.key_data(got["key"]) == jax.random.key_data(jax.random.key(3))).all()


def test_functions_travel_by_value():
    offset = 2
    assert as_before(lambda x: x + offset)(3) == 5


def test_arguments_and_results_are_arrays(client):
    array = np.zeros((100, 100))
    np.testing.assert_array_equal(client.add_one(array), np.ones((100, 100)))
    np.testing.assert_array_equal(array, 0.0)
    assert client.echo({"a": [1]}, twice=True) == ({"a": [1]}, {"a": [1]})


def test_ten_megabytes_travel_both_ways(client):
    array = np.random.default_rng(0).integers(0, 256, 10_000_000, dtype=np.uint8)
    np.testing.assert_array_equal(client.echo(array), array)


def test_the_exception_of_the_method_is_raised_with_the_remote_traceback(client):
    with pytest.raises(KeyError, match="nope") as caught:
        client.fail(["nope"])
    assert "in fail" in str(caught.value.__cause__)
    assert "raise KeyError(names)" in str(caught.value.__cause__)


def test_an_exception_that_cannot_travel_is_a_remote_error(client):
    with pytest.raises(launching.RemoteError, match="CannotBePickled: strange") as caught:
        client.fail_strangely()
    assert "in fail_strangely" in str(caught.value.__cause__)


def test_a_result_that_cannot_be_pickled_is_an_error(client):
    with pytest.raises(TypeError, match="pickle"):
        client.give_lock()


def test_private_hidden_and_unknown_methods_are_not_served(server, client):
    with pytest.raises(AttributeError, match="underscore"):
        _ = client._private
    for name in ("run", "unknown", "release"):
        with pytest.raises(AttributeError, match=f"Target at {server.address} serves no method '{name}'"):
            getattr(client, name)()
    with pytest.raises(AttributeError, match="serves no method '_private'"):
        client._submit("_private").result(LIMIT)


def test_futures_run_at_the_same_time(client):
    met = [client.futures.meet(), client.futures.meet()]
    assert all(isinstance(future, concurrent.futures.Future) for future in met)
    assert [future.result(LIMIT) for future in met] == ["met", "met"]


def test_a_future_can_be_cancelled(client, target):
    blocked = client.futures.block()
    assert target.entered.wait(LIMIT)
    assert blocked.cancel()
    assert client.echo(1) == 1
    assert blocked.cancelled()


def note_loading(value):
    LOADED.append(value)
    return value


class NotesLoading:
    def __init__(self, value):
        self.value = value

    def __reduce__(self):
        return note_loading, (self.value,)


def test_without_the_token_nothing_is_deserialised(server, client):
    LOADED.clear()
    payload = NotesLoading("payload")
    with pytest.raises(PermissionError, match=f"{server.address} refused the token of the call echo"):
        launching.connect(server.address, "guess").echo(payload)
    with grpc.insecure_channel(server.address) as channel:
        for metadata in ((), ((calls._TOKEN_KEY, "guess"),)):
            with pytest.raises(grpc.RpcError) as caught:
                channel.unary_unary(calls._METHOD)(
                    serialization.dumps(("echo", (payload,), {})), metadata=metadata, timeout=LIMIT, wait_for_ready=True
                )
            assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert LOADED == []
    client.echo(payload)
    assert "payload" in LOADED  # with the token it is, so the check above can fail


def test_garbage_on_the_port_changes_nothing(server, client):
    host, port = calls.host_and_port(server.address)
    garbage = [b"GET / HTTP/1.1\r\n\r\n", pickle.dumps(("echo", (1,), {})), np.random.default_rng(0).bytes(100_000)]
    for data in garbage:
        with socket.create_connection((host, port), timeout=LIMIT) as connection:
            try:
                connection.sendall(data)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(1 << 16):
                    pass
            except OSError:
                pass  # the server need not listen to the end
    with grpc.insecure_channel(server.address) as channel, pytest.raises(grpc.RpcError) as caught:
        channel.unary_unary("/acme_lite.Calls/other")(b"", metadata=((calls._TOKEN_KEY, TOKEN),), timeout=LIMIT)
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert client.echo(2) == 2


def test_a_call_that_takes_too_long_says_what_it_waited_for(server):
    client = launching.connect(server.address, TOKEN, timeout_seconds=0.3)
    with pytest.raises(
        launching.CallTimeoutError, match=f"^waited for the server at {server.address} to answer block, for 0.3 s$"
    ):
        client.block()


def test_a_call_to_nobody_says_so(free_address):
    client = launching.connect(free_address, TOKEN, timeout_seconds=0.3)
    expected = f"^waited for a server to listen at {free_address}, to call echo, for 0.3 s$"
    with pytest.raises(launching.CallTimeoutError, match=expected):
        client.echo(1)
    with pytest.raises(launching.CallTimeoutError, match=expected):
        client.futures.echo(1).result(LIMIT)


def test_a_call_waits_for_a_server_and_finds_the_next_one_at_its_address(free_address, target):
    client = launching.connect(free_address, TOKEN, timeout_seconds=LIMIT)
    early = client.futures.echo("early")
    assert not early.done()
    first = calls.Server(target, free_address, TOKEN)
    assert early.result(LIMIT) == "early"
    under_way = client.futures.block()
    assert target.entered.wait(LIMIT)
    first.stop()
    assert not under_way.done()
    target.release.set()
    second = calls.Server(target, free_address, TOKEN)
    assert under_way.result(LIMIT) == "released"
    assert client.echo("late") == "late"
    second.stop()


def test_signal_handlers_run_during_a_call(client, target):
    previous = signal.signal(signal.SIGUSR1, lambda *_: target.release.set())
    try:
        assert client.signal_and_block(signal.SIGUSR1) == "released"
    finally:
        signal.signal(signal.SIGUSR1, previous)


def test_ctrl_c_ends_a_call(client):
    with pytest.raises(KeyboardInterrupt):
        client.signal_and_block(signal.SIGINT)


def test_a_call_is_given_up_when_the_program_stops(server, target):
    stopping = threading.Event()
    client = launching.connect(server.address, TOKEN, timeout_seconds=LIMIT, stopping=stopping)
    stopping.set()
    with pytest.raises(
        launching.ProgramStoppedError, match=f"stops; waited for the server at {server.address} to answer block"
    ):
        client.block()
    assert client.echo(1) == 1  # what is answered at once still is


class Cancelling(grpc.GenericRpcHandler):
    """Cancels each call, as a server that ends does with those under way."""

    def __init__(self):
        self.cancelled = threading.Event()

    def service(self, details):
        return grpc.unary_unary_rpc_method_handler(self.cancel)

    def cancel(self, request, context):
        self.cancelled.set()
        context.abort(grpc.StatusCode.CANCELLED, "the server ends")


@pytest.mark.parametrize("stops", [True, False])
def test_a_server_that_ends_in_the_middle_of_a_call_may_be_the_first_to_know_that_the_program_stops(stops):
    handler, stopping = Cancelling(), threading.Event()
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1), handlers=[handler])
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    client = launching.connect(address, TOKEN, timeout_seconds=LIMIT, stopping=stopping)
    outcome = client.futures.echo(1)
    assert handler.cancelled.wait(LIMIT)
    if stops:
        with pytest.raises(concurrent.futures.TimeoutError):  # it waits for the news
            outcome.result(0.3)
        stopping.set()
    with pytest.raises(launching.ProgramStoppedError if stops else launching.RemoteError):
        outcome.result(LIMIT)
    server.stop(None).wait()


def test_a_taken_address_is_an_error_that_names_it(server):
    with pytest.raises(OSError, match=f"address {server.address} is taken"):
        calls.Server(Target(), server.address, TOKEN)


def test_an_address_of_another_machine_is_an_error():
    with pytest.raises(OSError, match=r"address 192\.0\.2\.1:4000 is taken or not one of this machine's"):
        calls.Server(Target(), "192.0.2.1:4000", TOKEN)


@pytest.mark.parametrize("address", ["nowhere", "host:", ":80", "host:http"])
def test_an_address_must_have_host_and_port(address):
    with pytest.raises(ValueError, match=f"address must be host:port, got '{address}'"):
        launching.connect(address, TOKEN)


def test_a_timeout_must_be_positive():
    with pytest.raises(ValueError, match="timeout_seconds must be greater than 0, got 0"):
        launching.connect("localhost:1", TOKEN, timeout_seconds=0)


def test_a_client_can_be_passed_on(client):
    again = pickle.loads(pickle.dumps(client))
    assert again.echo(3) == 3
    assert repr(again) == repr(client)
    assert dir(client) == ["futures"]
