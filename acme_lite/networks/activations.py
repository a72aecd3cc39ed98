"""Activations that the newer CPU runtime of JAX 0.6 vectorises, as that of JAX 0.7.2 does of itself.

A loop that writes its result over its argument is compiled without vector instructions there: tanh of `[128, 64]` takes
14 microseconds in place of 2, and a learner step of D4PG 12.5 milliseconds in place of 11.7. Two halves of a batch that
are put together again are written elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

_IN_HALVES = jax.__version_info__ < (0, 7)


def _vectorized(
    name: str, function: Callable[[jax.Array], jax.Array], slope: Callable[[jax.Array], jax.Array]
) -> Callable[[jax.Array], jax.Array]:
    """Returns the elementwise function of `[B, ...]`, whose derivative `slope` tells from its value."""

    def values(x: jax.Array) -> jax.Array:
        shape = jnp.shape(x)
        half = shape[0] // 2 if len(shape) > 1 and isinstance(shape[0], int) else 0  # else a symbol, to be exported
        if not (half and _IN_HALVES and jax.default_backend() == "cpu"):
            return function(x)
        return jnp.concatenate([function(x[:half]), function(x[half:])])

    # A run's directory follows from the names of the functions in its config.
    values.__name__ = values.__qualname__ = name
    values.__doc__ = f"{name} of `[B, ...]`, elementwise."
    activation = jax.custom_jvp(values)

    @activation.defjvp
    def derivative(primals, tangents):
        value = activation(*primals)
        return value, slope(value) * tangents[0]

    return activation


tanh = _vectorized("tanh", jnp.tanh, lambda value: (1 - value) * (1 + value))
"""`jnp.tanh` of `[B, ...]`."""

elu = _vectorized("elu", jax.nn.elu, lambda value: jnp.where(value > 0, 1, value + 1))
"""`jax.nn.elu` of `[B, ...]`."""
