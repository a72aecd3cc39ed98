"""Saving and restoring a `LocalReplay`."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from acme_lite import replay, specs
from tests.replay import steps, test_local_rows

SAMPLERS = {
    "uniform": replay.Uniform(),
    "prioritized": replay.Prioritized(0.7),
    "fifo": replay.Fifo(),
    "lifo": replay.Lifo(),
}


def assert_equal_samples(first, second):
    jax.tree.map(np.testing.assert_array_equal, first, second)


@pytest.mark.parametrize("max_times_sampled", [0, 2])
@pytest.mark.parametrize("sampler", sorted(SAMPLERS))
@pytest.mark.parametrize("num_items", [11, 100])
def test_restored_replay_goes_on_alike(num_items, sampler, max_times_sampled):
    table = steps.transition_table(37, sampler=SAMPLERS[sampler], max_times_sampled=max_times_sampled)
    made = replay.LocalReplay([table])
    stream = steps.Steps(made.writer(1))
    dataset = made.dataset("replay", 4, seed=3)
    rng = np.random.default_rng(4)
    for _ in range(num_items):
        stream.transitions(1, priorities=float(rng.random()))
        if stream.num_items % 5 == 0:
            next(dataset)

    saved, state = made.save(), dataset.state()
    again = replay.LocalReplay([table])
    again.restore(saved)
    again_dataset = again.dataset("replay", 4, seed=99)
    again_dataset.restore(state)
    assert again.info() == made.info()

    stream_again = steps.Steps(again.writer(1), first_stream=0)
    stream.writer.end_episode(np.array([True]))
    stream.append()
    stream_again.num_items = stream.num_items
    for _ in range(60):
        priority = float(rng.random())
        stream.transitions(1, priorities=priority)
        stream_again.transitions(1, priorities=priority)
        assert dataset.ready() == again_dataset.ready()
        if dataset.ready():
            ours, theirs = next(dataset), next(again_dataset)
            np.testing.assert_array_equal(ours.data.reward, theirs.data.reward)
            assert_equal_samples(ours.info, theirs.info)
            old = ours.data.reward < num_items
            np.testing.assert_array_equal(ours.data.observation[old], theirs.data.observation[old])
            new = rng.random(4)
            dataset.update_priorities(ours.info, new)
            again_dataset.update_priorities(theirs.info, new)


@pytest.mark.parametrize("items", [replay.Transitions(3), replay.Sequences(5, 2)], ids=["transitions", "sequences"])
def test_restored_contents_are_those_written(items):
    table = test_local_rows.table_of(items, 40)
    made = replay.LocalReplay([table])
    recorders = [test_local_rows.Recorder(made.writer(num), "replay", items, name=num, seed=num) for num in (1, 5, 33)]
    written = []
    for _ in range(120):
        for recorder in recorders:
            recorder.step(written)
    # Blocks of another replay are numbered otherwise.
    again = replay.LocalReplay([table])
    other = test_local_rows.Recorder(again.writer(2), "replay", items, name=77, seed=1)
    ignored = []
    for _ in range(50):
        other.step(ignored)
    again.restore(made.save())
    dataset = again.dataset("replay", 8, seed=0)
    for _ in range(20):
        sample = next(dataset)
        if isinstance(items, replay.Transitions):
            test_local_rows.check_transitions(sample, written)
        else:
            test_local_rows.check_sequences(sample, written, 5)
    # The writer that was open goes on, and its next items come after the restored ones.
    other.step(written)
    for _ in range(200):
        other.step(written)
        sample = next(dataset)
        if isinstance(items, replay.Transitions):
            for i, key in enumerate(sample.info.keys):
                sample.data.reward[i] = key
            test_local_rows.check_transitions(sample, written)
        else:
            test_local_rows.check_sequences(sample, written, 5)


def test_start_values_are_restored():
    items = replay.Sequences(2, 1, {"state": specs.Array((3,), np.float32)})
    queue = {"sampler": replay.Fifo(), "limiter": replay.Queue(4), "max_times_sampled": 1}
    table = replay.Table("replay", 4, steps.sequence_signature(), items, **queue)
    made, again = replay.LocalReplay([table]), replay.LocalReplay([table])
    stream = steps.Steps(made.writer(1))
    stream.table_has_rewards = True
    one = np.ones(1, int)
    for row in range(6):
        stream.step()
        values = {"state": np.full((1, 3), row, np.float32)}
        stream.writer.create_items("replay", 0 * one, row * one, one, values=values)
    again.restore(made.save())
    assert again.info().tables["replay"].num_pending == 2
    dataset = again.dataset("replay", 2, timeout_seconds=1.0)
    for row in (0, 2, 4):
        data = next(dataset).data
        np.testing.assert_array_equal(data.observation[:, 0, 1], [row, row + 1])
        np.testing.assert_array_equal(data.start["state"], [[row] * 3, [row + 1] * 3])


def test_pending_items_are_restored():
    table = steps.transition_table(4, sampler=replay.Fifo(), limiter=replay.Queue(4), max_times_sampled=1)
    made = replay.LocalReplay([table])
    stream = steps.Steps(made.writer(2), first_stream=5)
    stream.transitions(7)
    saved = made.save()
    again = replay.LocalReplay([table])
    again.restore(saved)
    assert again.info() == made.info()
    assert again.info().tables["replay"].num_pending == 10
    busy = steps.Steps(again.writer(2), first_stream=80)
    for _ in range(300):
        busy.step()
    dataset = again.dataset("replay", 2)
    for t in range(7):
        data = next(dataset).data
        assert data.reward.tolist() == [2 * t, 2 * t + 1]
        assert data.observation.tolist() == [[5, t], [6, t]]
    assert again.can_insert(4)


def test_saved_state_is_compact_and_independent():
    made = replay.LocalReplay([steps.transition_table(50)])
    stream = steps.Steps(made.writer(1))
    stream.transitions(2000)
    saved = made.save()
    assert sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(saved) if not isinstance(leaf, str)) < 10_000
    before = jax.tree.map(np.array, saved)
    stream.transitions(500)
    jax.tree.map(np.testing.assert_array_equal, before, saved)
    for leaf in jax.tree.leaves(saved):
        assert isinstance(leaf, (np.ndarray, int, float, str))
        assert not isinstance(leaf, np.ndarray) or leaf.dtype.names is None


def test_restoring_again_and_again_takes_no_more_memory():
    made = replay.LocalReplay([steps.transition_table(50)])
    stream = steps.Steps(made.writer(1))
    stream.transitions(200)
    saved = made.save()
    for _ in range(50):
        made.restore(saved)
        stream.transitions(30)
    assert len(made._store.blocks.in_use()) < 10
    assert made.info().tables["replay"].num_inserts == 230


@pytest.mark.parametrize(
    ("table", "difference"),
    [
        (steps.transition_table(21), "max_size"),
        (steps.transition_table(20, n_step=2), "items"),
        (steps.transition_table(20, sampler=replay.Prioritized(0.5)), "sampler"),
        (steps.transition_table(20, limiter=replay.MinSize(2)), "limiter"),
        (steps.transition_table(20, max_times_sampled=2), "max_times_sampled"),
        (replay.Table("replay", 20, steps.sequence_signature(), replay.Transitions()), "signature"),
        (replay.Table("another", 20, steps.transition_signature(), replay.Transitions()), "another"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_tables_are_refused(table, difference):
    saved = replay.LocalReplay([steps.transition_table(20)]).save()
    with pytest.raises(ValueError, match=difference):
        replay.LocalReplay([table]).restore(saved)


def test_state_of_a_dataset():
    made = replay.LocalReplay([steps.transition_table(20)])
    steps.Steps(made.writer(1)).transitions(20)
    dataset = made.dataset("replay", 8, seed=1)
    next(dataset)
    state = dataset.state()
    expected = [next(dataset).info.keys.tolist() for _ in range(3)]
    dataset.restore(state)
    assert [next(dataset).info.keys.tolist() for _ in range(3)] == expected
    with pytest.raises(ValueError, match="6 words"):
        dataset.restore(np.zeros(3, np.uint64))
    same, other = made.dataset("replay", 8, seed=2), made.dataset("replay", 8, seed=2)
    assert next(same).info.keys.tolist() == next(other).info.keys.tolist()


@pytest.mark.parametrize("items", [replay.Transitions(3), replay.Sequences(5, 2)], ids=["transitions", "sequences"])
@pytest.mark.parametrize("num_streams", [1, 5, 33])
def test_a_writer_goes_on_where_it_was(items, num_streams):
    table = test_local_rows.table_of(items, 40)
    made = replay.LocalReplay([table])
    recorder = test_local_rows.Recorder(made.writer(num_streams), "replay", items, name=3, seed=num_streams)
    written = []
    for _ in range(57):
        recorder.step(written)
    saved, state = made.save(), recorder.writer.save()
    again = replay.LocalReplay([table])
    again.writer(2).append({"id": np.zeros(2, np.int64), "frames": np.zeros((2, 3), np.int64)})  # takes other blocks
    writer = again.writer(num_streams)
    again.restore(saved)
    writer.restore(state)
    recorder.writer = writer
    dataset = again.dataset("replay", 8, seed=0)
    is_transitions = isinstance(items, replay.Transitions)
    for _ in range(120):
        recorder.step(written)
        sample = next(dataset)
        if is_transitions:
            test_local_rows.check_transitions(sample, written)
        else:
            test_local_rows.check_sequences(sample, written, 5)
    assert again.info().tables["replay"].num_inserts == len(written)


def test_rows_of_writers_are_restored_once_and_with_the_replay():
    table = steps.transition_table(50)
    made = replay.LocalReplay([table])
    stream = steps.Steps(made.writer(2))
    stream.transitions(10)
    again = replay.LocalReplay([table])
    writer = again.writer(2)
    with pytest.raises(ValueError, match="rows of writer 1 are not here: restore the replay first"):
        writer.restore(stream.writer.save())
    for _ in range(30):
        again.restore(made.save())
    with pytest.raises(ValueError, match="a writer of 1 streams, got 2"):
        again.writer(1).restore(1)
    again.restore(made.save())
    writer.restore(1)
    with pytest.raises(ValueError, match="rows of writer 1 are not here"):
        writer.restore(1)
    assert len(again._store.blocks.in_use()) < 6


def test_a_writer_may_go_on_beside_older_contents():
    made = replay.LocalReplay([steps.transition_table(2_000)])
    stream = steps.Steps(made.writer(1))
    stream.transitions(100)
    saved = made.save()
    stream.transitions(1_900)
    made.restore(saved)
    dataset = made.dataset("replay", 4_000)
    for _ in range(6):
        stream.transitions(300)
        data = next(dataset).data
        # The reward is the number of the item, which is that of the row it begins with.
        np.testing.assert_array_equal(data.observation[:, 1], data.reward)
        np.testing.assert_array_equal(data.next_observation[:, 1], data.reward + 1)
