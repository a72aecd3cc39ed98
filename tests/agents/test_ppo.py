"""PPO: its advantages and loss by hand and with padding, its data, legal actions, and the errors of its config."""

import dataclasses
import functools
import itertools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import (
    _runtime,
    environments,
    experiments,
    learning,
    loggers,
    networks,
    replay,
    specs,
    testing,
    types,
)
from acme_lite.agents import ppo
from acme_lite.networks import running_statistics
from tests.agents import mixed_environment

rlax = _runtime.import_rlax()

NUM_OBSERVATIONS = 5
SPEC = specs.EnvironmentSpec(
    observation=specs.DiscreteArray(NUM_OBSERVATIONS),
    action=specs.DiscreteArray(3, dtype=np.int32),
    reward=specs.Array((), np.float32),
    discount=specs.BoundedArray((), np.float32, 0, 1),
)
DISTRIBUTION = networks.make_action_distribution(SPEC.action)


def look_up(key):
    key_policy, key_value = jax.random.split(key)
    policy = jax.random.normal(key_policy, (NUM_OBSERVATIONS, 3))
    return {"policy": policy, "value": jax.random.normal(key_value, (NUM_OBSERVATIONS,))}


# A network that looks logits and values up.
TABLE = networks.FeedForwardNetwork(
    init=look_up,
    apply=lambda params, observation: networks.PolicyValue(params["policy"][observation], params["value"][observation]),
)


def loss_of(params, rows, clip_epsilon=0.2, entropy_cost=0.0, **settings):
    config = ppo.PPOConfig(**settings)
    return ppo.ppo_loss(
        params, rows, clip_epsilon, entropy_cost, apply=TABLE.apply, distribution=DISTRIBUTION, config=config
    )


def make_window(rng, num_windows, length, mask=None):
    """Random windows of steps; where the mask is False they are what the adder writes there."""
    shape = (num_windows, length)
    mask = np.ones(shape, bool) if mask is None else mask
    observation = rng.integers(NUM_OBSERVATIONS, size=shape)
    action, reward = rng.integers(3, size=shape) * mask, rng.normal(size=shape) * mask
    # Before the row of a last observation, an episode terminates or is cut off; elsewhere it goes on.
    ends = np.concatenate([~mask[:, 1:], np.zeros((num_windows, 1), bool)], axis=1)
    discount = np.where(ends & (rng.random(shape) < 0.5), 0.0, 1.0) * mask
    log_prob = -rng.random(shape) * mask
    return types.Sequence(
        observation.astype(np.int32),
        action.astype(np.int32),
        reward.astype(np.float32),
        discount.astype(np.float32),
        mask,
        {"log_prob": log_prob.astype(np.float32)},
    )


def advantages_in_a_loop(reward, discount, mask, values, lambda_):
    """Sums discounted temporal differences forward from each step to the end of its episode."""
    advantages = np.zeros(len(reward))
    for start in range(len(reward)):
        weight = 1.0
        for t in range(start, len(reward)):
            if not mask[t]:
                break
            advantages[start] += weight * (reward[t] + discount[t] * values[t + 1] - values[t])
            weight *= discount[t] * lambda_
    return advantages


@pytest.mark.parametrize("lambda_", [0.0, 0.9, 1.0])
def test_advantages_are_those_of_a_loop_over_each_episode(lambda_):
    rng = np.random.default_rng(0)
    mask = rng.random((20, 12)) < 0.8
    window = make_window(rng, 20, 12, mask)
    values = rng.normal(size=(20, 12)).astype(np.float32)
    arguments = (window.reward[:, :-1], 0.9 * window.discount[:, :-1], mask, values)
    advantages = jax.vmap(functools.partial(ppo.generalized_advantages, lambda_=lambda_))(*arguments)
    for row, one in zip(advantages, zip(*arguments, strict=True), strict=True):
        np.testing.assert_allclose(row, advantages_in_a_loop(*one, lambda_), atol=1e-5)
    assert not np.asarray(advantages)[~mask[:, :-1]].any()


