"""Trains DQN in an environment of one's own: any `gymnasium.Env`.

uv run examples/custom_environment.py
"""

import gymnasium
import numpy as np
import tyro

from acme_lite import environments, experiments
from acme_lite.agents import dqn


class Corridor(gymnasium.Env):
    """A corridor with a prize at its right end: each step costs 0.1, the prize is worth 1 and ends the episode."""

    def __init__(self, length: int = 8):
        self.length = length
        self.observation_space = gymnasium.spaces.Box(0, 1, shape=(length,), dtype=np.float32)
        self.action_space = gymnasium.spaces.Discrete(2)  # left, right

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[np.ndarray, dict]:
        super().reset(seed=seed)
        self.position = int(self.np_random.integers(self.length - 1))
        self.steps = 0
        return self._observation(), {}

    def step(self, action: int) -> tuple[np.ndarray, float, bool, bool, dict]:
        self.position = int(np.clip(self.position + (1 if action else -1), 0, self.length - 1))
        self.steps += 1
        arrived = self.position == self.length - 1
        return self._observation(), 1.0 if arrived else -0.1, arrived, self.steps >= 50, {}

    def _observation(self) -> np.ndarray:
        return np.eye(self.length, dtype=np.float32)[self.position]


def main(steps: int = 5_000, seed: int = 0, directory: str | None = None) -> None:
    """Trains in the corridor.

    Args:
        steps: environment steps.
        seed: seed of everything random.
        directory: where the run's files go; below runs/ unless given.
    """
    experiment = experiments.ExperimentConfig(
        builder=dqn.DQNBuilder(dqn.DQNConfig(min_replay_size=500, target_update_period=100)),
        environment_factory=lambda seed: environments.GymnasiumEnvironment(Corridor()),
        max_num_actor_steps=steps,
        seed=seed,
        directory=directory,
    )
    experiments.run_experiment(experiment)


if __name__ == "__main__":
    tyro.cli(main)
