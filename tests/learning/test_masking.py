"""Means over real steps."""

import jax
import jax.numpy as jnp
import numpy as np

from acme_lite import learning


def test_masked_mean_by_hand():
    values, mask = jnp.array([[1.0, 2.0], [6.0, jnp.nan]]), jnp.array([[True, False], [True, False]])
    assert learning.masked_mean(values, mask) == 3.5
    assert learning.masked_mean(values, jnp.zeros((2, 2), bool)) == 0
    gradient = jax.grad(learning.masked_mean)(values, mask)
    np.testing.assert_array_equal(gradient, [[0.5, 0], [0.5, 0]])
