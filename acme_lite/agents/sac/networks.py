"""Networks of SAC: a squashed Gaussian policy and two critics."""

from __future__ import annotations

from collections.abc import Sequence

import haiku as hk
import jax
import jax.numpy as jnp

from acme_lite import networks, specs


def make_networks(
    spec: specs.EnvironmentSpec, *, hidden_sizes: Sequence[int] = (256, 256), torso: networks.Torso | None = None
) -> networks.ActorCriticNetworks:
    """Returns a policy that gives `networks.SquashedGaussian`, and a critic that gives two values `[2, B]`.

    Policy and critics are perceptrons with ReLU (Haarnoja et al., 2018, appendix D) over all leaves of the observation,
    put together.

    Args:
        spec: of the environment.
        hidden_sizes: layers of each perceptron.
        torso: from an observation to features `[B, D]`, of which policy and critics have one each; images need one.

    Raises:
        ValueError: actions are not continuous within finite bounds, or images have no torso.
    """

    def policy(features: jax.Array, size: int) -> networks.SquashedGaussian:
        return networks.squashed_gaussian_head(hk.nets.MLP(hidden_sizes, activate_final=True)(features), size)

    def critic(features: jax.Array, action: jax.Array) -> jax.Array:
        return hk.nets.MLP((*hidden_sizes, 1))(jnp.concatenate([features, action], axis=-1))[..., 0]

    return networks.actor_critic_from_haiku(spec, policy, critic, torso=torso, num_critics=2, agent="SAC")
