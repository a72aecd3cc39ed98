"""`ReverbReplay`: its server, its packing, and what happens between processes."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import os
import re
import socket
import stat
import subprocess
import sys
import textwrap
import threading
import time

import jax
import numpy as np
import pytest

from acme_lite import checkpointing, replay, specs
from tests.replay import steps, test_local_rows

if importlib.util.find_spec("reverb") is None:
    pytest.skip("Reverb's wheels exist for Python 3.10 on x86-64 Linux alone", allow_module_level=True)

from acme_lite.replay import reverb_server  # after the check for Reverb

QUEUE = {"sampler": replay.Fifo(), "max_times_sampled": 1}


@pytest.fixture
def make():
    """Returns a function that makes a replay, closed after the test."""
    made = []

    def make_one(*tables, **settings):
        made.append(replay.ReverbReplay(tables, **settings))
        return made[-1]

    yield make_one
    for each in reversed(made):
        each.close()


def run_python(code, *arguments):
    code = "from acme_lite import replay\nfrom tests.replay import steps\nimport sys\n" + textwrap.dedent(code)
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def output_of(process):
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors.decode()
    return output.decode(), errors.decode()


def test_imports_bring_neither_reverb_nor_tensorflow():
    code = "import acme_lite.experiments; print(sorted({'reverb', 'tensorflow'} & set(sys.modules)))"
    assert output_of(run_python(code))[0] == "[]\n"


def test_looks_at_the_tables_do_no_harm_to_other_threads():
    code = """
        import threading
        sys.setswitchinterval(1e-5)
        made = replay.ReverbReplay([steps.transition_table()])
        ended = threading.Event()

        def make_objects():
            while not ended.is_set():
                [b"x" * size for size in range(300)]

        thread = threading.Thread(target=make_objects)
        thread.start()
        for _ in range(1_000):
            made.info()
            made.can_sample("replay", 1)
        ended.set()
        thread.join()
        made.close()
    """
    output_of(run_python(code))


def test_ctrl_c_ends_a_wait_without_further_words():
    code = """
        import faulthandler, os, signal, threading
        faulthandler.dump_traceback_later(250, exit=True)
        dataset = replay.ReverbReplay([steps.transition_table()]).dataset("replay", 4)
        threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
        try:
            next(dataset)
        except KeyboardInterrupt:
            print("interrupted")
    """
    output, errors = output_of(run_python(code))
    assert output == "interrupted\n"
    # Reverb tells on stderr when its server starts and ends; nobody else has anything to say.
    assert all(line.startswith("[reverb/cc/") for line in errors.splitlines())


def test_a_taken_port_is_refused(make):
    first = make(steps.transition_table())
    port = int(first.address.split(":")[1])
    with pytest.raises(OSError, match=str(port)):
        make(steps.transition_table(), port=port)


def listening_devices(port):
    """Returns the network devices, b"" for all, at which sockets of this process listen on a port."""
    devices = set()
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            if not stat.S_ISSOCK(os.stat(f"/proc/self/fd/{name}").st_mode):
                continue
            with socket.socket(fileno=os.dup(int(name))) as one:
                is_ip = one.family in (socket.AF_INET, socket.AF_INET6)
                if is_ip and one.getsockname()[1] == port and one.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                    devices.add(one.getsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, 16).rstrip(b"\0"))
    return devices


@pytest.mark.parametrize("loopback_only", [True, False])
def test_who_reaches_the_server(make, loopback_only):
    port = int(make(steps.transition_table(), loopback_only=loopback_only).address.split(":")[1])
    socket.create_connection(("127.0.0.1", port), 5).close()
    assert listening_devices(port) == ({b"lo"} if loopback_only else {b""})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: asks which address would be used
        except OSError:
            return  # this machine has no address for others
        address = probe.getsockname()[0]
    if loopback_only:
        with pytest.raises(OSError):
            socket.create_connection((address, port), 5).close()
    else:
        socket.create_connection((address, port), 5).close()


def test_settings_that_do_not_fit_are_refused(make):
    table = steps.transition_table()
    with pytest.raises(ValueError, match="port"):
        make(table, address="localhost:1", port=2)
    with pytest.raises(ValueError, match="prefetch"):
        make(table, address="localhost:1", prefetch=False)
    few = make(steps.transition_table(max_size=10, max_times_sampled=2, limiter=replay.MinSize(4)))
    few.dataset("replay", 7)
    with pytest.raises(ValueError, match="at most 7"):
        few.dataset("replay", 8)


@pytest.mark.parametrize(
    ("field", "value"),
    [("port", value) for value in (70_000, -1, True, "8000", 1.5)]
    + [("timeout_seconds", value) for value in (0.0, -1.0, "x", float("inf"), float("nan"), True)]
    + [("max_in_flight_items", value) for value in (0, 1.5, "9", True)]
    + [
        ("address", value) for value in ("", "localhost", "localhost:", ":8000", "localhost:x", "localhost:70000", 8000)
    ],
)
def test_settings_of_wrong_values_are_refused_at_once(make, field, value):
    with pytest.raises(ValueError, match=rf"^{field} must be .*got {re.escape(repr(value))}\.$"):
        make(steps.transition_table(), **{field: value})


RATIO = replay.SampleToInsertRatio(samples_per_insert=1.0, min_size=4, error_buffer=8.0)
OTHER_OBSERVATION = replay.Signature(specs.Array((2,), np.int32), {"action": steps.ACTION})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "another"}, r"a table 'another', got \['replay'\]"),
        ({"items": replay.Sequences(3, 1), "signature": steps.sequence_signature()}, "columns of bytes"),
        ({"signature": OTHER_OBSERVATION}, "dtypes and shapes"),
        ({"max_size": 50}, "max_size 50, got 100"),
        ({"sampler": replay.Prioritized(1.0)}, r"sampler Prioritized\(exponent=1.0\), got Uniform\(\)"),
        ({"max_times_sampled": 3}, "max_times_sampled 3, got 0"),
        (
            {"limiter": replay.MinSize(3)},
            r"limiter MinSize\(min_size=3\), got SampleToInsertRatio\(samples_per_insert=1.0, min_size=4, error_buffer",
        ),
    ],
    ids=["name", "columns", "dtypes", "max_size", "sampler", "max_times_sampled", "limiter"],
)
def test_other_tables_than_the_servers_are_refused(make, changes, message):
    table = steps.transition_table(limiter=RATIO)
    made = make(table)
    make(table, address=made.address)
    other = dataclasses.replace(table, **changes)
    with pytest.raises(ValueError, match=f"{re.escape(made.address)} must hold.*{message}"):
        make(other, address=made.address)
    # Of a checkpoint, too, and the server runs on.
    saved, running = made.save(), make(other)
    with pytest.raises(ValueError, match=f"{re.escape(str(saved['checkpoint']))} must hold.*{message}"):
        running.restore(saved)
    assert running.info().tables[other.name].max_size == other.max_size


@pytest.mark.parametrize(
    "table",
    [
        steps.transition_table(sampler=replay.Prioritized(0.3), limiter=replay.MinSize(7)),
        steps.transition_table(sampler=replay.Lifo(), limiter=replay.SampleToInsertRatio(0.3, 7, 3.1)),
        steps.transition_table(limiter=replay.Queue(5), **QUEUE),
    ],
    ids=["min_size", "ratio", "queue"],
)
def test_the_same_tables_connect_and_are_restored(make, table):
    made = make(table)
    made.restore(made.save())
    client = make(table, address=made.address)
    assert client.info().tables["replay"].max_size == 100


def test_tables_beside_those_of_the_replay_are_not_restored(make):
    table = steps.transition_table()
    both, one = make(table, dataclasses.replace(table, name="second")), make(table)
    with pytest.raises(ValueError, match=r"the tables \['replay'\] alone, got \['replay', 'second'\]"):
        one.restore(both.save())
    stream = steps.Steps(one.writer(1))
    stream.transitions(1)
    assert one.info().tables["replay"].size == 1


def test_a_replay_that_could_not_be_restored_is_closed(make, monkeypatch):
    made = make(steps.transition_table())
    writer, saved = made.writer(1), made.save()

    def fail(*_):
        raise RuntimeError("no port is free")

    monkeypatch.setattr(reverb_server, "make_server", fail)
    with pytest.raises(RuntimeError, match="no port is free"):
        made.restore(saved)
    for function in (made.info, lambda: steps.Steps(writer)):
        with pytest.raises(replay.ClosedError, match="closed"):
            function()


def test_an_absent_server_is_named(make):
    with pytest.raises(TimeoutError, match="localhost:9"):
        make(steps.transition_table(), address="localhost:9", timeout_seconds=1.0)


@pytest.mark.parametrize("frames", [False, True])
@pytest.mark.parametrize("items", [replay.Transitions(3), replay.Sequences(5, 2)], ids=["transitions", "sequences"])
def test_many_streams_write_what_they_should(make, items, frames):
    table = test_local_rows.table_of(items, 40)
    if frames:
        observation = {"frames": specs.FrameStack((3, 2), np.int32, 0, 10**6), "plain": table.signature.observation}
        table = replay.Table("replay", 40, replay.Signature(observation, table.signature.fields), items)
    made = make(table)
    local = replay.LocalReplay([table])
    # The same steps into both; what Reverb draws must be an item that the local replay holds.
    rng = np.random.default_rng(0)
    writers = [one.writer(3) for one in (made, local)]
    stack = np.zeros((3, 3, 2), np.int32)
    begins = np.ones(3, bool)
    for t in range(60):
        frame = np.stack([np.arange(3), np.full(3, t)], 1).astype(np.int32)
        stack = np.concatenate([stack[:, 1:], frame[:, None]], 1)
        stack[begins] = frame[begins, None]
        plain = _numbers(table.signature.observation["plain"] if frames else table.signature.observation, t)
        begins = rng.random(3) < 0.15
        fields = _numbers(dict(table.signature.fields), t)
        longest = min(t - 1, 4 if isinstance(items, replay.Sequences) else 3)
        streams = rng.permutation(3)
        for writer in writers:
            writer.append({"frames": stack, "plain": plain} if frames else plain)
            writer.complete(fields)
            writer.end_episode(begins)
            if longest >= 1:
                lengths = np.full(3, longest)
                values = () if isinstance(items, replay.Sequences) else (streams + 10.0 * t, np.ones(3))
                writer.create_items("replay", streams, t - lengths, lengths, values=values)
    writers[0].flush(10.0)
    samples = [next(one.dataset("replay", 400, timeout_seconds=10.0)).data for one in (made, local)]
    assert jax.tree.structure(samples[0]) == jax.tree.structure(samples[1])
    jax.tree.map(
        lambda a, b: (np.testing.assert_equal(a.shape, b.shape), np.testing.assert_equal(a.dtype, b.dtype)), *samples
    )
    contents = [{_item_bytes(sample, i) for i in range(400)} for sample in samples]
    assert len(contents[0]) == len(contents[1]) == 40
    assert contents[0] == contents[1]


def _numbers(spec, t):
    """Returns a tree that tells streams and rows apart."""

    def leaf(spec):
        ramp = np.arange(3).reshape(3, *[1] * len(spec.shape))
        return (ramp + 7 * t + np.zeros((3, *spec.shape))).astype(spec.dtype)

    return jax.tree.map(leaf, spec)


def _item_bytes(data, index):
    return b"|".join(leaf[index].tobytes() for leaf in jax.tree.leaves(data))


def test_what_is_in_flight_is_bounded(make):
    made = make(steps.transition_table(limiter=replay.Queue(5), **QUEUE), max_in_flight_items=100, timeout_seconds=0.5)
    stream = steps.Steps(made.writer(1))
    with pytest.raises(TimeoutError, match="5 inserts"):
        stream.transitions(500)
    assert 100 < stream.num_items <= 100 + 64
    # The writer stays usable: nothing is lost or doubled.
    dataset = made.dataset("replay", 5, timeout_seconds=10.0)
    drawn = [number for _ in range(stream.num_items // 5) for number in steps.numbers(next(dataset))]
    assert drawn == list(range(len(drawn)))


def test_a_full_writer_goes_on_when_another_thread_samples(make):
    made = make(steps.transition_table(limiter=replay.Queue(5), **QUEUE), max_in_flight_items=100)
    stream = steps.Steps(made.writer(1))
    drawn = []

    def sample():
        dataset = made.dataset("replay", 5, timeout_seconds=30.0)
        for _ in range(120):
            drawn.extend(steps.numbers(next(dataset)))

    thread = threading.Thread(target=sample)
    thread.start()
    stream.transitions(600)
    thread.join(60)
    assert drawn == list(range(600))


@pytest.mark.parametrize("num_batches", [None, 2, 8])
def test_prefetching_draws_no_more_than_two_batches_ahead(make, num_batches):
    made = make(steps.transition_table(), prefetch=True)
    stream = steps.Steps(made.writer(1))
    stream.transitions(50)
    stream.writer.flush(10.0)
    dataset = made.dataset("replay", 16, num_batches=num_batches, timeout_seconds=10.0)
    items = 16 * (num_batches or 1)
    assert made.info().tables["replay"].num_samples == 0
    for taken in range(1, 20):
        assert next(dataset).data.reward.shape == ((16,) if num_batches is None else (num_batches, 16))
        wait_for_rest(made)
        assert taken * items <= made.info().tables["replay"].num_samples <= taken * items + 2 * 16
        assert dataset.ready()
    dataset.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(dataset)


@pytest.mark.parametrize(
    "limiter",
    [replay.MinSize(7), replay.SampleToInsertRatio(samples_per_insert=4.0, min_size=10, error_buffer=24.0)],
    ids=["min_size", "ratio"],
)
@pytest.mark.parametrize("prefetch", [False, True])
def test_a_runner_acts_and_learns_in_the_order_of_the_local_replay(make, limiter, prefetch):
    table = steps.transition_table(50, limiter=limiter)
    orders = []
    for made in (replay.LocalReplay([table]), make(table, prefetch=prefetch)):
        stream, order = steps.Steps(made.writer(1)), []
        dataset = made.dataset("replay", 8, timeout_seconds=60.0)
        rng = np.random.default_rng(0)
        for _ in range(300):
            # Mostly as a single-threaded runner does; now and then as early, or as late, as the limiter allows.
            if dataset.due() or (rng.random() < 0.2 and dataset.ready()):
                assert dataset.ready() and len(next(dataset).data.reward) == 8
                order.append("sample")
            elif made.can_insert(1):
                stream.transitions(1)
                order.append("insert")
            else:
                assert dataset.ready()
                next(dataset)
                order.append("late sample")
        orders.append(order)
    assert orders[0] == orders[1]
    assert min(orders[0].count("insert"), orders[0].count("sample")) > 50


@pytest.mark.parametrize("closes", [False, True], ids=["both_live", "one_closed"])
def test_what_two_datasets_of_a_table_say_is_ready_is_there(make, closes):
    made = make(steps.transition_table(limiter=replay.SampleToInsertRatio(1.0, 4, 8.0)))
    stream = steps.Steps(made.writer(1))
    datasets = [made.dataset("replay", 2, timeout_seconds=5.0) for _ in range(2)]
    deadline = time.monotonic() + 60.0
    while stream.num_items < 40 and time.monotonic() < deadline:
        ready = [dataset for dataset in datasets if dataset.ready()]
        for dataset in ready:
            assert len(next(dataset).data.reward) == 2
        if closes and ready:
            datasets.pop(0).close()
            datasets.append(made.dataset("replay", 2, timeout_seconds=5.0))
        if made.can_insert(1):
            stream.transitions(1)
    assert stream.num_items == 40


def test_a_dataset_that_drew_nothing_leaves_the_next_to_plan(make):
    table = steps.transition_table(limiter=replay.SampleToInsertRatio(1.0, 4, 8.0))
    made = make(table)
    made.dataset("replay", 2).close()
    dataset = made.dataset("replay", 2, timeout_seconds=10.0)
    stream = steps.Steps(made.writer(1))
    stream.transitions(6)
    assert dataset.due()  # though nothing can lie here yet
    assert len(next(dataset).data.reward) == 2


def test_items_arrive_although_nobody_waits_for_them(make):
    made = make(steps.transition_table())
    client = make(steps.transition_table(), address=made.address)
    stream = steps.Steps(client.writer(1))
    stream.transitions(40)
    deadline = time.monotonic() + 60
    while made.info().tables["replay"].num_inserts < 40 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert made.info().tables["replay"].num_inserts == 40


def wait_for_rest(made):
    """Waits until the server's number of samples stays as it is."""
    last, since = -1, time.monotonic()
    while time.monotonic() - since < 0.05:
        now = made.info().tables["replay"].num_samples
        if now != last:
            last, since = now, time.monotonic()


