from __future__ import annotations

import random
import threading

import pytest

from acme_lite import counting
from acme_lite.experiments.step_budget import StepBudget


def test_leases_add_up():
    counter = counting.Counter()
    budget = StepBudget(10, counter)
    assert budget.lease(0, 4) == 4
    assert budget.lease(1, 4) == 4
    assert budget.lease(2, 4) == 2
    assert budget.lease(3, 4) == 0  # leased to others, not made yet
    counter.increment(actor_steps=4)
    assert budget.lease(0, 4) == 0
    counter.increment(actor_steps=6)
    assert budget.lease(1, 4) is None


def test_an_actor_that_starts_again_gets_what_its_predecessor_did_not_count():
    counter = counting.Counter()
    budget = StepBudget(10, counter)
    assert budget.lease(0, 10) == 10
    counter.increment(actor_steps=3)  # and then it dies
    assert budget.lease(0, 10) == 7


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_lease_runs_out_when_no_count_follows():
    clock = Clock()
    budget = StepBudget(10, counting.Counter(), lease_seconds=300.0, clock=clock)
    assert budget.lease(0, 10) == 10
    clock.now = 299.0
    assert budget.lease(1, 10) == 0
    clock.now = 300.0
    assert budget.lease(1, 10) == 10


def test_a_slow_actor_keeps_its_lease_while_it_counts():
    clock, counter = Clock(), counting.Counter()
    budget = StepBudget(10, counter, lease_seconds=300.0, clock=clock)
    assert budget.lease(0, 10) == 10
    for _ in range(4):
        clock.now += 250.0
        counter.increment(actor_steps=1)
        budget.renew(0, 1)
        assert budget.lease(1, 10) == 0
    clock.now += 300.0
    assert budget.lease(1, 10) == 6


def test_what_was_counted_of_a_lease_is_not_kept_back():
    counter = counting.Counter()
    budget = StepBudget(10, counter)
    assert budget.lease(0, 4) == 4
    counter.increment(actor_steps=3)
    budget.renew(0, 3)
    assert budget.lease(1, 10) == 6  # one of the first four is still to be made


def test_a_count_that_comes_late_brings_its_lease_back():
    clock, counter = Clock(), counting.Counter()
    budget = StepBudget(10, counter, lease_seconds=300.0, clock=clock)
    assert budget.lease(0, 6) == 6
    clock.now = 400.0
    counter.increment(actor_steps=1)
    budget.renew(0, 1)
    assert budget.lease(1, 10) == 4


def test_what_was_counted_before_is_spent():
    counter = counting.Counter()
    counter.restore({"actor_steps": 8})
    budget = StepBudget(10, counter)
    assert budget.lease(0, 10) == 2


def test_threads_that_die_and_come_back_make_exactly_all_steps():
    counter = counting.Counter()
    budget = StepBudget(1_000, counter)
    made = []

    def act(actor):
        rng = random.Random(actor)
        while (steps := budget.lease(actor, 1 + rng.randrange(20))) is not None:
            counted = rng.randrange(steps + 1) if rng.random() < 0.3 else steps  # 3 of 10 leases are not finished
            counter.increment(actor_steps=counted)
            made.append(counted)

    threads = [threading.Thread(target=act, args=(actor,)) for actor in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert not any(thread.is_alive() for thread in threads)
    assert sum(made) == counter.get_counts()["actor_steps"] == 1_000


@pytest.mark.parametrize(("arguments", "message"), [((0,), "num_steps"), ((1, -1.0), "lease_seconds")])
def test_bad_arguments(arguments, message):
    num_steps, *seconds = arguments
    with pytest.raises(ValueError, match=message):
        StepBudget(num_steps, counting.Counter(), **({"lease_seconds": seconds[0]} if seconds else {}))
