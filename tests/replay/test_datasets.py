"""Datasets put together; uses the interface alone."""

from __future__ import annotations

import numpy as np
import pytest

from acme_lite import replay
from tests.replay import steps


@pytest.fixture
def two(make_replay):
    """Returns two replays of prioritised transitions, of streams 0 and 100, and their streams."""
    replays = [make_replay(steps.transition_table(10, sampler=replay.Prioritized(1.0))) for _ in range(2)]
    streams = [steps.Steps(made.writer(1), first_stream=100 * i) for i, made in enumerate(replays)]
    for stream in streams:
        stream.transitions(10)
        stream.writer.flush(10.0)
    return replays, streams


def names(observation):
    return observation[..., 0].astype(int).tolist()


@pytest.mark.needs("draws_when_asked")
def test_zip(two):
    replays, _ = two
    dataset = replay.zip_datasets(
        replays[0].dataset("replay", 3, timeout_seconds=10.0), replays[1].dataset("replay", 2, timeout_seconds=10.0)
    )
    assert dataset.ready()
    sample = next(dataset)
    assert [names(data.observation) for data in sample.data] == [[0, 0, 0], [100, 100]]
    assert [info.keys.shape for info in sample.info] == [(3,), (2,)]
    dataset.update_priorities(sample.info, (np.zeros(3), np.full(2, 1e9)))
    again = next(dataset)
    assert not set(again.info[0].keys) & set(sample.info[0].keys)
    assert set(again.info[1].keys) <= set(sample.info[1].keys)


@pytest.mark.needs("draws_when_asked")
@pytest.mark.parametrize("num_batches", [None, 4])
def test_mix(two, num_batches):
    replays, _ = two
    dataset = replay.mix_datasets(
        *(
            made.dataset("replay", size, num_batches=num_batches, timeout_seconds=10.0)
            for made, size in zip(replays, (3, 2), strict=True)
        )
    )
    sample = next(dataset)
    assert names(sample.data.observation if num_batches is None else sample.data.observation[3]) == [0, 0, 0, 100, 100]
    assert sample.data.reward.shape == ((5,) if num_batches is None else (4, 5))
    priorities = np.zeros((5,) if num_batches is None else (4, 5))
    priorities[..., 3:] = 1e9
    dataset.update_priorities(sample.info, priorities)
    infos = [made.dataset("replay", 50, timeout_seconds=10.0) for made in replays]
    assert not set(next(infos[0]).info.keys) & set(sample.info[0].keys.ravel())
    assert set(next(infos[1]).info.keys) <= set(sample.info[1].keys.ravel())
    dataset.update_priorities(sample.info, tuple(np.ones(info.keys.shape) for info in sample.info))
    np.testing.assert_allclose(next(infos[0]).info.probabilities, 0.1)
    with pytest.raises(ValueError, match="5 entries"):
        dataset.update_priorities(sample.info, np.zeros(4))


@pytest.mark.needs("draws_when_asked")
def test_what_was_drawn_before_a_timeout_is_kept(two, make_replay):
    replays, _ = two
    late = make_replay(steps.transition_table(10))
    dataset = replay.zip_datasets(
        replays[0].dataset("replay", 3, timeout_seconds=10.0), late.dataset("replay", 2, timeout_seconds=0.05)
    )
    assert not dataset.ready()
    with pytest.raises(TimeoutError):
        next(dataset)
    stream = steps.Steps(late.writer(1))
    stream.transitions(1)
    stream.writer.flush(10.0)
    assert dataset.ready()
    sample = next(dataset)
    assert steps.numbers(replay.Sample(sample.data[1], None)) == [0, 0]
    assert replays[0].info().tables["replay"].num_samples == 3


@pytest.mark.needs("knows_what_is_due")
def test_first_dataset_sets_the_pace(two):
    replays, streams = two
    dataset = replay.mix_datasets(*(made.dataset("replay", 2, timeout_seconds=10.0) for made in replays))
    assert dataset.due()
    next(dataset)
    assert dataset.ready()
    assert not dataset.due()
    streams[1].transitions(1)
    streams[1].writer.flush(10.0)
    assert not dataset.due()
    streams[0].transitions(1)
    streams[0].writer.flush(10.0)
    assert dataset.due()


def test_no_datasets_are_refused():
    with pytest.raises(ValueError, match="at least one"):
        replay.zip_datasets()
    with pytest.raises(ValueError, match="at least one"):
        replay.mix_datasets()


@pytest.mark.parametrize("combine", [replay.zip_datasets, replay.mix_datasets])
def test_two_datasets_of_one_table_are_refused_where_it_holds_back(make_replay, combine):
    queue = {"limiter": replay.Queue(5), "sampler": replay.Fifo(), "max_times_sampled": 1}
    made, other = (make_replay(steps.transition_table(10, **queue)) for _ in range(2))
    combine(made.dataset("replay", 2), other.dataset("replay", 2))
    with pytest.raises(ValueError, match="datasets must be of different tables"):
        combine(made.dataset("replay", 2), made.dataset("replay", 3))


@pytest.mark.parametrize("combine", [replay.zip_datasets, replay.mix_datasets])
def test_state_and_close(combine):
    made = replay.LocalReplay([steps.transition_table(10)])
    steps.Steps(made.writer(1)).transitions(10)
    dataset = combine(made.dataset("replay", 3, seed=1), made.dataset("replay", 4, seed=2))
    next(dataset)
    state = dataset.state()
    expected = [info.keys.tolist() for info in next(dataset).info]
    dataset.restore(state)
    assert [info.keys.tolist() for info in next(dataset).info] == expected
    dataset.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(dataset)