def test_writers_and_samplers_in_other_processes(make):
    made = make(steps.transition_table(limiter=replay.Queue(50), **QUEUE))
    writers = [
        run_python(
            """
            made = replay.ReverbReplay([steps.transition_table(limiter=replay.Queue(50), sampler=replay.Fifo(),
                                                               max_times_sampled=1)], address=sys.argv[1])
            stream = steps.Steps(made.writer(1), first_stream=int(sys.argv[2]))
            stream.transitions(200)
            stream.writer.flush(60.0)
            print(made.can_insert(51), made.info().tables["replay"].max_size)
            """,
            made.address,
            str(name),
        )
        for name in range(2)
    ]
    client = make(steps.transition_table(limiter=replay.Queue(50), **QUEUE), address=made.address)
    dataset = client.dataset("replay", 10, timeout_seconds=300.0)
    drawn = [tuple(row) for _ in range(40) for row in next(dataset).data.observation.astype(int).tolist()]
    for writer in writers:
        assert output_of(writer)[0] == "False 100\n"
    assert sorted(drawn) == [(name, number) for name in range(2) for number in range(200)]
    for name in range(2):
        numbers = [number for stream, number in drawn if stream == name]
        assert numbers == sorted(numbers)


SERVER = """
    made = replay.ReverbReplay([steps.transition_table(sampler=replay.Prioritized(1.0))], port=int(sys.argv[1]),
                               checkpoint_directory=sys.argv[2])
    print("up", flush=True)
    for line in sys.stdin:
        print(made.save()["checkpoint"], flush=True)
"""


