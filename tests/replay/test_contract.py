"""What every backend of replay must do; uses the interface alone."""

from __future__ import annotations

import dataclasses
import itertools
import re

import numpy as np
import pytest

from acme_lite import replay, specs, types
from tests.replay import steps


def test_transition_holds_its_two_rows(make_replay):
    made = make_replay(steps.transition_table(n_step=3))
    writer = made.writer(2)
    stream = steps.Steps(writer, first_stream=7)
    for _ in range(3):
        stream.step()
    writer.create_items(
        "replay",
        np.array([1, 0]),
        np.array([0, 2]),
        np.array([3, 1]),
        values=(np.array([1.5, 2.5]), np.array([0.25, 0.0])),
    )
    writer.flush(10.0)
    sample = next(made.dataset("replay", 64, timeout_seconds=10.0))
    data = sample.data
    assert isinstance(data, types.Transition)
    assert data.extras == ()
    assert set(data.reward.tolist()) == {1.5, 2.5}
    for i in range(64):
        first = data.reward[i] == 1.5
        assert data.observation[i].tolist() == ([8.0, 0.0] if first else [7.0, 2.0])
        assert data.next_observation[i].tolist() == ([8.0, 3.0] if first else [7.0, 3.0])
        assert data.action[i] == (1 if first else 3)
        assert data.discount[i] == (0.25 if first else 0.0)
    assert data.observation.dtype == np.float32
    assert data.action.dtype == np.int32
    assert data.reward.dtype == np.float32
    assert data.action.shape == data.reward.shape == (64,)


def test_sequence_is_padded_with_zeros(make_replay):
    made = make_replay(steps.sequence_table(length=4, period=2))
    writer = made.writer(2)
    stream = steps.Steps(writer, first_stream=7)
    stream.table_has_rewards = True
    stream.step()
    stream.step()
    writer.end_episode(np.array([True, True]))
    writer.create_items("replay", np.array([1]), np.array([0]), np.array([3]))
    writer.flush(10.0)
    data = next(made.dataset("replay", 2, timeout_seconds=10.0)).data
    assert isinstance(data, types.Sequence)
    for i in range(2):
        assert data.observation[i].tolist() == [[8, 0], [8, 1], [8, 2], [0, 0]]
        assert data.action[i].tolist() == [1, 2, 0, 0]
        assert data.reward[i].tolist() == [0, 1, 0, 0]
        assert data.discount[i].tolist() == [1, 2, 0, 0]
        assert data.mask[i].tolist() == [True, True, False, False]
    assert data.mask.dtype == np.bool_


def test_sequence_may_run_over_an_episodes_end(make_replay):
    made = make_replay(steps.sequence_table(length=4, period=4))
    writer = made.writer(1)
    stream = steps.Steps(writer)
    stream.table_has_rewards = True
    stream.step()
    writer.end_episode(np.array([True]))
    stream.append()
    stream.step()
    writer.complete(stream.fields())
    writer.create_items("replay", np.array([0]), np.array([0]), np.array([4]))
    writer.flush(10.0)
    data = next(made.dataset("replay", 1, timeout_seconds=10.0)).data
    assert data.observation[0, :, 1].tolist() == [0, 1, 2, 3]
    assert data.action[0].tolist() == [1, 0, 3, 4]


START = {"core": (specs.Array((2, 2), np.float32), specs.Array((), np.int32))}


def start_values(numbers):
    numbers = np.asarray(numbers)
    core = np.arange(4, dtype=np.float32).reshape(2, 2) + 10 * numbers[:, None, None]
    return {"core": (core.astype(np.float32), numbers.astype(np.int32))}


def test_sequence_holds_the_values_of_its_start(make_replay):
    made = make_replay(replay.Table("replay", 100, steps.sequence_signature(), replay.Sequences(3, 1, START)))
    writer = made.writer(2)
    stream = steps.Steps(writer, first_stream=7)
    stream.table_has_rewards = True
    for _ in range(3):
        stream.step()
    writer.create_items(
        "replay", np.array([1, 0, 1]), np.array([0, 1, 1]), np.array([3, 2, 1]), values=start_values([80, 71, 81])
    )
    writer.create_item_in_each("replay", 2, 1, values=start_values([72, 82]))
    writer.flush(10.0)
    dataset = made.dataset("replay", 16, num_batches=3, timeout_seconds=10.0)
    data = next(dataset).data
    core, number = data.start["core"]
    assert core.shape == (3, 16, 2, 2) and core.dtype == np.float32
    assert number.shape == (3, 16) and number.dtype == np.int32
    assert set(number.ravel().tolist()) == {71, 72, 80, 81, 82}
    np.testing.assert_array_equal(core, start_values(number.ravel())["core"][0].reshape(core.shape))
    np.testing.assert_array_equal(number, 10 * data.observation[..., 0, 0] + data.observation[..., 0, 1])


