"""Importance weights by hand."""

import jax.numpy as jnp
import numpy as np

from acme_lite import learning


def test_importance_weights_by_hand():
    weights = learning.importance_weights(jnp.array([0.1, 0.4]), jnp.float32(0.5))
    np.testing.assert_allclose(weights, [1.0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(learning.importance_weights(jnp.array([0.1, 0.4]), jnp.float32(0)), [1, 1])
