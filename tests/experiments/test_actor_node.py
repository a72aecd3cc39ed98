"""What an actor's node tells the counter, without processes."""

from __future__ import annotations

import threading
import types

import pytest

from acme_lite import _runtime

_runtime.load_python_library()
pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite import loggers  # noqa: E402  # after the check for Launchpad
from acme_lite.experiments import coordination, nodes  # noqa: E402
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


def test_steps_before_one_that_the_stop_interrupts_are_counted(run_actor, coordinator):
    stop = threading.Event()

    def wait():
        stop.set()
        raise ClosedError("the stop has closed the replay")

    logs = run_actor(coordinator, stop, wait)
    assert coordinator.get_counts() == {"actor_steps": 7}
    assert [row["own_steps"] for row in logs["time_split_0"]] == [7]
