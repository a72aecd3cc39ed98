"""R2D2: its loss against a loop in NumPy, masks, burn-in, priorities, exploration, and the errors of its config."""

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
    acting,
    core,
    counting,
    environment_loop,
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
from acme_lite.agents import r2d2

rlax = _runtime.import_rlax()

NUM_ACTIONS = 3
SPEC = specs.EnvironmentSpec(
    observation={"vector": specs.Array((2,), np.float32), "action_mask": specs.Array((NUM_ACTIONS,), np.int8)},
    action=specs.DiscreteArray(NUM_ACTIONS, dtype=np.int32),
    reward=specs.Array((), np.float32),
    discount=specs.BoundedArray((), np.float32, 0, 1),
)
MEMORY_SPEC = specs.make_environment_spec(testing.MemoryEnvironment())


def make_recurrent_network(size=4):
    """A plain recurrent network that a loop in NumPy can follow: s' = tanh(s A + o B), q = s' C."""

    def step(params, vector, state):
        state = jnp.tanh(state @ params["A"] + vector @ params["B"])
        return state @ params["C"], state

    def unroll(params, observation, state, reset):
        def advance(state, row):
            vector, reset = row
            output, state = step(params, vector, jnp.where(reset[:, None], 0.0, state))
            return state, output

        rows = (jnp.swapaxes(observation["vector"], 0, 1), jnp.swapaxes(reset, 0, 1))
        state, outputs = jax.lax.scan(advance, state, rows)
        return jnp.swapaxes(outputs, 0, 1), state

    def init(key):
        shapes = {"A": (size, size), "B": (2, size), "C": (size, NUM_ACTIONS)}
        keys = jax.random.split(key, len(shapes))
        return {
            name: 1.5 * jax.random.normal(key, shape) for key, (name, shape) in zip(keys, shapes.items(), strict=True)
        }

    return networks.RecurrentNetwork(
        init=jax.jit(init),
        apply=lambda params, observation, state: step(params, observation["vector"], state),
        unroll=unroll,
        initial_state=lambda: jnp.zeros(size),
    )


NETWORK = make_recurrent_network()
PARAMS, TARGET_PARAMS = (NETWORK.init(jax.random.key(seed)) for seed in (0, 1))
CONFIG = r2d2.R2D2Config(discount=0.9, n_step=3, burn_in_length=2, trace_length=6, period=3)

# Rows of a window: "s" a step, "t" a step that terminates, "L" the row of a last observation, "0" padding. A step
# before "L" that is no "t" was truncated.
WINDOWS = ("sssssssss", "sssssstL0", "sssssssL0", "ssstL0000", "sssL00000", "sstLssssL", "sLssstLss", "tL0000000")


def make_batch(windows=WINDOWS, seed=0):
    """A batch of random windows; rows that hold nothing real are zero as in the replay."""
    rng = np.random.default_rng(seed)
    kinds = np.array([list(window) for window in windows])
    shape = kinds.shape
    mask = (kinds == "s") | (kinds == "t")
    legal = rng.integers(2, size=(*shape, NUM_ACTIONS))
    legal[np.arange(shape[0])[:, None], np.arange(shape[1]), rng.integers(NUM_ACTIONS, size=shape)] = 1
    padding = (kinds == "0")[..., None]
    observation = {
        "vector": np.where(padding, 0, rng.normal(size=(*shape, 2))).astype(np.float32),
        "action_mask": np.where(padding, 0, legal).astype(np.int8),
    }
    return types.Sequence(
        observation=observation,
        action=np.where(mask, rng.integers(NUM_ACTIONS, size=shape), 0).astype(np.int32),
        reward=np.where(mask, 5 * rng.normal(size=shape), 0).astype(np.float32),
        discount=np.where(mask & (kinds != "t"), rng.choice([0.5, 1.0], shape), 0).astype(np.float32),
        mask=mask,
        start={"core_state": rng.normal(size=(len(kinds), 4)).astype(np.float32)},
    )


def rows(batch, start, end):
    """Some rows of all windows, with the state that the windows start from."""
    return jax.tree.map(lambda leaf: leaf[:, start:end], batch._replace(start=()))._replace(start=batch.start)


@functools.partial(jax.jit, static_argnames="config")
@functools.partial(jax.value_and_grad, has_aux=True)
def loss_and_gradient(params, target_params, batch, weights, config):
    return r2d2.r2d2_loss(params, target_params, batch, weights, NETWORK, config=config)