def start_server(port, folder):
    code = "from acme_lite import replay\nfrom tests.replay import steps\nimport sys\n" + textwrap.dedent(SERVER)
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(port), str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout.readline() == "up\n"
    return process


def test_a_server_that_goes_away_and_comes_back(make, tmp_path):
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    server = start_server(port, tmp_path)
    try:
        table = steps.transition_table(sampler=replay.Prioritized(1.0))
        made = make(table, address=f"localhost:{port}", timeout_seconds=2.0)
        stream = steps.Steps(made.writer(1))
        stream.transitions(10, priorities=0.0)
        stream.transitions(1, priorities=1.0)
        stream.writer.flush(20.0)
        server.stdin.write("\n")
        server.stdin.flush()
        assert server.stdout.readline().startswith(str(tmp_path))
        server.kill()
        server.wait(20)
        with pytest.raises(TimeoutError, match=str(port)):
            made.info()
        with pytest.raises(TimeoutError, match=str(port)):
            made.update_priorities("replay", np.array([3]), np.array([1.0]))
        dataset = made.dataset("replay", 8, timeout_seconds=0.5)
        with pytest.raises(TimeoutError, match=str(port)):
            next(dataset)
        stream.transitions(1, priorities=0.0)
        with pytest.raises(TimeoutError, match=str(port)):
            stream.writer.flush(0.2)
        server = start_server(port, tmp_path)
        stream.writer.flush(60.0)
        patient = made.dataset("replay", 8, timeout_seconds=60.0)
        assert steps.numbers(next(patient)) == [10] * 8
        assert made.info().tables["replay"].size == 12
    finally:
        server.kill()
        server.communicate(timeout=20)


