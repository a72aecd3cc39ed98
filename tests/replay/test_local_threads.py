"""`LocalReplay` from several threads at once."""

from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from acme_lite import replay
from tests.replay import steps


def run_all(*functions):
    """Runs functions in threads; raises what any of them raised."""
    errors = []

    def guarded(function):
        try:
            function()
        except BaseException as error:  # handed to the main thread
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(function,)) for function in functions]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def is_consistent(data):
    number = data.observation[..., 1]
    return (
        (data.next_observation[..., 0] == data.observation[..., 0]).all()
        and (data.next_observation[..., 1] == number + 1).all()
        and (data.action == number % 1000 + 1).all()
        and (data.discount == data.reward + 0.5).all()
    )


@pytest.mark.parametrize("sampler", [replay.Uniform(), replay.Prioritized(0.5)], ids=["uniform", "prioritized"])
def test_writers_and_samplers_together(sampler):
    made = replay.LocalReplay([steps.transition_table(64, sampler=sampler)])
    done = threading.Event()

    def write(name, num_streams):
        stream = steps.Steps(made.writer(num_streams), first_stream=name)
        stream.transitions(500)

    def sample(seed):
        dataset = made.dataset("replay", 16, seed=seed, timeout_seconds=30.0)
        rng = np.random.default_rng(seed)
        while not done.is_set():
            drawn = next(dataset)
            assert is_consistent(drawn.data)
            dataset.update_priorities(drawn.info, rng.random(16) + 0.1)

    samplers = [threading.Thread(target=sample, args=(seed,)) for seed in range(2)]
    for thread in samplers:
        thread.start()
    try:
        run_all(*(lambda name=name, num=num: write(name, num) for name, num in [(0, 1), (10, 7), (20, 1), (30, 90)]))
    finally:
        done.set()
    for thread in samplers:
        thread.join(30)
        assert not thread.is_alive()
    table = made.info().tables["replay"]
    assert table.num_inserts == 500 * (1 + 7 + 1 + 90)
    assert table.num_samples > 0
    assert is_consistent(next(made.dataset("replay", 200)).data)


def test_queue_gives_every_item_once():
    table = steps.transition_table(20, sampler=replay.Fifo(), limiter=replay.Queue(20), max_times_sampled=1)
    made = replay.LocalReplay([table])
    seen = [[], []]

    def write(name):
        stream = steps.Steps(made.writer(1), first_stream=name)
        for _ in range(400):
            stream.transitions()
            stream.writer.flush(30.0)

    def sample(index):
        dataset = made.dataset("replay", 4, timeout_seconds=30.0)
        for _ in range(100):
            data = next(dataset).data
            assert is_consistent(data)
            seen[index] += [(int(name), int(number)) for name, number in data.observation]

    run_all(lambda: write(0), lambda: write(1), lambda: sample(0), lambda: sample(1))
    assert sorted(seen[0] + seen[1]) == [(name, number) for name in range(2) for number in range(400)]
    for each in seen:
        for name in range(2):
            numbers = [number for stream, number in each if stream == name]
            assert numbers == sorted(numbers)


def test_ratio_holds_both_sides_back():
    limiter = replay.SampleToInsertRatio(samples_per_insert=4.0, min_size=10, error_buffer=16.0)
    made = replay.LocalReplay([steps.transition_table(100, limiter=limiter)])

    def write():
        stream = steps.Steps(made.writer(2))
        for _ in range(105):
            stream.transitions()
            stream.writer.flush(30.0)

    def sample():
        dataset = made.dataset("replay", 8, timeout_seconds=30.0)
        for _ in range(100):
            next(dataset)
            counts = made.info().tables["replay"]
            balance = (counts.num_inserts - 10) * 4.0 - counts.num_samples
            assert -16 <= balance <= 16

    run_all(write, sample)
    counts = made.info().tables["replay"]
    assert (counts.num_inserts, counts.num_samples, counts.num_pending) == (210, 800, 0)


@pytest.mark.parametrize("what", ["dataset", "replay", "writer"])
def test_close_wakes_who_waits(what):
    table = steps.transition_table(2, sampler=replay.Fifo(), limiter=replay.Queue(2), max_times_sampled=1)
    made = replay.LocalReplay([table])
    writer = made.writer(1)
    stream = steps.Steps(writer)
    dataset = made.dataset("replay", 1)
    if what == "writer":
        stream.transitions(3)
    started = threading.Event()
    errors = []

    def wait():
        started.set()
        try:
            writer.flush() if what == "writer" else next(dataset)
        except RuntimeError as error:
            errors.append(str(error))

    thread = threading.Thread(target=wait)
    thread.start()
    started.wait(10)
    time.sleep(0.05)
    {"dataset": dataset, "replay": made, "writer": writer}[what].close()
    thread.join(10)
    assert not thread.is_alive()
    assert len(errors) == 1
    assert "closed" in errors[0]


def test_closed_replay_refuses_everything():
    made = replay.LocalReplay([steps.transition_table()])
    stream = steps.Steps(made.writer(1))
    stream.transitions(3)
    dataset = made.dataset("replay", 1)
    made.close()
    made.close()
    with pytest.raises(RuntimeError, match="closed"):
        next(dataset)
    with pytest.raises(RuntimeError, match="closed"):
        stream.append()
    with pytest.raises(RuntimeError, match="closed"):
        stream.writer.complete(stream.fields())
    with pytest.raises(RuntimeError, match="closed"):
        made.writer(1)
    with pytest.raises(RuntimeError, match="closed"):
        made.can_sample("replay", 1)
