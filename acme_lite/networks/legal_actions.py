"""Legal-action masks: which of the discrete actions an observation allows.

An observation that is a dict with the field `"action_mask"` (`[A]`, nonzero where an action is legal, as in PettingZoo
and Gymnasium) says so itself. Networks do not see the field; acting and bootstrapping choose among legal actions only.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from acme_lite import types

ACTION_MASK = "action_mask"


def split_action_mask(observation: types.ArrayTree) -> tuple[types.ArrayTree, jax.Array | None]:
    """Returns an observation (or its spec tree) without its action mask, and the mask; None where it has none.

    Of a dict with one other field, that field is returned.
    """
    if not isinstance(observation, dict):
        return observation, None
    mask = observation.get(ACTION_MASK)
    rest = observation if mask is None else {name: observation[name] for name in observation if name != ACTION_MASK}
    return (next(iter(rest.values())) if len(rest) == 1 else rest), mask


def mask_illegal(values: jax.Array, action_mask: jax.Array | None) -> jax.Array:
    """Returns action values or logits `[..., A]` with the least finite number where an action is illegal.

    Finite, so that a discount of 0 still cuts them off where nothing is legal: at an episode's end and in padding.
    """
    if action_mask is None:
        return values
    return jnp.where(action_mask != 0, values, jnp.finfo(values.dtype).min)