def compute_loss(batch, *, weights=None, config=CONFIG, target_params=TARGET_PARAMS):
    """The loss, what comes beside it, and the gradient."""
    weights = np.ones(len(batch.reward)) if weights is None else weights
    (loss, output), gradient = loss_and_gradient(PARAMS, target_params, batch, jnp.asarray(weights), config)
    return float(loss), output, gradient


def h(x, epsilon):
    return np.sign(x) * (np.sqrt(abs(x) + 1) - 1) + epsilon * x


def inverse_h(x, epsilon):
    root = (np.sqrt(1 + 4 * epsilon * (abs(x) + 1 + epsilon)) - 1) / (2 * epsilon)
    return np.sign(x) * (root**2 - 1)


def values_in_numpy(params, window):
    """Action values `[T, A]` of one window, step by step in double precision."""
    params = {name: np.asarray(leaf, np.float64) for name, leaf in params.items()}
    state, values = window.start["core_state"].astype(np.float64), []
    for t in range(len(window.mask)):
        if t > 0 and not window.mask[t - 1]:
            state = np.zeros_like(state)
        state = np.tanh(state @ params["A"] + window.observation["vector"][t] @ params["B"])
        values.append(state @ params["C"])
    return np.array(values)


def td_errors_in_numpy(window, config):
    """The temporal differences of the steps that are trained, in order, of one window, in double precision."""
    q, target_q = (values_in_numpy(params, window) for params in (PARAMS, TARGET_PARAMS))
    if config.rescaling_epsilon is None:
        rescale = restore = lambda x: x
    else:
        rescale = functools.partial(h, epsilon=config.rescaling_epsilon)
        restore = functools.partial(inverse_h, epsilon=config.rescaling_epsilon)
    errors = []
    for t in range(config.burn_in_length, len(window.mask) - 1):
        if not window.mask[t]:
            continue
        target, factor, row = 0.0, 1.0, t
        while row < t + config.n_step and row < len(window.mask) - 1 and window.mask[row]:
            target += factor * window.reward[row]
            factor *= config.discount * window.discount[row]
            row += 1
        legal = [action for action in range(NUM_ACTIONS) if window.observation["action_mask"][row, action]]
        best = max(legal, key=lambda action: q[row, action])
        target += factor * restore(target_q[row, best])
        errors.append(rescale(target) - q[t, window.action[t]])
    return np.array(errors)


@pytest.mark.parametrize("n_step", [1, 3, 20])
@pytest.mark.parametrize("burn_in_length", [0, 2])
@pytest.mark.parametrize("rescaling_epsilon", [None, 1e-3])
def test_loss_follows_a_loop_in_numpy(n_step, burn_in_length, rescaling_epsilon):
    config = dataclasses.replace(
        CONFIG, n_step=n_step, burn_in_length=burn_in_length, rescaling_epsilon=rescaling_epsilon
    )
    batch = make_batch()
    weights = np.linspace(0.3, 1.0, len(WINDOWS))
    loss, output, _ = compute_loss(batch, weights=weights, config=config)
    rows = [jax.tree.map(lambda leaf, row=row: leaf[row], batch) for row in range(len(WINDOWS))]
    errors = [td_errors_in_numpy(row, config) for row in rows]
    num_trained = sum(map(len, errors))
    assert num_trained > 20
    expected = sum(weight * (error**2).sum() for weight, error in zip(weights, errors, strict=True))
    np.testing.assert_allclose(loss, 0.5 * expected / num_trained, rtol=1e-3)
    sizes = [np.abs(error) if len(error) else np.zeros(1) for error in errors]
    priorities = [0.9 * size.max() + 0.1 * size.mean() for size in sizes]
    np.testing.assert_allclose(output.priorities, priorities, rtol=1e-3)
    np.testing.assert_allclose(output.metrics["td_error"], np.abs(np.concatenate(errors)).mean(), rtol=1e-3)
    np.testing.assert_allclose(output.metrics["trained_steps"], num_trained / len(WINDOWS), rtol=1e-6)


def n_step_returns(kinds, rewards, values, n_step):
    """Returns of one stream with a discount of 0.5 a step, 0 where it terminates."""
    mask = np.array([kind in "st" for kind in kinds])
    discount = np.array([0.5 if kind == "s" else 0.0 for kind in kinds], np.float32)
    arrays = (np.asarray(array, np.float32) for array in (rewards, discount, values))
    return np.asarray(r2d2.n_step_returns(*arrays, mask, n_step=n_step))


