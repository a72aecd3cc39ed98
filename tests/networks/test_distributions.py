"""Distributions over actions: by hand, against samples, and products against their parts."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import agents, networks, specs
from acme_lite.networks import distributions

DISCRETE = specs.DiscreteArray(3, dtype=np.int32)
INTEGERS = specs.BoundedArray((2,), np.int32, [1, -1], [3, 0])
BOX = specs.BoundedArray((2,), np.float32, [-2.0, 0.0], [2.0, 10.0])
UNBOUNDED = specs.Array((2, 1), np.float32)
MIXED = {"move": DISCRETE, "turn": (BOX, INTEGERS)}
BOUNDS = ([0.1, -0.3], [0.3, -0.1])
ALL = {"discrete": DISCRETE, "integers": INTEGERS, "box": BOX, "unbounded": UNBOUNDED, "mixed": MIXED}


def validate(spec, rows):
    assert jax.tree.structure(spec) == jax.tree.structure(rows)
    jax.tree.map(lambda leaf, values: [leaf.validate(np.asarray(value)) for value in values], spec, rows)


@pytest.mark.parametrize("spec", ALL.values(), ids=ALL.keys())
def test_samples_and_modes_become_actions_of_the_spec(spec):
    distribution = networks.make_action_distribution(spec)
    params = 3 * jax.random.normal(jax.random.key(0), (64, distribution.num_params))
    for sample in (distribution.sample(params, jax.random.key(1)), distribution.mode(params)):
        validate(spec, distribution.to_action(sample))
        assert distribution.log_prob(params, sample).shape == (64,)
    assert distribution.entropy(params).shape == (64,)
    assert distribution.is_scale.shape == (distribution.num_params,)
    assert distribution.is_discrete == (spec is DISCRETE or spec is INTEGERS)


@pytest.mark.parametrize("spec", ALL.values(), ids=ALL.keys())
def test_the_mode_is_most_likely_and_the_entropy_is_the_mean_of_minus_log_prob(spec):
    distribution = networks.make_action_distribution(spec)
    params = 0.5 * jax.random.normal(jax.random.key(2), (distribution.num_params,))
    many = jnp.broadcast_to(params, (20_000, distribution.num_params))
    log_probs = distribution.log_prob(many, distribution.sample(many, jax.random.key(3)))
    assert (distribution.log_prob(params, distribution.mode(params)) >= log_probs - 1e-5).all()
    np.testing.assert_allclose(-jnp.mean(log_probs), distribution.entropy(params), atol=0.05)


def test_categorical_by_hand():
    distribution = networks.make_action_distribution(DISCRETE)
    params = jnp.log(jnp.array([0.5, 0.25, 0.25])) + 7
    np.testing.assert_allclose(distribution.log_prob(params, jnp.int32(1)), np.log(0.25), rtol=1e-5)
    np.testing.assert_allclose(distribution.entropy(params), 1.5 * np.log(2), rtol=1e-5)
    many = distribution.sample(jnp.broadcast_to(params, (20_000, 3)), jax.random.key(0))
    np.testing.assert_allclose(np.bincount(many) / 20_000, [0.5, 0.25, 0.25], atol=0.02)


def test_gaussian_by_hand():
    distribution = networks.make_action_distribution(BOX)
    params = jnp.array([0.5, 0.0, 0.0, np.log(2.0)])  # means 0.5 and 0, deviations 1 and 2
    expected = -0.5 * 1.5**2 - 0.5 - np.log(2.0) - np.log(2 * np.pi)  # at (2, 2): 1.5 and 1 deviations away
    np.testing.assert_allclose(distribution.log_prob(params, jnp.array([2.0, 2.0])), expected, rtol=1e-5)
    np.testing.assert_allclose(distribution.entropy(params), np.log(2) + np.log(2 * np.pi * np.e), rtol=1e-5)
    # -1 and 1 are the bounds, beyond which the action is clipped: the density is that of the sample.
    np.testing.assert_allclose(distribution.to_action(jnp.array([-1.0, 1.0])), [-2, 10])
    np.testing.assert_allclose(distribution.to_action(jnp.array([0.5, -3.0])), [1, 0])
    np.testing.assert_array_equal(distribution.is_scale, [False, False, True, True])


@pytest.mark.filterwarnings("error::UserWarning")  # JAX warns of 64 bits that it does not have
@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_actions_never_leave_the_bounds(dtype):
    # The nearest float32 to 0.3 is greater than it. The greatest number is as good as no bound.
    spec = specs.BoundedArray((3,), dtype, [0.1, -0.3, -1], [0.3, -0.1, np.finfo(dtype).max])
    to_action = jax.jit(networks.make_action_distribution(spec).to_action)
    for value in (-5.0, -1.0, 0.0, 1.0, 5.0):
        action = np.asarray(to_action(jnp.full((3,), value)))
        assert action.dtype == jax.dtypes.canonicalize_dtype(dtype)
        spec.validate(action.astype(dtype))
        np.testing.assert_allclose(action[:2], np.clip([0.2 + 0.1 * value, -0.2 + 0.1 * value], *BOUNDS), rtol=2e-3)
        assert action[2] == max(value, -1)


@pytest.mark.filterwarnings("error::UserWarning")
def test_a_discrete_action_of_64_bits_is_one_of_32():
    for spec in (specs.DiscreteArray(3, np.int64), specs.BoundedArray((2,), np.int64, 0, 2)):
        distribution = networks.make_action_distribution(spec)
        params = jnp.zeros(distribution.num_params)
        for action in (distribution.mode(params), distribution.sample(params, jax.random.key(0))):
            assert action.shape == spec.shape and action.dtype == np.int32


def test_a_product_adds_its_parts():
    distribution = networks.make_action_distribution((DISCRETE, UNBOUNDED))
    discrete, gaussian = networks.make_action_distribution(DISCRETE), networks.make_action_distribution(UNBOUNDED)
    params = jax.random.normal(jax.random.key(4), (5, 7))
    value = (jnp.array([0, 1, 2, 0, 1]), jnp.arange(10.0).reshape(5, 2, 1))
    parts = discrete.log_prob(params[:, :3], value[0]) + gaussian.log_prob(params[:, 3:], value[1])
    np.testing.assert_allclose(distribution.log_prob(params, value), parts, rtol=1e-6)
    entropies = discrete.entropy(params[:, :3]) + gaussian.entropy(params[:, 3:])
    np.testing.assert_allclose(distribution.entropy(params), entropies, rtol=1e-6)
    np.testing.assert_array_equal(distribution.is_scale, [False] * 5 + [True] * 2)


def test_illegal_actions_have_no_probability_and_no_gradient():
    distribution = networks.make_action_distribution(DISCRETE)
    mask = jnp.array([1, 0, 1], jnp.int8)

    def legal(function, params, *arguments):
        return function(networks.mask_illegal(params, mask), *arguments)

    params = jnp.array([0.3, 9.0, -0.2])
    two = networks.make_action_distribution(specs.DiscreteArray(2))
    np.testing.assert_allclose(legal(distribution.entropy, params), two.entropy(params[::2]), rtol=1e-5)
    np.testing.assert_allclose(
        legal(distribution.log_prob, params, 2), two.log_prob(params[::2], jnp.int32(1)), rtol=1e-5
    )
    for function in (distribution.entropy, lambda logits: distribution.log_prob(logits, jnp.int32(0))):
        gradient = jax.grad(lambda params, function=function: legal(function, params))(params)
        assert np.isfinite(gradient).all() and gradient[1] == 0 and gradient[0] != 0
    samples = legal(distribution.sample, jnp.broadcast_to(params, (1_000, 3)), jax.random.key(5))
    assert set(samples.tolist()) == {0, 2}


def test_padding_has_finite_log_probs():
    distribution = networks.make_action_distribution(INTEGERS)
    params = jnp.zeros(distribution.num_params)
    assert np.isfinite(distribution.log_prob(params, jnp.zeros(2, jnp.int32)))  # 0 is below the first bound
    nothing_legal = networks.mask_illegal(params, jnp.zeros(distribution.num_params))
    assert np.isfinite(distribution.log_prob(nothing_legal, jnp.zeros(2, jnp.int32)))
    assert np.isfinite(distribution.entropy(nothing_legal))


def test_bounds_may_be_as_far_apart_as_float32_goes():
    greatest = float(np.finfo(np.float32).max) * 0.99
    distribution = networks.make_action_distribution(specs.BoundedArray((1,), np.float32, -greatest, greatest))
    actions = [float(distribution.to_action(jnp.array([value]))[0]) for value in (-1.0, 0.0, 0.5)]
    np.testing.assert_allclose(actions, [-greatest, 0, greatest / 2], rtol=1e-6)


@pytest.mark.parametrize(
    "spec",
    [
        specs.Array((2,), np.int32),
        specs.Array((), bool),
        {},
        specs.BoundedArray((0,), np.int32, 0, 1),
        specs.Array((0,), np.float32),
    ],
)
def test_actions_without_a_distribution_are_an_error(spec):
    with pytest.raises(ValueError, match=r"(floats, or of integers with bounds|at least one (array|number)), got"):
        networks.make_action_distribution(spec)


@pytest.mark.parametrize(
    "action",
    [
        *ALL.values(),
        specs.BoundedArray((2,), np.float32, [-1, -1], [1, np.inf]),
        specs.BoundedArray((2,), np.float32, -1, [1, 2]),
        {"a": BOX},
        {"a": DISCRETE, "b": INTEGERS},
        specs.Array((2,), np.int32),
    ],
    ids=str,
)
def test_the_agents_that_are_named_are_those_that_take_the_actions(action):
    sentence = distributions.agents_for(action)
    spec = specs.EnvironmentSpec(
        specs.Array((2,), np.float32), action, specs.Array((), np.float32), specs.BoundedArray((), np.float32, 0, 1)
    )
    for agent in agents.NAMES:
        try:
            agents.builder_class(agent)().make_networks(spec)
        except ValueError as error:
            assert agent not in sentence
            # An agent that names others names these.
            assert sentence in str(error) or "which takes unbounded ones" in str(error) or agent == "ppo"
        else:
            assert agent in sentence
