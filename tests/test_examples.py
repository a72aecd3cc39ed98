"""What the examples refuse; that they run is checked by `.ci/run`."""

import pathlib
import subprocess
import sys

import jax.numpy as jnp
import pytest

from acme_lite import acting, environments, specs
from acme_lite.experiments import policies

EXAMPLES = pathlib.Path(__file__).parents[1] / "examples"


def run(*words):
    command = [sys.executable, str(EXAMPLES / words[0]), *words[1:]]
    return subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--num-actors", "2", "--replay", "local"), "--replay is for runs in one process: with --num-actors there is"),
        (("--steps", "0"), "Run.steps must be a whole number of at least 1, got 0."),
        (("--num-envs", "0"), "Run.num_envs must be a whole number of at least 1, got 0."),
        (("--env", "gym:CartPol-v1"), "--env gym:CartPol-v1: There is no"),
        (("--env", "maze:1"), "--env maze:1: name must be '<suite>:<task>' with a suite out of"),
        (("--batch-size", "0"), "DQNConfig.batch_size must be a whole number of at least 1, got 0."),
    ],
)
def test_wrong_values_on_the_command_line_end_in_one_sentence(words, sentence):
    ended = run("train.py", "dqn", "--env", "gym:CartPole-v1", *words)
    assert ended.returncode == 2 and "Traceback" not in ended.stderr and "dummy" not in ended.stderr
    assert sentence in " ".join(ended.stderr.replace("│", " ").split())


def test_a_policy_in_another_environment_says_which_observations_it_takes(tmp_path):
    core = acting.feed_forward(lambda params, observation, key: jnp.zeros(len(observation), jnp.int32))
    policies.save_policy(tmp_path, core, {}, specs.make_environment_spec(environments.make("gym:CartPole-v1", seed=0)))
    ended = run("evaluate.py", str(tmp_path), "--env", "gym:Acrobot-v1", "--episodes", "1")
    assert ended.stderr.endswith("ValueError: The policy takes observations float32[4], got float32[6].\n")
