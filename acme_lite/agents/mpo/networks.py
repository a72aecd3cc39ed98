"""Networks of MPO: a Gaussian policy and a critic of values or of their distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from acme_lite import networks, specs, types
from acme_lite.networks import policy_gaussian, return_models

if TYPE_CHECKING:
    from acme_lite.agents.mpo.builder import MPOConfig

AGENT = "MPO"


def return_model(config: MPOConfig) -> return_models.ReturnModel:
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
    action_size = networks.make_action_scaling(spec.action, agent=AGENT).size
    encode = networks.observation_encoder(spec.observation, torso, agent=AGENT)

    def policy(observation: types.ArrayTree) -> policy_gaussian.DiagonalGaussian:
        features = networks.layer_norm_mlp(encode(observation), policy_hidden_sizes)
        return policy_gaussian.gaussian_head(features, action_size, initial_std=initial_std)

    def critic(observation: types.ArrayTree, action: jax.Array) -> jax.Array:
        # Samples of the policy have no bounds; what the environment gets of them has.
        inputs = jnp.concatenate([encode(observation), jnp.clip(action, -1, 1)], axis=-1)
        return returns.head(networks.layer_norm_mlp(inputs, critic_hidden_sizes))

    return networks.ActorCriticNetworks(
        networks.from_haiku(policy, spec.observation),
        networks.critic_from_haiku(critic, spec.observation, action_size),
    )
