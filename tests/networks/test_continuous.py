"""Actions in coordinates of their bounds, squashed Gaussians against quadrature, and the networks around them."""

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import networks, specs

# Wider than tanh reaches, and with a grid in u, where the density is smooth: da = (1 - tanh(u)^2) du.
U = np.linspace(-18, 18, 200_001)


def integral(values, grid):
    return np.sum((values[1:] + values[:-1]) / 2 * np.diff(grid))


def gaussian(mean, log_std):
    return networks.SquashedGaussian(jnp.array([mean], jnp.float32), jnp.array([log_std], jnp.float32))


def density_in_numpy(mean, log_std, action):
    """The density of tanh(u) by the change of variables, in float64."""
    u = np.arctanh(action)
    return np.exp(-0.5 * ((u - mean) / np.exp(log_std)) ** 2) / (np.exp(log_std) * np.sqrt(2 * np.pi) * (1 - action**2))


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (-1.5, 0.5), (0.2, -3.0)])
def test_log_prob_against_the_change_of_variables_and_quadrature(mean, log_std):
    actions = np.linspace(-0.999, 0.999, 20_001)
    log_prob = networks.squashed_log_prob(gaussian(mean, log_std), jnp.array(actions[:, None], jnp.float32))
    expected = density_in_numpy(mean, log_std, actions)
    np.testing.assert_allclose(np.exp(log_prob), expected, rtol=2e-2, atol=1e-4)
    # It integrates to the probability of the interval, that of u in the interval of its inverse tanh.
    inside = np.abs(U) <= np.arctanh(0.999)
    normal = np.exp(-0.5 * ((U - mean) / np.exp(log_std)) ** 2) / (np.exp(log_std) * np.sqrt(2 * np.pi))
    probability = integral(normal[inside], U[inside])
    assert integral(np.exp(np.asarray(log_prob, np.float64)), actions) == pytest.approx(probability, abs=2e-3)


@pytest.mark.parametrize(("mean", "log_std"), [(0.0, 0.0), (0.7, -1.0), (3.0, 1.0), (0.0, 2.0)])
def test_samples_have_the_entropy_and_mean_of_quadrature(mean, log_std):
    std = np.exp(log_std)
    grid = np.linspace(mean - 12 * std, mean + 12 * std, 200_001)
    normal = np.exp(-0.5 * ((grid - mean) / std) ** 2) / (std * np.sqrt(2 * np.pi))
    log_derivative = 2 * (np.log(2) - np.abs(grid) - np.log1p(np.exp(-2 * np.abs(grid))))
    log_density = np.log(np.maximum(normal, 1e-300)) - log_derivative
    entropy = -integral(normal * log_density, grid)
    expected_mean = integral(normal * np.tanh(grid), grid)
    params = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (200_000, 1)), gaussian(mean, log_std))
    action, log_prob = networks.squashed_sample(params, jax.random.key(0))
    assert action.shape == (200_000, 1) and log_prob.shape == (200_000,)
    # Standard errors are at most 8 / sqrt(200,000), 0.018.
    assert -np.mean(log_prob) == pytest.approx(entropy, abs=0.05)
    assert np.mean(action) == pytest.approx(expected_mean, abs=0.01)
    np.testing.assert_allclose(networks.squashed_mode(gaussian(mean, log_std)), [np.tanh(mean)], rtol=1e-6)


def test_the_two_log_probs_agree_and_sum_over_dimensions():
    params = networks.SquashedGaussian(jnp.array([[0.1, -0.5]]), jnp.array([[-1.0, 0.2]]))
    action, log_prob = networks.squashed_sample(params, jax.random.key(1))
    np.testing.assert_allclose(networks.squashed_log_prob(params, action), log_prob, rtol=1e-4)
    each = [
        np.log(density_in_numpy(float(params.mean[0, i]), float(params.log_std[0, i]), float(action[0, i])))
        for i in range(2)
    ]
    np.testing.assert_allclose(log_prob, [sum(each)], rtol=1e-4)