def test_a_client_goes_on_where_its_server_comes_back_empty(make, tmp_path):
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = probe.getsockname()[1]
    server = start_server(port, tmp_path / "first")
    try:
        table = steps.transition_table(sampler=replay.Prioritized(1.0))
        made = make(table, address=f"localhost:{port}", timeout_seconds=60.0)
        stream = steps.Steps(made.writer(1))
        stream.transitions(20)
        stream.writer.flush(20.0)
        assert made.info().tables["replay"].num_inserts == 20 and made.can_insert(1)
        server.kill()
        server.wait(20)
        again: list[subprocess.Popen] = []
        starting = threading.Thread(target=lambda: again.append(start_server(port, tmp_path / "second")))
        starting.start()
        found = made.info().tables["replay"]  # waits, though the connection that it had is gone
        starting.join()
        (server,) = again
        assert found.num_inserts == 0 and "0 pending" in found.limiter
        assert made.can_insert(1)
        stream.transitions(3)
        stream.writer.flush(60.0)
        assert made.can_insert(1)
    finally:
        server.kill()
        server.communicate(timeout=20)


def test_a_full_disk_is_explained_and_leaves_nothing_half_written(make, tmp_path):
    made = make(steps.transition_table(), checkpoint_directory=tmp_path)
    link, before = made._link, visible(tmp_path)

    class Full:
        def __getattr__(self, name):
            return getattr(client, name)

        def Checkpoint(self):
            (link._folder / "half").mkdir()
            (link._folder / "half" / "items.tfrecord").write_bytes(b"0")
            raise IndexError(f"{link._folder}/half/items.tfrecord; No space left on device")

    client, link.client = link.client, Full()
    with pytest.raises(checkpointing.DiskFullError, match="A checkpoint of the Reverb server could not be written to"):
        made.save()
    assert visible(tmp_path) == before
    link.client = client
    assert made.save()["checkpoint"].exists()