def test_the_last_rows_of_an_episode_bootstrap_at_its_last_observation():
    values = [100, 200, 300, 400, 800, -1]
    # Truncated behind row 3, whose next observation is that of row 4, with the value 800.
    # Row 0: 1 + 2/2 + 3/4 + 400/8. Row 1: 2 + 3/2 + 4/4 + 800/8. Row 2: 3 + 4/2 + 800/4. Row 3: 4 + 800/2.
    truncated = n_step_returns("ssssL0", [1, 2, 3, 4, 0, 0], values, 3)
    np.testing.assert_allclose(truncated[:4], [52.75, 104.5, 205.0, 404.0])
    # Terminated there: nothing comes behind the last reward.
    terminated = n_step_returns("ssstL0", [1, 2, 3, 4, 0, 0], values, 3)
    np.testing.assert_allclose(terminated[:4], [52.75, 4.5, 5.0, 4.0])


def test_the_last_rows_of_a_window_bootstrap_at_its_last_observation():
    # Row 2: 3 + 4/2 + 800/4 with two steps of three, row 3: 4 + 800/2; row 4 has no next observation.
    returns = n_step_returns("sssss", [1, 2, 3, 4, 5], [100, 200, 300, 400, 800], 3)
    np.testing.assert_allclose(returns[:4], [52.75, 104.5, 205.0, 404.0])


def test_returns_do_not_cross_into_the_next_episode_of_a_window():
    # Row 0: 1 + 80/2, for the value of its episode's last observation; row 2 begins the next: 3 + 4/2 + 800/4.
    returns = n_step_returns("sLsss", [1, 0, 3, 4, 5], [100, 80, 300, 400, 800], 2)
    np.testing.assert_allclose(returns[[0, 2]], [41.0, 205.0])


def test_values_of_half_precision_give_returns_of_single_precision():
    reward, discount, value = np.full((3, 4), 0.5, np.float32)
    arguments = (reward, discount, value.astype(jnp.bfloat16), np.ones(4, bool))
    returns = r2d2.n_step_returns(*arguments, n_step=2)
    assert returns.dtype == np.float32
    # 0.5 + 0.25 + 0.125 with two steps, 0.5 + 0.25 with the last.
    np.testing.assert_array_equal(returns, [0.875, 0.875, 0.75, 0.5])


@pytest.mark.parametrize("n_step", [1, 3, 9])
def test_without_masks_the_errors_are_those_of_rlax(n_step):
    rng = np.random.default_rng(0)
    q, target_q = rng.normal(size=(2, 7, NUM_ACTIONS)).astype(np.float32)
    action, selected = rng.integers(NUM_ACTIONS, size=(2, 7))
    reward, discount = rng.normal(size=7).astype(np.float32), rng.uniform(0, 1, 7).astype(np.float32)
    rows = np.arange(7)
    errors = r2d2.td_errors(
        q[rows, action],
        target_q[rows, selected],
        reward,
        discount,
        np.ones(7, bool),
        n_step=n_step,
        rescaling_epsilon=1e-3,
    )
    expected = rlax.transformed_n_step_q_learning(
        q[:-1], action[:-1], target_q[1:], selected[1:], reward[:-1], discount[:-1], n_step,
        tx_pair=rlax.SIGNED_HYPERBOLIC_PAIR,
    )  # fmt: skip
    np.testing.assert_allclose(errors[:-1], expected, rtol=1e-4, atol=1e-5)
    assert errors[-1] == 0


def test_what_stands_in_padding_changes_nothing():
    windows = ("sssssssss", "sssssstL0", "ssstL0000", "sssL00000", "tL0000000")
    batch = make_batch(windows)
    rng = np.random.default_rng(1)
    kinds = np.array([list(window) for window in windows])
    padding = kinds == "0"

    def garbage(leaf, rows):
        noise = 100 * rng.normal(size=leaf.shape) if leaf.dtype == np.float32 else rng.integers(2, size=leaf.shape)
        return np.where(rows.reshape(rows.shape + (1,) * (leaf.ndim - 2)), noise.astype(leaf.dtype), leaf)

    # An episode's last observation is real; the action, reward and discount beside it are not.
    changed = types.Sequence(
        observation=jax.tree.map(lambda leaf: garbage(leaf, padding), batch.observation),
        action=garbage(batch.action, ~batch.mask),
        reward=garbage(batch.reward, ~batch.mask),
        discount=garbage(batch.discount, ~batch.mask),
        mask=batch.mask,
        start=batch.start,
    )
    assert testing.value_difference(changed.observation, batch.observation) is not None
    expected = compute_loss(batch)
    assert expected[0] > 0
    assert testing.value_difference(compute_loss(changed), expected) is None