def test_advantages_without_ends_are_those_of_rlax():
    rng = np.random.default_rng(1)
    window = make_window(rng, 1, 12)
    values = rng.normal(size=12).astype(np.float32)
    reward, discount = window.reward[0, :-1], 0.9 * window.discount[0, :-1]
    expected = rlax.truncated_generalized_advantage_estimation(reward, discount, 0.8, values)
    advantages = ppo.generalized_advantages(reward, discount, np.ones(12, bool), values, 0.8)
    np.testing.assert_allclose(advantages, expected, rtol=1e-6)


def test_lambda_0_gives_temporal_differences_and_lambda_1_returns():
    reward, discount = jnp.array([1.0, 2.0, 0.0, 3.0]), jnp.array([0.5, 0.5, 0.0, 0.5])
    values, mask = jnp.array([1.0, 2.0, 10.0, 4.0, 8.0]), jnp.array([True, True, False, True, True])
    of = functools.partial(ppo.generalized_advantages, reward, discount, mask, values)
    # The second step is the last of an episode that was cut off: it bootstraps from 10, and the third row is no step.
    np.testing.assert_allclose(of(0.0), [1 + 0.5 * 2 - 1, 2 + 0.5 * 10 - 2, 0, 3 + 0.5 * 8 - 4])
    np.testing.assert_allclose(of(1.0), [1 + 0.5 * (2 + 0.5 * 10) - 1, 2 + 0.5 * 10 - 2, 0, 3 + 0.5 * 8 - 4])


@pytest.mark.parametrize("terminates", [False, True])
def test_right_values_give_no_advantage_up_to_the_end_of_an_episode(terminates):
    # Reward 1 for ever is worth 1 / (1 - 0.9) = 10, also at a time limit; less before a true end.
    steps = 6
    left = np.arange(steps, -1, -1)
    values = (1 - 0.9**left) / 0.1 if terminates else np.full(steps + 1, 10.0)
    next_episode = 10.0 if not terminates else values[0]
    values = np.append(values, [next_episode, next_episode]).astype(np.float32)
    mask = np.array([True] * steps + [False, True, True])
    discount = np.full(steps + 2, 0.9)
    discount[steps - 1] = 0.0 if terminates else 0.9
    discount[steps] = 0.0
    reward = np.array([1.0] * steps + [0.0, 1.0])
    advantages = ppo.generalized_advantages(reward, discount, mask, values, 0.95)
    np.testing.assert_allclose(advantages[: steps + 1], 0, atol=1e-5)


def test_rewards_may_be_whole_numbers():
    window = make_window(np.random.default_rng(4), 2, 5)
    whole = window._replace(reward=np.round(10 * window.reward).astype(np.int32))
    returns = running_statistics.init_moments(())
    rows, expected = (
        ppo.make_rows(batch, TABLE.init(jax.random.key(0)), returns, apply=TABLE.apply, config=ppo.PPOConfig())
        for batch in (whole, whole._replace(reward=whole.reward.astype(np.float32)))
    )
    jax.tree.map(np.testing.assert_array_equal, rows, expected)


def test_values_with_an_axis_too_many_are_refused():
    network = TABLE._replace(apply=lambda *arguments: TABLE.apply(*arguments)._replace(value=jnp.zeros((10, 1))))
    core = ppo.make_core(ppo.PPOConfig(unroll_length=4, batch_size=2, minibatch_size=8), network, SPEC)
    window = make_window(np.random.default_rng(4), 2, 5)
    with pytest.raises(ValueError, match=r"PPO needs values of shape \(10\), got \(10, 1\)"):
        jax.eval_shape(core.update, core.init(jax.random.key(0)), replay.Sample(window, ()))