def visible(folder):
    return sorted(str(path) for path in folder.rglob("*"))


def test_restored_replay_goes_on(make, tmp_path):
    limiter = replay.SampleToInsertRatio(samples_per_insert=1.0, min_size=4, error_buffer=8.0)
    table = steps.transition_table(500, sampler=replay.Prioritized(1.0), limiter=limiter)
    made = make(table, checkpoint_directory=tmp_path, prefetch=False)
    stream = steps.Steps(made.writer(1))
    stream.transitions(10, priorities=1.0)
    dataset = made.dataset("replay", 4, timeout_seconds=30.0)
    keys: dict[int, int] = {}
    while 0 not in keys:
        sample = next(dataset)
        assert sample.info.keys.dtype == np.int64
        keys.update(zip(steps.numbers(sample), sample.info.keys.tolist(), strict=True))
        stream.transitions(4, priorities=1e-12)
    made.update_priorities("replay", np.array([keys[0]]).view(np.uint64), np.array([1e12]))
    saved, before = made.save(), made.info()
    assert tmp_path in saved["checkpoint"].parents
    stream.transitions(2, priorities=1.0)
    stream.writer.flush(30.0)
    made.restore(saved)
    assert made.info() == before
    assert made.info().num_bytes > 0
    # What was open goes on.
    stream.transitions(2, priorities=1.0)
    stream.writer.flush(30.0)
    assert made.info().tables["replay"].num_inserts == before.tables["replay"].num_inserts + 2
    assert set(steps.numbers(next(dataset))) == {0}
    # Another replay starts from the same state.
    other = make(table)
    other.restore(saved)
    assert other.info() == before
    with pytest.raises(FileNotFoundError, match="nowhere"):
        other.restore({"checkpoint": "/nowhere"})


