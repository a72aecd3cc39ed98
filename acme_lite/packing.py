"""The small arrays of a state as one: each array that a compiled call takes or gives costs a microsecond."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

LARGEST_PACKED = 4_096
"""Numbers of the largest array that is packed: to copy them takes about as long as to pass one more array on.

Runs of DQN with 64-64 units, whose largest array has so many, are as fast with 500 and 20,000, as far as can be told.
"""


class Packed(NamedTuple):
    """A tree whose small arrays are packed.

    Attributes:
        arrays: what `Packing.pack` gives.
        packing: how they are packed.
    """

    arrays: list[jax.Array]
    packing: Packing


class Packing:
    """Packs the small arrays of trees that are alike into one array for each of their dtypes.

    Args:
        tree: of arrays, or of what JAX makes arrays of.
        name: what the tree is, for messages.
        weak: whether numbers whose type is weak, as that of Python's own, are packed. They are not weak any more then,
            and what is computed of them and of 16 bits has 32.
    """

    def __init__(self, tree: Any, name: str, *, weak: bool = True):
        self._name = name
        leaves, self._structure = _arrays(tree)
        self._types = [jax.typeof(leaf) for leaf in leaves]
        groups: dict[Any, list[int]] = {}
        for index, leaf in enumerate(leaves):
            # PRNG keys are no numbers.
            is_number = not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
            if leaf.size <= LARGEST_PACKED and is_number and (weak or not self._types[index].weak_type):
                groups.setdefault(leaf.dtype, []).append(index)
        self._groups = [group for group in groups.values() if len(group) > 1]
        packed = {index for group in self._groups for index in group}
        self._others = [index for index in range(len(leaves)) if index not in packed]

    def pack(self, tree: Any) -> list[jax.Array]:
        """Returns the packed arrays, each `[size]`, and then the others.

        Raises:
            ValueError: the tree has another structure, or an array another shape or dtype.
        """
        leaves, structure = _arrays(tree)
        if structure != self._structure:
            raise ValueError(f"{self._name} must keep its structure, {self._structure}, got {structure}.")
        for index, (leaf, first) in enumerate(zip(leaves, self._types, strict=True)):
            if (leaf.shape, leaf.dtype) != (first.shape, first.dtype):
                path, _ = jax.tree.leaves_with_path(tree)[index]
                raise ValueError(
                    f"{self._name}{jax.tree_util.keystr(path)} must keep its shape and dtype, {first.shape} and "
                    f"{first.dtype}, got {leaf.shape} and {leaf.dtype}."
                )
        packed = [jnp.concatenate([jnp.ravel(leaves[index]) for index in group]) for group in self._groups]
        return packed + [leaves[index] for index in self._others]

    def unpack(self, arrays: list[Any]) -> Any:
        """Returns the tree that `pack` was given; of NumPy arrays, a tree of views of them."""
        leaves: list[Any] = [None] * len(self._types)
        num_packed = len(self._groups)
        for array, group in zip(arrays[:num_packed], self._groups, strict=True):
            start = 0
            for index in group:
                shape = self._types[index].shape
                end = start + math.prod(shape)
                leaves[index] = array[start:end].reshape(shape)
                start = end
        for array, index in zip(arrays[num_packed:], self._others, strict=True):
            leaves[index] = array
        return jax.tree.unflatten(self._structure, leaves)


def packed_variable(source: Any, name: str) -> Packed | None:
    """Returns a variable packed, in less time than `source.get_variables` takes; the same object until it changes.

    None where the source cannot give that. Its class is asked: what a wrapper hands on from within may not be what it
    serves.
    """
    get = getattr(type(source), "packed_variable", None)
    return None if get is None else get(source, name)


def _arrays(tree: Any) -> tuple[list[jax.Array], Any]:
    leaves, structure = jax.tree.flatten(tree)
    return [jnp.asarray(leaf) for leaf in leaves], structure