def test_a_padded_window_has_the_loss_and_gradient_of_the_window_without_padding():
    padded = make_batch(("ssssL0000",))
    cut = rows(padded, 0, 5)
    (loss, output, gradient), (cut_loss, cut_output, cut_gradient) = compute_loss(padded), compute_loss(cut)
    assert loss > 0
    close = functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6)
    close(loss, cut_loss)
    close(output.priorities, cut_output.priorities)
    jax.tree.map(close, gradient, cut_gradient)


def test_no_gradient_flows_through_the_burn_in():
    batch = make_batch(("sssssssss", "sLsssssss"))
    _, _, gradient = compute_loss(batch)
    head = rows(batch, 0, 2)
    _, state = NETWORK.unroll(PARAMS, head.observation, head.start["core_state"], networks.episode_starts(head.mask))
    # The second window begins an episode behind its burn-in: its trace starts from the initial state.
    state = np.where(np.array([[False], [True]]), 0, state)

    def trace_loss(params, state):
        # Double Q alone links the two networks; the target network burns in by its own parameters.
        _, target_state = NETWORK.unroll(
            TARGET_PARAMS, head.observation, head.start["core_state"], networks.episode_starts(head.mask)
        )
        target_state = jnp.where(jnp.array([[False], [True]]), 0, target_state)
        trace = rows(batch, 2, None)
        reset = networks.episode_starts(trace.mask)
        q, _ = NETWORK.unroll(params, trace.observation, state, reset)
        target_q, _ = NETWORK.unroll(TARGET_PARAMS, trace.observation, target_state, reset)
        selected = jnp.argmax(networks.mask_illegal(q, trace.observation["action_mask"]), axis=-1)
        errors = [
            r2d2.td_errors(
                jnp.take_along_axis(q[row], trace.action[row, :, None], axis=-1)[:, 0],
                jnp.take_along_axis(target_q[row], selected[row, :, None], axis=-1)[:, 0],
                trace.reward[row],
                CONFIG.discount * trace.discount[row],
                trace.mask[row],
                n_step=CONFIG.n_step,
                rescaling_epsilon=CONFIG.rescaling_epsilon,
            )
            for row in range(2)
        ]
        return 0.5 * jnp.mean(jnp.square(jnp.stack(errors)[:, :-1]))

    expected, to_state = jax.jit(jax.grad(trace_loss, argnums=(0, 1)))(PARAMS, state)
    assert np.abs(to_state).max() > 0.01  # so a gradient would flow through the state if it were let
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5), gradient, expected)


def test_the_burn_in_gives_the_state_to_the_trace():
    batch = make_batch(("sssssssss",))
    loss, _, _ = compute_loss(batch)
    batch.observation["vector"][:, 0] += 1.0
    assert compute_loss(batch)[0] != pytest.approx(loss, rel=1e-4)
    batch = make_batch(("sssssssss",))
    batch.start["core_state"][:] += 1.0
    assert compute_loss(batch)[0] != pytest.approx(loss, rel=1e-4)


def test_priorities_by_hand():
    td, mask = jnp.array([1.0, -4.0, 0.0, 7.0]), jnp.array([True, True, True, False])
    priority = r2d2.sequence_priority(td, mask, max_priority_weight=0.9)
    np.testing.assert_allclose(priority, 0.9 * 4 + 0.1 * (1 + 4 + 0) / 3, rtol=1e-6)
    assert r2d2.sequence_priority(td, jnp.zeros(4, bool), max_priority_weight=0.9) == 0


def make_sample(windows=WINDOWS, probabilities=None):
    probabilities = jnp.full(len(windows), 0.1) if probabilities is None else jnp.array(probabilities)
    return replay.Sample(make_batch(windows), replay.SampleInfo((), probabilities, jnp.int32(10)))


def run_updates(config, num_updates=1, sample=None):
    learner_core = r2d2.make_core(config, NETWORK)
    state, outputs = learner_core.init(jax.random.key(0)), []
    update = jax.jit(learner_core.update)
    for _ in range(num_updates):
        state, output = update(state, make_sample() if sample is None else sample)
        outputs.append((state, output))
    return outputs