def test_keys_may_be_of_another_generator():
    core = ppo.make_core(ppo.PPOConfig(unroll_length=4, batch_size=2, minibatch_size=8), TABLE, SPEC)
    state = jax.eval_shape(core.init, jax.random.key(0, impl="rbg"))
    window = make_window(np.random.default_rng(4), 2, 5)
    assert jax.eval_shape(core.update, state, replay.Sample(window, ()))[0].key.shape == state.key.shape


def make_rows(**fields):
    """Two rows: the probabilities of the actions taken are 0.5 and 0.25 now, and were 0.25 and 0.5."""
    rows = ppo.Rows(
        observation=jnp.array([0, 1]),
        sample=jnp.array([0, 1]),
        log_prob=jnp.log(jnp.array([0.25, 0.5])),
        advantage=jnp.array([2.0, -4.0]),
        target=jnp.array([3.0, -3.0]),
        value=jnp.array([1.0, 1.0]),
        mask=jnp.array([True, True]),
    )
    return rows._replace(**fields)


PARAMS = {
    "policy": jnp.log(jnp.array([[0.5, 0.25, 0.25]] * NUM_OBSERVATIONS)),
    "value": jnp.array([2.0, 0.0, 0.0, 0.0, 0.0]),
}


def test_loss_by_hand():
    loss, metrics = loss_of(PARAMS, make_rows(), entropy_cost=0.1, value_cost=0.5, normalize_advantages=False)
    # Ratios are 2 and 0.5: min(2 * 2, 1.2 * 2) = 2.4 and min(0.5 * -4, 0.8 * -4) = -3.2.
    policy_loss = -(2.4 - 3.2) / 2
    # Targets are 3 and -3, values 2 and 0.
    value_loss = 0.5 * (1**2 + 3**2) / 2
    entropy = 1.5 * np.log(2)
    np.testing.assert_allclose(metrics["policy_loss"], policy_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], value_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(loss, policy_loss + 0.5 * value_loss - 0.1 * entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["clip_fraction"], 1.0)
    np.testing.assert_allclose(metrics["approx_kl"], (1 - np.log(2) - 0.5 + np.log(2)) / 2, rtol=1e-5)


def test_advantages_are_normalised_over_the_rows_that_are_steps():
    # Mean -1 and deviation 3: 1 and -1.
    _, metrics = loss_of(PARAMS, make_rows(), normalize_advantages=True)
    np.testing.assert_allclose(metrics["policy_loss"], -(1.2 - 0.8) / 2, rtol=1e-5)


def test_values_are_clipped_around_those_before_the_update():
    # Values 2 and 0 become 1.5 and 0.5, farther from the targets 3 and 0.75 than before; the worse one counts.
    rows = make_rows(target=jnp.array([3.0, 0.75]))
    _, metrics = loss_of(PARAMS, rows, value_clip=0.5)
    np.testing.assert_allclose(metrics["value_loss"], 0.5 * (1.5**2 + 0.75**2) / 2, rtol=1e-5)


def test_no_gradient_where_the_ratio_is_clipped():
    @jax.jit
    @jax.grad
    def gradient(params, rows):
        return loss_of(params, rows, normalize_advantages=False)[1]["policy_loss"]

    # Row 0 is clipped at 1.2 and row 1 at 0.8, which is less than 0.5 times a negative advantage.
    np.testing.assert_array_equal(gradient(PARAMS, make_rows())["policy"], np.zeros((NUM_OBSERVATIONS, 3)))
    within = make_rows(log_prob=jnp.log(jnp.array([0.5, 0.25])))
    moved = np.abs(gradient(PARAMS, within)["policy"]).any(axis=1)
    assert moved.tolist() == [True, True, False, False, False]


