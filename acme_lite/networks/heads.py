"""Heads: from features `[B, D]` to what an agent needs."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp


def action_values(features: jax.Array, num_actions: int, *, duelling: bool = False) -> jax.Array:
    """Returns action values `[B, A]` of features `[B, D]`; call it inside a Haiku transform.

    Duelling: q(s, a) = v(s) + advantage(s, a) - mean_a' advantage(s, a').

    Reference: Wang et al., Dueling Network Architectures for Deep Reinforcement Learning (2016), equation 9.
    """
    advantages = hk.Linear(num_actions, name="advantage" if duelling else "value")(features)
    if not duelling:
        return advantages
    value = hk.Linear(1, name="state_value")(features)
    return value + advantages - jnp.mean(advantages, axis=-1, keepdims=True)
