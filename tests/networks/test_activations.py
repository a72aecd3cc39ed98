"""Activations are those of JAX, and so are their derivatives."""

import functools

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import networks
from acme_lite.experiments import run_directory

ACTIVATIONS = {"tanh": (networks.tanh, jnp.tanh), "elu": (networks.elu, jax.nn.elu)}


@pytest.mark.parametrize("shape", [(), (3,), (0, 2), (1, 4), (2, 4), (5, 4), (3, 2, 4)])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_derivatives_are_those_of_jax(name, shape):
    activation, expected = ACTIVATIONS[name]
    x = 3 * jax.random.normal(jax.random.key(0), shape)
    np.testing.assert_allclose(activation(x), expected(x), rtol=1e-6)

    def slopes(function):
        return jax.grad(lambda x: jnp.sum(function(x) ** 2))(x)

    np.testing.assert_allclose(slopes(activation), slopes(expected), rtol=1e-5, atol=1e-6)
    tangent = jnp.ones(shape)
    actual, reference = (jax.jvp(function, (x,), (tangent,))[1] for function in ACTIVATIONS[name])
    np.testing.assert_allclose(actual, reference, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_they_can_be_mapped_over(name):
    activation, expected = ACTIVATIONS[name]
    x = jax.random.normal(jax.random.key(1), (3, 5, 2))
    np.testing.assert_allclose(jax.vmap(activation)(x), expected(x), rtol=1e-6)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_slope_where_elu_bends_and_far_from_zero_is_that_of_jax(name):
    activation, expected = ACTIVATIONS[name]
    x = jnp.array([[0.0, -0.0, 50.0], [-50.0, 1e-8, -1e-8]])
    np.testing.assert_allclose(jax.vmap(jax.vmap(jax.grad(activation)))(x), jax.vmap(jax.vmap(jax.grad(expected)))(x))


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_a_batch_may_be_of_any_size_when_it_is_exported(name):
    activation, _ = ACTIVATIONS[name]
    (size,) = jax.export.symbolic_shape("b")
    exported = jax.export.export(jax.jit(activation))(jax.ShapeDtypeStruct((size, 3), np.float32))
    assert exported.call(jnp.ones((5, 3))).shape == (5, 3)


def test_configs_tell_them_apart():
    networks_of = [functools.partial(networks.mlp_torso, (8,), activation) for activation, _ in ACTIVATIONS.values()]
    one, other = (run_directory.describe(made) for made in networks_of)
    assert one != other