def test_sequences_without_start_values_sample_an_empty_start(make_replay):
    made = make_replay(steps.sequence_table(length=2, period=1))
    stream = steps.Steps(made.writer(1))
    stream.table_has_rewards = True
    stream.step()
    stream.writer.create_items("replay", np.array([0]), np.array([0]), np.array([1]))
    stream.writer.flush(10.0)
    assert next(made.dataset("replay", 2, timeout_seconds=10.0)).data.start == ()


def test_start_values_wait_for_the_limiter_as_their_items_do(make_replay):
    items = replay.Sequences(1, 1, START)
    queue = {"sampler": replay.Fifo(), "limiter": replay.Queue(2), "max_times_sampled": 1}
    made = make_replay(replay.Table("replay", 2, steps.sequence_signature(), items, **queue))
    stream = steps.Steps(made.writer(1))
    stream.table_has_rewards = True
    one = np.ones(1, int)
    for row in range(40):
        stream.step()
        stream.writer.create_items("replay", 0 * one, row * one, one, values=start_values([row]))
    dataset = made.dataset("replay", 2, timeout_seconds=10.0)
    for row in range(0, 40, 2):
        data = next(dataset).data
        assert data.start["core"][1].tolist() == data.observation[:, 0, 1].tolist() == [row, row + 1]


@pytest.mark.parametrize(
    "values",
    [(), {"core": start_values([1])["core"][0]}, start_values([1, 2]), {"core": (np.zeros((1, 2)), np.zeros(1))}],
    ids=["none", "other_structure", "too_many", "other_shape"],
)
def test_start_values_that_do_not_fit_are_refused(make_replay, values):
    made = make_replay(replay.Table("replay", 10, steps.sequence_signature(), replay.Sequences(1, 1, START)))
    stream = steps.Steps(made.writer(1))
    stream.table_has_rewards = True
    stream.step()
    one = np.ones(1, int)
    with pytest.raises(ValueError, match=r"values must be like Sequences.start of table 'replay'"):
        stream.writer.create_items("replay", 0 * one, 0 * one, one, values=values)
    stream.writer.create_items("replay", 0 * one, 0 * one, one, values=start_values([5]))
    stream.writer.flush(10.0)
    assert next(made.dataset("replay", 1, timeout_seconds=10.0)).data.start["core"][1].tolist() == [5]


ONES = np.ones(1, np.float32)


@pytest.mark.parametrize("in_each", [False, True])
@pytest.mark.parametrize(
    "values",
    [(), (ONES,), (ONES, ONES, ONES), (np.ones(2), np.ones(2)), (ONES[None], ONES[None]), (np.ones((1, 3)), ONES)],
    ids=["none", "one", "three", "too_many", "two_axes", "too_wide"],
)
def test_values_of_transitions_that_do_not_fit_are_refused(make_replay, values, in_each):
    made = make_replay(steps.transition_table())
    stream = steps.Steps(made.writer(1))
    stream.step()
    message = r"values must be the pair \(reward, discount\).*table 'replay'.*shape \[1\], got shapes"
    with pytest.raises(ValueError, match=message):
        if in_each:
            stream.writer.create_item_in_each("replay", 0, 1, values=values)
        else:
            stream.writer.create_items("replay", np.array([0]), np.array([0]), np.array([1]), values=values)
    info = made.info().tables["replay"]
    assert (info.num_inserts, info.num_pending) == (0, 0)
    stream.transitions(2)
    stream.writer.flush(10.0)
    assert made.info().tables["replay"].num_inserts == 2


