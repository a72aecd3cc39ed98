"""TD3: its losses by hand, that its delay, smoothing and tau have an effect, and that it learns."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import learning, networks, replay, specs, testing, types
from acme_lite.agents import td3

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
    init=lambda key: jnp.array([0.25]), apply=lambda params, observation: jnp.tile(params, (len(observation), 1))
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
    targets = td3.clipped_targets(BATCH, jnp.array([[3.0, 1.0], [2.0, 5.0]]), discount=0.9)
    np.testing.assert_allclose(targets, [1 + 0.9 * 2, -1])


def test_smoothing_is_clipped_noise_within_the_bounds():
    action = jnp.array([[0.0], [0.9]])
    key = jax.random.key(0)
    noise = np.asarray(jax.random.normal(key, (2, 1)))
    smoothed_action = jax.jit(td3.smoothed_action)
    np.testing.assert_array_equal(smoothed_action(action, key, noise=0.0, clip=0.5), action)
    np.testing.assert_allclose(
        smoothed_action(action, key, noise=0.1, clip=9.0), np.clip(action + 0.1 * noise, -1, 1), rtol=1e-6
    )
    many = np.asarray(smoothed_action(jnp.zeros((1_000, 1)), key, noise=0.4, clip=0.5))
    assert np.max(many) == 0.5 and np.min(many) == -0.5
    # Of a normal variable clipped at 1.25 deviations: the deviation by a sum over a grid.
    grid = np.linspace(-8, 8, 100_001)
    density = np.exp(-0.5 * grid**2) / np.exp(-0.5 * grid**2).sum()
    expected = np.sqrt(np.sum(density * np.clip(0.4 * grid, -0.5, 0.5) ** 2))
    assert np.std(many) == pytest.approx(expected, rel=0.05)


def test_critic_loss_by_hand_and_its_gradient():
    params, action = CRITIC.init(None), jnp.array([[0.5], [-0.5]])

    @jax.jit
    def loss(params, targets):
        return td3.critic_loss(params, BATCH, action, targets, critic=CRITIC)[0]

    targets = jnp.array([1.0, 0.0])
    # q_1 = [1.25, 1.75], q_2 = [2.5, -0.5]; td_1 = [-0.25, -1.75], td_2 = [-1.5, 0.5].
    expected = (0.25**2 + 1.75**2) / 2 + (1.5**2 + 0.5**2) / 2
    np.testing.assert_allclose(loss(params, targets), expected, rtol=1e-6)
    gradient, to_targets = jax.jit(jax.grad(loss, (0, 1)))(params, targets)
    np.testing.assert_array_equal(to_targets, [0, 0])
    # d/dv_i = mean of -2 td_i * a.
    np.testing.assert_allclose(gradient["v"], [0.25 * 0.5 - 1.75 * 0.5, 1.5 * 0.5 + 0.5 * 0.5], rtol=1e-6)


def test_policy_loss_is_that_of_the_first_critic():
    @jax.jit
    @jax.value_and_grad
    def loss_and_gradient(params):
        return td3.policy_loss(params, CRITIC.init(None), BATCH.observation, nets=NETS)[0]

    # q_1 = [1, 2] + 0.5 * 0.25, and its gradient by the action is 0.5.
    loss, gradient = loss_and_gradient(POLICY.init(None))
    np.testing.assert_allclose(loss, -(1.5 + 0.125), rtol=1e-6)
    np.testing.assert_allclose(gradient, [-0.5], rtol=1e-6)


def states_of(num_updates, **settings):
    learner_core = td3.make_core(td3.TD3Config(**{"learning_rate": 0.01, **settings}), NETS, SPEC)
    update = jax.jit(learner_core.update)
    states, outputs = [jax.jit(learner_core.init)(jax.random.key(0))], []
    for _ in range(num_updates):
        state, output = update(states[-1], SAMPLE)
        states.append(state)
        outputs.append(output)
    return states, outputs


@pytest.mark.parametrize("period", [1, 2, 3])
def test_policy_and_targets_move_every_period_and_critics_always(period):
    states, _ = states_of(6, policy_update_period=period)
    pairs = list(itertools.pairwise(states))
    moved = [bool(new.params.policy[0] != old.params.policy[0]) for old, new in pairs]
    target_moved = [bool((new.target_params.critic["v"] != old.target_params.critic["v"]).any()) for old, new in pairs]
    assert moved == target_moved == [step % period == 0 for step in range(1, 7)]
    assert all((new.params.critic["v"] != old.params.critic["v"]).any() for old, new in pairs)


@pytest.mark.parametrize("period", [1, 2, 4])
def test_the_schedule_counts_learner_steps_for_policy_and_critics(period):
    schedule = learning.LinearSchedule(0.01, 0.0, 8)
    states, _ = states_of(12, policy_update_period=period, learning_rate=schedule)
    pairs = list(itertools.pairwise(states))
    # Adam's first step is as long as the step size, here that of the learner step before which there were period - 1.
    old, new = pairs[period - 1]
    assert abs(new.params.policy[0] - old.params.policy[0]) == pytest.approx(0.01 * (1 - (period - 1) / 8), rel=1e-3)
    for part, every in (("policy", period), ("critic", 1)):
        moved = [testing.value_difference(getattr(old.params, part), getattr(new.params, part)) for old, new in pairs]
        assert [bool(difference) for difference in moved] == [step <= 8 and step % every == 0 for step in range(1, 13)]


@pytest.mark.parametrize("rate", [0.005, 0.25, 1.0])
def test_targets_go_a_part_of_the_way(rate):
    (start, state), _ = states_of(1, policy_update_period=1, target_update_rate=rate)
    expected = jax.tree.map(lambda old, new: (1 - rate) * old + rate * new, start.target_params, state.params)
    for leaf, expected_leaf in zip(jax.tree.leaves(state.target_params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(leaf, expected_leaf, rtol=1e-6)


def test_a_learner_step_by_hand():
    (_, state), (output,) = states_of(1, discount=0.5, target_noise=0.0)
    # a' = 0.25: q_1 = 1 + 2 + 0.125 and q_2 = 3 - 1 - 0.25, so the targets are 1 + 0.5 * 1.75 and -1.
    targets = np.array([1.875, -1.0])
    q = np.array([[1.25, 1.75], [2.5, -0.5]])
    np.testing.assert_allclose(output.metrics["critic_loss"], np.sum((targets - q) ** 2) / 2, rtol=1e-6)
    assert float(output.metrics["policy_loss"]) == 0 and int(state.steps) == 1
    _, (smoothed,) = states_of(1, discount=0.5, target_noise=0.2)
    assert smoothed.metrics["critic_loss"] != output.metrics["critic_loss"]


def test_critics_may_give_half_precision():
    critic = NETS.critic._replace(apply=lambda *args: NETS.critic.apply(*args).astype(jnp.bfloat16))
    learner_core = td3.make_core(td3.TD3Config(), NETS._replace(critic=critic), SPEC)
    state = jax.eval_shape(learner_core.init, jax.random.key(0))
    new_state, _ = jax.eval_shape(learner_core.update, state, SAMPLE)
    assert testing.type_difference(state, new_state) is None


def actions_of(steps, *, evaluation=False, **settings):
    builder = td3.TD3Builder(td3.TD3Config(**settings))
    policy = builder.make_policy(NETS, SPEC, evaluation=evaluation)
    params = {"params": POLICY.init(None), "steps": jnp.int32(steps)}
    actions = jax.jit(policy.select_action)(params, jnp.zeros((4_000, 2)), (), jax.random.key(0))[0]
    assert np.min(actions) >= 0 and np.max(actions) <= 4
    return np.asarray(actions)


def test_exploration():
    # The policy's action is 0.25, of the bounds 0 and 4: 2.5; a unit is 2.
    noisy = actions_of(1, exploration_noise=0.1)
    assert np.mean(noisy) == pytest.approx(2.5, abs=0.02) and np.std(noisy) == pytest.approx(0.2, rel=0.05)
    np.testing.assert_array_equal(actions_of(1, exploration_noise=0.0), 2.5)
    np.testing.assert_array_equal(actions_of(0, evaluation=True), 2.5)
    # Before the first learner step actions are uniform between the bounds.
    uniform = actions_of(0)
    assert np.mean(uniform) == pytest.approx(2, abs=0.06) and np.std(uniform) == pytest.approx(4 / 12**0.5, rel=0.05)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"policy_update_period": 0}, "TD3Config.policy_update_period must be a whole number of at least 1"),
        ({"target_update_rate": 2.0}, r"TD3Config.target_update_rate must be in \[1e-06, 1\]"),
        ({"exploration_noise": -1.0}, "TD3Config.exploration_noise must be a finite number of at least 0"),
        ({"discount": 1.5}, r"TD3Config.discount must be in \[0, 1\]"),
        (
            {"target_noise": 0.0, "target_noise_clip": 0.1},
            "TD3Config.target_noise_clip must be 0.5 without a target_noise, got 0.1",
        ),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        td3.TD3Config(**settings)