def test_a_directory_keeps_the_newest_checkpoint_alone_and_a_server_starts_from_it(make, tmp_path):
    folder = tmp_path / "deep" / "reverb"
    made = make(steps.transition_table(), checkpoint_directory=folder)
    stream = steps.Steps(made.writer(1))
    for count in range(1, 4):
        stream.transitions(1)
        made.restore(made.save())
        assert made.info().tables["replay"].num_inserts == count
    stream.transitions(1)
    newest = made.save()["checkpoint"]
    assert [done.parent for done in folder.rglob("DONE")] == [newest]
    made.close()
    (newest.parent / "2999-01-01T00:00:00+00:00").mkdir()  # a server was killed while it wrote
    again = make(steps.transition_table(), checkpoint_directory=folder)
    assert again.info().tables["replay"].num_inserts == 4
    assert list(newest.parent.iterdir()) == [newest]
    again.close()
    assert make(steps.transition_table(), checkpoint_directory=folder).info().tables["replay"].num_inserts == 4


def test_a_checkpoint_without_items_is_restored(make):
    made = make(steps.transition_table())
    made.restore(made.save())
    stream = steps.Steps(made.writer(1))
    stream.transitions(3)
    assert made.info().tables["replay"].size == 3


def test_what_was_in_flight_is_gone_once_a_replay_is_restored():
    code = """
        import faulthandler
        faulthandler.dump_traceback_later(40, exit=True)  # a wait in Reverb's destructors holds Python's lock
        made = replay.ReverbReplay([steps.transition_table(limiter=replay.Queue(5), sampler=replay.Fifo(),
                                                           max_times_sampled=1)])
        stream = steps.Steps(made.writer(1))
        stream.transitions(3)
        stream.writer.flush(10.0)
        saved = made.save()
        stream.transitions(20)
        made.restore(saved)
        stream.transitions(2)
        stream.writer.flush(10.0)
        dataset = made.dataset("replay", 5, timeout_seconds=10.0)
        print(steps.numbers(next(dataset)), made.info().tables["replay"].num_inserts)
        made.close()
    """
    assert output_of(run_python(code))[0] == "[0, 1, 2, 23, 24] 5\n"


