"""Declarations and limiters: what they refuse, and what limiters compute."""

from __future__ import annotations

import pytest

from acme_lite import replay
from tests.replay import steps


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: replay.Prioritized(-1.0), "exponent.*-1.0"),
        (lambda: replay.Transitions(0), "n_step.*0"),
        (lambda: replay.Sequences(0, 1), "length.*0"),
        (lambda: replay.Sequences(3, 4), "period.*4"),
        (lambda: replay.MinSize(0), "min_size.*0"),
        (lambda: replay.Queue(0), "Queue.size.*0"),
        (lambda: replay.SampleToInsertRatio(0.0, 1, 5.0), "samples_per_insert.*0.0"),
        (lambda: replay.SampleToInsertRatio(4.0, 1, 7.0), "error_buffer.*7.0"),
        (lambda: steps.transition_table(0), "max_size.*0"),
        (lambda: steps.transition_table(max_times_sampled=-1), "max_times_sampled.*-1"),
        (lambda: steps.transition_table(5, limiter=replay.MinSize(6)), "waits for 6"),
        (
            lambda: steps.transition_table(5, limiter=replay.Queue(6), sampler=replay.Fifo(), max_times_sampled=1),
            "Queue.size is 6 and max_size is 5",
        ),
        (
            lambda: steps.transition_table(5, limiter=replay.Queue(5), max_times_sampled=1),
            r"sampler Fifo\(\) and max_times_sampled 1.*got Uniform\(\) and 1",
        ),
        (
            lambda: steps.transition_table(5, limiter=replay.Queue(5), sampler=replay.Fifo()),
            r"sampler Fifo\(\) and max_times_sampled 1.*got Fifo\(\) and 0",
        ),
        (
            lambda: steps.transition_table(9, limiter=replay.SampleToInsertRatio(2.0, 1, 8.0), max_times_sampled=2),
            "samples_per_insert is 2.0, max_times_sampled 2 and max_size 9, which must be at least 10",
        ),
        (lambda: steps.transition_table(10.5), "max_size must be a whole number.*10.5"),
        (lambda: replay.MinSize(2.5), "min_size must be a whole number.*2.5"),
        (lambda: replay.Transitions(1.5), "n_step must be a whole number.*1.5"),
        (
            lambda: steps.transition_table(5, limiter=replay.SampleToInsertRatio(2.0, 1, 8.0), max_times_sampled=1),
            "samples_per_insert is 2.0, max_times_sampled 1",
        ),
    ],
)
def test_wrong_declarations_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_windows():
    # A transition of n steps spans n + 1 rows; a sequence may be made up to one period late.
    assert replay.Transitions(3).window == 4
    assert replay.Sequences(8, 4).window == 12


def test_error_buffer_of_an_agent():
    make = replay.rate_limiters.from_samples_per_insert
    # 1000 * 0.1 * 32 = 3200 > 256.
    assert make(32.0, min_size=1000, items_per_call=256).error_buffer == pytest.approx(3200)
    # 10 * 0.1 * 1 = 1 < 256.
    assert make(1.0, min_size=10, items_per_call=256).error_buffer == 256
    # 2 * max(1, 8) = 16 > 2.
    assert make(8.0, min_size=1, items_per_call=2).error_buffer == 16


def test_widened_limiters_take_a_burst():
    ratio = replay.SampleToInsertRatio(2.0, min_size=1, error_buffer=4.0)
    at_start = replay.rate_limiters.Counts(inserts=1, size=1)
    assert not ratio.can_insert(at_start, 10)
    assert ratio.widened(10).can_insert(at_start, 10)
    assert ratio.widened(1) == ratio
    # 3 - 1 items may wait where one more is let in, and 8 come at once: 2 + 8 = 10.
    assert replay.Queue(3).widened(8) == replay.Queue(10)
    assert replay.Queue(3).widened(1) == replay.Queue(3)
    assert replay.MinSize(3).widened(8) == replay.MinSize(3)


def test_queue_refuses_batches_that_it_cannot_hold():
    replay.Queue(4).check(4, 4)
    with pytest.raises(ValueError, match="5 items"):
        replay.Queue(4).check(5, 10)
