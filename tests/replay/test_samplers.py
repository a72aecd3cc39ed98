"""Whether samplers draw with the probabilities that they say; uses the interface alone."""

from __future__ import annotations

import numpy as np
import pytest

from acme_lite import replay
from tests.replay import steps


def chi_square(counts, probabilities):
    expected = counts.sum() * probabilities
    return ((counts - expected) ** 2 / expected).sum()


# By degrees of freedom, what `chi_square` exceeds by chance once in 10^9 runs: Reverb's draws cannot be seeded.
BOUND = {3: 44.8, 19: 81.6}


def filled(make_replay, sampler, num, **kwargs):
    made = make_replay(steps.transition_table(max_size=num, sampler=sampler, **kwargs))
    stream = steps.Steps(made.writer(1))
    stream.transitions(num + 7)
    stream.writer.flush(10.0)
    return made


def test_uniform(make_replay):
    made = filled(make_replay, replay.Uniform(), 20)
    dataset = made.dataset("replay", 1000, seed=1, timeout_seconds=10.0)
    counts = sum(np.bincount(np.array(steps.numbers(next(dataset))) - 7, minlength=20) for _ in range(10))
    assert chi_square(counts, np.full(20, 0.05)) < BOUND[19]


@pytest.mark.needs("draws_when_asked")
@pytest.mark.parametrize("exponent", [0.0, 0.6, 1.0])
def test_prioritized(make_replay, exponent):
    made = filled(make_replay, replay.Prioritized(exponent), 20)
    dataset = made.dataset("replay", 1000, seed=2, timeout_seconds=10.0)
    sample = next(dataset)
    keys = np.zeros(20, np.int64)
    keys[sample.data.reward.astype(int) - 7] = sample.info.keys
    priorities = np.random.default_rng(3).uniform(0.1, 4.0, 20)
    made.update_priorities("replay", keys, priorities)
    weights = priorities**exponent
    probabilities = weights / weights.sum()
    counts = np.zeros(20)
    for _ in range(10):
        sample = next(dataset)
        which = sample.data.reward.astype(int) - 7
        counts += np.bincount(which, minlength=20)
        np.testing.assert_allclose(sample.info.probabilities, probabilities[which], rtol=1e-6)
    assert chi_square(counts, probabilities) < BOUND[19]


@pytest.mark.needs("draws_when_asked")
def test_new_items_are_drawn_with_their_priorities(make_replay):
    made = make_replay(steps.transition_table(max_size=8, sampler=replay.Prioritized(1.0)))
    stream = steps.Steps(made.writer(1))
    dataset = made.dataset("replay", 4, timeout_seconds=10.0)
    for i in range(1, 100):
        stream.transitions(1, priorities=float(i))
        stream.writer.flush(10.0)
        sample = next(dataset)
        total = sum(range(max(1, i - 7), i + 1))
        np.testing.assert_allclose(sample.info.probabilities, (sample.data.reward + 1) / total, rtol=1e-6)


def test_items_without_priority_are_never_drawn(make_replay):
    made = make_replay(steps.transition_table(max_size=64, sampler=replay.Prioritized(0.5)))
    stream = steps.Steps(made.writer(1))
    for i in range(64):
        stream.transitions(1, priorities=0.0 if i % 3 else 1e-3)
    stream.writer.flush(10.0)
    dataset = made.dataset("replay", 500, timeout_seconds=10.0)
    assert {number % 3 for number in steps.numbers(next(dataset))} == {0}