def test_a_sequence_without_a_trained_step_keeps_a_tiny_priority_and_harms_nothing():
    ((state, output),) = run_updates(CONFIG, sample=make_sample(("tL0000000", "sL0000000")))
    np.testing.assert_allclose(output.priorities, [1e-6, 1e-6])
    assert output.metrics["loss"] == 0 and output.metrics["trained_steps"] == 0
    assert testing.value_difference(state.params, NETWORK.init(jax.random.key(0))) is None


def test_importance_weights_enter_the_loss():
    probabilities = np.linspace(0.01, 0.9, len(WINDOWS))
    config = dataclasses.replace(CONFIG, importance_exponent=1.0)
    ((_, output),) = run_updates(config, sample=make_sample(probabilities=probabilities))
    plain, _, _ = compute_loss(make_batch(), target_params=PARAMS)
    weighted, _, _ = compute_loss(make_batch(), weights=0.01 / probabilities, target_params=PARAMS)
    assert float(output.metrics["loss"]) == pytest.approx(weighted, rel=1e-5)
    assert plain > 2 * weighted


def test_priorities_are_sent_for_prioritised_replay_alone():
    ((_, prioritised),), ((_, uniform),) = (
        run_updates(dataclasses.replace(CONFIG, priority_exponent=exponent)) for exponent in (0.9, 0.0)
    )
    assert uniform.priorities is None
    assert prioritised.priorities.shape == (len(WINDOWS),)


def test_target_is_copied_every_period_and_not_between():
    outputs = run_updates(dataclasses.replace(CONFIG, target_update_period=3), 6)
    copied = [testing.value_difference(state.params, state.target_params) is None for state, _ in outputs]
    assert copied == [False, False, True, False, False, True]


def test_epsilon_ladder_by_hand():
    # alpha = 7 with three rungs: exponents 1, 4.5 and 8.
    ladder = acting.epsilon_ladder(0.4, jnp.arange(3), 3, alpha=7.0)
    np.testing.assert_allclose(ladder, [0.4, 0.4**4.5, 0.4**8], rtol=1e-5)
    np.testing.assert_allclose(acting.epsilon_ladder(0.4, jnp.arange(1), 1, alpha=7.0), [0.4**4.5], rtol=1e-5)
    np.testing.assert_allclose(acting.epsilon_ladder(0.4, jnp.arange(2), 2, alpha=0.0), [0.4, 0.4], rtol=1e-5)


def random_parts(config, base, *, num_envs=2, actor=core.ActorId(), evaluation=False):
    """How often each of an actor's environments takes an action that is not the greedy one, over 4,000 keys."""
    policy = r2d2.R2D2Builder(config).make_policy(NETWORK, SPEC, evaluation=evaluation, actor=actor)
    params = {"params": PARAMS, "epsilon": jnp.float32(base)}
    observation = {"vector": jnp.ones((num_envs, 2)), "action_mask": jnp.ones((num_envs, NUM_ACTIONS), jnp.int8)}
    state = jnp.zeros((num_envs, 4))
    values, _ = NETWORK.apply(PARAMS, observation, state)

    def not_greedy(key):
        action, _, _ = policy.select_action(params, observation, state, key)
        return action != jnp.argmax(values, axis=-1)

    return np.asarray(jax.vmap(not_greedy)(jax.random.split(jax.random.key(0), 4_000)).mean(axis=0))


def test_each_environment_of_each_actor_has_a_rung_of_the_ladder():
    config = dataclasses.replace(CONFIG, epsilon_alpha=3.0)
    # Two actors of two environments: exponents 1, 2, 3 and 4; a random action is the greedy one once in three times.
    expected = (2 / 3) * 0.8 ** np.array([1.0, 2.0, 3.0, 4.0])
    parts = np.concatenate([random_parts(config, 0.8, actor=core.ActorId(index, 2)) for index in range(2)])
    np.testing.assert_allclose(parts, expected, atol=0.03)


def test_evaluation_has_an_epsilon_of_its_own_and_zero_means_zero():
    assert random_parts(CONFIG, 1.0, evaluation=True).tolist() == [0, 0]
    config = dataclasses.replace(CONFIG, evaluation_epsilon=0.6)
    np.testing.assert_allclose(random_parts(config, 0.0, evaluation=True), [0.4, 0.4], atol=0.03)


def test_epsilon_may_be_a_schedule_over_learner_steps():
    config = dataclasses.replace(CONFIG, epsilon=learning.LinearSchedule(1.0, 0.2, 4))
    learner_core = r2d2.make_core(config, NETWORK)
    served = [float(learner_core.variables(state)["policy"]["epsilon"]) for state, _ in run_updates(config, 5)]
    np.testing.assert_allclose(served, [0.8, 0.6, 0.4, 0.2, 0.2], rtol=1e-6)
    assert float(learner_core.variables(learner_core.init(jax.random.key(0)))["policy"]["epsilon"]) == 1.0