@pytest.mark.parametrize("mean", [-50.0, -12.0, 0.0, 12.0, 50.0])
@pytest.mark.parametrize("log_std", [-20.0, 0.0, 2.0])
def test_values_and_gradients_are_finite_at_the_bounds(mean, log_std):
    def sampled(mean):
        params = networks.SquashedGaussian(mean, jnp.full_like(mean, log_std))
        action, log_prob = networks.squashed_sample(params, jax.random.key(2))
        return jnp.sum(action) + jnp.sum(log_prob)

    def given(mean, action):
        return jnp.sum(networks.squashed_log_prob(gaussian(0.0, log_std)._replace(mean=mean), action))

    mean = jnp.full((1,), mean)
    for function, *rest in ((sampled,), (given, jnp.array([-1.0])), (given, jnp.array([1.0]))):
        value, gradients = jax.value_and_grad(function, tuple(range(1 + len(rest))))(mean, *rest)
        assert np.isfinite(value)
        assert np.isfinite(np.concatenate(gradients)).all()


def test_log_prob_beyond_what_tanh_can_tell_apart():
    # u = 12 has tanh(u) = 1 in float32. log p = log N(12; 12, 1) - log(1 - tanh(12)^2), about -0.919 + 22.614.
    params = gaussian(12.0, -20.0)
    action, log_prob = networks.squashed_sample(params, jax.random.key(3))
    assert float(action[0]) == pytest.approx(1, abs=3e-7)  # without optimisation XLA ends at 1 - 2e-7
    noise = float(jax.random.normal(jax.random.key(3), (1,))[0])
    expected = -0.5 * noise**2 + 20 - 0.5 * np.log(2 * np.pi) + 24 - 2 * np.log(2)
    assert float(log_prob) == pytest.approx(expected, rel=1e-5)


ASYMMETRIC = specs.BoundedArray((2, 2), np.float64, [[-0.1, 0.1], [-5.0, 1e-3]], [[0.7, 0.3], [-1.0, 2e3]])


def test_actions_are_scaled_per_dimension():
    scaling = networks.make_action_scaling(ASYMMETRIC, agent="SAC")
    assert scaling.size == 4
    middle = scaling.to_action(jnp.zeros((3, 4)))
    assert middle.shape == (3, 2, 2)
    np.testing.assert_allclose(middle[0], [[0.3, 0.2], [-3.0, 1000.0005]], rtol=1e-6)
    np.testing.assert_allclose(scaling.from_action(scaling.to_action(jnp.full((1, 4), 0.5))), [[0.5] * 4], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_actions_never_leave_the_bounds(dtype):
    rng = np.random.default_rng(0)
    minimum = rng.normal(size=100)
    maximum = minimum + rng.uniform(0.05, 3, size=100)
    spec = specs.BoundedArray((100,), dtype, minimum.astype(dtype), maximum.astype(dtype))
    scaling = networks.make_action_scaling(spec, agent="SAC")
    for value in (-1.0, 1.0, -1.5, 1.5):
        action = np.asarray(jax.jit(scaling.to_action)(jnp.full((100,), value)))
        spec.validate(action.astype(dtype))
        np.testing.assert_allclose(action, spec.maximum if value > 0 else spec.minimum, rtol=2e-3)
    back = scaling.from_action(jnp.asarray(spec.maximum.astype(dtype)))
    assert np.max(np.abs(back)) <= 1


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (specs.DiscreteArray(3), "SAC needs actions .* use dqn, r2d2, ppo or impala"),
        (specs.Array((2,), np.float32), "SAC needs .* wrapper that bounds its actions, or use ppo"),
        (specs.BoundedArray((2,), np.float32, -np.inf, np.inf), "wrapper that bounds its actions, or use ppo"),
        (specs.BoundedArray((2,), np.float32, [-1, -1], [1, np.inf]), "wrapper that bounds its actions"),
        (specs.BoundedArray((2,), np.int32, -1, 1), r"For such actions use ppo or impala\."),
        ({"a": specs.BoundedArray((2,), np.float32, -1, 1)}, r"For such actions use ppo\."),
        (specs.BoundedArray((2,), np.float32, [0, 1], [1, 1]), "each minimum must be below its maximum"),
        (specs.BoundedArray((2,), np.float64, 0, 1e-50), "below its maximum, by what float32 holds"),
        (specs.BoundedArray((0,), np.float32, -1, 1), "at least one number"),
    ],
)
def test_other_actions_are_refused(spec, message):
    with pytest.raises(ValueError, match=message):
        networks.make_action_scaling(spec, agent="SAC")


