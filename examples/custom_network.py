"""Trains DQN with a network of one's own: any Haiku function from observations to action values.

uv run examples/custom_network.py
"""

import haiku as hk
import jax
import tyro

from acme_lite import environments, experiments, networks, specs
from acme_lite.agents import dqn


def make_networks(spec: specs.EnvironmentSpec) -> networks.FeedForwardNetwork:
    """Returns a residual network from observations `[B, ...]` to action values `[B, A]`."""

    def action_values(observation: jax.Array) -> jax.Array:
        hidden = hk.Linear(64)(observation)
        for _ in range(2):
            normalised = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)(hidden)
            hidden += hk.Linear(64)(jax.nn.silu(normalised))
        return hk.Linear(spec.action.num_values)(jax.nn.silu(hidden))

    return networks.from_haiku(action_values, spec.observation)


def main(steps: int = 50_000, seed: int = 0, directory: str | None = None) -> None:
    """Trains on CartPole.

    Args:
        steps: environment steps.
        seed: seed of everything random.
        directory: where the run's files go; below runs/ unless given.
    """
    experiment = experiments.ExperimentConfig(
        builder=dqn.DQNBuilder(),
        environment_factory=lambda seed: environments.make("gym:CartPole-v1", seed=seed),
        network_factory=make_networks,
        max_num_actor_steps=steps,
        seed=seed,
        directory=directory,
    )
    experiments.run_experiment(experiment)


if __name__ == "__main__":
    tyro.cli(main)