def test_a_writer_that_nobody_closed_does_not_wait_for_a_dead_server():
    code = """
        import faulthandler, subprocess
        faulthandler.dump_traceback_later(40, exit=True)  # a wait in Reverb's destructors holds Python's lock
        server = subprocess.Popen(
            [sys.executable, "-c", sys.argv[1]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        made = replay.ReverbReplay([steps.transition_table()], address=server.stdout.readline().strip())
        dropped, kept = (steps.Steps(made.writer(1)) for _ in range(2))
        for stream in (dropped, kept):
            stream.transitions(1)
            stream.writer.flush(10.0)
        server.kill()
        server.wait()
        for stream in (dropped, kept):
            stream.transitions(40)
        del dropped, stream
        print("dropped")
        made.close()
        del kept
        print("closed")
    """
    server = """
        from acme_lite import replay
        from tests.replay import steps
        import sys
        made = replay.ReverbReplay([steps.transition_table()])
        print(made.address, flush=True)
        sys.stdin.read()  # ends with the process that started this one
    """
    assert output_of(run_python(code, textwrap.dedent(server)))[0] == "dropped\nclosed\n"


def test_a_writer_that_nobody_closed_sends_what_it_can(make):
    made = make(steps.transition_table())
    steps.Steps(made.writer(1)).transitions(32)
    assert made.info().tables["replay"].num_inserts == 32


