"""Distributions over actions: categorical, Gaussian, and products of them for actions that are a tree.

A family of distributions is a record of pure functions. A network gives its parameters as one array `[..., P]`:
logits of discrete actions, then means and logarithms of standard deviations of continuous ones, part by part in the
order of the action spec's leaves. The parts are independent given the observation.
"""

from __future__ import annotations

import functools
import math
import operator
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from acme_lite import specs, types


class ActionDistribution(NamedTuple):
    """A family of distributions over actions, with parameters `[..., P]` for any leading axes.

    A sample of a continuous action is a real number without bounds, in coordinates where the spec's bounds are -1 and
    1; `to_action` turns it into the action. Densities and entropies are those of samples. A sample of a discrete action
    is the action.

    Attributes:
        num_params: P.
        is_scale: `[P]` bool, True where a parameter is the logarithm of a standard deviation.
        is_discrete: whether all parts are discrete, so that samples are actions.
        sample: `(params, key) -> sample`, a tree `[..., ...]` of the spec's structure; the key is consumed.
        mode: `(params) -> sample`, the most likely one.
        log_prob: `(params, sample) -> [...]`, the logarithm of its probability or density.
        entropy: `(params) -> [...]`, in nats.
        to_action: `(sample) -> action`, within the spec's bounds and of its dtype.
    """

    num_params: int
    is_scale: np.ndarray
    is_discrete: bool
    sample: Callable[[jax.Array, jax.Array], types.ArrayTree]
    mode: Callable[[jax.Array], types.ArrayTree]
    log_prob: Callable[[jax.Array, types.ArrayTree], jax.Array]
    entropy: Callable[[jax.Array], jax.Array]
    to_action: Callable[[types.ArrayTree], types.ArrayTree]


def make_action_distribution(action_spec: types.SpecTree) -> ActionDistribution:
    """Returns the family of distributions over the actions of a spec tree.

    A `DiscreteArray` and each element of a bounded array of integers get a categorical distribution, arrays of floats
    a Gaussian with a diagonal covariance.

    Raises:
        ValueError: a leaf is an array of integers without bounds or has no element, or there is no leaf.
    """
    leaves, structure = jax.tree.flatten(action_spec)
    if not leaves:
        raise ValueError(f"The action spec must have at least one array, got {specs.describe(action_spec)}.")
    parts = [_of_leaf(leaf) for leaf in leaves]
    return parts[0] if jax.tree_util.treedef_is_leaf(structure) else product(parts, structure)


def agents_for(action_spec: types.SpecTree) -> str:
    """Returns a sentence that says which agents take such actions, for messages of those that do not."""
    try:
        distribution = make_action_distribution(action_spec)
    except (TypeError, ValueError):
        return "No agent takes such actions."
    if distribution.is_discrete:
        names = "dqn, r2d2, ppo or impala" if isinstance(action_spec, specs.DiscreteArray) else "ppo or impala"
    elif isinstance(action_spec, specs.BoundedArray) and np.isfinite(action_spec.minimum + action_spec.maximum).all():
        names = "d4pg, mpo, sac, td3 or ppo"
    else:
        names = "ppo"
    return f"For such actions use {names}."


def categorical(num_values: int, *, first: int = 0, dtype: np.dtype | type = np.int32) -> ActionDistribution:
    """Returns the categorical distribution over `first, ..., first + num_values - 1`; parameters are logits.

    Logits of `mask_illegal` give illegal values the probability 0.
    """

    def sample(params: Float[Array, "... A"], key: jax.Array) -> jax.Array:
        return jax.random.categorical(key, params).astype(dtype) + first

    def mode(params: Float[Array, "... A"]) -> jax.Array:
        return jnp.argmax(params, axis=-1).astype(dtype) + first

    def log_prob(params: Float[Array, "... A"], value: jax.Array) -> jax.Array:
        # A value that there is not, in padding, gets the finite number 0; indexing would give NaN.
        return jnp.sum(jax.nn.one_hot(value - first, num_values) * jax.nn.log_softmax(params), axis=-1)

    def entropy(params: Float[Array, "... A"]) -> jax.Array:
        log_probs = jax.nn.log_softmax(params)
        return -jnp.sum(jnp.exp(log_probs) * log_probs, axis=-1)

    return ActionDistribution(
        num_values, np.zeros(num_values, bool), True, sample, mode, log_prob, entropy, lambda value: value
    )


def diagonal_gaussian(spec: specs.Array) -> ActionDistribution:
    """Returns the Gaussian with independent elements; parameters are D means, then D logarithms of the deviations.

    Where an element has both bounds, -1 and 1 stand for them in the sample's coordinates; otherwise the sample's unit
    is the action's. `to_action` clips.
    """
    size = math.prod(spec.shape)
    dtype = jax.dtypes.canonicalize_dtype(spec.dtype)
    minimum, maximum, centre, scale = _bounds(spec, dtype)

    def split(params: Float[Array, "... P"]) -> tuple[jax.Array, jax.Array]:
        return params[..., :size], params[..., size:]

    def shaped(flat: Float[Array, "... D"]) -> jax.Array:
        return jnp.reshape(flat, (*flat.shape[:-1], *spec.shape))

    def sample(params: Float[Array, "... P"], key: jax.Array) -> jax.Array:
        mean, log_std = split(params)
        return shaped(mean + jnp.exp(log_std) * jax.random.normal(key, mean.shape))

    def mode(params: Float[Array, "... P"]) -> jax.Array:
        return shaped(split(params)[0])

    def log_prob(params: Float[Array, "... P"], value: jax.Array) -> jax.Array:
        mean, log_std = split(params)
        standardized = (jnp.reshape(value, mean.shape) - mean) * jnp.exp(-log_std)
        return -jnp.sum(0.5 * jnp.square(standardized) + log_std + 0.5 * math.log(2 * math.pi), axis=-1)

    def entropy(params: Float[Array, "... P"]) -> jax.Array:
        return jnp.sum(split(params)[1] + 0.5 * math.log(2 * math.pi * math.e), axis=-1)

    def to_action(value: jax.Array) -> jax.Array:
        return jnp.clip((centre + scale * value).astype(dtype), minimum, maximum)

    is_scale = np.arange(2 * size) >= size
    return ActionDistribution(2 * size, is_scale, False, sample, mode, log_prob, entropy, to_action)


