"""Counters."""

import threading

from acme_lite import counting


def test_a_tree_shares_one_set_of_counts():
    root = counting.Counter()
    actor = counting.Counter(root, prefix="actor")
    second = counting.Counter(actor, prefix="second")
    assert actor.increment(steps=3, episodes=1) == {"actor_steps": 3, "actor_episodes": 1}
    assert second.increment(steps=2) == {"actor_steps": 3, "actor_episodes": 1, "actor_second_steps": 2}
    assert counting.Counter(root).increment(actor_steps=4)["actor_steps"] == 7
    expected = {"actor_steps": 7, "actor_episodes": 1, "actor_second_steps": 2}
    assert root.get_counts() == actor.get_counts() == second.get_counts() == expected


def test_what_is_returned_is_a_copy():
    counter = counting.Counter()
    counter.increment(steps=1)["steps"] = 100
    counter.get_counts()["steps"] = 100
    counter.save()["steps"] = 100
    assert counter.get_counts() == {"steps": 1}


def test_prefix_without_a_parent():
    assert counting.Counter(prefix="learner").increment(steps=8) == {"learner_steps": 8}


def test_save_and_restore():
    root = counting.Counter()
    actor = counting.Counter(root, prefix="actor")
    actor.increment(steps=5, seconds=0.5)
    state = root.save()
    actor.increment(steps=1, episodes=1)
    root.restore(state)
    assert actor.get_counts() == {"actor_steps": 5, "actor_seconds": 0.5}
    assert actor.increment(steps=1)["actor_steps"] == 6
    assert state == {"actor_steps": 5, "actor_seconds": 0.5}


def test_no_increment_of_several_threads_is_lost():
    root = counting.Counter()
    children = [counting.Counter(root, prefix="actor") for _ in range(4)]

    def count(counter):
        for _ in range(2000):
            counter.increment(steps=1, episodes=2)

    threads = [threading.Thread(target=count, args=(child,)) for child in children]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert root.get_counts() == {"actor_steps": 8000, "actor_episodes": 16000}
