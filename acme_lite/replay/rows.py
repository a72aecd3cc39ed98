"""Where steps are stored: each once, in one column per leaf.

A row is one step of one stream. Rows are named by their physical number, the index into every column.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from acme_lite import specs, types
from acme_lite.replay import tables

ZERO_ROW = 0
"""Physical number of the row of zeros with which short sequences are padded."""


def tree_functions(spec: types.SpecTree) -> tuple[Callable[[Any], Any], Callable[[list], Any]]:
    """Returns functions that take a tree like `spec` to its leaves and back, without JAX where the tree is flat."""
    leaves: list[Any]
    treedef: Any
    leaves, treedef = jax.tree.flatten(spec)
    if jax.tree_util.treedef_is_leaf(treedef):
        return lambda tree: (tree,), operator.itemgetter(0)
    if type(spec) is dict and leaves and not any(isinstance(leaf, (dict, list, tuple)) for leaf in spec.values()):
        names = sorted(spec)
        if len(names) == 1:
            (name,) = names
            return lambda tree: (tree[name],), lambda arrays: {name: arrays[0]}
        return operator.itemgetter(*names), lambda arrays: dict(zip(names, arrays, strict=True))
    return treedef.flatten_up_to, treedef.unflatten


def _num_frames(spec: specs.Array) -> int:
    return spec.shape[0] if isinstance(spec, specs.FrameStack) else 0


class Columns:
    """The columns of one spec tree: per leaf an array `[num_rows, ...]`, or of single frames for a stack of frames.

    Args:
        name: what the tree is, for messages.
        spec: spec tree of one row.
        num_rows: rows of each column.
        frames: stack size -> `[num_rows, stack]` physical rows of the frames of each row's stack.
    """

    def __init__(self, name: str, spec: types.SpecTree, num_rows: int, frames: dict[int, np.ndarray]):
        self._name = name
        self._specs = jax.tree.leaves(spec)
        self._stacks = [_num_frames(leaf) for leaf in self._specs]
        self._frames = frames
        self._flatten, self._unflatten = tree_functions(spec)
        self._has_stacks = any(self._stacks)
        self._is_one_array = jax.tree_util.treedef_is_leaf(jax.tree.structure(spec)) and not self._stacks[0]
        self.arrays = [
            np.empty((num_rows, *(leaf.shape[1:] if stack else leaf.shape)), leaf.dtype)
            for leaf, stack in zip(self._specs, self._stacks, strict=True)
        ]
        for array in self.arrays:
            array[ZERO_ROW] = 0

    def check(self, tree: types.ArrayTree, num_streams: int) -> None:
        """Raises ValueError unless `tree` is the spec tree with leaves `[num_streams, ...]`, whole where it is."""
        try:
            leaves = self._flatten(tree)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{self._name} has another structure than its spec {specs.describe(self._specs)}: {error}"
            ) from error
        for leaf, spec in zip(leaves, self._specs, strict=True):
            if np.shape(leaf) != (num_streams, *spec.shape):
                raise ValueError(
                    f"{self._name} must have leaves of shape [{num_streams}, ...] with the shapes of its spec, got "
                    f"{np.shape(leaf)} for {specs.describe(spec)}."
                )
            if specs.would_round(leaf, spec.dtype):
                raise ValueError(
                    f"{self._name} must have whole numbers for {specs.describe(spec)}, got {np.asarray(leaf).dtype}."
                )

    def write(self, index: slice | np.ndarray, tree: types.ArrayTree) -> None:
        """Writes a tree with leaves `[N, ...]` to N rows; of a stack of frames, the newest frame."""
        if self._is_one_array:
            self.arrays[0][index] = tree
        elif self._has_stacks:
            for array, stack, leaf in zip(self.arrays, self._stacks, self._flatten(tree), strict=True):
                array[index] = leaf[:, -1] if stack else leaf
        else:
            for column, leaf in enumerate(self._flatten(tree)):
                self.arrays[column][index] = leaf

    def clear(self, rows: np.ndarray) -> None:
        """Sets rows to zero."""
        for array in self.arrays:
            array[rows] = 0

    def gather(self, rows: np.ndarray) -> types.ArrayTree:
        """Returns new arrays `[*rows.shape, ...]` with the contents of the rows."""
        if self._is_one_array:
            return self.arrays[0].take(rows, axis=0, mode="clip")  # faster than "raise"; rows are always in range
        return self._unflatten(
            [
                array.take(self._frames[stack].take(rows, axis=0) if stack else rows, axis=0, mode="clip")
                for array, stack in zip(self.arrays, self._stacks, strict=True)
            ]
        )

    def grow(self, num_rows: int) -> None:
        """Makes room for more rows."""
        self.arrays = [_grown(array, num_rows, np.empty) for array in self.arrays]


def _grown(array: np.ndarray, num_rows: int, make: Callable[..., np.ndarray]) -> np.ndarray:
    grown = make((num_rows, *array.shape[1:]), array.dtype)
    grown[: len(array)] = array
    return grown


class Rows:
    """All columns of a replay.

    Args:
        signature: what one row holds.
        num_rows: rows to make room for. Memory is touched only where rows are written.
    """

    def __init__(self, signature: tables.Signature, num_rows: int):
        stacks = {_num_frames(leaf) for leaf in jax.tree.leaves(signature.observation)} - {0}
        self.frames = {stack: np.zeros((num_rows, stack), np.int32) for stack in sorted(stacks)}
        self.observation = Columns("observation", signature.observation, num_rows, self.frames)
        self.fields = {name: Columns(name, spec, num_rows, {}) for name, spec in signature.fields.items()}
        self.num_rows = num_rows

    @property
    def history(self) -> int:
        """Rows before a row that its observation refers to."""
        return max(self.frames, default=1) - 1

    def arrays(self) -> list[np.ndarray]:
        """Returns all columns `[num_rows, ...]` that hold data."""
        return [array for columns in (self.observation, *self.fields.values()) for array in columns.arrays]

    def grow(self, num_rows: int) -> None:
        """Makes room for more rows."""
        for columns in (self.observation, *self.fields.values()):
            columns.grow(num_rows)
        for stack, array in self.frames.items():
            self.frames[stack] = _grown(array, num_rows, np.zeros)
        self.num_rows = num_rows

    def free(self) -> None:
        """Gives the memory back."""
        for columns in (self.observation, *self.fields.values()):
            columns.arrays = []
        self.frames.clear()


def row_bytes(signature: tables.Signature) -> int:
    """Returns the bytes that one row takes."""
    observations = jax.tree.leaves(signature.observation)
    num_bytes = sum(4 * stack for stack in {_num_frames(leaf) for leaf in observations})
    for leaf in (*observations, *jax.tree.leaves(dict(signature.fields))):
        shape = leaf.shape[1:] if _num_frames(leaf) and leaf in observations else leaf.shape
        num_bytes += int(np.prod(shape, dtype=np.int64)) * leaf.dtype.itemsize
    return num_bytes
