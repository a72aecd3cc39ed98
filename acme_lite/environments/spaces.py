"""Gymnasium spaces as `dm_env` specs, and observations and actions from one to the other.

Everything has 32 bits on the side of the specs. `Box`, `Discrete`, `MultiDiscrete`, `MultiBinary`, and `Dict` and
`Tuple` of these are known, nested at will.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable
from typing import Any

import gymnasium
import numpy as np
from dm_env import specs as dm_specs
from gymnasium import spaces

from acme_lite import specs, types
from acme_lite.environments import wrappers


def make_observation_spec(space: gymnasium.Space) -> types.SpecTree:
    """Returns the spec tree of a space of observations.

    A `Discrete` space becomes a `DiscreteArray`, which counts from 0 whatever the space's start; the others keep their
    bounds, and a `Box` without any is an `Array`.

    Raises:
        ValueError: there is no spec for such a space.
    """
    return _make_spec(space, "observation", wrappers.to_single_spec)


def make_action_spec(space: gymnasium.Space) -> types.SpecTree:
    """Returns the spec tree of a space of actions, as above, whose actions are in the space when they have 64 bits.

    Raises:
        ValueError: there is no spec for such a space.
    """
    return _make_spec(space, "action", wrappers.to_single_action_spec)


def _make_spec(
    space: gymnasium.Space, name: str, to_single: Callable[[dm_specs.Array], dm_specs.Array]
) -> types.SpecTree:
    if isinstance(space, spaces.Dict):
        return {key: _make_spec(part, f"{name}/{key}", to_single) for key, part in space.spaces.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(_make_spec(part, f"{name}/{index}", to_single) for index, part in enumerate(space.spaces))
    if isinstance(space, spaces.Discrete):
        return dm_specs.DiscreteArray(int(space.n), np.int32, name)
    minimum, maximum = _bounds(space, name)
    if np.isinf(minimum).all() and np.isinf(maximum).all():
        return to_single(dm_specs.Array(space.shape, space.dtype, name))
    return to_single(dm_specs.BoundedArray(space.shape, space.dtype, minimum, maximum, name))


def make_decoder(space: gymnasium.Space, *, copy: bool = False) -> Callable[[Any], types.ArrayTree]:
    """Returns the function from an observation in the space, or a batch of them `[N, ...]`, to one in its spec.

    Args:
        space: a space that there is a spec for.
        copy: whether the arrays must be new ones.
    """
    if isinstance(space, spaces.Dict):
        parts = {key: make_decoder(part, copy=copy) for key, part in space.spaces.items()}
        return lambda value: {key: part(value[key]) for key, part in parts.items()}
    if isinstance(space, spaces.Tuple):
        elements = tuple(make_decoder(part, copy=copy) for part in space.spaces)
        return lambda value: tuple(part(element) for part, element in zip(elements, value, strict=True))
    if isinstance(space, spaces.Discrete):
        start = space.start
        return lambda value: np.asarray(value - start, np.int32)
    dtype = make_observation_spec(space).dtype
    if dtype.kind in "iub":
        low, high = specs.whole_range(dtype)
        minimum, maximum = _bounds(space, "observation")
        fits = bool(np.all(minimum >= low) and np.all(maximum <= high))
        return functools.partial(_whole_numbers, dtype=dtype, checked=space.dtype if fits else None, copy=copy)
    if copy:
        return lambda value: np.array(value, dtype)
    return lambda value: np.asarray(value, dtype)


def _whole_numbers(value: Any, *, dtype: np.dtype, checked: np.dtype | None, copy: bool) -> np.ndarray:
    """Returns whole numbers of a dtype; arrays of the dtype `checked` are within its range."""
    array = np.asarray(value)
    if array.dtype not in (checked, dtype):
        if specs.would_round(array, dtype):
            raise ValueError(
                f"An observation must have whole numbers, since its space is of {dtype}, got {array.dtype}."
            )
        low, high = specs.whole_range(dtype)
        if array.size and not (array.min() >= low and array.max() <= high):
            raise ValueError(
                f"An observation of {dtype} must have numbers in [{low}, {high}], got {array.min()} to {array.max()}."
            )
    return array.astype(dtype, copy=copy)


def make_encoder(space: gymnasium.Space, *, batched: bool = False) -> Callable[[types.ArrayTree], Any]:
    """Returns the function from an action in a space's spec to one in the space.

    Args:
        space: a space that there is a spec for.
        batched: whether actions are `[N, ...]`; otherwise a discrete one becomes a NumPy scalar of the space's dtype,
            as the space itself samples them. (Gymnasium takes longer to check a Python integer.)
    """
    if isinstance(space, spaces.Dict):
        parts = {key: make_encoder(part, batched=batched) for key, part in space.spaces.items()}
        return lambda value: {key: part(value[key]) for key, part in parts.items()}
    if isinstance(space, spaces.Tuple):
        elements = tuple(make_encoder(part, batched=batched) for part in space.spaces)
        return lambda value: tuple(part(element) for part, element in zip(elements, value, strict=True))
    if isinstance(space, spaces.Discrete):
        return _discrete_encoder(space, batched)
    dtype = space.dtype
    if batched:
        return lambda value: np.array(value, dtype)  # environments may change it in place
    return lambda value: np.asarray(value, dtype)


def _discrete_encoder(space: spaces.Discrete, batched: bool) -> Callable[[Any], Any]:
    start = space.start
    if batched:
        dtype = space.dtype
        return (lambda value: np.asarray(value, dtype) + start) if start else (lambda value: np.array(value, dtype))
    to_scalar = space.dtype.type
    if start == 0:
        return lambda value: to_scalar(operator.index(value))  # a float has no index, and is refused
    return lambda value: to_scalar(operator.index(value)) + start


def _bounds(space: gymnasium.Space, name: str) -> tuple[Any, Any]:
    if isinstance(space, spaces.Box):
        return space.low, space.high
    if isinstance(space, spaces.MultiDiscrete):
        return space.start, space.start + space.nvec - 1
    if isinstance(space, spaces.MultiBinary):
        return 0, 1
    raise ValueError(
        f"The {name} space must be Box, Discrete, MultiDiscrete, MultiBinary, or Dict or Tuple of these, got {space}."
    )
