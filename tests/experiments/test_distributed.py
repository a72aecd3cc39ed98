"""Experiments as programs of real processes, and what happens when these die."""

from __future__ import annotations

import csv
import json
import os
import re
import subprocess
import sys
import time

import numpy as np
import pytest

from acme_lite import _runtime

_runtime.load_python_library()
pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite import experiments, launching, testing  # noqa: E402  # after the check for Launchpad
from acme_lite.agents import dqn  # noqa: E402
from tests.agents.test_contract import AGENTS  # noqa: E402
from tests.experiments import programs  # noqa: E402

SLOW_AGENTS = ("impala_lstm_overlap", "mpo_dmpo_overlap", "sac_normalized_two_steps_per_call", "td3")


def launch(program, tmp_path, **policies):
    launching.launch(program, log_directory=tmp_path / "logs", policies=policies)
    return json.loads((tmp_path / "run" / "result.json").read_text())


@pytest.mark.parametrize("replay_in_learner", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_two_actors_make_exactly_all_steps_and_leave_what_a_run_leaves(tmp_path, replay_in_learner):
    result = launch(programs.make(tmp_path, replay_in_learner=replay_in_learner), tmp_path)
    programs.check_ratio(result["counts"])
    assert result["counts"]["actor_steps"] == 400
    # One batch of 16 per 4 steps from step 50 on: 87, within the limiter's error buffer and the batches drawn ahead.
    assert 70 <= result["counts"]["learner_steps"] <= 100
    assert result["evaluations"][-1]["actor_steps"] == 400
    assert len(result["evaluations"][-1]["returns"]) == 2
    policy = experiments.load_policy(tmp_path / "run")
    assert policy(testing.MemoryEnvironment(0).reset().observation) in (0, 1)
    for name in ("actor_0", "actor_1", "time_split_0", "time_split_1", "learner", "evaluator"):
        assert (tmp_path / "run" / "logs" / f"{name}.csv").exists()
    assert (tmp_path / "run" / "learning_curve.png").exists()


@pytest.mark.parametrize("place", ["run", pytest.param("run/logs", marks=pytest.mark.slow)])
def test_a_launchers_logs_may_lie_in_the_directory_of_the_run(tmp_path, place):
    program = programs.make(tmp_path, num_actors=1, max_num_actor_steps=100, evaluation=None)
    launching.launch(program, log_directory=tmp_path / place)
    assert json.loads((tmp_path / "run" / "result.json").read_text())["counts"]["actor_steps"] == 100
    assert (tmp_path / place / "learner-0.log").exists()


@pytest.mark.parametrize(
    "agent", ["ppo", "r2d2", "d4pg_overlap", *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW_AGENTS)]
)
def test_other_agents_with_several_environments_in_each_actor(tmp_path, agent):
    builder, environment_factory = AGENTS[agent]
    program = programs.make(
        tmp_path,
        builder=builder,
        environment_factory=environment_factory,
        num_envs=3,
        evaluation=None,
    )
    counts = launch(program, tmp_path)["counts"]
    assert 400 <= counts["actor_steps"] <= 400 + 2 * (3 - 1)
    assert counts["learner_steps"] >= 10
    with np.load(tmp_path / "run" / "variables.npz") as variables:
        assert all(np.isfinite(variables[name]).all() for name in variables)


SCRIPT = """
import pathlib, sys
from acme_lite import experiments, launching
from tests.experiments import programs

if __name__ == "__main__":
    folder = pathlib.Path(sys.argv[1])
    program = programs.make(
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
    # So many that the run is not over when its first checkpoint, of step 300, has been written.
    command = [sys.executable, str(script), str(tmp_path), "6000"]
    environment = os.environ | {"PYTHONPATH": str(programs.ROOT)}
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + programs.LIMIT_SECONDS
    while not list((tmp_path / "run" / "checkpoints").glob("checkpoint-*")):
        assert first.poll() is None and time.monotonic() < deadline
        time.sleep(0.02)
    nodes = [process.pid for process in programs.nodes(first.pid).values()]
    first.kill()
    first.wait()
    programs.wait_until(lambda: not programs.alive(nodes), "all nodes have ended")
    again = subprocess.run(
        command, env=environment, capture_output=True, text=True, timeout=programs.LIMIT_SECONDS, check=True
    )
    assert "goes on from" in again.stdout
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert result["counts"]["actor_steps"] == 6_000
    for name in ("actor_0", "actor_1", "time_split_0", "learner"):
        with (tmp_path / "run" / "logs" / f"{name}.csv").open() as file:
            steps = [int(row["actor_steps"]) for row in csv.DictReader(file)]
        assert steps
        assert steps == sorted(steps)  # what came after the checkpoint stands there once
    assert not (tmp_path / "run" / "checkpoints").exists() and not (tmp_path / "run" / "reverb").exists()


def test_a_node_that_is_away_is_waited_for_as_long_as_a_limiter(tmp_path):
    groups = programs.make(tmp_path, replay_in_learner=False).groups
    waits = {label: node.call_options.timeout_seconds for label, group in groups.items() for node in group}
    assert waits == dict.fromkeys(("counter", "replay", "learner", "actor", "evaluator"), 86_400.0)


@pytest.mark.parametrize(
    ("name", "allowed", "values"),
    [
        ("num_actors", "a whole number of at least 1", (0, 2.5, "2", True, None)),
        (
            "variable_update_period_seconds",
            "a finite number of at least 0",
            (-1, "1", True, float("nan"), float("inf")),
        ),
        ("replay_in_learner", "True or False", ("no", 1, None)),
    ],
)
def test_bad_arguments(name, allowed, values):
    experiment = experiments.ExperimentConfig(dqn.DQNBuilder(programs.DQN), testing.MemoryEnvironment)
    for value in values:
        with pytest.raises(ValueError, match=re.escape(f"{name} must be {allowed}, got {value!r}.")):
            experiments.make_distributed_experiment(experiment, **{name: value})


@pytest.mark.parametrize("set_before", [None, "true"])
def test_making_a_program_leaves_the_memory_of_a_gpu_to_the_learner(tmp_path, monkeypatch, set_before):
    name, seen = "XLA_PYTHON_CLIENT_PREALLOCATE", []
    monkeypatch.delenv(name, raising=False)
    if set_before is not None:
        monkeypatch.setenv(name, set_before)

    def make_networks(spec):
        seen.append(os.environ[name])
        return dqn.make_networks(spec, hidden_sizes=(8,))

    programs.make(tmp_path, network_factory=make_networks)
    assert seen == [set_before or "false"]
    assert os.environ.get(name) == set_before
