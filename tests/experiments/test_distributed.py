"""Experiments as programs of real processes, and what happens when these die."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from acme_lite import _runtime

_runtime.load_python_library()
pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite import experiments, launching, loggers, testing  # noqa: E402  # after the check for Launchpad
from acme_lite.agents import dqn, impala  # noqa: E402

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


def once(marker: pathlib.Path) -> bool:
    """Returns True in the first process that asks, and False in all later ones."""
    try:
        marker.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


class DyingEnvironment(testing.MemoryEnvironment):
    """Kills its process at one step, once."""

    def __init__(self, seed, marker):
        super().__init__(seed)
        self._marker, self._num_steps = marker, 0

    def step(self, action):
        self._num_steps += 1
        if self._num_steps == 70 and once(self._marker):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().step(action)


class FailingEnvironment(testing.MemoryEnvironment):
    """Raises at one step, each time."""

    def step(self, action):
        if getattr(self, "num_steps", 0) == 30:
            raise ArithmeticError("the robot has fallen over")
        self.num_steps = getattr(self, "num_steps", 0) + 1
        return super().step(action)


class DyingLogger(loggers.InMemoryLogger):
    """Kills its process when it is written to, once a checkpoint is there."""

    def __init__(self, marker, checkpoints):
        super().__init__()
        self._marker, self._checkpoints = marker, checkpoints

    def write(self, row):
        if list(self._checkpoints.glob("checkpoint-*")) and once(self._marker):
            os.kill(os.getpid(), signal.SIGKILL)


def make(tmp_path, *, builder=None, environment_factory=testing.MemoryEnvironment, num_actors=2, **settings):
    settings = {"max_num_actor_steps": 400, "evaluation": experiments.EvaluationConfig(200, 2)} | settings
    experiment = experiments.ExperimentConfig(
        builder or dqn.DQNBuilder(DQN), environment_factory, directory=tmp_path / "run", **settings
    )
    return experiments.make_distributed_experiment(experiment, num_actors, variable_update_period_seconds=0.05)


def launch(program, tmp_path, **policies):
    launching.launch(program, log_directory=tmp_path / "logs", policies=policies)
    return json.loads((tmp_path / "run" / "result.json").read_text())


def test_two_actors_make_exactly_all_steps_and_leave_what_a_run_leaves(tmp_path):
    result = launch(make(tmp_path), tmp_path)
    assert result["counts"]["actor_steps"] == 400
    # One batch of 16 per 4 steps from step 50 on: 87, within the limiter's error buffer and the batches drawn ahead.
    assert 70 <= result["counts"]["learner_steps"] <= 100
    assert result["evaluations"][-1]["actor_steps"] == 400
    assert len(result["evaluations"][-1]["returns"]) == 2
    policy = experiments.load_policy(tmp_path / "run")
    assert policy(testing.MemoryEnvironment(0).reset().observation) in (0, 1)
    for name in ("actor_0", "actor_1", "learner", "evaluator"):
        assert (tmp_path / "run" / "logs" / f"{name}.csv").exists()
    assert (tmp_path / "run" / "learning_curve.png").exists()


@pytest.mark.slow
def test_a_queue_with_several_environments(tmp_path):
    config = impala.IMPALAConfig(sequence_length=4, batch_size=4, queue_size=8, core="lstm", core_size=8, overlap=False)
    result = launch(make(tmp_path, builder=impala.IMPALABuilder(config), num_envs=3), tmp_path)
    assert 400 <= result["counts"]["actor_steps"] <= 400 + 2 * (3 - 1)
    assert result["counts"]["learner_steps"] >= 15


def test_an_actor_that_is_killed_comes_back_and_all_steps_are_made(tmp_path):
    marker = tmp_path / "killed"
    result = launch(make(tmp_path, environment_factory=lambda seed: DyingEnvironment(seed, marker)), tmp_path)
    assert marker.exists()
    assert result["counts"]["actor_steps"] == 400


@pytest.mark.slow
def test_a_learner_that_is_killed_goes_on_from_its_checkpoint(tmp_path):
    marker, folder = tmp_path / "killed", tmp_path / "run" / "checkpoints"

    def make_logger(label):
        return DyingLogger(marker, folder) if label == "learner" else loggers.InMemoryLogger()

    program = make(
        tmp_path,
        max_num_actor_steps=3_000,
        logger_factory=make_logger,
        checkpointing=experiments.CheckpointConfig(every_steps=200),
        evaluation=None,
    )
    result = launch(program, tmp_path, learner=launching.NodePolicy(max_restarts=1, ends_program=True))
    assert marker.exists()
    assert result["counts"]["actor_steps"] == 3_000


@pytest.mark.slow
def test_an_environment_that_raises_ends_the_program_with_its_traceback(tmp_path):
    with pytest.raises(launching.NodeFailedError, match="the robot has fallen over"):
        launch(
            make(tmp_path, environment_factory=FailingEnvironment, num_actors=1),
            tmp_path,
            actor=launching.NodePolicy(max_restarts=1, stop_stage=0),
        )


SCRIPT = """
import pathlib, sys
from acme_lite import experiments, launching
from tests.experiments import test_distributed as tests

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    program = tests.make(
        folder,
        max_num_actor_steps=int(sys.argv[2]),
        checkpointing=experiments.CheckpointConfig(every_steps=300),
        evaluation=None,
    )
    launching.launch(program)
"""


def test_a_program_that_is_killed_as_a_whole_goes_on(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), str(tmp_path), "20000"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + LIMIT_SECONDS
    while not list((tmp_path / "run" / "checkpoints").glob("checkpoint-*")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    first.kill()
    first.wait()
    again = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=True)
    assert "goes on from" in again.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["counts"]["actor_steps"] == 20_000


def test_bad_arguments(tmp_path):
    with pytest.raises(ValueError, match="num_actors must be at least 1, got 0"):
        make(tmp_path, num_actors=0)
    with pytest.raises(ValueError, match="variable_update_period_seconds"):
        experiments.make_distributed_experiment(
            experiments.ExperimentConfig(dqn.DQNBuilder(DQN), testing.MemoryEnvironment),
            variable_update_period_seconds=-1,
        )
