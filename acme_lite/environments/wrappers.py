"""Wrappers of single `dm_env` environments.

Observations may be any tree of dictionaries, tuples and arrays. Everything that a wrapper does not change, `reseed`
included, is that of the wrapped environment.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs as dm_specs

from acme_lite import specs, types

_SINGLE = {
    np.dtype(np.float64): np.dtype(np.float32),
    np.dtype(np.int64): np.dtype(np.int32),
    np.dtype(np.uint64): np.dtype(np.uint32),
}


class Wrapper(dm_env.Environment):
    """Passes specs, `close` and unknown attributes through; subclasses implement `reset` and `step`.

    Attributes:
        environment: the wrapped environment.
        specs: the specs of this environment.
        settings: name -> value, what tells it from others of its class; a part of what a run follows from.
    """

    def __init__(
        self,
        environment: dm_env.Environment,
        *,
        observation_spec: types.SpecTree = None,
        action_spec: types.SpecTree = None,
        reward_spec: dm_specs.Array | None = None,
        discount_spec: dm_specs.BoundedArray | None = None,
    ):
        """Stores the environment and the specs that differ from its own (None: they do not)."""
        self.environment = environment
        self.settings: dict[str, Any] = {}
        self.specs = specs.EnvironmentSpec(
            observation=environment.observation_spec() if observation_spec is None else observation_spec,
            action=environment.action_spec() if action_spec is None else action_spec,
            reward=environment.reward_spec() if reward_spec is None else reward_spec,
            discount=environment.discount_spec() if discount_spec is None else discount_spec,
        )

    def observation_spec(self) -> types.SpecTree:
        return self.specs.observation

    def action_spec(self) -> types.SpecTree:
        return self.specs.action

    def reward_spec(self) -> dm_specs.Array:
        return self.specs.reward

    def discount_spec(self) -> dm_specs.BoundedArray:
        return self.specs.discount

    def close(self) -> None:
        self.environment.close()

    def __getattr__(self, name: str) -> Any:
        # Without `environment` itself, copying and unpickling would recurse for ever.
        if name.startswith("_") or name == "environment":
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.environment, name)


class SinglePrecision(Wrapper):
    """Gives observations, rewards and discounts of 32 bits instead of 64; actions are converted back."""

    def __init__(self, environment: dm_env.Environment):
        super().__init__(
            environment,
            observation_spec=jax.tree.map(to_single_spec, environment.observation_spec()),
            action_spec=jax.tree.map(to_single_action_spec, environment.action_spec()),
            reward_spec=to_single_spec(environment.reward_spec()),
            discount_spec=to_single_spec(environment.discount_spec()),
        )
        self._action_dtypes = jax.tree.map(lambda leaf: leaf.dtype, environment.action_spec())
        is_long = any(map(_is_long, jax.tree.leaves(environment.observation_spec())))
        self._convert_leaf = _to_single_checked if is_long else _to_single

    def reset(self) -> dm_env.TimeStep:
        return self._convert(self.environment.reset())

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        return self._convert(self.environment.step(jax.tree.map(_as_dtype, self._action_dtypes, action)))

    def _convert(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
        return dm_env.TimeStep(
            step_type=timestep.step_type,
            reward=jax.tree.map(_to_single, timestep.reward),
            discount=jax.tree.map(_to_single, timestep.discount),
            observation=jax.tree.map(self._convert_leaf, timestep.observation),
        )


class CanonicalActions(Wrapper):
    """Scales bounded float actions linearly from [-1, 1] to the environment's bounds; other actions pass.

    Args:
        environment: its float actions have finite bounds, which may differ per dimension.
        clip: actions beyond [-1, 1] are clipped.

    Raises:
        ValueError: a float action has no finite bounds.
    """

    def __init__(self, environment: dm_env.Environment, *, clip: bool = True):
        self._inner_spec = environment.action_spec()
        self._clip = clip
        super().__init__(environment, action_spec=jax.tree.map(_canonical_spec, self._inner_spec))
        self.settings = {"clip": clip}

    def reset(self) -> dm_env.TimeStep:
        return self.environment.reset()

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        scaled = jax.tree.map(lambda spec, leaf: _scale(spec, leaf, self._clip), self._inner_spec, action)
        return self.environment.step(scaled)


class ActionRepeat(Wrapper):
    """Takes each action several times, or until the episode ends; sums the rewards and multiplies the discounts.

    Args:
        environment: the environment; its frames must not be stacked yet, since replay stores one frame per step.
        num_repeats: at least 1.

    Raises:
        ValueError: `num_repeats` is less than 1, or an observation is a stack of frames.
    """

    def __init__(self, environment: dm_env.Environment, num_repeats: int):
        super().__init__(environment)
        self._num_repeats = _positive("ActionRepeat.num_repeats", num_repeats)
        self.settings = {"num_repeats": num_repeats}
        if num_repeats > 1 and any(
            isinstance(leaf, specs.FrameStack) for leaf in jax.tree.leaves(self.observation_spec())
        ):
            raise ValueError("ActionRepeat must stand inside FrameStack, got an environment whose frames are stacked.")

    def reset(self) -> dm_env.TimeStep:
        return self.environment.reset()

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        timestep = self.environment.step(action)
        if timestep.first():
            return timestep
        reward, discount = timestep.reward, timestep.discount
        for _ in range(self._num_repeats - 1):
            if timestep.last():
                break
            timestep = self.environment.step(action)
            reward, discount = reward + timestep.reward, discount * timestep.discount
        return timestep._replace(reward=reward, discount=discount)


class FrameStack(Wrapper):
    """Gives the last frames of every leaf of the observation, `[num_frames, ...]`, newest last.

    An episode's first frame fills the whole stack. Every step returns new arrays.

    Args:
        environment: the environment.
        num_frames: at least 1.

    Raises:
        ValueError: `num_frames` is less than 1, or an observation is one of so many values (a `DiscreteArray`): of a
            stack of these no network would know that they are no quantities.
    """

    def __init__(self, environment: dm_env.Environment, num_frames: int):
        self._num_frames = _positive("FrameStack.num_frames", num_frames)
        for leaf in jax.tree.leaves(environment.observation_spec()):
            if isinstance(leaf, dm_specs.DiscreteArray):
                raise ValueError(
                    "FrameStack.environment must have no DiscreteArray in its observations, got "
                    f"{specs.describe(leaf)}. FlattenObservation inside of it makes them one-hot."
                )
        spec = jax.tree.map(lambda leaf: _stacked_spec(leaf, num_frames), environment.observation_spec())
        super().__init__(environment, observation_spec=spec)
        self.settings = {"num_frames": num_frames}
        self._stacks: types.ArrayTree = None

    def reset(self) -> dm_env.TimeStep:
        return self._stack(self.environment.reset())

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        return self._stack(self.environment.step(action))

    def _stack(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
        if timestep.first():
            self._stacks = jax.tree.map(lambda frame: np.stack([frame] * self._num_frames), timestep.observation)
        else:
            self._stacks = jax.tree.map(_push, self._stacks, timestep.observation)
        return timestep._replace(observation=self._stacks)


class StepLimit(Wrapper):
    """Truncates episodes: the last step allowed is `LAST` and keeps its discount.

    Args:
        environment: the environment.
        max_steps: most steps of an episode, at least 1; its first observation is not counted.
    """

    def __init__(self, environment: dm_env.Environment, max_steps: int):
        super().__init__(environment)
        self._max_steps = _positive("StepLimit.max_steps", max_steps)
        self.settings = {"max_steps": max_steps}
        self._num_steps = 0

    def reset(self) -> dm_env.TimeStep:
        self._num_steps = 0
        return self.environment.reset()

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        if self._num_steps >= self._max_steps:
            return self.reset()
        timestep = self.environment.step(action)
        if timestep.first():
            self._num_steps = 0
            return timestep
        self._num_steps += 1
        if self._num_steps >= self._max_steps:
            return timestep._replace(step_type=dm_env.StepType.LAST)
        return timestep


class FlattenObservation(Wrapper):
    """Gives every leaf of the observation as a vector: a `DiscreteArray` one-hot, another scalar as one element."""

    def __init__(self, environment: dm_env.Environment):
        super().__init__(environment, observation_spec=jax.tree.map(_flat_spec, environment.observation_spec()))
        self._structure: Any = jax.tree.structure(environment.observation_spec())
        self._inner_specs = jax.tree.leaves(environment.observation_spec())

    def reset(self) -> dm_env.TimeStep:
        return self._flatten(self.environment.reset())

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        return self._flatten(self.environment.step(action))

    def _flatten(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
        leaves: Any = self._structure.flatten_up_to(timestep.observation)
        flat = [_flat(spec, leaf) for spec, leaf in zip(self._inner_specs, leaves, strict=True)]
        return timestep._replace(observation=self._structure.unflatten(flat))


class ConcatenateObservations(Wrapper):
    """Gives the leaves of the observation as one float32 vector, a `DiscreteArray` one-hot.

    Dictionaries are walked in the order of their sorted keys (also where they are ordered themselves), tuples from
    first to last; arrays in row-major order.

    Args:
        environment: the environment.
        names: keys of the observation, a dictionary, that are kept; all unless given. Their order does not matter.

    Raises:
        ValueError: a name is unknown, or there are names and the observation is no dictionary.
    """

    def __init__(self, environment: dm_env.Environment, names: Sequence[str] | None = None):
        spec = environment.observation_spec()
        if names is not None:
            allowed = sorted(spec) if isinstance(spec, Mapping) else []
            if not names or isinstance(names, str) or not set(names) <= set(allowed):
                raise ValueError(
                    f"ConcatenateObservations.names must be some keys of the observation, {allowed}, got {names!r}."
                )
        self._names = names
        self._inner_specs = self._leaves(spec)
        bounds = [_flat_bounds(leaf) for leaf in self._inner_specs]
        super().__init__(
            environment,
            observation_spec=_array_or_bounded(
                np.concatenate([minimum for minimum, _ in bounds]),
                np.concatenate([maximum for _, maximum in bounds]),
                np.dtype(np.float32),
                "observation",
            ),
        )
        self.settings = {"names": names}

    def reset(self) -> dm_env.TimeStep:
        return self._concatenate(self.environment.reset())

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        return self._concatenate(self.environment.step(action))

    def _leaves(self, tree: types.ArrayTree) -> list[Any]:
        return _sorted_leaves(tree if self._names is None else {name: tree[name] for name in self._names})

    def _concatenate(self, timestep: dm_env.TimeStep) -> dm_env.TimeStep:
        leaves = zip(self._inner_specs, self._leaves(timestep.observation), strict=True)
        flat = [_flat(spec, leaf).astype(np.float32, copy=False) for spec, leaf in leaves]
        return timestep._replace(observation=np.concatenate(flat))


def to_single_spec(spec: dm_specs.Array) -> dm_specs.Array:
    """Returns the spec with 32 bits instead of 64; bounds that 32 bits cannot hold become the nearest that they can."""
    dtype: Any = _SINGLE.get(spec.dtype)
    if dtype is None:
        return spec
    if isinstance(spec, dm_specs.BoundedArray) and not isinstance(spec, dm_specs.DiscreteArray):
        limits: Any = np.iinfo(dtype) if np.issubdtype(dtype, np.integer) else np.finfo(dtype)
        minimum, maximum = (_narrow(bound, limits, dtype) for bound in (spec.minimum, spec.maximum))
        return spec.replace(dtype=dtype, minimum=minimum, maximum=maximum)
    return spec.replace(dtype=dtype)


def to_single_action_spec(spec: dm_specs.Array) -> dm_specs.Array:
    """Returns the spec with 32 bits instead of 64, whose actions are within the bounds when they have 64 again.

    Bounds of floats are rounded to the inside (those of observations are not: they are rounded as observations are).
    """
    if spec.dtype == np.float64 and isinstance(spec, dm_specs.BoundedArray):
        dtype = np.dtype(np.float32)
        minimum, maximum = specs.inward_bounds(spec, dtype)
        return spec.replace(dtype=dtype, minimum=minimum, maximum=maximum)
    return to_single_spec(spec)


def _narrow(bound: np.ndarray, limits: Any, dtype: np.dtype) -> np.ndarray:
    narrow = np.clip(bound, limits.min, limits.max).astype(dtype)
    return np.where(np.isinf(bound), bound, narrow).astype(dtype)


def _to_single(leaf: Any) -> np.ndarray:
    array = np.asarray(leaf)
    return array.astype(_SINGLE.get(array.dtype, array.dtype), copy=False)


def _is_long(spec: dm_specs.Array) -> bool:
    """Returns whether a spec allows whole numbers that 32 bits cannot hold."""
    if spec.dtype not in (np.int64, np.uint64) or isinstance(spec, dm_specs.DiscreteArray):
        return False
    low, high = specs.whole_range(_SINGLE[spec.dtype])
    minimum, maximum = _bounds(spec)
    return bool(np.any(minimum < low) or np.any(maximum > high))


def _to_single_checked(leaf: Any) -> np.ndarray:
    array, single = np.asarray(leaf), _to_single(leaf)
    if array.dtype in (np.int64, np.uint64) and (array != single).any():
        raise ValueError(f"An observation must have numbers that 32 bits can hold, got {array.min()} to {array.max()}.")
    return single


def _as_dtype(dtype: np.dtype, action: Any) -> np.ndarray:
    return np.asarray(action, dtype)


def _canonical_spec(spec: dm_specs.Array) -> dm_specs.Array:
    if not np.issubdtype(spec.dtype, np.floating):
        return spec
    if not (
        isinstance(spec, dm_specs.BoundedArray) and np.isfinite(spec.minimum).all() and np.isfinite(spec.maximum).all()
    ):
        raise ValueError(
            f"CanonicalActions.environment must have float actions with finite bounds, got {specs.describe(spec)}."
        )
    return spec.replace(minimum=-1.0, maximum=1.0)


def _scale(spec: dm_specs.Array, action: Any, clip: bool) -> Any:
    if not np.issubdtype(spec.dtype, np.floating):
        return action
    middle, half = (spec.maximum + spec.minimum) / 2, (spec.maximum - spec.minimum) / 2
    scaled = np.asarray(middle + half * np.asarray(action, spec.dtype), spec.dtype)
    return np.clip(scaled, spec.minimum, spec.maximum) if clip else scaled


def _positive(name: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < 1:
        raise ValueError(f"{name} must be an integer of at least 1, got {value!r}.")
    return int(value)


def _bounds(spec: dm_specs.Array) -> tuple[Any, Any]:
    if isinstance(spec, dm_specs.BoundedArray):
        return spec.minimum, spec.maximum
    if np.issubdtype(spec.dtype, np.floating):
        return -np.inf, np.inf
    if np.issubdtype(spec.dtype, np.integer):
        return np.iinfo(spec.dtype).min, np.iinfo(spec.dtype).max
    if spec.dtype == np.bool_:
        return False, True
    raise ValueError(f"environment must have numbers as observations, got {specs.describe(spec)}.")


def _stacked_spec(spec: dm_specs.Array, num_frames: int) -> specs.FrameStack:
    minimum, maximum = _bounds(spec)
    return specs.FrameStack((num_frames, *spec.shape), spec.dtype, minimum, maximum, spec.name)


def _push(stack: np.ndarray, frame: Any) -> np.ndarray:
    pushed = np.empty_like(stack)
    pushed[:-1] = stack[1:]
    pushed[-1] = frame
    return pushed


def _flat_bounds(spec: dm_specs.Array) -> tuple[np.ndarray, np.ndarray]:
    if isinstance(spec, dm_specs.DiscreteArray):
        return np.zeros(spec.num_values, spec.dtype), np.ones(spec.num_values, spec.dtype)
    minimum, maximum = (np.broadcast_to(bound, spec.shape).reshape(-1) for bound in _bounds(spec))
    return minimum, maximum


def _array_or_bounded(minimum: np.ndarray, maximum: np.ndarray, dtype: np.dtype, name: str | None) -> dm_specs.Array:
    if np.isinf(minimum).all() and np.isinf(maximum).all():
        return dm_specs.Array(minimum.shape, dtype, name)
    return dm_specs.BoundedArray(minimum.shape, dtype, minimum, maximum, name)


def _flat_spec(spec: dm_specs.Array) -> dm_specs.Array:
    return _array_or_bounded(*_flat_bounds(spec), spec.dtype, spec.name)


def _flat(spec: dm_specs.Array, leaf: Any) -> np.ndarray:
    if not isinstance(spec, dm_specs.DiscreteArray):
        return np.reshape(leaf, -1)
    if not 0 <= leaf < spec.num_values:
        raise ValueError(
            f"An observation must be in [0, {spec.num_values}), as its spec {specs.describe(spec)} says, got {leaf}."
        )
    one_hot = np.zeros(spec.num_values, spec.dtype)
    one_hot[leaf] = 1
    return one_hot


def _sorted_leaves(tree: types.ArrayTree) -> list[Any]:
    if isinstance(tree, Mapping):
        return [leaf for key in sorted(tree) for leaf in _sorted_leaves(tree[key])]
    if isinstance(tree, (list, tuple)):
        return [leaf for part in tree for leaf in _sorted_leaves(part)]
    return [tree]