def test_images_need_a_torso():
    image = specs.BoundedArray((84, 84, 3), np.uint8, 0, 255)
    for spec in (image, {"camera": image, "speed": specs.Array((3,), np.float32)}, specs.Array((84, 84), np.uint8)):
        with pytest.raises(ValueError, match=r"SAC's own networks take vectors.*Pass a torso"):
            networks.observation_encoder(spec, agent="SAC")
    torso = networks.atari_torso(image)
    assert networks.observation_encoder(image, torso, agent="SAC") is torso


def test_nested_observations_are_concatenated():
    spec = {"a": specs.Array((2, 2), np.float64), "b": specs.DiscreteArray(3), "c": specs.Array((), np.float32)}
    encoded = networks.observation_encoder(spec, agent="SAC")(
        {"a": np.array([[[1.0, 2.0], [3.0, 4.0]]]), "b": np.array([2]), "c": np.array([5.0], np.float32)}
    )
    np.testing.assert_array_equal(encoded, [[1, 2, 3, 4, 0, 0, 1, 5]])


def test_heads_begin_in_the_middle_with_a_deviation_of_about_one():
    features = jax.random.normal(jax.random.key(0), (50, 32))
    for head in (networks.deterministic_head, networks.squashed_gaussian_head):
        transformed = hk.without_apply_rng(hk.transform(lambda features, head=head: head(features, 3)))
        outputs = transformed.apply(transformed.init(jax.random.key(1), features), features)
        for output in jax.tree.leaves(outputs):
            assert output.shape == (50, 3)
            assert 0 < np.max(np.abs(output)) < 0.1


def test_standard_deviations_stay_finite():
    transformed = hk.without_apply_rng(hk.transform(lambda features: networks.squashed_gaussian_head(features, 1)))
    params = transformed.init(jax.random.key(0), jnp.zeros((1, 1)))
    params = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e6), params)
    assert float(transformed.apply(params, jnp.ones((1, 1))).log_std[0, 0]) == 2
    assert float(transformed.apply(params, -2 * jnp.ones((1, 1))).log_std[0, 0]) == -20


def test_layer_norm_makes_the_features_independent_of_the_scale_of_the_input():
    transformed = hk.without_apply_rng(hk.transform(lambda x: networks.layer_norm_mlp(x, (16, 8))))
    x = jax.random.normal(jax.random.key(0), (5, 4))
    params = transformed.init(jax.random.key(1), x)
    features = transformed.apply(params, x)
    assert features.shape == (5, 8)
    np.testing.assert_allclose(transformed.apply(params, 1e4 * x), features, rtol=1e-3, atol=1e-3)


def test_the_weights_of_the_normalised_perceptron_begin_small():
    transformed = hk.without_apply_rng(hk.transform(lambda x: networks.layer_norm_mlp(x, (512, 256))))
    params = transformed.init(jax.random.key(0), jnp.zeros((1, 6)))
    weights = [leaf["w"] for leaf in params.values() if "w" in leaf]
    assert [leaf.shape for leaf in weights] == [(6, 512), (512, 256)]
    for leaf in weights:
        # A uniform distribution on [-x, x] has the variance x^2 / 3.
        most = np.sqrt(3 * 0.333 / leaf.shape[1])
        assert 0.98 * most < np.abs(leaf).max() <= most
        np.testing.assert_allclose(np.var(leaf), 0.333 / leaf.shape[1], rtol=0.05)


def test_an_ensemble_is_its_members():
    def values(observation, action):
        return hk.Linear(1)(jnp.concatenate([observation, action], axis=-1))[..., 0]

    critic = networks.critic_from_haiku(values, specs.Array((3,), np.float32), 2)
    both = networks.critic_ensemble(critic, 2)
    params = both.init(jax.random.key(0))
    observation, action = jnp.ones((5, 3)), jnp.ones((5, 2))
    outputs = both.apply(params, observation, action)
    assert outputs.shape == (2, 5)
    np.testing.assert_array_equal(outputs[1], critic.apply(params[1], observation, action))
    assert not np.allclose(outputs[0], outputs[1])