@pytest.mark.parametrize("evaluation", [False, True])
def test_only_legal_actions_are_taken(evaluation):
    policy = r2d2.R2D2Builder(CONFIG).make_policy(NETWORK, SPEC, evaluation=evaluation)
    rng = np.random.default_rng(0)
    legal = rng.integers(2, size=(500, NUM_ACTIONS), dtype=np.int8)
    legal[np.arange(500), rng.integers(NUM_ACTIONS, size=500)] = 1
    observation = {"vector": rng.normal(size=(500, 2)).astype(np.float32), "action_mask": legal}
    params = {"params": PARAMS, "epsilon": jnp.float32(0.9)}
    action, _, _ = policy.select_action(params, observation, jnp.zeros((500, 4)), jax.random.key(0))
    assert action.dtype == np.int32
    assert legal[np.arange(500), action].all()
    assert set(np.unique(action)) == {0, 1, 2}


MEMORY_BUILDER = r2d2.R2D2Builder(
    r2d2.R2D2Config(
        burn_in_length=1,
        trace_length=3,
        period=2,
        n_step=2,
        hidden_sizes=(8,),
        core_size=8,
        batch_size=8,
        min_replay_size=16,
        max_replay_size=500,
        overlap=False,
    )
)


def test_stored_states_are_those_that_the_policy_had():
    agent = testing.make_agent(MEMORY_BUILDER, testing.MemoryEnvironment)
    (table,) = agent.tables
    limiter = replay.rate_limiters.MinSize(1)
    local = replay.LocalReplay(
        [dataclasses.replace(table, sampler=replay.Fifo(), limiter=limiter, max_times_sampled=1)]
    )
    policy = MEMORY_BUILDER.make_policy(agent.networks, agent.spec)
    adder = MEMORY_BUILDER.make_adder(local.writer(1), agent.spec, agent.extras_spec)
    actor = agent.make_actor(policy, num_envs=1, adder=adder)
    environment_loop.EnvironmentLoop(agent.make_vector_environment(1), actor).run(num_episodes=40)
    # All windows that the actor has written, oldest first.
    batch = next(local.dataset(table.name, local.info().tables[table.name].size, timeout_seconds=1.0)).data
    assert batch.mask.shape[1] == 1 + 3 + 1
    assert batch.mask[:, 1].all()  # behind the burn-in each window has a step to train
    begins = batch.observation["cue"][:, 0, 0] != 0
    assert begins.any() and not begins.all()
    period = MEMORY_BUILDER.config.period
    head = rows(batch, 0, period)
    _, states = jax.jit(agent.networks.unroll)(
        agent.variables["policy"]["params"], head.observation, head.start["core_state"], np.zeros_like(head.mask)
    )
    for stored, state in zip(jax.tree.leaves(batch.start), jax.tree.leaves(states), strict=True):
        assert not stored[begins].any()
        assert (np.abs(stored[~begins]).max(axis=1) > 0).all()
        # A window that begins within an episode goes on where the one before it was after `period` rows.
        (later,) = np.nonzero(~begins)
        np.testing.assert_allclose(stored[later], state[later - 1], rtol=1e-4, atol=1e-6)