def flip_byte(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.unlink()  # not the one that it is linked to
    path.write_bytes(content)


def cut(path):
    os.truncate(path, path.stat().st_size // 2)


@pytest.mark.parametrize("damage", [flip_byte, cut])
def test_a_damaged_checkpoint_is_named_and_the_server_runs_on(make, tmp_path, damage):
    made = make(steps.transition_table(), checkpoint_directory=tmp_path)
    stream = steps.Steps(made.writer(1))
    stream.transitions(20)
    saved = made.save()
    damage(saved["checkpoint"] / "chunks.tfrecord")
    message = re.escape(f"The Reverb checkpoint {saved['checkpoint'] / 'chunks.tfrecord'} is damaged")
    with pytest.raises(checkpointing.CheckpointError, match=message):
        made.restore(saved)
    assert made.info().tables["replay"].size == 20
    with pytest.raises(checkpointing.CheckpointError, match=message):
        make(steps.transition_table(), checkpoint_directory=tmp_path)


def test_a_full_disk_is_explained_and_the_server_goes_on(tmp_path):
    code = """
        import pathlib, resource
        from acme_lite import checkpointing
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        for num_items in (50, 20_000):
            folder = pathlib.Path(sys.argv[1]) / str(num_items)
            made = replay.ReverbReplay([steps.transition_table(20_000)], checkpoint_directory=folder)
            stream = steps.Steps(made.writer(1))
            stream.transitions(num_items)
            made.save()
            resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
            for _ in range(2):
                try:
                    made.save()
                except checkpointing.DiskFullError as error:
                    print(error)
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            print(len(list(folder.glob("*/*"))), len(list(folder.glob("*/*/DONE"))))
            stream.transitions(1)
            made.restore(made.save())
            print(made.info().tables["replay"].num_inserts)
    """
    output = output_of(run_python(code, str(tmp_path)))[0].splitlines()
    message = r"\[Errno 28\] A checkpoint of the Reverb server could not be written to .*, where [0-9,]+ bytes are free"
    assert all(re.match(message, line) for line in output[:2] + output[4:6])
    # Less than a file's buffer is lost when it is closed, which Reverb does not see: it has removed the one before.
    assert output[2:4] == ["0 0", "51"]
    assert output[6:8] == ["1 1", "20001"]


def test_what_was_drawn_ahead_is_lost_when_a_replay_is_restored_and_a_runner_goes_on(make):
    limiter = replay.SampleToInsertRatio(samples_per_insert=4.0, min_size=10, error_buffer=8.0)
    made = make(steps.transition_table(limiter=limiter))
    stream = steps.Steps(made.writer(1))
    dataset = made.dataset("replay", 8, timeout_seconds=60.0)

    def run(num_inserts):
        """Inserts and samples as a single-threaded runner does; returns the number of samples."""
        batches = 0
        while num_inserts:
            if dataset.due():
                newest = max(steps.numbers(next(dataset)))
                assert newest < stream.num_items
                batches += 1
            else:
                assert made.can_insert(1)
                stream.transitions(1)
                num_inserts -= 1
        return batches

    assert run(30) == 9  # due where (inserts - 10) * 4 - samples >= 8, so at 12, 14, ..., 28 inserts
    made.restore(made.save())
    lost = made.info().tables["replay"].num_samples - 9 * 8
    assert 0 <= lost <= 2 * 8
    assert run(30) == (49 * 4 - 9 * 8 - lost) // 8  # up to 59 inserts


def test_nothing_is_found_again_unless_a_folder_is_named(make, tmp_path):
    for settings, size in (({}, 0), ({"checkpoint_directory": tmp_path}, 5)):
        made = make(steps.transition_table(), **settings)
        stream = steps.Steps(made.writer(1))
        stream.transitions(5)
        made.save()
        made.close()
        assert make(steps.transition_table(), **settings).info().tables["replay"].size == size


def test_closed_replay_refuses_everything(make):
    made = make(steps.transition_table())
    stream = steps.Steps(made.writer(1))
    stream.transitions(3)
    dataset = made.dataset("replay", 1)
    made.close()
    made.close()
    for function in (
        lambda: next(dataset),
        stream.append,
        lambda: stream.writer.complete(stream.fields()),
        made.writer,
        made.info,
        lambda: made.can_sample("replay", 1),
    ):
        with pytest.raises(RuntimeError, match="closed"):
            function()


@pytest.mark.parametrize("restored", [False, True], ids=["long_items", "restored"])
def test_frames_are_kept_for_items_that_skip_some(make, restored):
    stack = specs.FrameStack((2,), np.int32, 0, 1_000)
    signature = replay.Signature(stack, {"action": steps.ACTION})
    made = make(replay.Table("replay", 100, signature, replay.Transitions(5)))
    writer, ones = made.writer(), (np.ones(1, np.float32),) * 2
    for number in range(30):
        writer.append(np.array([[max(number - 1, 0), number]], np.int32))
        # Each item is sent before the next one is created: a frame goes out when the first item refers to it.
        for length in (5,) if not restored or number == 20 else range(1, 6):
            if number >= length:
                writer.create_item_in_each("replay", number - length, length, values=ones)
                writer.flush(10.0)
        if restored and number == 20:
            made.restore(made.save())
        writer.complete({"action": np.zeros(1, np.int32)})
    data = next(made.dataset("replay", 50, timeout_seconds=10.0)).data
    np.testing.assert_array_equal(data.observation[:, 1], data.observation[:, 0] + (data.observation[:, 1] > 0))


def test_a_closed_dataset_leaves_to_the_next_what_comes_later(make):
    # The client is in a process of its own: in that of the server, Reverb makes no connection.
    table = steps.transition_table(limiter=replay.Queue(50), **QUEUE)
    code = """
        import threading
        made = replay.ReverbReplay([steps.transition_table(limiter=replay.Queue(50), sampler=replay.Fifo(),
                                                           max_times_sampled=1)], address=sys.argv[1])
        dataset = made.dataset("replay", 4, timeout_seconds=0.5)
        try:
            next(dataset)
        except TimeoutError:
            (thread,) = (one for one in threading.enumerate() if one.name == "reverb-dataset")
            dataset.close()
            thread.join(5.0)
            print(thread.is_alive())
        stream = steps.Steps(made.writer(1))
        stream.transitions(12)
        dataset = made.dataset("replay", 4, timeout_seconds=5.0)
        first, *others = steps.numbers(next(dataset)) + steps.numbers(next(dataset))
        # One is lost, as the server was asked for it; up to a call's where it does not know yet that nobody waits.
        print(first <= 4, others == list(range(first + 1, first + 8)))
    """
    assert output_of(run_python(code, make(table).address))[0] == "False\nTrue True\n"


def test_a_dataset_draws_no_more_once_the_replay_is_closed(make):
    before = set(threading.enumerate())
    made = make(steps.transition_table(), prefetch=True)
    stream = steps.Steps(made.writer())
    stream.transitions(10)
    dataset = made.dataset("replay", 4, timeout_seconds=60.0)
    next(dataset)
    deadline = time.monotonic() + 60.0
    while dataset._drawn is None and time.monotonic() < deadline:
        time.sleep(0.01)  # the next sample is drawn, and lies there
    (thread,) = (one for one in set(threading.enumerate()) - before if one.name == "reverb-dataset")
    made.close()
    thread.join(60.0)
    assert not thread.is_alive()
