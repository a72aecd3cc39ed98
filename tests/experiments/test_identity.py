"""What tells environments apart, and what does not."""

from __future__ import annotations

import json
import types

import gymnasium
import numpy as np
import pytest

from acme_lite import environments, experiments, testing
from acme_lite.agents import dqn
from acme_lite.experiments import identity, run_directory


def cartpole(**kwargs):
    return environments.make("gym:CartPole-v1", **kwargs)


def describe(environment):
    return identity.describe_environment(environments.SyncVectorEnvironment([environment]))


def differences(one, other):
    return {line.split(":")[0] for line in run_directory.differences(describe(one), describe(other))}


class Scaled(gymnasium.Wrapper):
    pass


@pytest.mark.parametrize(
    ("one", "other", "fields"),
    [
        (lambda: cartpole(seed=1), lambda: cartpole(seed=2), set()),
        (cartpole, lambda: environments.StepLimit(cartpole(), 5), {"layers"}),
        (
            lambda: environments.StepLimit(cartpole(), 5),
            lambda: environments.StepLimit(cartpole(), 6),
            {"layers"},
        ),
        (
            lambda: environments.CanonicalActions(cartpole()),
            lambda: environments.CanonicalActions(cartpole(), clip=False),
            {"layers"},
        ),
        (cartpole, lambda: cartpole(sutton_barto_reward=True), {"layers"}),
        (
            lambda: environments.GymnasiumEnvironment(gymnasium.make("CartPole-v1")),
            lambda: environments.GymnasiumEnvironment(Scaled(gymnasium.make("CartPole-v1"))),
            {"layers"},
        ),
        (
            testing.MemoryEnvironment,
            lambda: environments.FlattenObservation(testing.MemoryEnvironment()),
            {"layers"},
        ),
        (cartpole, lambda: environments.FrameStack(cartpole(), 2), {"layers", "specs.observation.class"}),
    ],
)
def test_environments_are_told_apart(one, other, fields):
    assert fields <= differences(one(), other())
    assert fields or not differences(one(), other())


def test_suite_and_settings_are_part_of_an_environment_that_was_made_by_name():
    pytest.importorskip("dm_control")
    described = describe(environments.make("dm_control:cartpole:swingup", seed=3, task_kwargs={"time_limit": 5}))
    assert described["name"] == "cartpole:swingup"
    assert described["layers"][0] == {
        "class": "acme_lite.environments.wrappers.SinglePrecision",
        "settings": {"name": "dm_control:cartpole:swingup", "task_kwargs": {"time_limit": 5}},
    }
    assert described["layers"][-1]["class"] == "dm_control.rl.control.Environment"


def test_an_environment_whose_parts_refer_back_to_it_is_described():
    environment = testing.MemoryEnvironment()
    environment.env = types.SimpleNamespace(environment=environment)
    layers = describe(environment)["layers"]
    assert [layer["class"].rpartition(".")[-1] for layer in layers] == ["MemoryEnvironment", "SimpleNamespace"]


def test_a_description_is_short_and_of_json():
    class Images(gymnasium.Env):
        observation_space = gymnasium.spaces.Box(0, 255, (84, 84), np.uint8)
        action_space = gymnasium.spaces.Box(np.float32([-1, -2]), np.float32([1, np.inf]))

    described = describe(environments.GymnasiumEnvironment(Images()))
    assert json.loads(json.dumps(described, allow_nan=False)) == described
    assert described["specs"]["observation"] == {
        "class": "dm_env.specs.BoundedArray",
        "shape": [84, 84],
        "dtype": "uint8",
        "minimum": 0,
        "maximum": 255,
    }
    assert described["specs"]["action"]["maximum"] == [1.0, "inf"]


def test_the_directory_is_named_after_agent_task_and_seed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    config = dqn.DQNConfig(min_replay_size=20, batch_size=4)
    names = []
    for limit in (5, 6):
        experiment = experiments.ExperimentConfig(
            builder=dqn.DQNBuilder(config),
            environment_factory=lambda seed, limit=limit: environments.StepLimit(cartpole(seed=seed), limit),
            max_num_actor_steps=4,
            evaluation=None,
        )
        names.append(experiments.run_experiment(experiment, quiet=True).directory.name)
    assert all(name.startswith("dqn-CartPole-v1-seed0-") for name in names)
    assert len({name.split("-")[-1] for name in names}) == 2
