"""MPO: divergences, weights and losses by formula, by sampling and by loops; limits, the update, refusals."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import _runtime, networks, replay, specs, types
from acme_lite.agents import mpo
from acme_lite.networks import policy_gaussian
from acme_lite.networks.policy_gaussian import DiagonalGaussian

rlax = _runtime.import_rlax()

K, B, D = 4, 3, 2
SPEC = specs.EnvironmentSpec(
    observation=specs.Array((1,), np.float32),
    action=specs.BoundedArray((D,), np.float32, [-2.0, 0.0], [2.0, 1.0]),
    reward=specs.Array((), np.float32),
    discount=specs.BoundedArray((), np.float32, 0, 1),
)


def gaussian(seed, shape=(B, D)):
    rng = np.random.default_rng(seed)
    return DiagonalGaussian(
        jnp.asarray(rng.normal(size=shape), jnp.float32), jnp.asarray(rng.uniform(0.5, 2, shape), jnp.float32)
    )


def data(seed):
    """Returns actions `[K, B, D]`, values `[K, B]` and distances `[K, B]`."""
    rng = np.random.default_rng(seed)
    return (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((K, B, D), (K, B), (K, B)))


def duals_of(temperature=2.0, penalty=0.5, alpha_mean=(1.0, 3.0), alpha_std=(5.0, 7.0)):
    return mpo.Duals(
        jnp.float32(temperature), jnp.float32(penalty), jnp.array(alpha_mean), jnp.array(alpha_std, jnp.float32)
    )


def test_divergence_by_hand_and_by_sampling():
    first, second = (
        DiagonalGaussian(jnp.array([0.0]), jnp.array([1.0])),
        DiagonalGaussian(jnp.array([1.0]), jnp.array([2.0])),
    )
    # log 2 + (1 + 1) / 8 - 1/2.
    np.testing.assert_allclose(policy_gaussian.gaussian_divergence(first, second), [math.log(2) - 0.25], rtol=1e-6)
    first, second = gaussian(0, (D,)), gaussian(1, (D,))
    samples = first.mean + first.std * jax.random.normal(jax.random.key(0), (400_000, D))
    log_ratio = policy_gaussian.gaussian_log_prob(first, samples) - policy_gaussian.gaussian_log_prob(second, samples)
    divergence = policy_gaussian.gaussian_divergence(first, second)
    np.testing.assert_allclose(jnp.mean(log_ratio), jnp.sum(divergence), rtol=0.02)


def test_temperature_loss_and_weights_against_loops():
    _, values, _ = data(2)
    temperature, epsilon = 0.7, 0.1
    total = 0.0
    for b in range(B):
        exps = [math.exp(float(values[k, b]) / temperature) for k in range(K)]
        total += math.log(sum(exps) / K) / B
        weights = [value / sum(exps) for value in exps]
        np.testing.assert_allclose(mpo.action_weights(values, temperature)[:, b], weights, rtol=1e-5)
    loss = mpo.temperature_loss(jnp.float32(temperature), values, epsilon)
    np.testing.assert_allclose(loss, temperature * (epsilon + total), rtol=1e-5)


def test_large_values_keep_the_digits_of_weights_and_temperature():
    _, values, _ = data(2)
    small = jnp.round(values * 64) / 64  # float32 holds these sums exactly
    slope = jax.grad(mpo.temperature_loss)
    for offset in (1_000.0, 16_384.0):
        temperature = jnp.float32(0.05)
        np.testing.assert_allclose(
            slope(temperature, small + offset, 0.1), slope(temperature, small, 0.1), rtol=1e-4, atol=1e-4
        )
        np.testing.assert_allclose(
            mpo.action_weights(small + offset, temperature), mpo.action_weights(small, temperature), rtol=1e-5
        )


def test_the_temperature_that_minimises_its_loss_meets_the_bound():
    _, values, _ = data(3)
    epsilon, temperature = 0.1, jnp.float32(1.0)
    slope = jax.jit(jax.grad(mpo.temperature_loss), static_argnums=2)
    for _ in range(2_000):
        temperature -= 0.05 * slope(temperature, values, epsilon)
    weights = np.asarray(mpo.action_weights(values, temperature))
    divergence = np.mean(np.sum(weights * np.log(weights * K), axis=0))
    np.testing.assert_allclose(divergence, epsilon, rtol=1e-2)


def apply(params, observation):
    return DiagonalGaussian(*params)


@pytest.mark.parametrize("action_penalty", [True, False])
@pytest.mark.parametrize("per_dimension", [True, False])
def test_losses_are_those_of_rlax(per_dimension, action_penalty):
    policy, target = gaussian(4), gaussian(5)
    actions, values, distances = data(6)
    config = mpo.MPOConfig(action_penalty=action_penalty, epsilon_std=0.3, per_dimension=per_dimension)
    size = D if per_dimension else 1
    parameters = duals_of(alpha_mean=[1.0, 3.0][:size], alpha_std=[5.0, 7.0][:size])
    duals = jax.tree.map(lambda leaf: jax.nn.softplus(leaf) + 1e-8, parameters)
    weights = mpo.action_weights(values, duals.temperature)
    if action_penalty:
        weights += mpo.action_weights(-distances, duals.penalty_temperature)
    loss, divergences = mpo.policy_loss(tuple(policy), None, target, actions, weights, duals, apply=apply)
    to_duals, _ = mpo.dual_loss(parameters, values, distances, divergences, config=config)

    parts = DiagonalGaussian(policy.mean, target.std), DiagonalGaussian(target.mean, policy.std)
    bounds = (config.epsilon_mean, config.epsilon_std)
    constraints = []
    for part, alpha, bound in zip(parts, (duals.alpha_mean, duals.alpha_std), bounds, strict=True):
        divergence = policy_gaussian.gaussian_divergence(target, part)
        if per_dimension:
            penalty = rlax.LagrangePenalty(jnp.tile(alpha, (B, 1)), jnp.float32(bound), True)
        else:
            penalty, divergence = rlax.LagrangePenalty(alpha[0], jnp.float32(bound)), jnp.sum(divergence, axis=-1)
        constraints.append((divergence, penalty))
    log_probs = sum(policy_gaussian.gaussian_log_prob(part, actions) for part in parts)
    temperature = rlax.LagrangePenalty(duals.temperature, jnp.float32(config.epsilon))
    expected, _ = rlax.mpo_loss(log_probs, values, temperature, constraints)
    if action_penalty:  # one more objective, with weights and a temperature of its own
        penalty = rlax.LagrangePenalty(duals.penalty_temperature, jnp.float32(config.epsilon_penalty))
        dual, weights, _ = rlax.mpo_compute_weights_and_temperature_loss(-distances, penalty, lambda alpha: alpha)
        expected += dual - jnp.sum(weights * log_probs, axis=0)
    np.testing.assert_allclose(loss + to_duals, jnp.mean(expected), rtol=1e-5)


def test_gradients_stay_where_they_belong():
    policy, target, duals = gaussian(7), gaussian(8), duals_of()
    actions, values, distances = data(9)

    def loss_of_policy(policy, target, duals):
        weights = mpo.action_weights(values, duals.temperature)
        return mpo.policy_loss(tuple(policy), None, target, actions, weights, duals, apply=apply)[0]

    to_policy, *to_others = jax.jit(jax.grad(loss_of_policy, argnums=(0, 1, 2)))(policy, target, duals)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(to_policy))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(to_others))

    def loss_of_duals(duals, values, distances, divergences):
        return mpo.dual_loss(duals, values, distances, divergences, config=mpo.MPOConfig())[0]

    divergences = (jnp.array([1.0, 0.0]), jnp.array([0.0, 1.0]))
    slopes = jax.jit(jax.grad(loss_of_duals, argnums=(0, 1, 2, 3)))
    to_duals, *to_others = slopes(duals, values, distances, divergences)
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(to_others))
    # Descent raises a multiplier where the divergence is beyond its bound, and lowers it where it is within.
    np.testing.assert_array_equal(np.sign(to_duals.alpha_mean), [-1, 1])
    np.testing.assert_array_equal(np.sign(to_duals.alpha_std), [1, -1])


def test_means_do_not_move_deviations():
    # Weighted samples above the mean pull the mean alone: the deviation's part has the target's mean.
    target = DiagonalGaussian(jnp.zeros((1, 1)), jnp.ones((1, 1)))
    actions, weights = jnp.array([[[1.0]], [[-1.0]]]), jnp.array([[0.9], [0.1]])
    duals = duals_of(alpha_mean=[0.0], alpha_std=[0.0])

    @jax.jit
    @jax.grad
    def gradient_of(policy):
        return mpo.policy_loss(tuple(policy), None, target, actions, weights, duals, apply=apply)[0]

    gradient = gradient_of(target)
    # -d log N(a; m, 1)/dm = -(a - m), weighted: -0.9 + 0.1; both samples are one deviation away, so that of std is 0.
    np.testing.assert_allclose(gradient.mean, [[-0.8]], rtol=1e-6)
    np.testing.assert_allclose(gradient.std, [[0.0]], atol=1e-6)


def test_out_of_bounds_by_hand():
    actions = jnp.array([[0.5, -1.0], [4.0, -5.0], [1.0, 1.5]])
    np.testing.assert_allclose(mpo.out_of_bounds(actions), [0, 5, 0.5])


def make_network():
    return networks.ActorCriticNetworks(
        networks.FeedForwardNetwork(
            init=lambda key: jnp.array([3.0, -0.25]),
            apply=lambda params, observation: DiagonalGaussian(observation * params, jnp.exp(observation * params)),
        ),
        networks.Critic(
            init=lambda key: jnp.array([20.0, 10.0]),
            apply=lambda params, observation, action: action @ params + observation[:, 0],
        ),
    )


BATCH = types.Transition(
    observation=jnp.array([[1.0], [0.5]]),
    action=jnp.array([[1.0, 0.0], [0.0, 1.0]]),  # (0.5, -1) and (0, 1) in the critic's coordinates
    reward=jnp.array([1.0, -1.0]),
    discount=jnp.array([0.5, 0.9]),
    next_observation=jnp.array([[0.3], [-0.4]]),
)


@functools.cache
def run_updates(num_updates, **settings):
    info = replay.SampleInfo(keys=(), probabilities=jnp.ones(2), table_size=jnp.int32(10))
    learner_core = mpo.make_core(mpo.MPOConfig(**settings), make_network(), SPEC)
    state, outputs = jax.jit(learner_core.init)(jax.random.key(0)), []
    update = jax.jit(learner_core.update)
    for _ in range(num_updates):
        state, output = update(state, replay.Sample(BATCH, info))
        outputs.append((state, output.metrics))
    return outputs


def test_each_sampled_action_meets_the_critic_with_its_own_observation():
    network = networks.ActorCriticNetworks(
        networks.FeedForwardNetwork(None, lambda params, tree: DiagonalGaussian(tree["x"] + params, tree["x"])),
        networks.Critic(None, lambda params, tree, a: jnp.stack([tree["n"] + a[:, 0], params * a[:, 1]], axis=-1)),
    )
    observation = {"x": jnp.array([[1.0, 2.0], [10.0, 20.0], [100.0, 200.0]]), "n": jnp.array([0, 1_000, 2_000])}
    key = jax.random.key(3)
    target, actions, outputs = mpo.sample_actions(
        jnp.float32(5), jnp.float32(7), observation, key, network=network, num_samples=K
    )
    np.testing.assert_allclose(actions, target.mean + target.std * jax.random.normal(key, (K, B, D)), rtol=1e-6)
    np.testing.assert_array_equal(target.mean, observation["x"] + 5)
    for k in range(K):
        for b in range(B):
            expected = [1_000 * b + actions[k, b, 0], 7 * actions[k, b, 1]]
            np.testing.assert_allclose(outputs[k, b], expected, rtol=1e-6)


def softmax(scores):
    exps = [math.exp(score - max(scores)) for score in scores]
    return [value / sum(exps) for value in exps]


def temperature_loss(scores, temperature, epsilon):
    log_means = [math.log(sum(math.exp(score / temperature) for score in row) / K) for row in scores]
    return temperature * (epsilon + sum(log_means) / len(log_means))


@pytest.mark.parametrize("action_penalty", [True, False])
def test_a_learner_step_against_plain_loops(action_penalty):
    settings = dict(num_samples=K, initial_log_temperature=2.0, action_penalty=action_penalty, per_dimension=True)
    ((_, metrics),) = run_updates(1, **settings)
    config = mpo.MPOConfig(**settings)
    key_actions = jax.random.split(jax.random.split(jax.random.key(0), 3)[2])[1]
    noise = np.asarray(jax.random.normal(key_actions, (K, 2, D)), np.float64)
    temperature, alpha_mean, alpha_std = math.log(1 + math.exp(2)), math.log(1 + math.exp(10)), 1_000.0
    coordinates = [(0.5, -1.0), (0.0, 1.0)]

    critic_loss, policy_loss, values, distances = 0.0, 0.0, [], []
    for b, (o_t, o_tm1) in enumerate([(0.3, 1.0), (-0.4, 0.5)]):
        mean = [3.0 * o_t, -0.25 * o_t]
        std = [math.exp(number) for number in mean]
        actions = [[mean[d] + std[d] * noise[k, b, d] for d in range(D)] for k in range(K)]
        q = [20 * action[0] + 10 * action[1] + o_t for action in actions]
        target = float(BATCH.reward[b]) + 0.99 * float(BATCH.discount[b]) * sum(q) / K
        q_tm1 = 20 * coordinates[b][0] + 10 * coordinates[b][1] + o_tm1
        critic_loss += 0.5 * (target - q_tm1) ** 2 / 2
        distance = [math.hypot(*(max(0.0, abs(number) - 1) for number in action)) for action in actions]
        weights = softmax([value / temperature for value in q])
        if action_penalty:
            penalties = softmax([-value / temperature for value in distance])
            weights = [one + other for one, other in zip(weights, penalties, strict=True)]
        for k in range(K):
            log_prob = sum(-0.5 * noise[k, b, d] ** 2 - math.log(std[d] * math.sqrt(2 * math.pi)) for d in range(D))
            # The policy is its target yet, so its parts with another's mean or deviation are it, too.
            policy_loss -= weights[k] * 2 * log_prob / 2
        values.append(q)
        distances.append(distance)
    dual_loss = temperature_loss(values, temperature, 0.1)
    if action_penalty:
        dual_loss += temperature_loss([[-number for number in row] for row in distances], temperature, 0.001)
    dual_loss += D * (alpha_mean * config.epsilon_mean + alpha_std * config.epsilon_std)
    for name, expected in (("critic", critic_loss), ("policy", policy_loss), ("dual", dual_loss)):
        np.testing.assert_allclose(metrics[f"{name}_loss"], expected, rtol=1e-4, err_msg=name)
    np.testing.assert_allclose(metrics["out_of_bounds"], np.mean(distances), rtol=1e-5)


@pytest.mark.parametrize("part", ["policy", "critic"])
def test_the_gradient_norm_limit_is_used(part):
    ((limited, metrics),) = run_updates(1, max_gradient_norm=0.01)
    norm = float(metrics[f"{part}_gradient_norm"])
    assert norm > 0.01
    # Adam's first moment is (1 - b1) times the gradient that it gets.
    first_moment = jax.tree.leaves(getattr(limited, f"{part}_opt_state"))[1]
    np.testing.assert_allclose(np.linalg.norm(first_moment), 0.1 * 0.01, rtol=1e-4)
    ((free, _),) = run_updates(1, max_gradient_norm=None)
    first_moment = jax.tree.leaves(getattr(free, f"{part}_opt_state"))[1]
    np.testing.assert_allclose(np.linalg.norm(first_moment), 0.1 * norm, rtol=1e-4)


def test_targets_are_copied_every_period_and_actions_drawn_anew():
    outputs = run_updates(4, target_update_period=2)
    for trained, target in (("policy_params", "target_policy_params"), ("critic_params", "target_critic_params")):
        copied = [bool((getattr(state, trained) == getattr(state, target)).all()) for state, _ in outputs]
        assert copied == [False, True, False, True]
    # The target policy of the first two steps is the same, its samples are not.
    assert outputs[0][1]["out_of_bounds"] != outputs[1][1]["out_of_bounds"]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"num_samples": 1}, "num_samples must be .* at least 2, got 1"),
        ({"epsilon_std": 0.0}, "epsilon_std must be .* greater than 0, got 0.0"),
        ({"v_max": 10.0}, "v_max must be 150.0 with a scalar critic, got 10.0"),
        ({"action_penalty": False, "epsilon_penalty": 0.1}, "epsilon_penalty must be 0.001 without action_penalty"),
    ],
)
def test_bad_settings_are_named_with_what_is_allowed(settings, message):
    with pytest.raises(ValueError, match=message):
        mpo.MPOConfig(**settings)
