"""What an environment's observations, actions, rewards and discounts look like.

Specs are those of `dm_env`, always of one member of a vector environment (no `[N]` axis).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from dm_env import specs as dm_specs

from acme_lite import types

Array = dm_specs.Array
BoundedArray = dm_specs.BoundedArray
DiscreteArray = dm_specs.DiscreteArray


class FrameStack(dm_specs.BoundedArray):
    """Spec of the last frames seen, `[stack, ...]`, newest last.

    At an episode's start the first frame fills the whole stack; each later step drops the oldest frame and adds one.
    An observation declared so is stored frame by frame and stacked again when it is sampled.
    """

    def __reduce__(self):
        return FrameStack, (self.shape, self.dtype, self.minimum, self.maximum, self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FrameStack) and super().__eq__(other)

    __hash__ = None  # type: ignore[assignment]  # as dm_env's own specs


class EnvironmentSpec(NamedTuple):
    """The specs of one member of an environment.

    Attributes:
        observation: spec tree.
        action: spec tree.
        reward: spec of the reward, usually a float scalar.
        discount: spec of the discount, in [0, 1].
    """

    observation: types.SpecTree
    action: types.SpecTree
    reward: dm_specs.Array
    discount: dm_specs.BoundedArray


def make_environment_spec(environment) -> EnvironmentSpec:
    """Returns the specs of an environment (a `dm_env.Environment` or a `VectorEnvironment`)."""
    return EnvironmentSpec(
        observation=environment.observation_spec(),
        action=environment.action_spec(),
        reward=environment.reward_spec(),
        discount=environment.discount_spec(),
    )


def inward_bounds(spec: dm_specs.Array, dtype: np.dtype) -> tuple[np.ndarray, np.ndarray]:
    """Returns the least and the greatest number of a dtype within the bounds of floats: infinite where there are none.

    The nearest one may be beyond: float32(0.3) is greater than 0.3. Where none is within the bounds, both are the
    nearest ones.
    """
    lowest, highest = getattr(spec, "minimum", -np.inf), getattr(spec, "maximum", np.inf)
    minimum, maximum = np.asarray(lowest, np.float64), np.asarray(highest, np.float64)
    with np.errstate(over="ignore"):  # what becomes infinite is beyond, too
        low, high = minimum.astype(dtype), maximum.astype(dtype)
    inner_low = np.where(low < minimum, np.nextafter(low, dtype.type(np.inf)), low)
    inner_high = np.where(high > maximum, np.nextafter(high, dtype.type(-np.inf)), high)
    some = inner_low <= inner_high
    return np.where(some, inner_low, low), np.where(some, inner_high, high)


def would_round(value: Any, dtype: np.dtype) -> bool:
    """Returns whether casting an array `[...]` to a dtype would make whole numbers of floats."""
    return dtype.kind in "iub" and np.asarray(value).dtype.kind in "fc"


def misfit(value: Any, spec: dm_specs.Array) -> str | None:
    """Returns in which way an array would not be what its spec says, also after a cast to its dtype; None if it would.

    Bounds are those of the dtype and of a `DiscreteArray`; floats may be beyond theirs.
    """
    array = np.asarray(value)
    if array.shape != spec.shape:
        return f"of shape {array.shape}"
    if array.dtype != spec.dtype and (array.dtype.kind not in "biuf" or would_round(array, spec.dtype)):
        return f"of {array.dtype}" if array.shape else f"{value!r} of {array.dtype}"
    if spec.dtype.kind not in "iub" or not array.size:
        return None
    low, high = whole_range(spec.dtype)
    if isinstance(spec, DiscreteArray):
        low, high = 0, spec.num_values - 1
    least, most = int(array.min()), int(array.max())
    return None if low <= least and most <= high else f"with numbers from {least} to {most}"


def describe(spec: types.SpecTree) -> str:
    """Returns a spec tree in a few words, for messages: of each array its path, kind, name, dtype and shape.

    Bounds are said where they are the same for all elements. A spec's own text has those of each.
    """
    import jax

    leaves = jax.tree_util.tree_leaves_with_path(spec)
    described = [f"{jax.tree_util.keystr(path)} {_describe_array(leaf)}".strip() for path, leaf in leaves]
    return ", ".join(described) or repr(spec)


def _describe_array(spec: Any) -> str:
    if not isinstance(spec, dm_specs.Array):
        return repr(spec)
    name = f" {spec.name!r}" if spec.name else ""
    text = f"{type(spec).__name__}{name} {spec.dtype}{list(spec.shape)}"
    if isinstance(spec, DiscreteArray):
        return f"{text} of {spec.num_values} values"
    if not isinstance(spec, BoundedArray):
        return text
    bounds = [np.unique(bound) for bound in (spec.minimum, spec.maximum)]
    if any(bound.size != 1 for bound in bounds):
        return f"{text} with bounds for each element"
    return f"{text} in [{bounds[0][0]!s}, {bounds[1][0]!s}]"


def whole_range(dtype: np.dtype) -> tuple[int, int]:
    """Returns the least and the greatest whole number of a dtype of integers or bool."""
    if dtype.kind == "b":
        return 0, 1
    limits = np.iinfo(dtype)
    return int(limits.min), int(limits.max)


def zeros(spec: types.SpecTree, batch_shape: tuple[int, ...] = ()) -> types.ArrayTree:
    """Returns a tree of zeros `[*batch_shape, ...]` with the shapes and dtypes of a spec tree."""
    return tree_map_specs(lambda leaf: np.zeros((*batch_shape, *leaf.shape), leaf.dtype), spec)


def tree_map_specs(function, spec: types.SpecTree) -> types.ArrayTree:
    """Maps a function over the leaves of a spec tree (specs are leaves: JAX treats any unknown object as one)."""
    import jax

    return jax.tree.map(function, spec)