def test_many_environments_act_as_unrolling_episode_by_episode_says():
    num_envs, num_steps = 4, 40
    network = MEMORY_BUILDER.make_networks(MEMORY_SPEC)
    # Larger than fresh ones, so that the state and the greedy action vary.
    params = jax.tree.map(lambda leaf: 4 * leaf, jax.jit(network.init)(jax.random.key(0)))
    variables = testing.FixedVariables({"policy": {"params": params, "epsilon": jnp.float32(0.5)}})
    policy = MEMORY_BUILDER.make_policy(network, MEMORY_SPEC, evaluation=True)
    actor = MEMORY_BUILDER.make_actor(policy, variables, None, key=jax.random.key(0), num_envs=num_envs)
    environment = environments.SyncVectorEnvironment([testing.MemoryEnvironment() for _ in range(num_envs)], seed=0)
    timestep = environment.reset()
    actor.observe_first(timestep)
    episodes = [[] for _ in range(num_envs)]  # of each member, lists of (observation, action)
    for _ in range(num_steps):
        action = actor.select_action(timestep.observation)
        for member in range(num_envs):
            if timestep.step_type[member] == dm_env.StepType.FIRST:
                episodes[member].append([])
            if timestep.step_type[member] != dm_env.StepType.LAST:
                observation = jax.tree.map(lambda leaf, member=member: leaf[member], timestep.observation)
                episodes[member][-1].append((observation, action[member]))
        timestep = environment.step(action)
        actor.observe(action, timestep)
    longest = 6
    no_reset = np.zeros((1, longest), bool)
    start = jax.tree.map(lambda leaf: leaf[None], network.initial_state())
    unroll = jax.jit(network.unroll)
    seen = set()
    for episode in itertools.chain.from_iterable(episodes):
        rows = [observation for observation, _ in episode]
        rows += rows[:1] * (longest - len(rows))
        values, _ = unroll(params, jax.tree.map(lambda *leaves: np.stack(leaves)[None], *rows), start, no_reset)
        actions = [action for _, action in episode]
        np.testing.assert_array_equal(np.argmax(values[0, : len(actions)], axis=-1), actions)
        seen |= set(actions)
    assert seen == {0, 1} and min(map(len, episodes)) > 3


def learned_return(environment_factory, directory, *, num_envs, steps, num_episodes=200, seed=0, **settings):
    """Mean greedy return at the end of a run."""
    experiment = experiments.ExperimentConfig(
        r2d2.R2D2Builder(r2d2.R2D2Config(**settings)),
        environment_factory,
        num_envs=num_envs,
        max_num_actor_steps=steps,
        seed=seed,
        evaluation=experiments.EvaluationConfig(every_steps=steps, num_episodes=num_episodes),
        directory=directory,
        logger_factory=lambda label: loggers.InMemoryLogger(),
    )
    return experiments.run_experiment(experiment, quiet=True).evaluations[-1].mean_return


@pytest.mark.parametrize(("core_name", "low", "high"), [("lstm", 0.9, 1.0), ("none", -0.15, 0.15)])
def test_it_learns_to_remember_and_stays_at_chance_without_a_core(core_name, low, high, tmp_path):
    settings = {"core": core_name, "hidden_sizes": (32,), "core_size": 32, "trace_length": 6, "period": 6}
    # Without memory returns are -1 or 1 alike: the mean of so many has a standard deviation of 0.03.
    learned = learned_return(
        testing.MemoryEnvironment, tmp_path / "run", num_envs=4, steps=2_500, num_episodes=1_000, **settings
    )
    assert low <= learned <= high


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("core_name", "low", "high"), [("lstm", 0.8, 1.0), ("none", -0.15, 0.15)])
def test_bsuite_memory_of_ten_steps(core_name, low, high, seed, tmp_path):
    def make_environment(seed):
        return environments.make("bsuite:memory_len/9", seed=seed)

    learned = learned_return(
        make_environment, tmp_path / "run", num_envs=8, steps=20_000, num_episodes=500, seed=seed, core=core_name
    )
    assert low <= learned <= high


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_bsuite_catch(seed, tmp_path):
    def make_environment(seed):
        return environments.make("bsuite:catch/0", seed=seed)

    learned = learned_return(make_environment, tmp_path / "run", num_envs=1, steps=30_000, seed=seed)
    assert learned >= 0.95


def test_networks_take_vectors_trees_and_images():
    for observation in (
        specs.Array((4,), np.float32),
        {"a": specs.Array((2, 3), np.float64), "action_mask": specs.Array((NUM_ACTIONS,), np.int8)},
        specs.FrameStack((4, 84, 84), np.uint8, 0, 255),
    ):
        network = r2d2.make_networks(SPEC._replace(observation=observation), core_size=8)
        state = jax.tree.map(lambda leaf: jnp.zeros((2, *leaf.shape)), network.initial_state())

        batch = specs.zeros(observation, (2, 5))

        def unroll(key, network=network, batch=batch, state=state):
            return network.unroll(network.init(key), batch, state, jnp.zeros((2, 5), bool))

        values, next_state = jax.eval_shape(unroll, jax.random.key(0))
        assert values.shape == (2, 5, NUM_ACTIONS) and values.dtype == jnp.float32
        assert testing.type_difference(state, next_state) is None


def test_networks_do_not_see_the_action_mask():
    network = r2d2.make_networks(SPEC)
    params = jax.jit(network.init)(jax.random.key(0))
    state = jax.tree.map(lambda leaf: leaf[None], network.initial_state())
    observation = specs.zeros(SPEC.observation, (1,))
    changed = observation | {"action_mask": np.ones((1, NUM_ACTIONS), np.int8)}
    apply = jax.jit(network.apply)
    assert testing.value_difference(apply(params, observation, state), apply(params, changed, state)) is None


