"""Networks of DQN: action values `[B, A]`, or their distributions `[B, A, N]`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from acme_lite import networks, specs, types

if TYPE_CHECKING:
    from acme_lite.agents.dqn.builder import DQNConfig


def make_networks(
    spec: specs.EnvironmentSpec,
    *,
    hidden_sizes: Sequence[int] = (64, 64),
    duelling: bool = False,
    num_atoms: int | None = None,
) -> networks.FeedForwardNetwork:
    """Returns a network from observations to action values `[B, A]`, or to their distributions `[B, A, N]`.

    Images (`networks.is_image`) get the convolutional torso of Mnih et al. (2015); all else is concatenated, with their
    features where there are both, and goes through a multi-layer perceptron with tanh.

    Args:
        spec: of the environment.
        hidden_sizes: layers of the perceptron.
        duelling: whether values and advantages have layers of their own.
        num_atoms: N, logits or quantiles of a distribution; None for plain values.
    """
    num_actions = networks.check_discrete(spec, agent="DQN").num_values
    # With ReLU and biases that begin at zero, values grow in proportion to the observation, and bootstrapping along an
    # episode whose observations grow diverges: on CartPole-v1 to 1e7 with seeds that tanh solves.
    observation_spec, _ = networks.split_action_mask(spec.observation)
    torso = networks.default_torso(observation_spec, hidden_sizes, networks.tanh)

    def action_values(observation: types.ArrayTree) -> jax.Array:
        features = torso(networks.split_action_mask(observation)[0])
        return networks.action_values(features, num_actions, num_atoms=num_atoms, duelling=duelling)

    return networks.from_haiku(action_values, spec.observation)


def atoms(config: DQNConfig) -> Float[Array, " N"]:
    """Returns the returns `[N]` that a categorical distribution gives probabilities to, evenly spaced."""
    return jnp.linspace(config.v_min, config.v_max, config.num_atoms)


def mean_values(output: jax.Array, config: DQNConfig) -> Float[Array, "B A"]:
    """Returns the action values `[B, A]` of a network's output.

    Args:
        output: values `[B, A]`, or logits or quantiles `[B, A, N]`.
        config: gives `distribution`, `num_atoms`, `v_min` and `v_max`.

    Raises:
        ValueError: the output's shape is not that of the distribution.
    """
    trailing = () if config.distribution is None else (config.num_atoms,)
    if output.ndim != 2 + len(trailing) or output.shape[2:] != trailing:
        raise ValueError(
            f"With DQNConfig.distribution={config.distribution!r} a network's output must be of shape "
            f"{('batch', 'actions', *trailing)}, got {output.shape}."
        )
    if config.distribution is None:
        return output
    if config.distribution == "categorical":
        return networks.categorical_mean(output, atoms(config))
    return jnp.mean(output, axis=-1)
