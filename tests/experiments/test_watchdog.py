from __future__ import annotations

import queue
import threading
import time

import pytest

from acme_lite.experiments import watchdog

LIMIT_SECONDS = 60


@pytest.fixture
def watched():
    """Returns what starts a watchdog of this thread, and what it says."""
    said = queue.Queue()

    def start(describe):
        return watchdog.Watchdog("The node", "a sign", seconds=0.02, say=said.put, describe=describe), said

    return start


def test_it_says_who_waits_for_what_and_where(watched):
    dog, said = watched(lambda: "Done: 3 steps.")
    with dog:
        message = said.get(timeout=LIMIT_SECONDS)
        assert message.startswith("The node has waited 0 s for a sign, in ")
        assert said.get(timeout=LIMIT_SECONDS) == "The node waits. Done: 3 steps."


def test_it_goes_on_where_nobody_can_describe_the_program(watched):
    def describe():
        raise TimeoutError("the counter hangs")

    dog, said = watched(describe)
    with dog:
        messages = [said.get(timeout=LIMIT_SECONDS) for _ in range(4)]
    assert messages[1] == messages[3]
    assert messages[1].endswith("How far the program has come is not known (TimeoutError: the counter hangs).")


def test_it_has_spoken_before_it_asks(watched):
    ended = threading.Event()
    dog, said = watched(lambda: str(ended.wait(LIMIT_SECONDS)))
    with dog:
        assert said.get(timeout=LIMIT_SECONDS).startswith("The node has waited")
        ended.set()


def test_what_is_waited_for_again_and_again_is_one_wait(watched):
    dog, said = watched(lambda: "")
    with dog:
        while said.empty():  # without end, if each call began a new wait
            dog.waiting("steps")
            time.sleep(0.001)
    assert "for steps, in" in said.get()
