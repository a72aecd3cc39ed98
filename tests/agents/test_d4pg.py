"""D4PG: its losses by hand and by loops, its targets, limits, exploration, and the errors of its config and specs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import networks, replay, specs, types
from acme_lite.agents import d4pg
from acme_lite.networks import return_models

SPEC = specs.EnvironmentSpec(
    observation=specs.Array((1,), np.float32),
    action=specs.BoundedArray((2,), np.float32, [-2.0, 0.0], [2.0, 1.0]),
    reward=specs.Array((), np.float32),
    discount=specs.BoundedArray((), np.float32, 0, 1),
)
# The policy is linear in the observation, and the value is params . action + observation.
NETWORK = networks.ActorCriticNetworks(
    networks.FeedForwardNetwork(
        init=lambda key: jnp.array([0.5, -0.25]), apply=lambda params, observation: observation * params
    ),
    networks.Critic(
        init=lambda key: jnp.array([2.0, 1.0]),
        apply=lambda params, observation, action: action @ params + observation[:, 0],
    ),
)
BATCH = types.Transition(
    observation=jnp.array([[1.0], [2.0]]),
    action=jnp.array([[1.0, 0.0], [0.0, 1.0]]),
    reward=jnp.array([1.0, -1.0]),
    discount=jnp.array([0.5, 0.0]),
    next_observation=jnp.array([[3.0], [4.0]]),
)
SAMPLE = replay.Sample(BATCH, replay.SampleInfo(keys=(), probabilities=jnp.ones(2), table_size=jnp.int32(10)))
SCALAR = return_models.scalar_returns()


def critic_loss(critic, target_policy, target_critic, batch=BATCH):
    return d4pg.critic_loss(critic, target_policy, target_critic, batch, network=NETWORK, returns=SCALAR, discount=0.9)


def policy_loss(policy, critic, limit=None):
    return d4pg.policy_loss(
        policy, critic, BATCH.observation, network=NETWORK, returns=SCALAR, max_action_gradient_norm=limit
    )[0]


def test_scalar_critic_loss_by_hand():
    params, target_policy, target_critic = jnp.array([2.0, 1.0]), jnp.array([0.5, 0.0]), jnp.array([1.0, 1.0])
    # Values: 2 * 1 + 1 = 3 and 1 + 2 = 3. The target policy gives (1.5, 0) at 3, worth 1.5 + 3 = 4.5 to the target
    # critic: td = 1 + 0.9 * 0.5 * 4.5 - 3 = 0.025. The second terminated: td = -1 - 3 = -4.
    loss, metrics = critic_loss(params, target_policy, target_critic)
    np.testing.assert_allclose(loss, 0.5 * (0.025**2 + 4**2) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["q_value"], 3)
    to_critic, *to_targets = jax.grad(lambda *params: critic_loss(*params)[0], argnums=(0, 1, 2))(
        params, target_policy, target_critic
    )
    # -mean td da: (0.025 * (1, 0) - 4 * (0, 1)) / 2, negative.
    np.testing.assert_allclose(to_critic, [-0.0125, 2.0], rtol=1e-3)
    for gradient in to_targets:
        np.testing.assert_array_equal(gradient, [0, 0])


def test_policy_gradient_is_that_of_the_mean_value():
    policy, critic = jnp.array([0.5, -0.25]), jnp.array([2.0, 1.0])
    gradient, to_critic = jax.grad(policy_loss, argnums=(0, 1))(policy, critic)
    # q = o (p . c) + o has the gradient o c, and the observations have the mean 1.5.
    np.testing.assert_allclose(gradient, -1.5 * critic, rtol=1e-6)
    np.testing.assert_array_equal(to_critic, [0, 0])


def test_the_action_gradient_is_limited_in_length():
    policy, critic = jnp.array([0.5, -0.25]), jnp.array([2.0, 1.0])
    limited = jax.grad(policy_loss)(policy, critic, 0.5)
    np.testing.assert_allclose(limited, -1.5 * 0.5 * critic / math.sqrt(5), rtol=1e-5)
    np.testing.assert_allclose(jax.grad(policy_loss)(policy, critic, 3.0), -1.5 * critic, rtol=1e-5)


def project(returns, probabilities, atoms):
    projected, spacing = [0.0] * len(atoms), atoms[1] - atoms[0]
    for value, probability in zip(returns, probabilities, strict=True):
        place = (min(max(value, atoms[0]), atoms[-1]) - atoms[0]) / spacing
        for index in range(len(atoms)):
            projected[index] += probability * max(0.0, 1 - abs(place - index))
    return projected


def softmax(logits):
    weights = [math.exp(logit) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def test_distributional_loss_against_loops():
    returns = return_models.categorical_returns(-2.0, 2.0, 5)
    rng = np.random.default_rng(0)
    output_tm1, output_t = rng.normal(size=(2, 3, 5)).astype(np.float32)
    reward, discount = np.array([0.3, -5.0, 1.0], np.float32), np.array([0.9, 0.5, 0.0], np.float32)
    expected = []
    for row in range(3):
        shifted = [reward[row] + discount[row] * atom for atom in (-2, -1, 0, 1, 2)]
        target = project(shifted, softmax(output_t[row]), [-2, -1, 0, 1, 2])
        predicted = softmax(output_tm1[row])
        expected.append(sum(t * math.log(t / p) for t, p in zip(target, predicted, strict=True) if t > 0))
    np.testing.assert_allclose(returns.losses(output_tm1, reward, discount, output_t), expected, rtol=1e-4)
    to_prediction, to_target = jax.grad(
        lambda one, other: jnp.sum(returns.losses(one, reward, discount, other)), argnums=(0, 1)
    )(jnp.asarray(output_tm1), jnp.asarray(output_t))
    assert np.isfinite(to_prediction).all() and np.any(to_prediction)
    np.testing.assert_array_equal(to_target, np.zeros((3, 5)))


def test_means_and_mixtures_of_returns():
    returns = return_models.categorical_returns(-2.0, 2.0, 5)
    logits = jnp.log(jnp.array([[[0.5, 0, 0, 0, 0.5]], [[0, 0, 1, 0, 0]]]) + 1e-12)
    mixture = jax.nn.softmax(returns.mixture(logits))
    np.testing.assert_allclose(mixture, [[0.25, 0, 0.5, 0, 0.25]], atol=1e-6)
    np.testing.assert_allclose(returns.mean(jnp.log(jnp.array([[0.25, 0, 0, 0, 0.75]]) + 1e-12)), [1.0], rtol=1e-5)
    np.testing.assert_allclose(SCALAR.mixture(jnp.array([[1.0, 2.0], [3.0, 6.0]])), [2.0, 4.0])


def run_updates(num_updates, **settings):
    learner_core = d4pg.make_core(d4pg.D4PGConfig(critic="scalar", **settings), NETWORK, SPEC)
    state, outputs = learner_core.init(jax.random.key(0)), []
    update = jax.jit(learner_core.update)
    for _ in range(num_updates):
        state, output = update(state, SAMPLE)
        outputs.append((state, output.metrics))
    return outputs


def test_targets_are_copied_every_period_and_not_between():
    outputs = run_updates(6, target_update_period=3)
    for trained, target in (("policy_params", "target_policy_params"), ("critic_params", "target_critic_params")):
        copied = [bool((getattr(state, trained) == getattr(state, target)).all()) for state, _ in outputs]
        assert copied == [False, False, True, False, False, True]


def test_targets_go_a_part_of_the_way():
    ((state, _),) = run_updates(1, target_update_period=1, target_update_rate=0.25, critic_learning_rate=0.1)
    start = NETWORK.critic.init(None)
    assert not (state.critic_params == start).all()
    np.testing.assert_allclose(state.target_critic_params, 0.75 * start + 0.25 * state.critic_params, rtol=1e-6)


@pytest.mark.parametrize("part", ["policy", "critic"])
def test_the_gradient_norm_limit_is_used(part):
    ((limited, metrics),) = run_updates(1, max_gradient_norm=0.1)
    norm = float(metrics[f"{part}_gradient_norm"])
    assert norm > 0.1
    # Adam's first moment is (1 - b1) times the gradient that it gets.
    first_moment = jax.tree.leaves(getattr(limited, f"{part}_opt_state"))[1]
    np.testing.assert_allclose(np.linalg.norm(first_moment), 0.1 * 0.1, rtol=1e-5)
    ((free, _),) = run_updates(1, max_gradient_norm=None)
    first_moment = jax.tree.leaves(getattr(free, f"{part}_opt_state"))[1]
    np.testing.assert_allclose(np.linalg.norm(first_moment), 0.1 * norm, rtol=1e-5)


def test_the_critic_sees_actions_in_coordinates_of_their_bounds():
    # Actions (1, 0) and (0, 1) of the bounds [-2, 2] x [0, 1] are (0.5, -1) and (0, 1).
    ((_, metrics),) = run_updates(1)
    np.testing.assert_allclose(metrics["q_value"], ((2 * 0.5 - 1 + 1) + (1 + 2)) / 2)


def test_exploration_is_within_bounds_and_evaluation_has_none():
    builder = d4pg.D4PGBuilder()
    observation = jnp.tile(jnp.array([[1.0], [100.0]]), (500, 1)) * jnp.array([1.0])
    params = jnp.array([0.5, -0.25])

    def act(seed, **settings):
        policy = builder.make_policy(NETWORK, SPEC, **settings)
        return np.asarray(policy.select_action(params, observation, (), jax.random.key(seed))[0])

    explored = act(0)
    assert (explored >= [-2, 0]).all() and (explored <= [2, 1]).all()
    # 0.5 and -0.25 of these bounds are 1 and 0.375, and a deviation of 0.3 is 0.6 and 0.15 (a little less, clipped).
    np.testing.assert_allclose(explored[::2].mean(axis=0), [1, 0.375], atol=0.1)
    assert 0.45 < explored[::2, 0].std() < 0.65 and 0.12 < explored[::2, 1].std() < 0.16
    greedy = act(0, evaluation=True)
    np.testing.assert_array_equal(greedy, act(1, evaluation=True))
    np.testing.assert_allclose(greedy[:2], [[1, 0.375], [2, 0]])


@pytest.mark.parametrize(("critic", "shape"), [("distributional", (64, 101)), ("scalar", (64,))])
def test_the_critics_output_follows_the_setting(critic, shape):
    settings = dict(critic=critic, policy_hidden_sizes=(8, 8), critic_hidden_sizes=(8, 8))
    network = d4pg.D4PGBuilder(d4pg.D4PGConfig(**settings)).make_networks(SPEC)

    def output(key):
        return network.critic.apply(network.critic.init(key), jnp.zeros((64, 1)), jnp.zeros((64, 2)))

    assert jax.eval_shape(output, jax.random.key(0)).shape == shape


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"critic": "quantile"}, "critic must be one of 'distributional', 'scalar', got 'quantile'"),
        ({"v_min": 1.0, "v_max": 1.0}, "v_min < v_max"),
        ({"critic": "scalar", "v_max": 10.0}, "v_max must be 150.0 with a scalar critic, got 10.0"),
        ({"noise_std": -0.1}, "noise_std must be .* at least 0, got -0.1"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm must be .* greater than 0, or None, got 0.0"),
        ({"n_step": 0}, "n_step must be .* at least 1, got 0"),
        ({"max_replay_size": 10}, "max_replay_size must be .* at least 1000, got 10"),
    ],
)
def test_bad_settings_are_named_with_what_is_allowed(settings, message):
    with pytest.raises(ValueError, match=message):
        d4pg.D4PGConfig(**settings)
