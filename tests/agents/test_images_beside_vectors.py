"""Agents that learn from an image and a vector together, as a robot has a camera and joints."""

from __future__ import annotations

import dm_env
import jax
import numpy as np
import pytest

from acme_lite import environments, experiments, networks, specs
from acme_lite.agents import dqn, ppo, sac


class CameraAndJoints(dm_env.Environment):
    """Rewards the action 1; episodes of 10 steps. Observations are an image `[40, 40, 3]` and a vector `[5]`."""

    def __init__(self, seed: int = 0):
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def reset(self) -> dm_env.TimeStep:
        self._steps_left = 10
        return dm_env.restart(self._observe())

    def step(self, action) -> dm_env.TimeStep:
        self._steps_left -= 1
        step = dm_env.transition if self._steps_left else dm_env.termination
        return step(np.float32(action == 1), self._observe())

    def _observe(self) -> dict[str, np.ndarray]:
        return {
            "image": self._rng.integers(256, size=(40, 40, 3)).astype(np.uint8),
            "vector": self._rng.normal(size=5),
        }

    def observation_spec(self) -> dict[str, specs.Array]:
        return {"image": specs.BoundedArray((40, 40, 3), np.uint8, 0, 255), "vector": specs.Array((5,), np.float64)}

    def action_spec(self) -> specs.DiscreteArray:
        return specs.DiscreteArray(3)

    def reward_spec(self) -> specs.Array:
        return specs.Array((), np.float32, name="reward")

    def discount_spec(self) -> specs.BoundedArray:
        return specs.BoundedArray((), np.float32, 0, 1, name="discount")


BUILDERS = {
    "dqn": dqn.DQNBuilder(dqn.DQNConfig(batch_size=8, min_replay_size=50, max_replay_size=300, samples_per_insert=2.0)),
    "ppo": ppo.PPOBuilder(ppo.PPOConfig(batch_size=2, unroll_length=16, minibatch_size=16, num_epochs=2)),
}


@pytest.mark.parametrize("agent", BUILDERS)
def test_an_agent_learns_and_acts(agent, tmp_path):
    experiment = experiments.ExperimentConfig(
        builder=BUILDERS[agent],
        environment_factory=CameraAndJoints,
        num_envs=2,
        max_num_actor_steps=300,
        directory=tmp_path / "run",
        evaluation=experiments.EvaluationConfig(every_steps=300, num_episodes=1),
    )
    result = experiments.run_experiment(experiment, quiet=True)
    assert result.finished and result.counts["learner_steps"] > 0
    observation = CameraAndJoints().reset().observation
    observation["vector"] = observation["vector"].astype(np.float32)
    assert experiments.load_policy(result.directory)(observation) in (0, 1, 2)


def test_continuous_control_says_which_torso_takes_both():
    spec = specs.make_environment_spec(environments.SinglePrecision(CameraAndJoints()))
    spec = spec._replace(action=specs.BoundedArray((2,), np.float32, -1, 1))
    with pytest.raises(ValueError, match=r"such as networks\.default_torso\(spec\.observation, \(256,\)\)"):
        sac.SACBuilder().make_networks(spec)
    nets = sac.make_networks(spec, torso=networks.default_torso(spec.observation, (256,)))
    assert any("conv" in name for name in jax.eval_shape(nets.policy.init, jax.random.key(0)))
