"""What the examples refuse; that they run is checked by `.ci/run`."""

import pathlib
import subprocess
import sys

import jax.numpy as jnp

from acme_lite import acting, environments, specs
from acme_lite.experiments import policies

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def run(*words):
    command = [sys.executable, str(EXAMPLES / words[0]), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


def test_a_replay_for_one_process_is_refused_where_there_are_actors():
    ended = run("train.py", "dqn", "--env", "gym:CartPole-v1", "--num-actors", "2", "--replay", "local")
    assert ended.returncode == 1
    assert ended.stderr == "--replay is for runs in one process: with --num-actors there is always a Reverb server.\n"


def test_a_policy_in_another_environment_says_which_observations_it_takes(tmp_path):
    core = acting.feed_forward(lambda params, observation, key: jnp.zeros(len(observation), jnp.int32))
    policies.save_policy(tmp_path, core, {}, specs.make_environment_spec(environments.make("gym:CartPole-v1", seed=0)))
    ended = run("evaluate.py", str(tmp_path), "--env", "gym:Acrobot-v1", "--episodes", "1")
    assert ended.stderr.endswith("ValueError: The policy takes observations float32[4], got float32[6].\n")
