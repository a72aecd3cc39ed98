"""Running mean and variance of observations, and normalisation by them.

The arrays of floats in an observation are normalised, element by element; integers (images among them) and the action
mask are left alone. Statistics are keyed by an array's path in the observation, so whoever has them needs no spec.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from acme_lite import specs, types
from acme_lite.networks import legal_actions

_MIN_VARIANCE = 1e-8
_CLIP = 10.0


class Moments(NamedTuple):
    """Mean and variance of the rows seen so far.

    Attributes:
        num_rows: number of rows, float32 scalar.
        mean: `[...]` of an array's shape, in its units.
        variance: `[...]`, the mean squared distance from the mean; 1 before the first row.
    """

    num_rows: jax.Array
    mean: jax.Array
    variance: jax.Array


Statistics = dict[str, Moments]
"""Moments of an observation's arrays, by their paths."""


def init_moments(shape: tuple[int, ...]) -> Moments:
    """Returns the moments of no rows of this shape: mean 0 and variance 1."""
    return Moments(jnp.float32(0), jnp.zeros(shape), jnp.ones(shape))


def init_statistics(observation_spec: types.SpecTree) -> Statistics:
    """Returns the statistics of no rows, by which normalisation changes nothing (within its clip).

    Raises:
        ValueError: there is nothing to normalise.
    """
    statistics = {
        jax.tree_util.keystr(path): init_moments(leaf.shape)
        for path, leaf in jax.tree_util.tree_leaves_with_path(observation_spec)
        if np.issubdtype(leaf.dtype, np.floating) and not _is_action_mask(path)
    }
    if not statistics:
        raise ValueError(
            f"normalize_observations needs an array of floats to normalise, got {specs.describe(observation_spec)}."
        )
    return statistics


def update_statistics(statistics: Statistics, observation: types.ArrayTree, mask: jax.Array) -> Statistics:
    """Returns the statistics with a batch of rows added.

    Args:
        statistics: so far.
        observation: `[..., ...]` tree.
        mask: `[...]`, False for rows that do not count.
    """
    leaves = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(observation)}
    return {path: add_rows(moments, leaves[path], mask) for path, moments in statistics.items()}


def normalize(statistics: Statistics, observation: types.ArrayTree) -> types.ArrayTree:
    """Returns observations `[..., ...]` with mean 0 and variance 1 as far as the statistics say, within [-10, 10].

    No gradient flows to the statistics.
    """

    def normalize_leaf(path, leaf: jax.Array) -> jax.Array:
        moments = statistics.get(jax.tree_util.keystr(path))
        if moments is None:
            return leaf
        centred = jnp.asarray(leaf, jnp.float32) - moments.mean
        return jnp.clip(centred / standard_deviation(moments), -_CLIP, _CLIP)

    return jax.tree_util.tree_map_with_path(normalize_leaf, observation)


def standard_deviation(moments: Moments) -> jax.Array:
    """Returns the standard deviations `[...]`, at least 1e-4: one may divide by them."""
    return jnp.sqrt(jnp.maximum(moments.variance, _MIN_VARIANCE))


def add_rows(moments: Moments, rows: jax.Array, mask: jax.Array) -> Moments:
    """Returns the moments with a batch of rows added.

    With means m, variances v and counts n of both sides, n = n_1 + n_2 and d = m_2 - m_1:

        mean = m_1 + d n_2 / n
        variance = (n_1 v_1 + n_2 v_2 + d^2 n_1 n_2 / n) / n

    Args:
        moments: so far.
        rows: `[..., ...]`.
        mask: `[...]`, False for rows that do not count.

    Reference: Chan et al., Updating Formulae and a Pairwise Algorithm for Computing Sample Variances (1979).
    """
    axes = tuple(range(mask.ndim))
    mask = jnp.reshape(mask, mask.shape + (1,) * (rows.ndim - mask.ndim))
    num = jnp.sum(mask, dtype=jnp.float32)
    at_least_one = jnp.maximum(num, 1)
    mean = jnp.sum(rows, axes, where=mask, dtype=jnp.float32) / at_least_one
    variance = jnp.sum(jnp.square(rows - mean), axes, where=mask, dtype=jnp.float32) / at_least_one
    num_rows = moments.num_rows + num
    weight = num / jnp.maximum(num_rows, 1)
    difference = mean - moments.mean
    merged = (1 - weight) * moments.variance + weight * variance + (1 - weight) * weight * jnp.square(difference)
    variance = jnp.where(num_rows > 0, merged, moments.variance)
    return Moments(num_rows, moments.mean + weight * difference, variance)


def _is_action_mask(path: tuple) -> bool:
    return len(path) == 1 and getattr(path[0], "key", None) == legal_actions.ACTION_MASK