def product(parts: Sequence[ActionDistribution], structure: jax.tree_util.PyTreeDef) -> ActionDistribution:
    """Returns the distribution of a tree whose leaves are independent.

    Args:
        parts: the leaves' distributions, at least one.
        structure: of the tree.
    """
    ends = np.cumsum([part.num_params for part in parts])[:-1].tolist()

    def split(params: Float[Array, "... P"]) -> list[jax.Array]:
        return jnp.split(params, ends, axis=-1)

    def sample(params: Float[Array, "... P"], key: jax.Array) -> types.ArrayTree:
        keys = jax.random.split(key, len(parts))
        samples = [part.sample(*arguments) for part, *arguments in zip(parts, split(params), keys, strict=True)]
        return jax.tree.unflatten(structure, samples)

    def mode(params: Float[Array, "... P"]) -> types.ArrayTree:
        return jax.tree.unflatten(structure, [part.mode(own) for part, own in zip(parts, split(params), strict=True)])

    def log_prob(params: Float[Array, "... P"], value: types.ArrayTree) -> jax.Array:
        leaves = structure.flatten_up_to(value)
        log_probs = [part.log_prob(own, leaf) for part, own, leaf in zip(parts, split(params), leaves, strict=True)]
        return functools.reduce(operator.add, log_probs)

    def entropy(params: Float[Array, "... P"]) -> jax.Array:
        entropies = [part.entropy(own) for part, own in zip(parts, split(params), strict=True)]
        return functools.reduce(operator.add, entropies)

    def to_action(value: types.ArrayTree) -> types.ArrayTree:
        leaves = structure.flatten_up_to(value)
        return jax.tree.unflatten(structure, [part.to_action(leaf) for part, leaf in zip(parts, leaves, strict=True)])

    is_scale = np.concatenate([part.is_scale for part in parts])
    is_discrete = all(part.is_discrete for part in parts)
    return ActionDistribution(len(is_scale), is_scale, is_discrete, sample, mode, log_prob, entropy, to_action)


def _of_leaf(spec: specs.Array) -> ActionDistribution:
    if not math.prod(spec.shape):
        raise ValueError(f"An action must have at least one number, got {specs.describe(spec)}.")
    dtype = jax.dtypes.canonicalize_dtype(spec.dtype)
    if isinstance(spec, specs.DiscreteArray):
        return categorical(spec.num_values, dtype=dtype)
    if np.issubdtype(spec.dtype, np.floating):
        return diagonal_gaussian(spec)
    if not (isinstance(spec, specs.BoundedArray) and np.issubdtype(spec.dtype, np.integer)):
        raise ValueError(f"An action must be of floats, or of integers with bounds, got {specs.describe(spec)}.")
    first = np.broadcast_to(spec.minimum, spec.shape).ravel().tolist()
    last = np.broadcast_to(spec.maximum, spec.shape).ravel().tolist()
    elements = [categorical(high - low + 1, first=low, dtype=dtype) for low, high in zip(first, last, strict=True)]
    return _of_elements(elements, spec.shape)


def _of_elements(elements: Sequence[ActionDistribution], shape: tuple[int, ...]) -> ActionDistribution:
    """Returns the distribution of an array `[..., *shape]` whose elements have distributions of their own."""
    listed = product(elements, jax.tree.structure([0] * len(elements)))

    def stack(values: list[jax.Array]) -> jax.Array:
        return jnp.reshape(jnp.stack(values, axis=-1), (*values[0].shape, *shape))

    def log_prob(params: Float[Array, "... P"], value: jax.Array) -> jax.Array:
        flat = jnp.reshape(value, (*params.shape[:-1], len(elements)))
        return listed.log_prob(params, [flat[..., index] for index in range(len(elements))])

    return listed._replace(
        sample=lambda params, key: stack(listed.sample(params, key)),
        mode=lambda params: stack(listed.mode(params)),
        log_prob=log_prob,
        to_action=lambda value: value,
    )


def _bounds(spec: specs.Array, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Returns an array's least and greatest values, and centre and scale of the coordinates of samples."""
    low, high = specs.inward_bounds(spec, dtype)
    greatest = np.finfo(dtype).max
    bounded = (low > -greatest) & (high < greatest)
    # In 64 bits: 32 do not hold the difference of their greatest numbers.
    first, last = (np.where(bounded, bound, one).astype(np.float64) for bound, one in ((low, -1), (high, 1)))
    minimum, maximum, first, last = (np.broadcast_to(bound, spec.shape) for bound in (low, high, first, last))
    return minimum, maximum, ((first + last) / 2).astype(np.float32), ((last - first) / 2).astype(np.float32)
