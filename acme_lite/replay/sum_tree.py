"""A binary sum tree in one flat array, for drawing leaves in proportion to their values.

Every inner node is the sum of its two children, computed afresh whenever one of them changes, so that rounding errors
do not add up. Batches are drawn and changed level by level, without a loop over the batch.
"""

from __future__ import annotations

import numpy as np

_TOP_LEVELS = 10


class SumTree:
    """Sums of `[num_leaves]` values that are finite and not negative, all 0 at first.

    Args:
        num_leaves: at least 1.
    """

    def __init__(self, num_leaves: int):
        self._depth = (num_leaves - 1).bit_length()
        self._first_leaf = 1 << self._depth
        self._nodes = np.zeros(2 * self._first_leaf)
        self._leaves = self._nodes[self._first_leaf : self._first_leaf + num_leaves]

    @property
    def leaves(self) -> np.ndarray:
        """`[num_leaves]` float64 values, a view: after writing to it, call `refresh`."""
        return self._leaves

    @property
    def total(self) -> float:
        """The sum of all values."""
        return float(self._nodes[1])

    def set(self, indices: np.ndarray, values: np.ndarray) -> None:
        """Sets the values of the leaves `indices` `[M]`; where an index is repeated, its last value counts."""
        nodes = self._nodes
        node = indices + self._first_leaf
        nodes[node] = values
        # Near the root, a whole level is summed faster than the nodes of it that have changed.
        num_whole_levels = min(self._depth, (8 * len(node)).bit_length())
        for _ in range(self._depth - num_whole_levels):
            node >>= 1
            left = node << 1
            sums = nodes.take(left)
            left += 1
            sums += nodes.take(left)
            nodes[node] = sums
        for level in range(num_whole_levels - 1, -1, -1):
            children = nodes[2 << level : 4 << level]
            np.add(children[::2], children[1::2], out=nodes[1 << level : 2 << level])

    def refresh(self, start: int, stop: int) -> None:
        """Brings the sums up to date after the leaves in [start, stop) were written."""
        nodes = self._nodes
        first, last = self._first_leaf + start, self._first_leaf + stop - 1
        for _ in range(self._depth):
            first, last = first >> 1, last >> 1
            if first == last:
                nodes[first] = nodes[2 * first] + nodes[2 * first + 1]
            else:
                children = nodes[2 * first : 2 * last + 2]
                np.add(children[::2], children[1::2], out=nodes[first : last + 1])

    def sample(self, num: int, rng: np.random.Generator) -> np.ndarray:
        """Returns `[num]` int64 leaves, drawn with replacement in proportion to their values.

        The total must be greater than 0.
        """
        leaves = self._descend(rng.random(num) * self._nodes[1])
        while True:
            # Rounding can carry a draw past the last positive leaf of a subtree; past all leaves, the nodes are 0.
            missed = np.flatnonzero(self._nodes[self._first_leaf :].take(leaves, mode="clip") == 0)
            if not len(missed):
                return leaves
            leaves[missed] = self._descend(rng.random(len(missed)) * self._nodes[1])

    def _descend(self, mass: np.ndarray) -> np.ndarray:
        """Returns the leaves at which the running sum of values passes `mass` `[M]`, which is consumed."""
        # Near the root, one search in the running sum of a level replaces the walk down to it.
        top = min(self._depth, _TOP_LEVELS)
        sums = self._nodes[1 << top : 2 << top]
        running = sums.cumsum()
        node = running.searchsorted(mass, side="right")
        np.minimum(node, len(sums) - 1, out=node)
        mass -= running.take(node)
        mass += sums.take(node)
        node += 1 << top
        for _ in range(self._depth - top):
            node <<= 1
            left = self._nodes.take(node)
            right = mass >= left
            left *= right
            mass -= left
            node += right
        node -= self._first_leaf
        return node