@pytest.mark.parametrize("settings", [{}, {"normalize_advantages": False, "value_clip": 0.1}])
def test_the_gradient_with_padding_is_the_one_without(settings):
    rng = np.random.default_rng(2)
    params = TABLE.init(jax.random.key(0))
    config = ppo.PPOConfig(**settings)
    mask = np.ones((4, 7), bool)
    mask[1, 5:], mask[2, 3], mask[3, 1:] = False, False, False
    window = make_window(rng, 4, 7, mask)
    make_rows = jax.jit(functools.partial(ppo.make_rows, apply=TABLE.apply, config=config))
    rows = make_rows(window, params, running_statistics.init_moments(()))
    # What stands in the rows that are no steps must not matter.
    shaken = jax.tree.map(lambda leaf: np.where(rows.mask, leaf, 2 + np.arange(leaf.size) % 3).astype(leaf.dtype), rows)
    shaken = shaken._replace(mask=rows.mask)
    without = jax.tree.map(lambda leaf: leaf[rows.mask], rows)
    assert 0 < len(without.mask) < len(rows.mask)

    @jax.jit
    def gradient_and_metrics(rows):
        def loss(params):
            return loss_of(params, rows, entropy_cost=0.1, **settings)

        return jax.grad(loss, has_aux=True)(params)

    expected = gradient_and_metrics(without)
    for padded in (rows, shaken):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-6), gradient_and_metrics(padded), expected
        )
    for padded in (rows, shaken):
        np.testing.assert_allclose(ppo.explained_variance(padded), ppo.explained_variance(without), rtol=1e-4)


def test_a_minibatch_of_padding_alone_changes_nothing():
    rows = make_rows(mask=jnp.array([False, False]))
    (loss, _), gradient = jax.value_and_grad(lambda params: loss_of(params, rows), has_aux=True)(PARAMS)
    assert loss == 0
    assert not any(np.asarray(leaf).any() for leaf in jax.tree.leaves(gradient))


def test_explained_variance_by_hand():
    # Targets 3 and -3 have variance 9, their distances from the values (2 and -4) too.
    np.testing.assert_allclose(ppo.explained_variance(make_rows()), 0.0, atol=1e-6)
    assert ppo.explained_variance(make_rows(advantage=jnp.zeros(2))) == 1
    assert ppo.explained_variance(make_rows(target=jnp.ones(2))) == 0  # equal targets


def run_update(config, window, num_updates=1):
    core = ppo.make_core(config, TABLE, SPEC)
    state = jax.jit(core.init)(jax.random.key(0))
    update = jax.jit(core.update)
    outputs = []
    for _ in range(num_updates):
        state, output = update(state, replay.Sample(window, ()))
        outputs.append((state, output))
    return outputs


def test_normalised_values_learn_the_same_from_rewards_of_any_scale():
    window = make_window(np.random.default_rng(4), 4, 7)
    # 0 in place of a value changes its meaning with the scale, so values begin at the mean of returns.
    settings = dict(unroll_length=6, batch_size=4, minibatch_size=24, num_epochs=2, normalize_values=True)
    network = TABLE._replace(init=lambda key: look_up(key) | {"value": jnp.zeros(NUM_OBSERVATIONS)})
    core = ppo.make_core(ppo.PPOConfig(**settings), network, SPEC)

    @jax.jit
    def learn(window):
        return core.update(core.init(jax.random.key(0)), replay.Sample(window, ()))

    state, output = learn(window)
    scaled_state, scaled_output = learn(window._replace(reward=100 * window.reward))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3), scaled_state.params, state.params)
    np.testing.assert_allclose(scaled_output.metrics["value_loss"], output.metrics["value_loss"], rtol=1e-3)
    np.testing.assert_allclose(scaled_state.returns.mean, 100 * state.returns.mean, rtol=1e-3)

    rows = ppo.make_rows(window, state.params, state.returns, apply=TABLE.apply, config=ppo.PPOConfig())
    np.testing.assert_array_equal(rows.value, state.params["value"][rows.observation])
    expected = state.returns.mean + np.sqrt(state.returns.variance) * rows.value
    np.testing.assert_allclose(rows.target - rows.advantage, expected, rtol=1e-5, atol=1e-5)
    normalized = ppo.normalize_rows(rows, state.returns)
    np.testing.assert_allclose(normalized.target - normalized.advantage, rows.value, rtol=1e-4, atol=1e-5)


