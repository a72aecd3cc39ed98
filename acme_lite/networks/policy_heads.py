"""Heads of networks that give a policy and a value: from features `[B, D]` to what an actor-critic agent needs."""

from __future__ import annotations

from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from acme_lite import specs
from acme_lite.networks import distributions, legal_actions


class PolicyValue(NamedTuple):
    """What an actor-critic network gives.

    Attributes:
        policy: `[B, P]` parameters of the distribution over actions.
        value: `[B]` value of the observation, in units of return.
    """

    policy: jax.Array
    value: jax.Array


def policy_parameters(
    features: jax.Array, distribution: distributions.ActionDistribution, *, initial_log_std: float = 0.0
) -> jax.Array:
    """Returns parameters `[B, P]` of the distribution over actions; call it inside a Haiku transform.

    Logits and means are linear in the features, with weights that begin a hundred times smaller than usual, so that the
    first policy depends little on the observation. Logarithms of standard deviations do not depend on the observation.

    Args:
        features: `[B, D]`.
        distribution: the family, with P parameters.
        initial_log_std: logarithm of the standard deviations at the start.

    Reference: Andrychowicz et al., What Matters for On-Policy Deep Actor-Critic Methods? (2021), section 3.2; Schulman
    et al., Trust Region Policy Optimization (2015), appendix D, for the standard deviation.
    """
    num_scales = int(np.count_nonzero(distribution.is_scale))
    small = hk.initializers.VarianceScaling(1e-4)
    linear = hk.Linear(distribution.num_params - num_scales, w_init=small, name="policy")(features)
    if not num_scales:
        return linear
    log_std = hk.get_parameter("log_std", [num_scales], init=hk.initializers.Constant(initial_log_std))
    log_std = jnp.broadcast_to(log_std, (*linear.shape[:-1], num_scales))
    # Put together, linear ones come first; in each part of the distribution they come before its deviations.
    place = np.argsort(np.argsort(distribution.is_scale, kind="stable"))
    return jnp.concatenate([linear, log_std], axis=-1)[..., place]


def state_value(features: jax.Array) -> jax.Array:
    """Returns values `[B]` that are linear in the features `[B, D]`; call it inside a Haiku transform."""
    return hk.Linear(1, name="value")(features)[..., 0]


def mask_illegal_parameters(policy: jax.Array, observation: dict | jax.Array) -> jax.Array:
    """Returns parameters `[..., P]` of a discrete policy with illegal actions made impossible.

    Args:
        policy: `[..., P]` logits.
        observation: `[..., ...]` tree; where it is a dict with an action mask `[..., P]`, that is what counts.
    """
    return legal_actions.mask_illegal(policy, legal_actions.split_action_mask(observation)[1])


def check_action_mask(observation_spec: dict | object, distribution: distributions.ActionDistribution) -> None:
    """Checks that the action mask that observations hold, if any, fits the distribution over actions.

    Raises:
        ValueError: some actions are continuous, or the mask has not one element per logit.
    """
    _, mask = legal_actions.split_action_mask(observation_spec)
    if mask is not None and not (distribution.is_discrete and mask.shape == (distribution.num_params,)):
        raise ValueError(
            f"An observation's {legal_actions.ACTION_MASK!r} needs actions that are all discrete and must hold one "
            f"element for each of their values, {distribution.num_params} in all, got {specs.describe(mask)}."
        )