@pytest.mark.needs("draws_when_asked")
@pytest.mark.parametrize("sampler", [replay.Uniform(), replay.Prioritized(1.0)], ids=["uniform", "prioritized"])
def test_first_of_two_single_draws_is_fair(make_replay, sampler):
    made = make_replay(steps.transition_table(max_size=4, sampler=sampler, max_times_sampled=1))
    stream = steps.Steps(made.writer(1))
    dataset = made.dataset("replay", 4, seed=5, timeout_seconds=10.0)
    firsts = np.zeros(4)
    for _ in range(600):
        for number in range(4):
            stream.transitions(1, priorities=1.0 if isinstance(sampler, replay.Uniform) else number + 1.0)
        stream.writer.flush(10.0)
        drawn = [number % 4 for number in steps.numbers(next(dataset))]
        assert sorted(drawn) == [0, 1, 2, 3]
        firsts[drawn[0]] += 1
    probabilities = np.full(4, 0.25) if isinstance(sampler, replay.Uniform) else np.array([0.1, 0.2, 0.3, 0.4])
    assert chi_square(firsts, probabilities) < BOUND[3]


def test_where_all_priorities_are_0_draws_are_uniform(make_replay):
    made = make_replay(steps.transition_table(20, sampler=replay.Prioritized()))
    stream = steps.Steps(made.writer(1))
    stream.transitions(20, priorities=0.0)
    stream.writer.flush(10.0)
    sample = next(made.dataset("replay", 2_000, timeout_seconds=10.0))
    assert set(steps.numbers(sample)) == set(range(20))
    np.testing.assert_allclose(sample.info.probabilities, 0.05)


@pytest.mark.needs("draws_when_asked")
@pytest.mark.parametrize("sampler", [replay.Uniform(), replay.Prioritized(1.0)], ids=["uniform", "prioritized"])
def test_probabilities_are_those_of_draws_one_after_the_other(make_replay, sampler):
    made = make_replay(steps.transition_table(4, sampler=sampler, max_times_sampled=2))
    stream = steps.Steps(made.writer(1))
    priorities = np.array([8.0, 1.0, 0.5, 0.5])
    seen = set()
    for seed in range(20):
        first = stream.num_items
        for priority in priorities:
            stream.transitions(1, priorities=priority)
        stream.writer.flush(10.0)
        sample = next(made.dataset("replay", 4, seed=seed, timeout_seconds=10.0))
        left = np.full(4, 2)
        for number, probability in zip(steps.numbers(sample), sample.info.probabilities, strict=True):
            weights = (left > 0) * (priorities if isinstance(sampler, replay.Prioritized) else 1.0)
            assert probability == pytest.approx(weights[number - first] / weights.sum())
            left[number - first] -= 1
        seen |= set(np.round(sample.info.probabilities, 3))
        for _ in range(4):
            next(made.dataset("replay", 1, timeout_seconds=10.0))  # the rest
    assert len(seen) > 1


def test_items_without_priority_are_drawn_once_the_others_have_left():
    made = replay.LocalReplay([steps.transition_table(4, sampler=replay.Prioritized(), max_times_sampled=1)])
    stream = steps.Steps(made.writer(1))
    for priority in (1.0, 1.0, 0.0, 0.0):
        stream.transitions(1, priorities=priority)
    drawn = steps.numbers(next(made.dataset("replay", 4)))
    assert set(drawn[:2]) == {0, 1}
    assert set(drawn[2:]) == {2, 3}


@pytest.mark.needs("draws_when_asked")
def test_with_exponent_0_items_of_priority_0_are_drawn_as_often(make_replay):
    made = make_replay(steps.transition_table(sampler=replay.Prioritized(0.0)))
    stream = steps.Steps(made.writer(1))
    stream.transitions(2, priorities=0.0)
    stream.transitions(2, priorities=1.0)
    stream.writer.flush(10.0)
    dataset = made.dataset("replay", 1000, seed=3, timeout_seconds=10.0)
    sample = next(dataset)
    np.testing.assert_allclose(sample.info.probabilities, 0.25)
    assert chi_square(np.bincount(steps.numbers(sample), minlength=4), np.full(4, 0.25)) < BOUND[3]
    dataset.update_priorities(sample.info, np.zeros(1000))
    assert chi_square(np.bincount(steps.numbers(next(dataset)), minlength=4), np.full(4, 0.25)) < BOUND[3]