def test_continuous_actions_are_refused_with_advice():
    spec = SPEC._replace(action=specs.BoundedArray((2,), np.float32, -1, 1))
    with pytest.raises(ValueError, match="R2D2 needs one discrete action"):
        r2d2.R2D2Builder().make_networks(spec)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("discount", 1.5, r"in \[0, 1\]"),
        ("epsilon", learning.LinearSchedule(2.0, 0.1, 10), r"in \[0, 1\], or a schedule of such"),
        ("epsilon_alpha", -1.0, "a finite number of at least 0"),
        ("evaluation_epsilon", 2, r"in \[0, 1\]"),
        ("max_priority_weight", 1.1, r"in \[0, 1\]"),
        ("n_step", 0, "a whole number of at least 1"),
        ("burn_in_length", -1, "a whole number of at least 0"),
        ("trace_length", 0, "a whole number of at least 1"),
        ("period", 21, r"in \[1, 20\]"),
        ("rescaling_epsilon", 0.0, "a finite number greater than 0, or None"),
        ("core", "rnn", "one of 'none', 'gru', 'lstm'"),
        ("core_size", 0, "a whole number of at least 1"),
        ("max_replay_size", 10, "a whole number of at least 100"),
    ],
)
def test_bad_settings_are_named_with_what_is_allowed(field, value, allowed):
    with pytest.raises(ValueError, match=rf"R2D2Config\.{field} must be {allowed}, got "):
        r2d2.R2D2Config(**{field: value})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"priority_exponent": 0.0, "importance_exponent": 0.5}, "importance_exponent must be 0.6 without a priority_"),
        ({"priority_exponent": 0.0, "max_priority_weight": 0.5}, "max_priority_weight must be 0.9 without a priority_"),
    ],
)
def test_settings_that_nothing_would_use_are_refused(settings, message):
    with pytest.raises(ValueError, match=rf"R2D2Config\.{message}"):
        r2d2.R2D2Config(**settings)


class RenamedBuilder(r2d2.R2D2Builder):
    table_name = "traces"


def test_a_table_of_another_name_is_written_drawn_from_and_given_priorities():
    config = r2d2.R2D2Config(
        trace_length=4, period=2, hidden_sizes=(8,), core_size=4, batch_size=8, min_replay_size=8, overlap=False
    )
    builder = RenamedBuilder(config)
    agent = testing.make_agent(builder, testing.MemoryEnvironment)
    made = replay.LocalReplay(agent.tables)
    adder = builder.make_adder(made.writer(1), agent.spec, agent.extras_spec)
    policy = builder.make_policy(agent.networks, agent.spec)
    actor = agent.make_actor(policy, adder=adder, num_envs=1)
    loop = environment_loop.EnvironmentLoop(agent.make_vector_environment(1), actor)
    dataset = builder.make_dataset(made, seed=0)
    while not dataset.ready():
        loop.step()
    sample = next(dataset)
    assert len(set(sample.info.probabilities)) == 1
    learner = builder.make_learner(
        agent.networks,
        agent.spec,
        dataset,
        key=jax.random.key(0),
        counter=counting.Counter(),
        logger=loggers.InMemoryLogger(),
    )
    learner.step()
    learner.close()
    assert len(set(next(dataset).info.probabilities)) > 1
    assert list(made.info().tables) == ["traces"]


def test_a_loss_of_ones_own_takes_the_place_of_the_usual_one():
    def loss_fn(params, target_params, batch, weights, network, *, config):
        metrics = {"mine": jnp.float32(3)}
        return jnp.sum(params["C"] ** 2), r2d2.LossOutput(jnp.full(len(batch.reward), 7.0), metrics)

    builder = r2d2.R2D2Builder(CONFIG, loss_fn=loss_fn)
    learner_core = r2d2.make_core(builder.config, NETWORK, loss_fn=builder.loss_fn)
    state = learner_core.init(jax.random.key(0))
    _, output = jax.jit(learner_core.update)(state, make_sample())
    np.testing.assert_allclose(output.metrics["loss"], jnp.sum(state.params["C"] ** 2), rtol=1e-6)
    assert output.metrics["mine"] == 3
    np.testing.assert_allclose(output.priorities, np.full(len(WINDOWS), 7.0), rtol=1e-6)
