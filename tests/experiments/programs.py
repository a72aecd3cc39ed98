"""Programs that the tests of distributed experiments run, and what does harm to them from outside."""

from __future__ import annotations

import contextlib
import io
import os
import pathlib
import signal
import socket
import threading
import time

import psutil
import rich.console

from acme_lite import experiments, replay, specs, testing
from acme_lite.agents import dqn

LIMIT_SECONDS = 240
ROOT = pathlib.Path(__file__).parents[2]
DQN = dqn.DQNConfig(
    n_step=1,
    hidden_sizes=(16,),
    batch_size=16,
    samples_per_insert=4.0,
    min_replay_size=50,
    max_replay_size=500,
    epsilon=0.2,
    num_steps_per_call=1,
    overlap=False,
)


def make(
    tmp_path,
    *,
    builder=None,
    environment_factory=testing.MemoryEnvironment,
    num_actors=2,
    replay_in_learner=True,
    **settings,
):
    settings = {"max_num_actor_steps": 400, "evaluation": experiments.EvaluationConfig(200, 2)} | settings
    experiment = experiments.ExperimentConfig(
        builder or dqn.DQNBuilder(DQN), environment_factory, directory=tmp_path / "run", **settings
    )
    return experiments.make_distributed_experiment(
        experiment, num_actors, variable_update_period_seconds=0.05, replay_in_learner=replay_in_learner
    )


def check_ratio(counts):
    """Asserts that the samples per insert of `DQN` are within the limiter's error buffer."""
    (table,) = dqn.DQNBuilder(DQN).make_tables(specs.make_environment_spec(testing.MemoryEnvironment(0)), ())
    state = replay.rate_limiters.Counts(inserts=counts["replay_inserts"], samples=counts["replay_samples"])
    assert abs(table.limiter.balance(state)) <= table.limiter.error_buffer


def wait_until(condition, what):
    deadline = time.monotonic() + LIMIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.02)


class Gate:
    """Lets environments make so many steps in each process, and all others once it has been opened."""

    def __init__(self, path: pathlib.Path, num_steps: int):
        self._path, self._num_steps = path, num_steps

    def open(self):
        self._path.touch()

    def make_environment(self, seed):
        return GatedEnvironment(seed, self)

    def wait(self, num_steps):
        if num_steps > self._num_steps:
            self._waiting(os.getpid()).touch()
            while not self._path.exists():
                time.sleep(0.01)

    def wait_for(self, process):
        """Waits until a process is held up."""
        wait_until(self._waiting(process.pid).exists, f"{process} has made {self._num_steps} steps")

    def _waiting(self, pid):
        return self._path.with_name(f"{self._path.name}-waiting-{pid}")


class GatedEnvironment(testing.MemoryEnvironment):
    def __init__(self, seed, gate):
        super().__init__(seed)
        self._gate, self._num_steps = gate, 0

    def step(self, action):
        self._num_steps += 1
        self._gate.wait(self._num_steps)
        return super().step(action)


class Shown(io.StringIO):
    """What `launch` has shown, one line a message."""

    def __init__(self):
        super().__init__()
        self.console = rich.console.Console(file=self, width=1000)

    def wait_for(self, text, count=1):
        wait_until(
            lambda: self.getvalue().count(text) >= count, f"{text!r} was shown {count} times:\n{self.getvalue()}"
        )


def nodes(parent=None):
    """Returns name -> process of the nodes that a process (this one) has launched."""
    found = {}
    for process in psutil.Process(parent).children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            found[process.name()] = process
    return {name: process for name, process in found.items() if "/" in name}


def alive(pids):
    """Returns which processes exist and are not zombies."""
    running = []
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess):
            running += [pid] if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE else []
    return running


def listening(processes):
    """Returns process id -> ports on which processes listen, of whichever interface."""
    ports = {}
    for process in processes:
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                ports.setdefault(process.pid, set()).add(connection.laddr.port)
    return ports


def other_addresses():
    """Returns this machine's addresses that are not those of the loopback interface."""
    return [
        (family, address.address)
        for name, addresses in psutil.net_if_addrs().items()
        for address in addresses
        for family in (address.family,)
        if name != "lo" and family in (socket.AF_INET, socket.AF_INET6) and "%" not in address.address
    ]


@contextlib.contextmanager
def beside(function):
    """Runs a function in a thread beside a program, which is asked to end if the function fails."""
    errors = []

    def run():
        try:
            function()
        except BaseException as error:
            errors.append(error)
            os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    except SystemExit:
        if not errors:
            raise
    thread.join(LIMIT_SECONDS)
    if errors:
        raise errors[0]
    assert not thread.is_alive()