def test_priorities_of_another_number_are_refused(make_replay):
    made = make_replay(steps.transition_table(sampler=replay.Prioritized()))
    stream = steps.Steps(made.writer(1))
    stream.step()
    item = (np.array([0]), np.array([0]), np.array([1]))
    with pytest.raises(ValueError, match=r"priorities must have shape \[1\], got"):
        stream.writer.create_items("replay", *item, priorities=np.ones(2), values=(ONES, ONES))
    assert made.info().tables["replay"].num_pending == 0


def test_trees_of_observations_actions_and_extras(make_replay):
    signature = replay.Signature(
        {"position": specs.Array((3,), np.float64), "touch": (specs.Array((), np.int8),)},
        {
            "action": {"move": specs.Array((2,), np.float32), "jump": specs.Array((), np.bool_)},
            "extras": {"core": [specs.Array((1,), np.float32)]},
        },
    )
    made = make_replay(replay.Table("replay", 10, signature, replay.Transitions()))
    writer = made.writer(2)
    ramp = np.arange(2)

    def observation(t):
        return {"position": np.full((2, 3), t) + ramp[:, None], "touch": ((10 * t + ramp).astype(np.int8),)}

    writer.append(observation(0))
    writer.complete(
        {
            "action": {"move": np.array([[1, 2], [3, 4]], np.float32), "jump": np.array([True, False])},
            "extras": {"core": [np.array([[5], [6]], np.float32)]},
        }
    )
    writer.append(observation(1))
    writer.create_items("replay", ramp, np.zeros(2, int), np.ones(2, int), values=(ramp * 1.0, ramp * 1.0))
    writer.flush(10.0)
    data = next(made.dataset("replay", 32, timeout_seconds=10.0)).data
    which = data.reward.astype(int)
    assert set(which.tolist()) == {0, 1}
    np.testing.assert_array_equal(data.observation["position"][:, 0], which)
    np.testing.assert_array_equal(data.observation["touch"][0], which)
    np.testing.assert_array_equal(data.next_observation["position"][:, 2], 1 + which)
    np.testing.assert_array_equal(data.next_observation["touch"][0], 10 + which)
    np.testing.assert_array_equal(data.action["move"], np.array([[1, 2], [3, 4]])[which])
    np.testing.assert_array_equal(data.action["jump"], which == 0)
    np.testing.assert_array_equal(data.extras["core"][0][:, 0], 5 + which)
    assert data.observation["position"].dtype == np.float64
    assert data.observation["touch"][0].dtype == np.int8


def test_frames_are_stacked_from_the_episodes_start(make_replay):
    signature = replay.Signature(specs.FrameStack((3, 2), np.uint8, 0, 255), {"action": steps.ACTION})
    made = make_replay(replay.Table("replay", 50, signature, replay.Transitions()))
    writer = made.writer(2)
    stacks = np.zeros((2, 3, 2), np.uint8)
    begins = np.array([True, True])
    expected = []
    number = 0
    for t in range(12):
        frame = np.array([[number, t], [number + 1, t]], np.uint8)
        number += 2
        stacks = np.concatenate([stacks[:, 1:], frame[:, None]], axis=1)
        stacks[begins] = frame[begins, None]
        writer.append(stacks)
        expected.append(stacks.copy())
        inside = np.flatnonzero(~begins)
        if t:
            ones = np.ones(len(inside), int)
            values = (inside + 2.0 * t, ones * 1.0)
            writer.create_items("replay", inside, ones * (t - 1), ones, values=values)
        begins = np.array([t % 4 == 3, t % 5 == 0])
        writer.complete({"action": np.zeros(2, np.int32)})
        writer.end_episode(begins)
    writer.flush(10.0)
    data = next(made.dataset("replay", 200, timeout_seconds=10.0)).data
    assert data.observation.shape == (200, 3, 2)
    assert len(set(data.reward.tolist())) > 10
    for reward, observation, next_observation in zip(data.reward, data.observation, data.next_observation, strict=True):
        t, stream = divmod(int(reward), 2)
        np.testing.assert_array_equal(observation, expected[t - 1][stream])
        np.testing.assert_array_equal(next_observation, expected[t][stream])


