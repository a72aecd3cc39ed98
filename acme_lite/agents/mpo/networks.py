"""Networks of MPO: a Gaussian policy and a critic of values or of their distributions."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from acme_lite import networks, specs
from acme_lite.networks import policy_gaussian, return_models

AGENT = "MPO"


def make_networks(
    spec: specs.EnvironmentSpec,
    returns: return_models.ReturnModel,
    *,
    policy_hidden_sizes: Sequence[int] = (256, 256, 256),
    critic_hidden_sizes: Sequence[int] = (512, 512, 256),
    initial_std: float = 0.7,
    torso: networks.Torso | None = None,
) -> networks.ActorCriticNetworks:
    """Returns a policy, to a `DiagonalGaussian` `[B, D]`, and a critic, to outputs of the return model.

    Both are perceptrons whose first layer is normalised; the critic's takes observation and action together.

    Args:
        spec: of the environment.
        returns: how the critic models returns.
        policy_hidden_sizes: layers of the policy.
        critic_hidden_sizes: layers of the critic.
        initial_std: standard deviation of the first policy, where the bounds of actions are -1 and 1.
        torso: from an observation to features `[B, D]`, one each for policy and critic; observations with images need
            it, and all others are concatenated without it.

    Raises:
        ValueError: actions are not one bounded array of floats, or there is an image and no torso for it.
    """

    def policy(features: jax.Array, size: int) -> policy_gaussian.DiagonalGaussian:
        features = networks.layer_norm_mlp(features, policy_hidden_sizes)
        return policy_gaussian.gaussian_head(features, size, initial_std=initial_std)

    def critic(features: jax.Array, action: jax.Array) -> jax.Array:
        # Samples of the policy have no bounds; what the environment gets of them has.
        inputs = jnp.concatenate([features, jnp.clip(action, -1, 1)], axis=-1)
        return returns.head(networks.layer_norm_mlp(inputs, critic_hidden_sizes))

    return networks.actor_critic_from_haiku(spec, policy, critic, torso=torso, agent=AGENT)
