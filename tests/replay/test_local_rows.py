"""How `LocalReplay` uses rows again: tiny tables, random episodes, each sampled item beside what was written."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from acme_lite import replay, specs
from acme_lite.replay import store
from tests.replay import steps

STACK = 3


class Recorder:
    """Writes random episodes of N streams and remembers every item that it created."""

    def __init__(self, writer, table, items, *, name, seed):
        self.writer = writer
        self.table = table
        self.items = items
        self.name = name
        self.rng = np.random.default_rng(seed)
        num = writer.num_streams
        self.first = np.zeros(num, int)
        self.ended = np.ones(num, bool)
        self.stacks = np.zeros((num, STACK), np.int64)
        self.rows = []
        self.row = -1
        self.append()
        self.ended = np.zeros(num, bool)

    def append(self):
        num = self.writer.num_streams
        self.row += 1
        number = np.full(num, self.row)
        ids = (self.name * 100 + np.arange(num)) * 100_000 + number
        self.stacks = np.concatenate([self.stacks[:, 1:], ids[:, None]], axis=1)
        self.stacks[self.ended] = ids[self.ended, None]
        self.first[self.ended] = self.row
        assert self.writer.append({"id": ids, "frames": self.stacks.copy()}) == self.row
        self.rows.append((ids, self.stacks.copy(), np.zeros(num, np.int64)))

    def step(self, written):
        """Takes a step, ends some episodes, creates random items, and notes them in `written`."""
        begun = self.ended
        action = np.where(begun, 0, self.rng.integers(1, 1000, self.writer.num_streams))
        self.writer.complete(self.fields(action))
        self.rows[-1][2][:] = action
        self.append()
        self.ended = self.rng.random(self.writer.num_streams) < 0.2
        # The step after the last of an episode begins the next one.
        self.ended &= ~begun
        self.writer.end_episode(self.ended)
        self.create(written)

    def fields(self, action):
        if isinstance(self.items, replay.Transitions):
            return {"action": action}
        ones = np.ones(self.writer.num_streams, np.float32)
        return {"action": action, "reward": ones, "discount": ones, "mask": action > 0}

    def create(self, written):
        streams, starts, lengths, values = [], [], [], []
        for stream in range(self.writer.num_streams):
            is_transitions = isinstance(self.items, replay.Transitions)
            most = self.row - self.first[stream] + (0 if is_transitions else 1)
            longest = min(most, self.items.n_step if is_transitions else self.items.length)
            if longest < 1 or self.rng.random() < 0.3:
                continue
            length = int(self.rng.integers(1, longest + 1))
            streams.append(stream)
            starts.append(self.row - length + (0 if is_transitions else 1))
            lengths.append(length)
            values.append(len(written))
            written.append((self, stream, starts[-1], length))
        if streams:
            values = np.array(values, np.float32)
            self.writer.create_items(
                self.table,
                np.array(streams),
                np.array(starts),
                np.array(lengths),
                values=(values, values) if isinstance(self.items, replay.Transitions) else (),
            )

    def cell(self, stream, row, column):
        return self.rows[row][column][stream]


def table_of(items, max_size, **kwargs):
    observation = {"id": specs.Array((), np.int64), "frames": specs.FrameStack((STACK,), np.int64, -(10**9), 10**9)}
    scalar = specs.Array((), np.float32)
    fields = {"action": specs.Array((), np.int64)}
    if isinstance(items, replay.Sequences):
        fields |= {"reward": scalar, "discount": scalar, "mask": specs.Array((), np.bool_)}
    return replay.Table("replay", max_size, replay.Signature(observation, fields), items, **kwargs)


def check_transitions(sample, written):
    data, keys = sample.data, sample.info.keys
    items = [written[key] for key in keys]
    assert np.array_equal(data.reward, keys)
    assert np.array_equal(data.action, [recorder.cell(stream, start, 2) for recorder, stream, start, _ in items])
    firsts = [(recorder, stream, start) for recorder, stream, start, _ in items]
    lasts = [(recorder, stream, start + length) for recorder, stream, start, length in items]
    for observation, cells in ((data.observation, firsts), (data.next_observation, lasts)):
        for column, name in enumerate(("id", "frames")):
            expected = [recorder.cell(stream, row, column) for recorder, stream, row in cells]
            assert np.array_equal(observation[name], expected)


def check_sequences(sample, written, length_of_table):
    for i, key in enumerate(sample.info.keys):
        recorder, stream, start, length = written[key]
        data = sample.data
        padding = [np.zeros(STACK)] * (length_of_table - length)
        frames = [recorder.cell(stream, start + t, 1) for t in range(length)] + padding
        assert np.array_equal(data.observation["frames"][i], frames)
        for t in range(length_of_table):
            row = start + t
            inside = t < length
            assert data.observation["id"][i, t] == (recorder.cell(stream, row, 0) if inside else 0)
            # The last row of a window at the end of what was written is not completed yet.
            if t < length - 1:
                assert data.action[i, t] == recorder.cell(stream, row, 2)
            if not inside:
                assert (data.action[i, t], data.reward[i, t], data.mask[i, t]) == (0, 0, False)


@pytest.mark.parametrize("max_size", [1, 7, 200])
@pytest.mark.parametrize("num_streams", [(1,), (5,), (1, 4, 1), (40, 2)], ids=str)
def test_transitions(num_streams, max_size):
    items = replay.Transitions(4)
    made = replay.LocalReplay([table_of(items, max_size)])
    recorders = [Recorder(made.writer(num), "replay", items, name=i, seed=i) for i, num in enumerate(num_streams)]
    dataset = made.dataset("replay", 5, seed=1)
    rng = np.random.default_rng(2)
    written = []
    for _ in range(600):
        recorders[rng.integers(len(recorders))].step(written)
        if written:
            check_transitions(next(dataset), written)
    assert made.info().tables["replay"].num_inserts == len(written)
    assert made.info().tables["replay"].size == min(max_size, len(written))


@pytest.mark.parametrize("max_size", [2, 30])
@pytest.mark.parametrize("num_streams", [(1,), (6, 1)], ids=str)
def test_sequences(num_streams, max_size):
    items = replay.Sequences(5, 2)
    made = replay.LocalReplay([table_of(items, max_size)])
    recorders = [Recorder(made.writer(num), "replay", items, name=i, seed=i) for i, num in enumerate(num_streams)]
    dataset = made.dataset("replay", 3, seed=1)
    rng = np.random.default_rng(2)
    written = []
    for _ in range(400):
        recorders[rng.integers(len(recorders))].step(written)
        if written:
            check_sequences(next(dataset), written, 5)
    assert made.info().tables["replay"].size == min(max_size, len(written))


@pytest.mark.parametrize("sampler", [replay.Uniform(), replay.Prioritized(0.5), replay.Lifo()], ids=str)
def test_items_that_leave_in_any_order(sampler):
    items = replay.Transitions(2)
    made = replay.LocalReplay([table_of(items, 20, sampler=sampler, max_times_sampled=2)])
    recorder = Recorder(made.writer(3), "replay", items, name=1, seed=0)
    dataset = made.dataset("replay", 4, seed=1)
    written = []
    times = {}
    for _ in range(600):
        recorder.step(written)
        if dataset.ready():
            sample = next(dataset)
            check_transitions(sample, written)
            for key in sample.info.keys.tolist():
                times[key] = times.get(key, 0) + 1
    assert max(times.values()) == 2
    assert len(times) > 500


def test_pending_items_keep_their_rows():
    items = replay.Transitions(2)
    table = table_of(items, 6, sampler=replay.Fifo(), limiter=replay.Queue(6), max_times_sampled=1)
    made = replay.LocalReplay([table])
    recorder = Recorder(made.writer(2), "replay", items, name=1, seed=0)
    written = []
    for _ in range(500):
        recorder.step(written)
    assert made.info().tables["replay"].num_pending == len(written) - 6
    dataset = made.dataset("replay", 1)
    spare = made.writer(8)
    nothing = {"id": np.zeros(8, np.int64), "frames": np.zeros((8, STACK), np.int64)}
    for key in range(len(written)):
        sample = next(dataset)
        for _ in range(20):
            # Takes every block that is free.
            spare.append(nothing)
        assert sample.info.keys.tolist() == [key]
        check_transitions(sample, written)
    assert not dataset.ready()
    assert recorder.writer.num_pending == 0


def test_idle_writer_keeps_its_window():
    items = replay.Transitions(2)
    made = replay.LocalReplay([table_of(items, 10)])
    idle = Recorder(made.writer(2), "replay", items, name=1, seed=0)
    busy = Recorder(made.writer(2), "replay", items, name=2, seed=1)
    written = []
    while len(idle.rows) < 3:
        idle.step(written)
    for _ in range(2000):
        busy.step(written)
    start = idle.row - 1
    idle.writer.create_items(
        "replay",
        np.array([1]),
        np.array([start]),
        np.array([1]),
        values=(np.array([len(written)]), np.array([0.0])),
    )
    written.append((idle, 1, start, 1))
    sample = next(made.dataset("replay", 64))
    assert len(written) - 1 in sample.info.keys
    check_transitions(sample, written)


def test_many_writers_opened_and_closed():
    made = replay.LocalReplay([steps.transition_table(50)])
    for name in range(300):
        stream = steps.Steps(made.writer(3), first_stream=name)
        stream.transitions(4)
        stream.writer.close()
    data = next(made.dataset("replay", 200)).data
    assert set(data.observation[:, 0].astype(int).tolist()) <= set(range(280, 302))
    np.testing.assert_array_equal(data.next_observation[:, 1], data.observation[:, 1] + 1)
    np.testing.assert_array_equal(data.action, data.observation[:, 1] + 1)


def test_long_episodes_use_little_more_than_one_row_per_item():
    table = steps.transition_table(10_000)
    made = replay.LocalReplay([table])
    stream = steps.Steps(made.writer(10))
    stream.transitions(5000)
    # The memory in use, which no method of the interface shows.
    blocks = made._store.blocks
    assert len(blocks.in_use()) * made._store.block_rows < 1.1 * 10_000 + 3 * made._store.block_rows
    assert blocks._num_used * made._store.block_rows < 1.2 * 10_000 + 5 * made._store.block_rows


def test_rows_without_items_take_no_place_of_items():
    made = replay.LocalReplay([steps.transition_table(200)])
    stream = steps.Steps(made.writer())
    for _ in range(300):
        stream.transitions()
        for _ in range(600):  # more than a block, so that each item keeps one
            stream.step()
    assert made.info().tables["replay"].size == 200
    sample = next(made.dataset("replay", 2000))
    assert set(steps.numbers(sample)) == set(range(100, 300))
    np.testing.assert_array_equal(sample.data.observation[:, 1], 601 * sample.data.reward)


def test_items_leave_early_where_memory_holds_no_more_rows(monkeypatch, caplog):
    monkeypatch.setattr(store, "_memory", lambda name, fallback: 300_000)
    made = replay.LocalReplay([steps.transition_table(200)])
    stream = steps.Steps(made.writer())
    with caplog.at_level(logging.WARNING, logger="acme_lite.replay"):
        for _ in range(300):
            stream.transitions()
            for _ in range(600):
                stream.step()
    size = made.info().tables["replay"].size
    assert 10 < size < 200
    assert set(steps.numbers(next(made.dataset("replay", 2000)))) == set(range(300 - size, 300))
    (record,) = caplog.records
    assert "the oldest items leave before max_size is reached" in record.getMessage()


def test_steps_without_items_remove_none():
    made = replay.LocalReplay([steps.transition_table(50)])
    stream = steps.Steps(made.writer(3))
    stream.transitions(10)
    for _ in range(3000):
        stream.step()
    assert made.info().tables["replay"].size == 30
    data = next(made.dataset("replay", 200)).data
    assert set(data.reward.astype(int).tolist()) == set(range(30))
    np.testing.assert_array_equal(data.observation[:, 1], data.reward // 3)
