"""Heads: their shapes, what duelling changes, and means of categorical distributions."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import networks, specs
from acme_lite.agents import dqn, r2d2


def make_head(**settings):
    return hk.without_apply_rng(hk.transform(lambda features: networks.action_values(features, 3, **settings)))


@pytest.mark.parametrize("duelling", [False, True])
@pytest.mark.parametrize(("num_atoms", "shape"), [(None, (5, 3)), (1, (5, 3, 1)), (7, (5, 3, 7))])
def test_shapes(num_atoms, duelling, shape):
    head = make_head(num_atoms=num_atoms, duelling=duelling)
    features = jax.random.normal(jax.random.key(0), (5, 4))
    output = head.apply(head.init(jax.random.key(1), features), features)
    assert output.shape == shape and output.dtype == jnp.float32


def test_duelling_by_hand():
    head = make_head(duelling=True)
    features = jnp.ones((1, 2))
    params = head.init(jax.random.key(0), features)
    params["state_value"] = {"w": jnp.array([[1.0], [2.0]]), "b": jnp.array([4.0])}
    params["advantage"] = {"w": jnp.zeros((2, 3)), "b": jnp.array([1.0, 2.0, 6.0])}
    # v = 1 + 2 + 4 = 7; the mean advantage is 3.
    np.testing.assert_allclose(head.apply(params, features), [[5.0, 6.0, 10.0]])


def test_duelling_takes_the_mean_over_actions_for_each_atom_alone():
    head = make_head(duelling=True, num_atoms=2)
    features = jnp.ones((1, 1))
    params = head.init(jax.random.key(0), features)
    params["state_value"] = {"w": jnp.zeros((1, 2)), "b": jnp.array([10.0, 20.0])}
    # Actions by atoms: (0, 3), (3, 3), (6, 9); the means over actions are 3 and 5.
    params["advantage"] = {"w": jnp.zeros((1, 6)), "b": jnp.array([0.0, 3.0, 3.0, 3.0, 6.0, 9.0])}
    np.testing.assert_allclose(head.apply(params, features), [[[7.0, 18.0], [10.0, 18.0], [13.0, 24.0]]])


def test_categorical_mean_by_hand():
    atoms = jnp.array([-1.0, 0.0, 3.0])
    logits = jnp.log(jnp.array([[0.2, 0.3, 0.5], [1.0, 1.0, 2.0]]))  # the second row is not normalised
    np.testing.assert_allclose(networks.categorical_mean(logits, atoms), [1.3, 1.25], rtol=1e-5)
    np.testing.assert_allclose(networks.categorical_mean(logits[0], atoms), 1.3, rtol=1e-5)


def discrete_spec(mask_shape):
    return specs.EnvironmentSpec(
        observation={"vector": specs.Array((2,), np.float32), "action_mask": specs.Array(mask_shape, np.int8)},
        action=specs.DiscreteArray(3),
        reward=specs.Array((), np.float32),
        discount=specs.BoundedArray((), np.float32, 0, 1),
    )


@pytest.mark.parametrize("make_networks", [dqn.make_networks, r2d2.make_networks])
def test_an_action_mask_must_have_one_element_for_each_action(make_networks):
    make_networks(discrete_spec((3,)))
    for shape in [(1,), (4,), ()]:
        with pytest.raises(ValueError, match=r"'action_mask' must have shape \(3,\), one element for each action"):
            make_networks(discrete_spec(shape))
