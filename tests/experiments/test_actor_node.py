"""What an actor's node tells the counter, without processes."""

from __future__ import annotations

import threading
import time
import types

import pytest

from acme_lite import _runtime

_runtime.load_python_library()
pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite import launching, loggers  # noqa: E402  # after the check for Launchpad
from acme_lite.experiments import coordination, nodes, step_budget  # noqa: E402
from acme_lite.replay import ClosedError  # noqa: E402


class Loop:
    """Makes so many steps, and then waits for a limiter."""

    num_envs = 1
    environment_seconds = acting_seconds = adding_seconds = 0.0

    def __init__(self, counter, num_steps, wait):
        self.steps, self.finished = 0, []
        self._counter, self._num_steps, self._wait = counter, num_steps, wait
        self._reported = 0

    def step(self):
        if self.steps == self._num_steps:
            self._wait()
        self.steps += 1

    def report_steps(self):
        self._counter.increment(actor_steps=self.steps - self._reported)
        self._reported = self.steps


@pytest.fixture
def run_actor(monkeypatch):
    """Returns a function that runs an actor, which makes seven steps and waits, and gives back the rows of its logs."""
    nothing = types.SimpleNamespace(close=lambda: None, writer=lambda num_envs: None)
    monkeypatch.setattr(nodes.ProgramSettings, "plan", lambda program: types.SimpleNamespace(tables=[]))
    monkeypatch.setattr(nodes.ProgramSettings, "connect", lambda program, address: nothing)
    monkeypatch.setattr(nodes.parts, "make_environment", lambda *args: nothing)
    monkeypatch.setattr(nodes.acting, "VariableClient", lambda *args, **settings: nothing)

    def run(coordinator, stop, wait, **settings):
        logs = {}
        experiment = types.SimpleNamespace(
            num_envs=1, seed=0, logger_factory=lambda label: logs.setdefault(label, loggers.InMemoryLogger())
        )
        monkeypatch.setattr(
            nodes.parts,
            "make_training",
            lambda *args, counter, **settings: types.SimpleNamespace(loop=Loop(counter, 7, wait)),
        )
        monkeypatch.setattr(nodes.lp, "stop_event", lambda: stop)
        program = nodes.ProgramSettings(experiment, None, {}, 1, 0.5, **{"watchdog_seconds": 60.0} | settings)
        nodes.Actor(program, 0, None, None, coordinator).run()
        return {label: logger.rows for label, logger in logs.items()}

    return run


@pytest.fixture
def coordinator():
    made = coordination.Coordinator(100)
    made.start("run", None)
    return made


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


class Watched(coordination.Coordinator):
    """Shares steps out by a clock of the test, and tells how often leases were renewed."""

    def __init__(self, clock):
        super().__init__(100)
        self._budget = step_budget.StepBudget(100, self._counter, clock=clock)
        self.renewals = 0

    def renew(self, actor):
        super().renew(actor)
        self.renewals += 1


def test_an_actor_that_waits_in_a_step_keeps_its_lease(run_actor):
    clock, stop = Clock(), threading.Event()
    coordinator = Watched(clock)
    coordinator.start("run", None)
    leased = []

    def wait():
        for _ in range(3):
            clock.now += 250.0
            renewals, until = coordinator.renewals, time.monotonic() + 20.0
            while coordinator.renewals < renewals + 2 and time.monotonic() < until:  # one may have begun before
                time.sleep(0.01)
            leased.append(coordinator.lease(1, 100))
        stop.set()
        raise ClosedError("the stop has closed the replay")

    server = launching.Server(coordinator, "127.0.0.1:0", "token")
    try:
        client = launching.connect(server.address, "token", timeout_seconds=60.0)
        run_actor(client, stop, wait, watchdog_seconds=0.5)
    finally:
        server.stop()
    assert leased == [0, 0, 0]


def test_steps_before_one_that_the_stop_interrupts_are_counted(run_actor, coordinator):
    stop = threading.Event()

    def wait():
        stop.set()
        raise ClosedError("the stop has closed the replay")

    logs = run_actor(coordinator, stop, wait)
    assert coordinator.get_counts() == {"actor_steps": 7}
    assert [row["own_steps"] for row in logs["time_split_0"]] == [7]
