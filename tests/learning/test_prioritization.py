"""Importance weights by hand."""

import jax.numpy as jnp
import numpy as np

from acme_lite import learning, replay


def test_importance_weights_by_hand():
    weights = learning.importance_weights(jnp.array([0.1, 0.4]), jnp.float32(0.5))
    np.testing.assert_allclose(weights, [1.0, 0.5], rtol=1e-6)
    np.testing.assert_allclose(learning.importance_weights(jnp.array([0.1, 0.4]), jnp.float32(0)), [1, 1])


def test_weights_of_a_mixed_sample_count_the_sizes_of_tables():
    info = replay.SampleInfo((), jnp.array([0.1, 0.4]), 10)
    np.testing.assert_allclose(learning.sample_weights(info, jnp.float32(1)), [1.0, 0.25], rtol=1e-6)
    # Drawn uniformly from two items: as often as it should be. From ten with 0.1: just so, with 0.4: too often.
    other = replay.SampleInfo((), jnp.array([0.5]), 2)
    np.testing.assert_allclose(learning.sample_weights((info, other), jnp.float32(1)), [1, 0.25, 1], rtol=1e-6)