def test_values_are_clipped_around_what_the_network_gave_also_where_its_unit_changes():
    window = make_window(np.random.default_rng(6), 4, 7)._replace(reward=np.full((4, 7), 30.0, np.float32))
    settings = dict(unroll_length=6, batch_size=4, minibatch_size=24, num_epochs=1, normalize_values=True)

    def value_losses(**more):
        # The second learner step begins with statistics of its own, too.
        return [
            output.metrics["value_loss"]
            for _, output in run_update(ppo.PPOConfig(**settings, **more, learning_rate=0.0), window, 2)
        ]

    params, start = TABLE.init(jax.random.split(jax.random.key(0))[0]), running_statistics.init_moments(())
    rows = ppo.make_rows(window, params, start, apply=TABLE.apply, config=ppo.PPOConfig())
    targets = np.asarray(rows.target)
    normalized = (targets - targets.mean()) / targets.std()
    # Before the gradient step the network gives what it gave: nothing is clipped.
    first, second = value_losses(value_clip=1e-3)
    np.testing.assert_allclose(first, np.mean((rows.value - normalized) ** 2) / 2, rtol=1e-4)
    np.testing.assert_array_equal([first, second], value_losses())


def test_values_stay_finite_where_all_returns_are_equal():
    # Right values of a constant return: without rewards and with a discount of 0 all targets are 0.
    window = make_window(np.random.default_rng(7), 4, 7)
    window = window._replace(reward=0 * window.reward, discount=0 * window.discount)
    config = ppo.PPOConfig(unroll_length=6, batch_size=4, minibatch_size=24, num_epochs=1, normalize_values=True)
    for state, output in run_update(config, window, 3):
        assert float(state.returns.variance) == 0
        assert all(np.isfinite(value) for value in output.metrics.values())
    rows = ppo.make_rows(window, state.params, state.returns, apply=TABLE.apply, config=config)
    normalized = ppo.normalize_rows(rows, state.returns)
    np.testing.assert_allclose(normalized.target - normalized.advantage, rows.value, rtol=1e-4)


def test_a_learner_step_goes_over_its_batch_in_every_epoch():
    def loss_fn(params, rows, clip_epsilon, entropy_cost, *, apply, distribution, config):
        # The gradient at an observation is the number of its rows in the minibatch.
        return jnp.sum(apply(params, rows.observation).value), {"rows": jnp.sum(rows.mask) * 1.0}

    config = ppo.PPOConfig(unroll_length=6, batch_size=4, minibatch_size=8, num_epochs=3, max_gradient_norm=None)
    window = make_window(np.random.default_rng(3), 4, 7)
    core = ppo.make_core(config, TABLE, SPEC, loss_fn=loss_fn)
    state, output = jax.jit(core.update)(core.init(jax.random.key(0)), replay.Sample(window, ()))
    assert output.metrics["rows"] == 8
    assert output.priorities is None
    counts = {
        int(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
        if ".count" in jax.tree_util.keystr(path)
    }
    assert counts == {3 * 3} and state.steps == 1
    assert (state.params["value"] != TABLE.init(jax.random.split(jax.random.key(0))[0])["value"]).all()


def test_each_epoch_is_one_permutation():
    seen = []

    def loss_fn(params, rows, clip_epsilon, entropy_cost, *, apply, distribution, config):
        jax.debug.callback(lambda rewards: seen.append(np.asarray(rewards)), rows.log_prob, ordered=True)
        return jnp.sum(params["value"]), {}

    config = ppo.PPOConfig(unroll_length=6, batch_size=4, minibatch_size=8, num_epochs=3)
    window = make_window(np.random.default_rng(3), 4, 7)
    core = ppo.make_core(config, TABLE, SPEC, loss_fn=loss_fn)
    jax.block_until_ready(core.update(core.init(jax.random.key(0)), replay.Sample(window, ())))
    jax.effects_barrier()
    epochs = np.asarray(seen).reshape(3, 24)
    rows = np.sort(window.extras["log_prob"][:, :-1].ravel())
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch), rows)
    assert len({epoch.tobytes() for epoch in epochs}) == 3