@pytest.mark.needs("draws_when_asked")
def test_several_batches_at_once(make_replay):
    made = make_replay(steps.transition_table())
    stream = steps.Steps(made.writer(1))
    stream.transitions(10)
    stream.writer.flush(10.0)
    sample = next(made.dataset("replay", 4, num_batches=3, timeout_seconds=10.0))
    assert sample.data.observation.shape == (3, 4, 2)
    assert sample.data.reward.shape == (3, 4)
    assert sample.info.keys.shape == sample.info.probabilities.shape == (3, 4)
    assert sample.info.table_size == 10
    np.testing.assert_array_equal(sample.data.observation[..., 1], sample.data.reward)
    assert made.info().tables["replay"].num_samples == 12


@pytest.mark.needs("draws_when_asked")
def test_info_of_a_sample(make_replay):
    made = make_replay(steps.transition_table(max_size=5))
    stream = steps.Steps(made.writer(1))
    stream.transitions(8)
    stream.writer.flush(10.0)
    info = next(made.dataset("replay", 50, timeout_seconds=10.0)).info
    assert info.keys.dtype == np.int64
    assert len(set(info.keys.tolist())) == 5
    assert info.table_size == 5
    np.testing.assert_allclose(info.probabilities, 0.2)
    table = made.info().tables["replay"]
    assert (table.size, table.max_size, table.num_inserts, table.num_samples, table.num_pending) == (5, 5, 8, 50, 0)
    assert made.info().num_bytes > 0


@pytest.mark.needs("draws_when_asked")
def test_keys_name_items_and_grow(make_replay, backend):
    made = make_replay(steps.transition_table(max_size=20, sampler=replay.Lifo()))
    stream = steps.Steps(made.writer(1))
    dataset = made.dataset("replay", 1, timeout_seconds=10.0)
    keys = []
    for _ in range(30):
        stream.transitions()
        stream.writer.flush(10.0)
        keys.append(int(next(dataset).info.keys[0]))
    assert len(set(keys)) == 30
    if backend.keys_grow:
        assert all(later > earlier for earlier, later in itertools.pairwise(keys))


def test_samples_are_not_changed_by_later_writes(make_replay):
    made = make_replay(steps.transition_table(max_size=4))
    stream = steps.Steps(made.writer(1))
    stream.transitions(4)
    stream.writer.flush(10.0)
    data = next(made.dataset("replay", 16, timeout_seconds=10.0)).data
    before = data.observation.copy(), data.reward.copy()
    stream.transitions(500)
    np.testing.assert_array_equal(data.observation, before[0])
    np.testing.assert_array_equal(data.reward, before[1])


@pytest.mark.parametrize("bad", [-1.0, np.nan, np.inf])
def test_bad_priorities_are_refused(make_replay, bad):
    made = make_replay(steps.transition_table(sampler=replay.Prioritized()))
    stream = steps.Steps(made.writer(2))
    stream.transitions(3)
    stream.writer.flush(10.0)
    dataset = made.dataset("replay", 2, timeout_seconds=10.0)
    info = next(dataset).info
    with pytest.raises(ValueError, match=f"priorities.*{bad}"):
        dataset.update_priorities(info, np.array([1.0, bad]))
    with pytest.raises(ValueError, match=f"priorities.*{bad}"):
        made.update_priorities("replay", info.keys[:1], np.array([bad]))
    with pytest.raises(ValueError, match=f"priorities.*{bad}"):
        stream.transitions(1, priorities=bad)


@pytest.mark.parametrize(("exponent", "bad"), [(2.0, 1e200), (1.0, 1e300)])
def test_priorities_that_are_too_large_for_the_exponent_are_refused(make_replay, exponent, bad):
    made = make_replay(steps.transition_table(sampler=replay.Prioritized(exponent)))
    stream = steps.Steps(made.writer(1))
    stream.transitions(3, priorities=1e140)
    stream.writer.flush(10.0)
    dataset = made.dataset("replay", 2, timeout_seconds=10.0)
    info = next(dataset).info
    np.testing.assert_allclose(info.probabilities, 1 / 3)
    message = re.escape(f"at most {10 ** (290 / exponent):.3g}, got {bad}")
    with pytest.raises(ValueError, match=message):
        dataset.update_priorities(info, np.array([1.0, bad]))
    with pytest.raises(ValueError, match=message):
        stream.transitions(1, priorities=bad)
    assert made.info().tables["replay"].num_pending == 0


