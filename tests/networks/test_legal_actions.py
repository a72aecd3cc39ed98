"""Legal-action masks: where they are found, and what they do to values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import networks, specs


def test_observations_without_a_mask_stay_as_they_are():
    for observation in (np.zeros(3), {"a": np.zeros(3), "b": np.ones(2)}, (np.zeros(3), np.ones(2))):
        rest, mask = networks.split_action_mask(observation)
        assert rest is observation and mask is None


def test_the_mask_is_taken_out():
    mask = np.array([1, 0])
    rest, found = networks.split_action_mask({"board": np.zeros(3), "hand": np.ones(2), "action_mask": mask})
    assert set(rest) == {"board", "hand"} and found is mask


def test_one_field_alone_or_beside_the_mask_becomes_the_observation():
    board = np.zeros(3)
    for more in ({"action_mask": np.array([1, 0])}, {}):
        rest, _ = networks.split_action_mask({"observation": board, **more})
        assert rest is board


def test_specs_are_split_as_observations_are():
    board, mask = specs.Array((3,), np.float32), specs.BoundedArray((2,), np.int8, 0, 1)
    rest, found = networks.split_action_mask({networks.ACTION_MASK: mask, "observation": board})
    assert rest is board and found is mask


@pytest.mark.parametrize("dtype", [bool, np.int8, np.float32])
def test_illegal_values_are_the_least_finite_number(dtype):
    values = jnp.array([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]])
    masked = networks.mask_illegal(values, np.array([[1, 0, 1], [0, 0, 0]], dtype))
    least = np.finfo(np.float32).min
    np.testing.assert_array_equal(masked, [[1.0, least, 3.0], [least, least, least]])
    assert np.isfinite(masked).all() and masked.dtype == values.dtype
    # So a discount of 0 cuts off what has no legal action.
    np.testing.assert_array_equal(0.0 * jnp.max(masked, axis=-1), [0, 0])


def test_without_a_mask_values_stay():
    values = jnp.array([[1.0, 2.0]])
    assert networks.mask_illegal(values, None) is values


def test_no_gradient_reaches_illegal_values():
    mask = np.array([1, 0, 1])
    gradient = jax.grad(lambda values: jnp.sum(networks.mask_illegal(values, mask) / 1e3))(jnp.ones(3))
    np.testing.assert_allclose(gradient, [1e-3, 0, 1e-3])