def test_schedules_count_learner_steps():
    config = ppo.PPOConfig(
        unroll_length=6,
        batch_size=4,
        minibatch_size=8,
        num_epochs=2,
        learning_rate=learning.LinearSchedule(1e-3, 0.0, 2),
        entropy_cost=learning.LinearSchedule(0.1, 0.0, 2),
    )
    states = [state for state, _ in run_update(config, make_window(np.random.default_rng(4), 4, 7), 4)]
    moved = [
        not np.array_equal(before.params["policy"], after.params["policy"])
        for before, after in itertools.pairwise(states)
    ]
    assert moved == [True, False, False]  # from the third learner step on the step size is 0


def test_the_gradient_norm_limit_is_used():
    window = make_window(np.random.default_rng(5), 4, 7)._replace(reward=np.full((4, 7), 100.0, np.float32))

    def first_moment(limit):
        config = ppo.PPOConfig(unroll_length=6, batch_size=4, minibatch_size=24, num_epochs=1, max_gradient_norm=limit)
        ((state, output),) = run_update(config, window)
        moments = [
            leaf
            for path, leaf in jax.tree_util.tree_leaves_with_path(state.opt_state)
            if ".mu" in jax.tree_util.keystr(path)
        ]
        return float(output.metrics["gradient_norm"]), np.linalg.norm(
            np.concatenate([np.ravel(leaf) for leaf in moments])
        )

    norm, free = first_moment(None)
    assert norm > 1
    np.testing.assert_allclose(free, 0.1 * norm, rtol=1e-4)  # (1 - b1) times the gradient
    np.testing.assert_allclose(first_moment(0.5)[1], 0.1 * 0.5, rtol=1e-4)


MIXED_CONFIG = ppo.PPOConfig(hidden_sizes=(16,), unroll_length=8, batch_size=3, minibatch_size=12, num_epochs=1)


@pytest.fixture(scope="module")
def mixed():
    return testing.make_agent(ppo.PPOBuilder(MIXED_CONFIG), mixed_environment.MixedEnvironment)


def test_every_step_is_learned_from_once_and_in_order(mixed):
    samples = mixed.draw_samples(4, seed=0)
    keys = np.concatenate([sample.info.keys for sample in samples])
    np.testing.assert_array_equal(keys, np.arange(len(keys)))
    # Windows 0, 2, 4, ... are of the first member, as no window has ended with an episode yet. Each begins with the row
    # that the one before ended with.
    windows = jax.tree.map(lambda *leaves: np.concatenate(leaves), *[sample.data for sample in samples])
    for member in range(2):
        one = jax.tree.map(lambda leaf, member=member: leaf[member::2], windows)
        for before, after in zip(range(len(one.reward)), range(1, len(one.reward)), strict=False):
            difference = testing.value_difference(
                jax.tree.map(lambda leaf, row=before: leaf[row, -1], one),
                jax.tree.map(lambda leaf, row=after: leaf[row, 0], one),
            )
            assert difference is None
    assert 0 < windows.mask.mean() < 1


def test_stored_log_probs_are_those_of_the_stored_samples(mixed):
    distribution = networks.make_action_distribution(mixed.spec.action)

    @jax.jit
    def log_probs_and_actions(observation, sample):
        policy = mixed.networks.apply(mixed.variables["policy"], observation).policy
        return distribution.log_prob(policy, sample), distribution.to_action(sample)

    for sample in mixed.samples:
        flat = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), sample.data)
        results = log_probs_and_actions(flat.observation, flat.extras["sample"])
        log_probs, actions = jax.tree.map(lambda leaf, mask=flat.mask: leaf[mask], jax.device_get(results))
        real = jax.tree.map(lambda leaf, mask=flat.mask: leaf[mask], flat)
        np.testing.assert_allclose(log_probs, real.extras["log_prob"], rtol=1e-4, atol=1e-5)
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5), actions, real.action)


