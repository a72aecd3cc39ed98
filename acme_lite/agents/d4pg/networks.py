"""Networks of D4PG: a policy of actions in [-1, 1] and a critic of values or of their distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from acme_lite import networks, specs, types
from acme_lite.networks import return_models

if TYPE_CHECKING:
    from acme_lite.agents.d4pg.builder import D4PGConfig

AGENT = "D4PG"


def return_model(config: D4PGConfig) -> return_models.ReturnModel:
    """Returns how the config's critic models returns."""
    if config.critic == "scalar":
        return return_models.scalar_returns()
    return return_models.categorical_returns(config.v_min, config.v_max, config.num_atoms)


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
    action_size = networks.make_action_scaling(spec.action, agent=AGENT).size
    encode = networks.observation_encoder(spec.observation, torso, agent=AGENT)

    def policy(observation: types.ArrayTree) -> jax.Array:
        features = networks.layer_norm_mlp(encode(observation), policy_hidden_sizes)
        return networks.deterministic_head(features, action_size)

    def critic(observation: types.ArrayTree, action: jax.Array) -> jax.Array:
        inputs = jnp.concatenate([encode(observation), action], axis=-1)
        return returns.head(networks.layer_norm_mlp(inputs, critic_hidden_sizes))

    return networks.ActorCriticNetworks(
        networks.from_haiku(policy, spec.observation),
        networks.critic_from_haiku(critic, spec.observation, action_size),
    )
