"""The sum tree beside a plain running sum."""

from __future__ import annotations

import numpy as np
import pytest

from acme_lite.replay import orders, tables
from acme_lite.replay.sum_tree import SumTree


class Masses:
    """Stands for a generator, and gives chosen numbers in [0, 1)."""

    def __init__(self, values):
        self.values = np.array(values, np.float64)

    def random(self, num):
        assert num == len(self.values)
        return self.values.copy()


@pytest.mark.parametrize("num_leaves", [1, 2, 3, 64, 1000, 5000])
def test_sums_and_draws(num_leaves):
    rng = np.random.default_rng(num_leaves)
    tree = SumTree(num_leaves)
    values = np.zeros(num_leaves)
    for _ in range(30):
        indices = rng.integers(0, num_leaves, rng.integers(1, 300))
        new = rng.integers(0, 8, len(indices)).astype(np.float64)
        tree.set(indices, new)
        for index, value in zip(indices, new, strict=True):
            values[index] = value
        start, stop = sorted(rng.integers(0, num_leaves + 1, 2))
        if stop > start:
            values[start:stop] = rng.integers(0, 8, stop - start)
            tree.leaves[start:stop] = values[start:stop]
            tree.refresh(int(start), int(stop))
        np.testing.assert_array_equal(tree.leaves, values)
        # Small whole numbers: all sums are exact.
        assert tree.total == values.sum()
        if tree.total:
            masses = rng.random(50)
            expected = np.searchsorted(np.cumsum(values), masses * values.sum(), side="right")
            np.testing.assert_array_equal(tree.sample(50, Masses(masses)), expected)


def test_rounding_never_reaches_leaves_of_value_zero():
    rng = np.random.default_rng(0)
    tree = SumTree(3000)
    values = rng.random(3000) * 10.0 ** rng.integers(-12, 3, 3000)
    values[rng.random(3000) < 0.5] = 0
    values[2000:] = 0
    tree.leaves[:] = values
    tree.refresh(0, 3000)
    for _ in range(100):
        assert (values[tree.sample(1000, rng)] > 0).all()
    edge = [1 - 2.0**-53, 0.0]

    class Edge:
        calls = 0

        def random(self, num):
            self.calls += 1
            return np.array(edge) if self.calls == 1 else np.full(num, 0.5)

    assert (values[tree.sample(2, Edge())] > 0).all()


def test_priorities_whose_sum_overflows_are_an_error_and_no_endless_loop():
    order = orders.Ring(4, tables.Prioritized(1.0), 0)
    order.insert(2, np.array([1e308, 1e308]))
    with pytest.raises(ValueError, match="add up to inf"):
        order.draw(4, np.random.default_rng(0))
