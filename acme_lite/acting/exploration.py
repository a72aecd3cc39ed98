"""Exploration with discrete actions."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from acme_lite.networks import legal_actions


def epsilon_greedy(
    key: jax.Array, values: jax.Array, epsilon: jax.Array | float, *, action_mask: jax.Array | None = None
) -> jax.Array:
    """Returns int32 actions `[B]`: with probability ε a random legal one, else the legal one of the greatest value.

    Args:
        key: PRNG key; consumed.
        values: `[B, A]` action values.
        epsilon: scalar or `[B]` in [0, 1]; the Python number 0 draws nothing.
        action_mask: `[B, A]`, nonzero where an action is legal; None if all are.
    """
    greedy = jnp.argmax(legal_actions.mask_illegal(values, action_mask), axis=-1).astype(jnp.int32)
    if isinstance(epsilon, int | float) and epsilon == 0:
        return greedy
    # One block of uniforms serves both choices: drawing integers costs more than the network.
    uniform = jax.random.uniform(key, (2, *greedy.shape))
    if action_mask is None:
        explored = jnp.floor(uniform[1] * values.shape[-1]).astype(jnp.int32)
    else:
        legal = jnp.cumsum(action_mask != 0, axis=-1)
        chosen = jnp.floor(uniform[1] * legal[..., -1])
        explored = jnp.argmax(legal > chosen[..., None], axis=-1).astype(jnp.int32)
    return jnp.where(uniform[0] < epsilon, explored, greedy)


def epsilon_ladder(base: jax.Array | float, index: jax.Array | int, count: int, *, alpha: float = 7.0) -> jax.Array:
    """Returns base^(1 + alpha index / (count - 1)): explorers of many kinds, from the boldest to the most careful.

    One alone is of the middle kind, base^(1 + alpha / 2).

    Args:
        base: scalar in [0, 1], the greatest probability of a random action.
        index: which of the explorers, in [0, count); any shape.
        count: how many there are, at least 1.
        alpha: at least 0; 0 gives all of them `base`.

    Reference: Horgan et al., Distributed Prioritized Experience Replay (2018), section 4.1.
    """
    place = 0.5 if count == 1 else index / (count - 1)
    return jnp.broadcast_to(jnp.asarray(base) ** (1 + alpha * place), jnp.shape(index))
