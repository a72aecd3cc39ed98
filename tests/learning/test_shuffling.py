import jax
import numpy as np
import pytest

from acme_lite import learning


@pytest.mark.parametrize("num_rows", [1, 2, 3, 5, 96, 1_000, 1_024, 1_025])
def test_rows_are_there_once_each_in_ever_new_orders(num_rows):
    orders = np.asarray(jax.jit(learning.random_orders, static_argnums=(1, 2))(jax.random.key(num_rows), 20, num_rows))
    np.testing.assert_array_equal(np.sort(orders, axis=1), np.tile(np.arange(num_rows), (20, 1)))
    if num_rows >= 96:
        assert len({tuple(order) for order in orders.tolist()}) == 20


@pytest.mark.parametrize("num_rows", [256, 240])
def test_rows_come_into_minibatches_as_if_drawn(num_rows):
    num_orders, size = 20_000, num_rows // 4
    orders = np.asarray(jax.jit(learning.random_orders, static_argnums=(1, 2))(jax.random.key(0), num_orders, num_rows))
    first = np.zeros((num_orders, num_rows), bool)
    np.put_along_axis(first, orders[:, :size], True, axis=1)
    # A row is in the first of four minibatches in a quarter of the orders, and two rows are so in a quarter times
    # (size - 1) / (num_rows - 1); 5 standard deviations of means of 20,000 for the farthest of some hundred rows.
    chance = 0.25
    assert np.abs(first.mean(axis=0) - chance).max() < 5 * np.sqrt(chance * (1 - chance) / num_orders)
    for distance in (1, 2, 3, 4, 8, 16, 64, 128):
        both = (first[:, distance:] & first[:, :-distance]).mean(axis=0)
        chance_of_both = chance * (size - 1) / (num_rows - 1)
        assert np.abs(both - chance_of_both).max() < 5 * np.sqrt(chance_of_both * (1 - chance_of_both) / num_orders)
