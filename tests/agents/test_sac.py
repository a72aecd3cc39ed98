"""SAC: its losses by hand, its targets and temperature, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import networks, replay, specs, types
from acme_lite.agents import sac

SPEC = specs.EnvironmentSpec(
    observation=specs.Array((2,), np.float32),
    action=specs.BoundedArray((1,), np.float32, 0.0, 4.0),
    reward=specs.Array((), np.float32),
    discount=specs.BoundedArray((), np.float32, 0, 1),
)
# q_i(o, a) = w_i . o + v_i a: two critics linear in the observation and the action.
CRITIC = networks.Critic(
    init=lambda key: {"w": jnp.array([[1.0, 2.0], [3.0, -1.0]]), "v": jnp.array([0.5, -1.0])},
    apply=lambda params, observation, action: params["w"] @ observation.T + params["v"][:, None] * action[:, 0],
)
POLICY = networks.FeedForwardNetwork(
    init=lambda key: jnp.array([0.2, -0.5]),  # mean and logarithm of the deviation, whatever is observed
    apply=lambda params, observation: networks.SquashedGaussian(
        jnp.full((len(observation), 1), params[0]), jnp.full((len(observation), 1), params[1])
    ),
)
NETS = networks.ActorCriticNetworks(POLICY, CRITIC)
BATCH = types.Transition(
    observation=jnp.array([[1.0, 0.0], [0.0, 1.0]]),
    action=jnp.array([[3.0], [1.0]]),  # 0.5 and -0.5 in the critics' coordinates
    reward=jnp.array([1.0, -1.0]),
    discount=jnp.array([1.0, 0.0]),
    next_observation=jnp.array([[1.0, 1.0], [2.0, 0.0]]),
)
SAMPLE = replay.Sample(BATCH, replay.SampleInfo((), jnp.array([0.5, 0.5]), jnp.int32(10)))


def test_targets_by_hand():
    next_q = jnp.array([[3.0, 1.0], [2.0, 5.0]])
    targets = sac.soft_targets(BATCH, next_q, jnp.array([-1.0, 4.0]), jnp.float32(0.5), discount=0.9)
    # 1 + 0.9 * (min(3, 2) - 0.5 * -1) = 3.25; the second ends.
    np.testing.assert_allclose(targets, [3.25, -1.0])


def test_critic_loss_by_hand_and_its_gradient():
    params, action = CRITIC.init(None), jnp.array([[0.5], [-0.5]])

    def loss(params, targets):
        return sac.critic_loss(params, BATCH, action, targets, critic=CRITIC)[0]

    targets = jnp.array([1.0, 0.0])
    # q_1 = [1 + 0.25, 2 - 0.25], q_2 = [3 - 0.5, -1 + 0.5]; td_1 = [-0.25, -1.75], td_2 = [-1.5, 0.5].
    expected = 0.5 * (0.25**2 + 1.75**2) / 2 + 0.5 * (1.5**2 + 0.5**2) / 2
    np.testing.assert_allclose(loss(params, targets), expected, rtol=1e-6)
    gradient, to_targets = jax.grad(loss, (0, 1))(params, targets)
    np.testing.assert_array_equal(to_targets, [0, 0])
    # d/dv_i = mean of -td_i * a.
    np.testing.assert_allclose(gradient["v"], [(0.25 * 0.5 - 1.75 * 0.5) / 2, (1.5 * 0.5 + 0.5 * 0.5) / 2], rtol=1e-6)


def test_policy_loss_and_its_gradient_in_numpy():
    params, critic_params, key = POLICY.init(None), CRITIC.init(None), jax.random.key(3)

    def loss(params):
        return sac.policy_loss(params, critic_params, BATCH.observation, jnp.float32(0.7), key, nets=NETS)

    def by_loop(mean, log_std):
        noise = np.asarray(jax.random.normal(key, (2, 1)), np.float64)[:, 0]
        w, v = (np.asarray(critic_params[name], np.float64) for name in ("w", "v"))
        total = 0.0
        for observation, draw in zip(np.asarray(BATCH.observation), noise, strict=True):
            action = np.tanh(mean + np.exp(log_std) * draw)
            log_prob = -0.5 * draw**2 - log_std - 0.5 * np.log(2 * np.pi) - np.log(1 - action**2)
            q = w @ observation + v * action
            total += (0.7 * log_prob - q.min()) / 2
        return total

    mean, log_std = 0.2, -0.5
    np.testing.assert_allclose(loss(params)[0], by_loop(mean, log_std), atol=1e-6)
    small = 1e-6
    expected = [
        (by_loop(mean + small, log_std) - by_loop(mean - small, log_std)) / (2 * small),
        (by_loop(mean, log_std + small) - by_loop(mean, log_std - small)) / (2 * small),
    ]
    np.testing.assert_allclose(jax.grad(loss, has_aux=True)(params)[0], expected, rtol=1e-4)


def test_temperature_loss_by_hand():
    def loss(log_temperature, log_prob):
        return sac.temperature_loss(log_temperature, log_prob, -1.0)[0]

    log_prob = jnp.array([0.5, 2.5])
    # The entropy, -1.5, is below its target: the loss falls as the temperature rises. 2 * (-1.5 + 1) = -1.
    value, (gradient, to_log_prob) = jax.value_and_grad(loss, (0, 1))(jnp.log(2.0), log_prob)
    np.testing.assert_allclose([value, gradient], [-1.0, -1.0], rtol=1e-6)
    np.testing.assert_array_equal(to_log_prob, [0, 0])


def updated(num_updates=1, **settings):
    learner_core = sac.make_core(sac.SACConfig(**settings), NETS, SPEC)
    state = learner_core.init(jax.random.key(0))
    for _ in range(num_updates):
        state, output = jax.jit(learner_core.update)(state, SAMPLE)
    return state, output


def test_targets_go_a_part_of_the_way():
    state, _ = updated(target_update_rate=0.25, learning_rate=0.1)
    start = CRITIC.init(None)
    for name in ("w", "v"):
        assert not np.allclose(state.critic_params[name], start[name])
        expected = 0.75 * start[name] + 0.25 * state.critic_params[name]
        np.testing.assert_allclose(state.target_critic_params[name], expected, rtol=1e-6)


def test_a_learned_temperature_follows_the_target_entropy_and_a_fixed_one_stays():
    low, _ = updated(3, initial_temperature=0.5, target_entropy=-50.0)
    high, _ = updated(3, initial_temperature=0.5, target_entropy=50.0)
    assert low.log_temperature < np.log(0.5) < high.log_temperature
    fixed, output = updated(3, temperature=0.3)
    assert float(output.metrics["temperature"]) == pytest.approx(0.3)
    assert float(jnp.exp(fixed.log_temperature)) == pytest.approx(0.3) and fixed.temperature_opt_state == ()


def test_the_target_entropy_is_minus_the_dimensions_of_the_action():
    default, _ = updated(2)
    named, _ = updated(2, target_entropy=-1.0)
    other, _ = updated(2, target_entropy=1.0)
    assert default.log_temperature == named.log_temperature != other.log_temperature


def test_the_learner_step_uses_the_actions_in_the_critics_coordinates():
    _, output = updated(temperature=1e-9, discount=0.0)
    # Targets are the rewards: td_1 = 1 - 1.25 and -1 - 1.75; td_2 = 1 - 2.5 and -1 + 0.5.
    np.testing.assert_allclose(output.metrics["critic_loss"], (0.25**2 + 2.75**2 + 1.5**2 + 0.5**2) / 4, rtol=1e-6)


def test_evaluation_takes_the_median():
    policy = sac.SACBuilder().make_policy(NETS, SPEC, evaluation=True)
    # tanh(0.2) of the bounds 0 and 4, whatever the key.
    for seed in range(2):
        action, _, _ = policy.select_action(POLICY.init(None), BATCH.observation, (), jax.random.key(seed))
        np.testing.assert_allclose(action, np.full((2, 1), 2 + 2 * np.tanh(0.2)), rtol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0.0}, r"SACConfig.temperature must be a finite number greater than 0"),
        ({"target_update_rate": 0.0}, r"SACConfig.target_update_rate must be in \[1e-06, 1\]"),
        ({"target_entropy": float("nan")}, r"SACConfig.target_entropy must be"),
        ({"temperature": 0.1, "target_entropy": -2.0}, "target_entropy must be None with a fixed temperature"),
        ({"max_replay_size": 10}, "max_replay_size must be a whole number of at least 1000"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        sac.SACConfig(**settings)
