"""Random operations beside a plain model of limiter, order and removal; uses the interface alone."""

from __future__ import annotations

import numpy as np
import pytest

from acme_lite import replay
from acme_lite.replay import rate_limiters
from tests.replay import models, steps

LIMITERS = {
    "min_size": replay.MinSize(3),
    "ratio": replay.SampleToInsertRatio(samples_per_insert=0.8, min_size=4, error_buffer=12.0),
    "queue": replay.Queue(9),
}
SAMPLERS = {
    "uniform": replay.Uniform(),
    "prioritized": replay.Prioritized(0.7),
    "fifo": replay.Fifo(),
    "lifo": replay.Lifo(),
}


COMBINATIONS = [
    (limiter, sampler, max_times_sampled)
    for limiter in sorted(LIMITERS)
    for sampler in sorted(SAMPLERS)
    for max_times_sampled in (0, 1, 3)
    if limiter != "queue" or (sampler, max_times_sampled) == ("fifo", 1)
]


@pytest.mark.needs("draws_when_asked")
@pytest.mark.parametrize(("limiter", "sampler", "max_times_sampled"), COMBINATIONS)
def test_random_operations(make_replay, backend, limiter, sampler, max_times_sampled):
    table = steps.transition_table(
        max_size=10,
        limiter=LIMITERS[limiter],
        sampler=SAMPLERS[sampler],
        max_times_sampled=max_times_sampled,
    )
    made = make_replay(table)
    model = models.LimiterModel(table, asks_limiter_per_item=backend.asks_limiter_per_item)
    stream = steps.Steps(made.writer(1))
    datasets = {num: made.dataset("replay", num, seed=num, timeout_seconds=10.0) for num in (1, 3, 5)}
    ordered = isinstance(table.sampler, (replay.Fifo, replay.Lifo))
    rng = np.random.default_rng(0)
    num_batches = 0
    for _ in range(200):
        num = int(rng.integers(1, 4))
        if rng.random() < 0.5 and len(model.waiting) < 6:
            model.create(list(range(stream.num_items, stream.num_items + num)))
            stream.transitions(num)
            if not model.waiting:
                stream.writer.flush(10.0)
        num = (1, 3, 5)[rng.integers(3)]
        assert made.can_sample("replay", num) == datasets[num].ready() == model.may_sample(num)
        if model.may_sample(num):
            size = len(model.items)
            sample = next(datasets[num])
            drawn = steps.numbers(sample)
            assert drawn == model.draw(num, None if ordered else drawn)
            assert sample.info.table_size == size
            num_batches += 1
        info = made.info().tables["replay"]
        assert (info.size, info.num_inserts, info.num_samples) == (len(model.items), model.inserts, model.samples)
        assert info.num_pending == len(model.waiting)
        for num in (1, 2, 7):
            assert made.can_insert(num) == (not model.waiting and model.may_insert(num))
    assert num_batches > 20


@pytest.mark.needs("knows_what_is_due")
def test_due_stops_in_the_middle_of_the_window(make_replay):
    limiter = replay.SampleToInsertRatio(samples_per_insert=2.0, min_size=10, error_buffer=40.0)
    made = make_replay(steps.transition_table(limiter=limiter))
    stream = steps.Steps(made.writer(1))
    dataset = made.dataset("replay", 4, timeout_seconds=10.0)
    stream.transitions(10)
    stream.writer.flush(10.0)
    # (10 - 10) * 2 - 0 = 0 items behind: ready by the buffer, but not due before 2 more inserts, 4 items.
    assert dataset.ready()
    assert not dataset.due()
    stream.transitions(1)
    assert not dataset.due()
    stream.transitions(1)
    stream.writer.flush(10.0)
    assert dataset.due()
    next(dataset)
    assert not dataset.due()
    assert dataset.ready()


@pytest.mark.needs("knows_what_is_due")
def test_min_size_is_due_once_per_insert(make_replay):
    made = make_replay(steps.transition_table(limiter=replay.MinSize(2)))
    stream = steps.Steps(made.writer(1))
    dataset = made.dataset("replay", 4, timeout_seconds=10.0)
    stream.transitions(1)
    stream.writer.flush(10.0)
    assert not dataset.due()
    stream.transitions(1)
    stream.writer.flush(10.0)
    assert dataset.due()
    next(dataset)
    assert not dataset.due()
    assert dataset.ready()
    stream.transitions(1)
    stream.writer.flush(10.0)
    assert dataset.due()


@pytest.mark.parametrize(
    "limiter",
    [
        rate_limiters.MinSize(7),
        rate_limiters.Queue(40),
        rate_limiters.SampleToInsertRatio(0.3, min_size=5, error_buffer=9),
        rate_limiters.SampleToInsertRatio(3.7, min_size=12, error_buffer=90),
    ],
)
def test_nothing_is_due_before_the_inserts_that_a_limiter_names(limiter):
    rng = np.random.default_rng(0)
    for _ in range(300):
        inserts = int(rng.integers(60))
        samples = int(rng.integers(inserts + 1) * rng.choice([0.2, 1.0, 3.0]))
        counts = rate_limiters.Counts(inserts, samples, inserts, int(rng.integers(inserts + 1)))
        num_items = int(rng.integers(1, 20))
        if limiter.due(counts, num_items):
            continue
        least = limiter.inserts_until_due(counts, num_items)
        assert least >= 1
        for more in range(1, least):
            later = counts._replace(inserts=inserts + more, size=inserts + more)
            assert not limiter.due(later, num_items)
        # And the bound is no idle one: at most two more are due, where the limiter samples at all.
        later = counts._replace(inserts=inserts + least + 1, size=inserts + least + 1)
        assert limiter.due(later, num_items)
