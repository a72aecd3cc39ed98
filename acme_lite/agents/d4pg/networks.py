"""Networks of D4PG: a policy of actions in [-1, 1] and a critic of values or of their distributions."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from acme_lite import networks, specs
from acme_lite.networks import return_models

AGENT = "D4PG"


def make_networks(
    spec: specs.EnvironmentSpec,
    returns: return_models.ReturnModel,
    *,
    policy_hidden_sizes: Sequence[int] = (256, 256, 256),
    critic_hidden_sizes: Sequence[int] = (512, 512, 256),
    torso: networks.Torso | None = None,
) -> networks.ActorCriticNetworks:
    """Returns a policy, to actions `[B, D]` in [-1, 1], and a critic, to outputs of the return model.

    Both are perceptrons whose first layer is normalised; the critic's takes observation and action together.

    Args:
        spec: of the environment.
        returns: how the critic models returns.
        policy_hidden_sizes: layers of the policy.
        critic_hidden_sizes: layers of the critic.
        torso: from an observation to features `[B, D]`, one each for policy and critic; observations with images need
            it, and all others are concatenated without it.

    Raises:
        ValueError: actions are not one bounded array of floats, or there is an image and no torso for it.
    """

    def policy(features: jax.Array, size: int) -> jax.Array:
        return networks.deterministic_head(networks.layer_norm_mlp(features, policy_hidden_sizes), size)

    def critic(features: jax.Array, action: jax.Array) -> jax.Array:
        inputs = jnp.concatenate([features, action], axis=-1)
        return returns.head(networks.layer_norm_mlp(inputs, critic_hidden_sizes))

    return networks.actor_critic_from_haiku(spec, policy, critic, torso=torso, agent=AGENT)