def test_ratios_begin_at_1_with_normalised_observations_too():
    config = dataclasses.replace(MIXED_CONFIG, normalize_observations=True, minibatch_size=24)
    agent = testing.make_agent(ppo.PPOBuilder(config), mixed_environment.MixedEnvironment)
    core = learning.normalize_observations(ppo.make_core(config, agent.networks, agent.spec), agent.spec.observation)
    state = jax.jit(core.init)(jax.random.key(0))
    data = agent.draw_samples(1, seed=0)[0].data
    statistics = jax.jit(running_statistics.update_statistics)(state.statistics, data.observation, data.mask)
    # The statistics are no longer those of no rows, and the sample was made with them.
    state = state._replace(statistics=statistics)
    policy = agent.builder.make_policy(agent.networks, agent.spec)
    actor_params = core.variables(state)["policy"]

    def act(observation, key):
        action, extras, _ = policy.select_action(actor_params, observation, (), key)
        return action, extras

    action, extras = jax.jit(jax.vmap(act, in_axes=(0, None)))(data.observation, jax.random.key(1))
    _, output = jax.jit(core.update)(state, replay.Sample(data._replace(action=action, extras=extras), ()))
    np.testing.assert_allclose(output.metrics["approx_kl"], 0, atol=1e-5)
    assert output.metrics["clip_fraction"] == 0


class LegalMoves(dm_env.Environment):
    """Two of four actions are legal at a time; one is never; a mean return of 1 needs the greatest legal one."""

    name = "legal_moves"

    def __init__(self, seed=0):
        self.reseed(seed)

    def reseed(self, seed):
        self._rng = np.random.default_rng(seed)

    def reset(self):
        self._left = 3
        return dm_env.restart(self._observe())

    def step(self, action):
        assert self._mask[action], f"Action {action} is illegal: {self._mask}."
        reward = np.float32(action == np.flatnonzero(self._mask).max())
        self._left -= 1
        if self._left:
            return dm_env.transition(reward, self._observe())
        return dm_env.termination(reward, {"board": np.zeros(4, np.float32), "action_mask": np.zeros(4, np.int8)})

    def _observe(self):
        self._mask = np.zeros(4, np.int8)
        self._mask[self._rng.choice(3, 2, replace=False)] = 1
        return {"board": self._mask.astype(np.float32), "action_mask": self._mask}

    def observation_spec(self):
        return {"board": specs.Array((4,), np.float32), "action_mask": specs.BoundedArray((4,), np.int8, 0, 1)}

    def action_spec(self):
        return specs.DiscreteArray(4)

    def reward_spec(self):
        return specs.Array((), np.float32)

    def discount_spec(self):
        return specs.BoundedArray((), np.float32, 0, 1)


def run(config, environment_factory, directory, steps, num_envs, num_episodes=10):
    experiment = experiments.ExperimentConfig(
        ppo.PPOBuilder(config),
        environment_factory,
        num_envs=num_envs,
        max_num_actor_steps=steps,
        evaluation=experiments.EvaluationConfig(steps, num_episodes),
        directory=directory,
        logger_factory=lambda label: loggers.InMemoryLogger(),
    )
    return experiments.run_experiment(experiment, quiet=True)


def test_only_legal_actions_are_taken_and_learned(tmp_path):
    config = ppo.PPOConfig(
        hidden_sizes=(16,),
        unroll_length=32,
        batch_size=4,
        minibatch_size=64,
        num_epochs=8,
        learning_rate=1e-2,
        normalize_observations=True,
    )
    # The environment itself fails where an action is illegal; four members and batches of four.
    result = run(config, LegalMoves, tmp_path, steps=3_000, num_envs=4)
    assert result.evaluations[-1].mean_return == 3
    assert set(result.variables["policy"]["statistics"]) == {"['board']"}


