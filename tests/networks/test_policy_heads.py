"""Heads for policy and value: the order of the parameters, what depends on the observation, and action masks."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import networks, specs

DISCRETE = specs.DiscreteArray(3, dtype=np.int32)
BOX = specs.BoundedArray((2,), np.float32, -1, 1)


def make_head(action_spec):
    distribution = networks.make_action_distribution(action_spec)

    def head(features):
        return networks.policy_parameters(features, distribution, initial_log_std=-0.5)

    return distribution, hk.without_apply_rng(hk.transform(head))


@pytest.mark.parametrize("action_spec", [BOX, (BOX, DISCRETE), (DISCRETE, BOX, BOX)])
def test_deviations_stand_in_their_places_and_depend_on_no_observation(action_spec):
    distribution, head = make_head(action_spec)
    features = jax.random.normal(jax.random.key(0), (5, 4))
    params = head.init(jax.random.key(1), features)
    output = np.asarray(head.apply(params, features))
    np.testing.assert_array_equal(output[:, distribution.is_scale], -0.5)
    assert (output[:, ~distribution.is_scale].std(axis=0) > 0).all()
    # The first weights are small: the first policy is nearly the same everywhere.
    assert np.abs(output[:, ~distribution.is_scale]).max() < 0.1


def test_a_discrete_policy_has_no_deviations():
    _, head = make_head(DISCRETE)
    params = head.init(jax.random.key(1), jnp.zeros((1, 4)))
    assert set(params) == {"policy"}


def test_illegal_parameters_are_masked_by_the_observation():
    policy = jnp.ones((2, 3))
    observation = {"board": jnp.zeros((2, 4)), "action_mask": jnp.array([[1, 0, 1], [1, 1, 1]], jnp.int8)}
    masked = networks.mask_illegal_parameters(policy, observation)
    np.testing.assert_array_equal(masked > 0, [[True, False, True], [True, True, True]])
    np.testing.assert_array_equal(networks.mask_illegal_parameters(policy, observation["board"]), policy)


@pytest.mark.parametrize(
    ("action_spec", "size"), [(DISCRETE, 4), (BOX, 2), ((DISCRETE, BOX), 7)], ids=["size", "continuous", "mixed"]
)
def test_a_mask_that_does_not_fit_is_an_error(action_spec, size):
    mask = specs.BoundedArray((size,), np.int8, 0, 1)
    distribution = networks.make_action_distribution(action_spec)
    with pytest.raises(ValueError, match="'action_mask' needs actions that are all discrete"):
        networks.check_action_mask({"board": BOX, "action_mask": mask}, distribution)


def test_a_mask_of_several_discrete_actions_has_an_element_for_each_of_their_values():
    distribution = networks.make_action_distribution((DISCRETE, DISCRETE))
    mask = specs.BoundedArray((6,), np.int8, 0, 1)
    networks.check_action_mask({"board": BOX, "action_mask": mask}, distribution)
    params = networks.mask_illegal(jnp.zeros(6), jnp.array([0, 1, 0, 1, 0, 0]))
    np.testing.assert_array_equal(distribution.mode(params), (1, 0))
    np.testing.assert_allclose(distribution.entropy(params), 0, atol=1e-6)
