"""Networks of DQN: action values `[B, A]`."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from acme_lite import networks, specs, types


def check_action_spec(spec: specs.EnvironmentSpec) -> specs.DiscreteArray:
    """Returns the action spec if DQN can act by it.

    Raises:
        ValueError: the actions are not one choice among finitely many.
    """
    if not isinstance(spec.action, specs.DiscreteArray):
        raise ValueError(
            f"DQN needs one discrete action (a DiscreteArray spec), got {spec.action}. For continuous actions use an "
            "agent for continuous control, or put a wrapper around the environment that offers a choice of them."
        )
    return spec.action


def make_networks(
    spec: specs.EnvironmentSpec, *, hidden_sizes: Sequence[int] = (64, 64), duelling: bool = False
) -> networks.FeedForwardNetwork:
    """Returns a network from observations to action values `[B, A]`.

    Images (`networks.is_image`) get the convolutional torso of Mnih et al. (2015); all else is
    concatenated and goes through a multi-layer perceptron with tanh.
    """
    num_actions = check_action_spec(spec).num_values
    # With ReLU and biases that begin at zero, values grow in proportion to the observation, and bootstrapping along an
    # episode whose observations grow diverges: on CartPole-v1 to 1e7 with seeds that tanh solves.
    observation_spec, _ = networks.split_action_mask(spec.observation)
    torso = networks.default_torso(observation_spec, hidden_sizes, jnp.tanh)

    def action_values(observation: types.ArrayTree) -> jax.Array:
        features = torso(networks.split_action_mask(observation)[0])
        return networks.action_values(features, num_actions, duelling=duelling)

    return networks.from_haiku(action_values, spec.observation)