@pytest.mark.needs("draws_when_asked")
def test_updated_priorities_decide_what_is_drawn(make_replay):
    made = make_replay(steps.transition_table(sampler=replay.Prioritized(1.0)))
    stream = steps.Steps(made.writer(1))
    stream.transitions(10, priorities=2.0)
    stream.writer.flush(10.0)
    dataset = made.dataset("replay", 200, timeout_seconds=10.0)
    sample = next(dataset)
    np.testing.assert_allclose(sample.info.probabilities, 0.1)
    chosen = sample.data.reward == 3
    keys = sample.info.keys
    made.update_priorities("replay", np.append(keys, 10**12), np.append(np.where(chosen, 6.0, 0.0), 9.0))
    sample = next(dataset)
    assert set(sample.data.reward.tolist()) == {3.0}
    np.testing.assert_allclose(sample.info.probabilities, 1.0)


@pytest.mark.needs("draws_when_asked")
def test_new_priorities_go_to_the_table_that_the_sample_came_from(make_replay):
    names = ("traces", "demonstrations")
    table = steps.transition_table(sampler=replay.Prioritized(1.0))
    made = make_replay(*(dataclasses.replace(table, name=name) for name in names))
    for name in names:
        stream = steps.Steps(made.writer(1), table=name)
        stream.transitions(4, priorities=2.0)
        stream.writer.flush(10.0)
    datasets = [made.dataset(name, 200, timeout_seconds=10.0) for name in names]
    for number, dataset in enumerate(datasets):
        sample = next(dataset)
        assert set(steps.numbers(sample)) == {0, 1, 2, 3}  # the other table's priorities were not those of this one
        np.testing.assert_allclose(sample.info.probabilities, 0.25)
        dataset.update_priorities(sample.info, np.where(sample.data.reward == number, 6.0, 0.0))
    for number, dataset in enumerate(datasets):
        sample = next(dataset)
        assert set(steps.numbers(sample)) == {number}
        np.testing.assert_allclose(sample.info.probabilities, 1.0)


@pytest.mark.needs("draws_when_asked")
def test_last_of_repeated_priorities_counts(make_replay):
    made = make_replay(steps.transition_table(sampler=replay.Prioritized(1.0)))
    stream = steps.Steps(made.writer(1))
    stream.transitions(2)
    stream.writer.flush(10.0)
    dataset = made.dataset("replay", 300, timeout_seconds=10.0)
    sample = next(dataset)
    zero, one = (sample.info.keys[sample.data.reward == n][0] for n in (0, 1))
    made.update_priorities("replay", np.array([zero, one, zero]), np.array([50.0, 1.0, 3.0]))
    sample = next(dataset)
    np.testing.assert_allclose(sample.info.probabilities, np.where(sample.data.reward == 0, 0.75, 0.25))


def test_unknown_table(make_replay):
    made = make_replay(steps.transition_table())
    stream = steps.Steps(made.writer(1))
    with pytest.raises(KeyError, match="other"):
        made.dataset("other", 1)
    stream.table = "other"
    with pytest.raises(KeyError, match="other"):
        stream.transitions()
    with pytest.raises(KeyError, match="other"):
        made.can_sample("other", 1)


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(
    "item",
    [(1, 1, 1), (0, 5, 1), (0, 4, 0), (0, 3, 3), (2, 4, 1), (-1, 4, 1)],
    ids=lambda item: "-".join(map(str, item)),
)
def test_rows_out_of_the_window_are_refused(make_replay, item, alone):
    made = make_replay(steps.transition_table(n_step=2))
    writer = made.writer(2)
    stream = steps.Steps(writer)
    for _ in range(5):
        stream.step()
    items = [item] if alone else [(0, 3, 2), item]
    values = (np.zeros(len(items)), np.zeros(len(items)))
    with pytest.raises(ValueError, match=f"stream {item[0]}, start {item[1]}, length {item[2]}"):
        writer.create_items("replay", *np.array(items).T, values=values)
    writer.create_items("replay", np.arange(2), np.array([3, 4]), np.array([2, 1]), values=(np.zeros(2), np.zeros(2)))
    writer.flush(10.0)
    assert made.info().tables["replay"].size == 2


