from __future__ import annotations

import queue
import threading
import time

import numpy as np
import pytest

from acme_lite import acting

LIMIT_SECONDS = 60


class Source:
    """Serves what the test puts into a queue, and counts the fetches."""

    def __init__(self, *answers):
        self.answers = queue.Queue()
        for answer in answers:
            self.answers.put(answer)
        self.asked = threading.Semaphore(0)

    def get_variables(self, names):
        self.asked.release()
        answer = self.answers.get(timeout=LIMIT_SECONDS)
        if isinstance(answer, Exception):
            raise answer
        return [np.full(2, answer + index) for index in range(len(names))]


@pytest.fixture
def make_client():
    made = []

    def make(*args, **kwargs):
        made.append(acting.VariableClient(*args, **kwargs))
        return made[-1]

    yield make
    for client in made:
        client.close()


def wait_until(condition):
    tries = threading.Event()
    for _ in range(LIMIT_SECONDS * 100):
        if condition():
            return
        tries.wait(0.01)
    raise AssertionError("It did not happen within a minute.")


def test_first_set_is_waited_for_and_later_ones_arrive_by_themselves(make_client):
    source = Source(1)
    client = make_client(source, ("policy", "critic"), update_period_seconds=0)
    (critic, policy) = client.get_variables(("critic", "policy"))
    np.testing.assert_array_equal(policy, [1, 1])
    np.testing.assert_array_equal(critic, [2, 2])
    assert client.get_variables(("policy",))[0] is policy  # nothing new: the same object
    source.answers.put(5)
    wait_until(lambda: client.get_variables(("policy",))[0] is not policy)
    np.testing.assert_array_equal(client.get_variables(("policy",))[0], [5, 5])


def test_asking_does_not_wait_for_a_fetch_under_way(make_client):
    source = Source(1)
    client = make_client(source, ("policy",), update_period_seconds=0)
    client.get_variables(("policy",))
    for _ in range(2):  # the second fetch has begun, and hangs until there is an answer
        assert source.asked.acquire(timeout=LIMIT_SECONDS)
    np.testing.assert_array_equal(client.get_variables(("policy",))[0], [1, 1])
    source.answers.put(2)


def test_an_error_in_the_background_shows_and_fetching_goes_on(make_client):
    source = Source(1)
    client = make_client(source, ("policy",), update_period_seconds=0)
    client.get_variables(("policy",))
    source.answers.put(ConnectionError("the learner is away"))
    source.answers.put(3)

    def fails():
        try:
            client.get_variables(("policy",))
        except RuntimeError as error:
            assert "the learner is away" in str(error)
            assert isinstance(error.__cause__, ConnectionError)
            return True
        return False

    wait_until(fails)
    wait_until(lambda: client.get_variables(("policy",))[0][0] == 3)


def test_an_error_of_the_first_fetch_is_raised_as_it_is(make_client):
    with pytest.raises(ConnectionError, match="nobody there"):
        make_client(Source(ConnectionError("nobody there")), ("policy",)).get_variables(("policy",))


def test_bad_arguments(make_client):
    with pytest.raises(ValueError, match="names"):
        make_client(Source(), ())
    with pytest.raises(ValueError, match="update_period_seconds must be at least 0, got -1"):
        make_client(Source(), ("policy",), update_period_seconds=-1)
    with pytest.raises(KeyError, match=r"'critic'.*'policy'"):
        make_client(Source(1), ("policy",)).get_variables(("critic",))


def test_a_late_answer_does_not_replace_newer_variables(make_client):
    class Late(Source):
        """Its second answer, to the thread, is late."""

        def __init__(self):
            super().__init__()
            self.num_asked = 0
            self.go_on = threading.Event()

        def get_variables(self, names):
            self.num_asked += 1
            answer = self.num_asked
            self.asked.release()
            if answer == 2:
                assert self.go_on.wait(LIMIT_SECONDS)
            return [answer]

    source = Late()
    client = make_client(source, ("policy",), update_period_seconds=0.01)
    assert client.get_variables(("policy",)) == [1]
    for _ in range(2):
        assert source.asked.acquire(timeout=LIMIT_SECONDS)
    fetching = threading.Thread(target=client.fetch)
    fetching.start()
    client.close()
    source.go_on.set()
    fetching.join(LIMIT_SECONDS)
    assert source.num_asked == 3
    assert client.get_variables(("policy",)) == [3]


def test_an_infinite_period_fetches_where_it_is_asked_to_alone(make_client):
    source = Source(1, 2)
    client = make_client(source, ("policy",), update_period_seconds=float("inf"))
    assert client.get_variables(("policy",))[0][0] == 1
    assert client._thread.is_alive()
    client.fetch()
    assert client.get_variables(("policy",))[0][0] == 2


@pytest.mark.parametrize(("took", "waited"), [(0.001, 0.05), (0.02, 0.18), (5.0, 1.0)])
def test_long_fetches_come_less_often(make_client, monkeypatch, took, waited):
    clock = iter([10.0, 10.0 + took])
    monkeypatch.setattr(time, "perf_counter", lambda: next(clock))
    client, waits = make_client(Source(1), ["policy"], update_period_seconds=0.05), []

    class Closed:
        def wait(self, seconds):
            waits.append(seconds)
            return len(waits) == 2

        def set(self):
            pass

    client._closed = Closed()
    client._run()
    assert waits == pytest.approx([0.05, waited])
