"""Gaussian policies whose mean and deviation both depend on the observation, without bounds on their samples."""

from __future__ import annotations

import math
from typing import NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_LEAST_STD = 1e-6


class DiagonalGaussian(NamedTuple):
    """Parameters of independent normal distributions.

    Attributes:
        mean: `[..., D]`.
        std: `[..., D]` standard deviations, greater than 0.
    """

    mean: jax.Array
    std: jax.Array


def gaussian_head(features: jax.Array, size: int, *, initial_std: float) -> DiagonalGaussian:
    """Returns parameters `[B, D]`; call it inside a Haiku transform.

    The mean is linear in the features, the deviation softplus of what is, scaled to `initial_std` where that is 0. The
    weights begin a hundred times smaller than usual: the first policy depends little on the observation.
    """
    small = hk.initializers.VarianceScaling(1e-4)
    mean = hk.Linear(size, w_init=small, name="policy_mean")(features)
    std = jax.nn.softplus(hk.Linear(size, w_init=small, name="policy_std")(features))
    return DiagonalGaussian(mean, std * (initial_std / math.log(2)) + _LEAST_STD)


def gaussian_log_prob(params: DiagonalGaussian, value: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
    """Returns the logarithms of the densities `[...]` of values `[..., D]`."""
    standardized = (value - params.mean) / params.std
    return -jnp.sum(0.5 * jnp.square(standardized) + jnp.log(params.std) + 0.5 * math.log(2 * math.pi), axis=-1)


def gaussian_divergence(first: DiagonalGaussian, second: DiagonalGaussian) -> Float[Array, "*batch D"]:
    """Returns KL(first || second) `[..., D]` of each dimension alone, in nats; their sum is that of the whole.

    KL = log(std_2 / std_1) + (std_1^2 + (mean_1 - mean_2)^2) / (2 std_2^2) - 1/2
    """
    squares = jnp.square(first.std) + jnp.square(first.mean - second.mean)
    return jnp.log(second.std / first.std) + squares / (2 * jnp.square(second.std)) - 0.5
