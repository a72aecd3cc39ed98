"""Networks of TD3: a deterministic policy and two critics."""

from __future__ import annotations

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp

from acme_lite import networks, specs, types


def make_networks(
    spec: specs.EnvironmentSpec, *, hidden_sizes: Sequence[int] = (256, 256), torso: networks.Torso | None = None
) -> networks.ActorCriticNetworks:
    """Returns a policy that gives actions `[B, D]` in [-1, 1], and a critic that gives two values `[2, B]`.

    Policy and critics are perceptrons with ReLU (Fujimoto et al., 2018, appendix C) over all leaves of the observation,
    put together.

    Args:
        spec: of the environment.
        hidden_sizes: layers of each perceptron.
        torso: from an observation to features `[B, D]`, of which policy and critics have one each; images need one.

    Raises:
        ValueError: actions are not continuous within finite bounds, or images have no torso.
    """
    size = networks.make_action_scaling(spec.action, agent="TD3").size
    encode = networks.observation_encoder(spec.observation, torso, agent="TD3")

    def policy(observation: types.ArrayTree) -> jax.Array:
        features = hk.nets.MLP(hidden_sizes, activate_final=True)(encode(observation))
        return networks.deterministic_head(features, size)

    def value(observation: types.ArrayTree, action: jax.Array) -> jax.Array:
        features = jnp.concatenate([encode(observation), action], axis=-1)
        return hk.nets.MLP((*hidden_sizes, 1))(features)[..., 0]

    critic = networks.critic_from_haiku(value, spec.observation, size)
    return networks.ActorCriticNetworks(
        networks.from_haiku(policy, spec.observation), networks.critic_ensemble(critic, 2)
    )