def test_mixed_actions_are_learned(tmp_path):
    config = ppo.PPOConfig(
        discount=0.0,
        hidden_sizes=(32,),
        unroll_length=16,
        minibatch_size=64,
        learning_rate=5e-3,
        normalize_observations=True,
        initial_log_std=-1.0,
    )
    result = run(config, mixed_environment.MixedEnvironment, tmp_path, steps=4_000, num_envs=8, num_episodes=50)
    steps = result.counts["evaluator_steps"]
    # 2 a step would be perfect, and both choices at random with the best constant aim give 1/3 + 1/2 - 1/2.
    assert sum(result.evaluations[-1].returns) / steps > 1.7


@pytest.mark.slow
def test_cart_pole_is_solved_within_60_000_steps(tmp_path):
    config = ppo.PPOConfig()
    result = run(config, lambda seed: environments.make("gym:CartPole-v1", seed=seed), tmp_path, 60_000, 8, 20)
    assert result.evaluations[-1].mean_return >= 475


def test_the_evaluation_policy_takes_the_mode():
    builder = ppo.PPOBuilder()
    policy = builder.make_policy(TABLE, SPEC, evaluation=True)
    observation = jnp.arange(NUM_OBSERVATIONS)
    params = TABLE.init(jax.random.key(0))
    for seed in range(3):
        action, extras, _ = policy.select_action(params, observation, (), jax.random.key(seed))
        np.testing.assert_array_equal(action, jnp.argmax(params["policy"], axis=-1))
        assert extras == ()


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("discount", 1.5, r"in \[0, 1\]"),
        ("gae_lambda", -0.1, r"in \[0, 1\]"),
        ("unroll_length", 0, "a whole number of at least 1"),
        ("num_epochs", 0, "a whole number of at least 1"),
        ("minibatch_size", 100, r"must divide batch_size \* unroll_length = 1024"),
        ("clip_epsilon", 0.0, "a finite number greater than 0, or a schedule of such, which may end at 0"),
        (
            "clip_epsilon",
            learning.LinearSchedule(0.2, -0.1, 10),
            "a finite number greater than 0, or a schedule of such, which may end at 0",
        ),
        ("value_clip", -1.0, "a finite number greater than 0, or None"),
        ("max_gradient_norm", 0.0, "a finite number greater than 0, or None"),
        ("entropy_cost", float("nan"), "a finite number of at least 0, or a schedule of such"),
        ("initial_log_std", 5.0, r"in \[-20, 2\]"),
    ],
)
def test_bad_settings_are_named_with_what_is_allowed(field, value, allowed):
    with pytest.raises(ValueError, match=rf"PPOConfig\.{field} must .*{allowed.removeprefix('must ')}, got "):
        ppo.PPOConfig(**{field: value})


def test_actions_and_masks_that_do_not_fit_are_an_error_before_anything_runs():
    with pytest.raises(ValueError, match="floats, or of integers with bounds"):
        ppo.make_networks(SPEC._replace(action=specs.Array((2,), np.int32)))
    mask = specs.BoundedArray((2,), np.int8, 0, 1)
    with pytest.raises(ValueError, match="'action_mask'"):
        ppo.make_networks(SPEC._replace(observation={"board": specs.Array((4,), np.float32), "action_mask": mask}))


def test_normalised_advantages_need_two_steps():
    with pytest.raises(ValueError, match=r"PPOConfig.minibatch_size must be at least 2 with normalize_advantages"):
        ppo.PPOConfig(unroll_length=4, batch_size=2, minibatch_size=1)
    ppo.PPOConfig(unroll_length=4, batch_size=2, minibatch_size=1, normalize_advantages=False)
