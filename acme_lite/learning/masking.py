"""Statistics over the real steps of a batch."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def masked_mean(values: jax.Array, mask: jax.Array) -> jax.Array:
    """Returns the mean of the values `[...]` where the mask `[...]` is True; 0 where it is nowhere."""
    return jnp.sum(values, where=mask) / jnp.maximum(jnp.sum(mask), 1)