@pytest.mark.needs("knows_what_is_due")
def test_dataset_times_out_with_the_limiters_counts(make_replay):
    made = make_replay(steps.transition_table(limiter=replay.MinSize(5)))
    stream = steps.Steps(made.writer(1))
    stream.transitions(3)
    dataset = made.dataset("replay", 2, timeout_seconds=0.05)
    assert not dataset.ready()
    assert not made.can_sample("replay", 2)
    with pytest.raises(TimeoutError, match="3 inserts"):
        next(dataset)
    stream.transitions(2)
    stream.writer.flush(10.0)
    assert dataset.ready()
    assert next(dataset).info.table_size == 5


def test_flush_times_out_and_the_writer_stays_usable(make_replay):
    made = make_replay(
        steps.transition_table(sampler=replay.Fifo(), max_times_sampled=1, limiter=replay.Queue(3), max_size=3)
    )
    stream = steps.Steps(made.writer(1))
    stream.transitions(5)
    with pytest.raises(TimeoutError, match="3 inserts"):
        stream.writer.flush(0.05)
    assert not made.can_insert(1)
    dataset = made.dataset("replay", 3, timeout_seconds=10.0)
    assert steps.numbers(next(dataset)) == [0, 1, 2]
    stream.writer.flush(10.0)
    stream.transitions(1)
    stream.writer.flush(10.0)
    assert steps.numbers(next(dataset)) == [3, 4, 5]


def test_closed_dataset_raises(make_replay):
    made = make_replay(steps.transition_table())
    stream = steps.Steps(made.writer(1))
    stream.transitions(3)
    dataset = made.dataset("replay", 1, timeout_seconds=10.0)
    next(dataset)
    dataset.close()
    with pytest.raises(replay.ClosedError, match="closed"):
        next(dataset)


def test_closed_writer_drops_what_waits(make_replay, backend):
    made = make_replay(
        steps.transition_table(sampler=replay.Fifo(), max_times_sampled=1, limiter=replay.Queue(2), max_size=2)
    )
    stream = steps.Steps(made.writer(1))
    stream.transitions(4)
    stream.writer.close()
    dataset = made.dataset("replay", 2, timeout_seconds=0.5 if backend.close_drops_pending else 30.0)
    if not backend.close_drops_pending:
        assert steps.numbers(next(dataset)) == [0, 1]  # what waited may have been on its way already
        return
    assert made.info().tables["replay"].num_pending == 0
    assert steps.numbers(next(dataset)) == [0, 1]
    assert made.can_insert(2)
    with pytest.raises(TimeoutError):
        next(dataset)


def test_limiter_that_could_never_feed_a_batch_is_refused(make_replay):
    ratio = replay.SampleToInsertRatio(samples_per_insert=1.0, min_size=1, error_buffer=8.0)
    made = make_replay(steps.transition_table(limiter=ratio))
    with pytest.raises(ValueError, match="error_buffer"):
        made.dataset("replay", 9)
    with pytest.raises(ValueError, match="error_buffer"):
        made.dataset("replay", 3, num_batches=3)
    assert not made.dataset("replay", 8).ready()


def test_two_tables_of_the_same_steps(make_replay):
    signature = steps.sequence_signature()
    made = make_replay(
        replay.Table("short", 30, signature, replay.Transitions()),
        replay.Table("long", 5, signature, replay.Sequences(3, 1)),
    )
    stream = steps.Steps(made.writer(1), table="short")
    stream.table_has_rewards = True
    one = np.ones(1, int)
    for _ in range(40):
        stream.transitions()
        if stream.row >= 3:
            stream.writer.create_items("long", one - 1, one * (stream.row - 3), one * 3)
    stream.writer.flush(10.0)
    info = made.info()
    assert (info.tables["short"].size, info.tables["long"].size) == (30, 5)
    long = next(made.dataset("long", 40, timeout_seconds=10.0)).data
    starts = long.observation[:, 0, 1]
    assert set(starts.astype(int).tolist()) == {33, 34, 35, 36, 37}
    np.testing.assert_array_equal(long.reward, starts[:, None] + np.arange(3))
    short = next(made.dataset("short", 40, timeout_seconds=10.0)).data
    np.testing.assert_array_equal(short.observation[:, 1], short.reward)
    assert made.can_insert(1)
    assert made.can_insert(1, "short")
