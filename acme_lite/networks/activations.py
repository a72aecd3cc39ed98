"""Activations that the newer CPU runtime of JAX 0.6 vectorises, as that of JAX 0.7 does of itself.

A loop that writes its result over its argument is compiled without vector instructions there: tanh of `[128, 64]` takes
14 microseconds in place of 2, and a learner step of D4PG a tenth longer. Two halves of a batch that are put together
again are written elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

_IN_HALVES = jax.__version_info__ < (0, 7)


def _vectorized(
    function: Callable[[jax.Array], jax.Array], slope: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    """Returns the elementwise function of `[B, ...]`, whose derivative `slope` tells from its value."""

    @jax.custom_jvp
    def activation(x: jax.Array) -> jax.Array:
        half = len(x) // 2 if _IN_HALVES and jnp.ndim(x) > 1 and jax.default_backend() == "cpu" else 0
        if not half:
            return function(x)
        return jnp.concatenate([function(x[:half]), function(x[half:])])

    @activation.defjvp
    def derivative(primals, tangents):
        value = activation(*primals)
        return value, slope(value) * tangents[0]

    return activation


tanh = _vectorized(jnp.tanh, lambda value: 1 - jnp.square(value))
"""`jnp.tanh` of `[B, ...]`."""

elu = _vectorized(jax.nn.elu, lambda value: jnp.where(value > 0, 1, value + 1))
"""`jax.nn.elu` of `[B, ...]`."""
