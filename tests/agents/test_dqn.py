"""DQN: its loss by hand, its targets, exploration, priorities, and the errors of its config."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import core, counting, learning, loggers, networks, replay, specs, types
from acme_lite.agents import dqn

# A network that looks its values up: one row of action values for each of three observations.
TABLE = networks.FeedForwardNetwork(
    init=lambda key: jnp.array([[1.0, 2.0], [3.0, 5.0], [0.0, -1.0]]),
    apply=lambda params, observation: params[observation],
)
SPEC = specs.EnvironmentSpec(
    observation=specs.DiscreteArray(3),
    action=specs.DiscreteArray(2, dtype=np.int32),
    reward=specs.Array((), np.float32),
    discount=specs.BoundedArray((), np.float32, 0, 1),
)


def make_batch():
    return types.Transition(
        observation=jnp.array([0, 1]),
        action=jnp.array([1, 0]),
        reward=jnp.array([1.0, -1.0]),
        discount=jnp.array([1.0, 0.0]),
        next_observation=jnp.array([1, 2]),
    )


def make_sample(probabilities=(0.5, 0.5)):
    info = replay.SampleInfo(keys=(), probabilities=jnp.array(probabilities), table_size=jnp.int32(10))
    return replay.Sample(make_batch(), info)


def losses_of(params, target_params, **settings):
    """Returns losses and priorities `[2]` of the batch."""
    config = dqn.DQNConfig(discount=0.5, **settings)
    losses, priorities, _ = dqn.q_learning_loss(params, target_params, make_batch(), TABLE.apply, config=config)
    return losses, priorities


def test_losses_by_hand():
    params = TABLE.init(None)
    # td_0 = 1 + 0.5 * 1 * max(3, 5) - 2 = 1.5 and td_1 = -1 + 0 - 3 = -4.
    losses, priorities = losses_of(params, params, huber_delta=None, double_q=False)
    np.testing.assert_allclose(priorities, [1.5, 4.0])
    np.testing.assert_allclose(losses, [0.5 * 1.5**2, 0.5 * 4.0**2])
    # Huber, delta 1: |td| - 0.5 beyond 1.
    losses, _ = losses_of(params, params, huber_delta=1.0, double_q=False)
    np.testing.assert_allclose(losses, [1.5 - 0.5, 4.0 - 0.5])


def test_double_q_chooses_by_the_trained_and_values_by_the_target_network():
    params = TABLE.init(None)
    target_params = jnp.array([[0.0, 0.0], [7.0, 1.0], [0.0, 0.0]])
    # At observation 1 the trained network prefers action 1, which the target network values 1; its own best is 7.
    _, double = losses_of(params, target_params, double_q=True)
    _, single = losses_of(params, target_params, double_q=False)
    np.testing.assert_allclose(double[0], abs(1 + 0.5 * 1 - 2))
    np.testing.assert_allclose(single[0], abs(1 + 0.5 * 7 - 2))


def test_gradient_reaches_the_taken_actions_alone_and_not_the_target():
    params = TABLE.init(None)
    gradient, to_target = jax.grad(lambda *both: losses_of(*both, huber_delta=None)[0].sum(), argnums=(0, 1))(
        params, params
    )
    # d/dq of 0.5 td^2 is -td: td_0 = 1.5 at (0, 1) and td_1 = -4 at (1, 0).
    np.testing.assert_allclose(gradient, [[0, -1.5], [4.0, 0], [0, 0]])
    np.testing.assert_array_equal(to_target, np.zeros((3, 2)))


def run_updates(config, num_updates, sample=None):
    learner_core = dqn.make_core(config, TABLE, SPEC)
    state, outputs = learner_core.init(jax.random.key(0)), []
    for _ in range(num_updates):
        state, output = jax.jit(learner_core.update)(state, make_sample() if sample is None else sample)
        outputs.append((state, output))
    return outputs


@pytest.mark.parametrize("wrong", [jnp.mean, lambda losses: losses[:, None]])
def test_losses_that_are_not_one_for_each_transition_are_refused(wrong):
    def loss_fn(*arguments, config):
        losses, priorities, metrics = dqn.q_learning_loss(*arguments, config=config)
        return wrong(losses), priorities, metrics

    learner_core = dqn.make_core(dqn.DQNConfig(priority_exponent=0.6), TABLE, SPEC, loss_fn=loss_fn)
    state = learner_core.init(jax.random.key(0))
    with pytest.raises(ValueError, match=r"DQN needs losses from its loss_fn of shape \(2\), got"):
        jax.eval_shape(learner_core.update, state, make_sample())


def test_a_network_for_another_number_of_actions_is_refused():
    spec = SPEC._replace(action=specs.DiscreteArray(3, dtype=np.int32))
    policy = dqn.DQNBuilder().make_policy(TABLE, spec)
    params = {"params": TABLE.init(None), "epsilon": jnp.float32(0)}
    with pytest.raises(ValueError, match=r"DQN needs action values of shape \(any, 3\), got \(1, 2\)"):
        policy.select_action(params, jnp.array([0]), (), jax.random.key(0))


def test_target_is_copied_every_period_and_not_between():
    outputs = run_updates(dqn.DQNConfig(target_update_period=3), 6)
    copied = [bool((state.params == state.target_params).all()) for state, _ in outputs]
    assert copied == [False, False, True, False, False, True]


def test_target_goes_a_part_of_the_way():
    ((state, _),) = run_updates(dqn.DQNConfig(target_update_period=1, target_update_rate=0.25, learning_rate=0.1), 1)
    start = TABLE.init(None)
    assert not (state.params == start).all()
    np.testing.assert_allclose(state.target_params, 0.75 * start + 0.25 * state.params, rtol=1e-6)


def test_the_gradient_norm_limit_is_used():
    def moved(**settings):
        ((state, output),) = run_updates(dqn.DQNConfig(huber_delta=None, **settings), 1)
        return float(output.metrics["gradient_norm"]), state.opt_state

    norm, limited = moved(max_gradient_norm=0.1)
    assert norm > 0.1
    first_moment = jax.tree.leaves(limited)[1]
    np.testing.assert_allclose(np.linalg.norm(first_moment), 0.1 * 0.1, rtol=1e-5)  # (1 - b1) times the limit
    _, free = moved(max_gradient_norm=None)
    np.testing.assert_allclose(np.linalg.norm(jax.tree.leaves(free)[1]), 0.1 * norm, rtol=1e-5)


def test_priorities_are_sent_for_prioritised_replay_alone():
    ((_, uniform),) = run_updates(dqn.DQNConfig(), 1)
    ((_, prioritised),) = run_updates(dqn.DQNConfig(priority_exponent=0.6), 1)
    assert uniform.priorities is None
    # discount 0.99: td_0 = 1 + 0.99 * 5 - 2 and td_1 = -1 - 3.
    np.testing.assert_allclose(prioritised.priorities, [3.95, 4.0], rtol=1e-5)


def test_importance_weights_enter_the_loss_of_prioritised_replay_alone():
    sample = make_sample(probabilities=(0.01, 0.9))

    def loss(**settings):
        ((_, output),) = run_updates(dqn.DQNConfig(**settings), 1, sample)
        return float(output.metrics["loss"])

    plain, weighted = loss(), loss(priority_exponent=0.6, importance_exponent=1.0)
    # discount 0.99: td_0 = 1 + 4.95 - 2 = 3.95 and td_1 = -4; Huber 3.45 and 3.5; weights 1 and 1/90.
    np.testing.assert_allclose(plain, (3.45 + 3.5) / 2, rtol=1e-5)
    np.testing.assert_allclose(weighted, (3.45 + 3.5 / 90) / 2, rtol=1e-5)


def action_frequencies(config, params, *, evaluation=False, actor=core.ActorId(), observation=0):
    policy = dqn.DQNBuilder(config).make_policy(TABLE, SPEC, evaluation=evaluation, actor=actor)
    observations = jnp.full(4_000, observation)
    action, extras, _ = policy.select_action(params, observations, (), jax.random.key(0))
    assert action.dtype == np.int32 and extras == ()
    assert set(np.unique(action)) <= {0, 1}
    return float(np.mean(np.asarray(action) == 0))


def policy_params(epsilon):
    return {"params": TABLE.init(None), "epsilon": jnp.float32(epsilon)}


def test_epsilon_is_the_probability_of_a_random_action():
    # Action 1 is best: action 0 comes from exploration alone, half of the time.
    assert action_frequencies(dqn.DQNConfig(), policy_params(0.5)) == pytest.approx(0.25, abs=0.03)
    assert action_frequencies(dqn.DQNConfig(), policy_params(0.0)) == 0
    assert action_frequencies(dqn.DQNConfig(), policy_params(1.0)) == pytest.approx(0.5, abs=0.03)


def test_evaluation_epsilon_zero_means_zero():
    config = dqn.DQNConfig(epsilon=0.9, evaluation_epsilon=0.0)
    assert action_frequencies(config, policy_params(0.9), evaluation=True) == 0
    config = dqn.DQNConfig(epsilon=0.0, evaluation_epsilon=0.5)
    assert action_frequencies(config, policy_params(0.0), evaluation=True) == pytest.approx(0.25, abs=0.03)


def test_epsilon_may_be_a_value_per_actor():
    config = dqn.DQNConfig(epsilon=(0.0, 1.0))
    frequencies = [
        action_frequencies(config, policy_params(0.3), actor=core.ActorId(index=index, count=2)) for index in (0, 1)
    ]
    assert frequencies[0] == 0 and frequencies[1] == pytest.approx(0.5, abs=0.03)
    with pytest.raises(ValueError, match=r"epsilon must hold a value for each of the 3 actors, got \(0.0, 1.0\)"):
        action_frequencies(config, policy_params(0.3), actor=core.ActorId(index=0, count=3))


def test_epsilon_may_be_a_schedule_over_learner_steps():
    config = dqn.DQNConfig(epsilon=learning.LinearSchedule(1.0, 0.2, 4))
    outputs = run_updates(config, 6)
    learner_core = dqn.make_core(config, TABLE, SPEC)
    served = [float(learner_core.variables(state)["policy"]["epsilon"]) for state, _ in outputs]
    np.testing.assert_allclose(served, [0.8, 0.6, 0.4, 0.2, 0.2, 0.2], rtol=1e-6)
    first = learner_core.variables(learner_core.init(jax.random.key(0)))["policy"]["epsilon"]
    assert float(first) == 1.0


def test_networks_take_vectors_trees_and_images():
    for observation in (
        specs.Array((4,), np.float32),
        {"a": specs.Array((2, 3), np.float64), "b": specs.DiscreteArray(5)},
        specs.Array((84, 84, 3), np.uint8),
        specs.FrameStack((4, 84, 84), np.uint8, 0, 255),
    ):
        network = dqn.make_networks(SPEC._replace(observation=observation), duelling=True)
        batch = specs.zeros(observation, (3,))
        values = jax.eval_shape(
            lambda key, network=network, batch=batch: network.apply(network.init(key), batch), jax.random.key(0)
        )
        assert values.shape == (3, 2) and values.dtype == jnp.float32


def test_duelling_values_average_to_the_state_value():
    network = dqn.make_networks(SPEC._replace(observation=specs.Array((4,), np.float32)), duelling=True)
    params = network.init(jax.random.key(0))
    observation = jax.random.normal(jax.random.key(1), (5, 4))
    params["advantage"]["b"] = jnp.array([3.0, 9.0])
    shifted = network.apply(params, observation)
    params["advantage"]["b"] = jnp.array([103.0, 109.0])
    # An equal shift of all advantages changes nothing: only their differences count.
    np.testing.assert_allclose(network.apply(params, observation), shifted, rtol=1e-4)


@pytest.mark.parametrize(
    ("action", "names"),
    [
        (specs.BoundedArray((2,), np.float32, -1, 1), "d4pg, mpo, sac, td3 or ppo"),
        (specs.BoundedArray((2,), np.int32, 0, [2, 3]), "ppo or impala"),  # Gymnasium's MultiDiscrete
    ],
)
def test_other_actions_are_refused_with_advice(action, names):
    with pytest.raises(ValueError, match=rf"DQN needs one discrete action .* For such actions use {names}\."):
        dqn.DQNBuilder().make_networks(SPEC._replace(action=action))


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("discount", 1.5, r"in \[0, 1\]"),
        ("epsilon", -0.1, r"in \[0, 1\], or a schedule or a tuple of such"),
        ("epsilon", (0.1, 2.0), r"in \[0, 1\], or a schedule or a tuple of such"),
        ("epsilon", learning.LinearSchedule(2.0, 0.1, 10), r"in \[0, 1\], or a schedule or a tuple of such"),
        ("evaluation_epsilon", 2, r"in \[0, 1\]"),
        ("n_step", 0, "a whole number of at least 1"),
        ("batch_size", 2.5, "a whole number of at least 1"),
        ("learning_rate", float("nan"), "a finite number of at least 0, or a schedule of such"),
        ("max_gradient_norm", 0.0, "a finite number greater than 0, or None"),
        ("samples_per_insert", -1.0, "a finite number greater than 0"),
        ("max_replay_size", 10, "a whole number of at least 1000"),
        ("hidden_sizes", (64, 0), "a tuple of whole numbers of at least 1"),
        ("max_replay_size", 1e5, "a whole number of at least 1000"),
        ("n_step", float("inf"), "a whole number of at least 1"),
        ("epsilon", (), r"in \[0, 1\], or a schedule or a tuple of such"),
        ("epsilon", lambda step: 0.1, r"in \[0, 1\], or a schedule or a tuple of such"),
        ("discount", None, r"in \[0, 1\]"),
    ],
)
def test_bad_settings_are_named_with_what_is_allowed(field, value, allowed):
    with pytest.raises(ValueError, match=rf"DQNConfig\.{field} must be {allowed}, got "):
        dqn.DQNConfig(**{field: value})


def test_a_loss_of_ones_own_takes_the_place_of_the_usual_one():
    def loss_fn(params, target_params, batch, apply, *, config):
        losses = jnp.sum(params**2) * config.discount + batch.reward
        return losses, jnp.full(batch.reward.shape, 7.0), {"rewards": jnp.sum(batch.reward)}

    builder = dqn.DQNBuilder(dqn.DQNConfig(discount=0.5, priority_exponent=1.0), loss_fn=loss_fn)
    learner_core = dqn.make_core(builder.config, TABLE, SPEC, loss_fn=builder.loss_fn)
    _, output = learner_core.update(learner_core.init(jax.random.key(0)), make_sample())
    # The rewards, 1 and -1, have a mean of 0; equal probabilities give weights of 1.
    np.testing.assert_allclose(output.metrics["loss"], 0.5 * (1 + 4 + 9 + 25 + 0 + 1))
    np.testing.assert_allclose(output.priorities, [7, 7], rtol=1e-6)
    assert set(output.metrics) == {"loss", "gradient_norm", "epsilon", "rewards"}


def test_small_images_and_discrete_observations_are_told_apart():
    def values(observation_spec, observations):
        network = dqn.make_networks(SPEC._replace(observation=observation_spec))
        return np.asarray(network.apply(network.init(jax.random.key(0)), observations))

    tiny = specs.BoundedArray((7, 7, 3), np.uint8, 0, 255)
    images = np.zeros((2, 7, 7, 3), np.uint8)
    images[1] = 200
    first, second = values(tiny, images)
    assert not np.allclose(first, second)
    # One of 16 values is no quantity: equally far apart are all of them, being one-hot.
    places = values(specs.DiscreteArray(16), np.arange(16))
    assert len(np.unique(places.round(6), axis=0)) == 16
    assert dqn.make_networks(SPEC._replace(observation=specs.DiscreteArray(16))).init(jax.random.key(0))[
        "mlp/~/linear_0"
    ]["w"].shape == (16, 64)


def test_prioritised_replay_goes_with_demonstrations_beside_it():
    builder = dqn.DQNBuilder(dqn.DQNConfig(priority_exponent=0.5, n_step=1, min_replay_size=2, batch_size=2))
    spec = SPEC._replace(observation=specs.Array((2,), np.float32))
    (table,) = builder.make_tables(spec, ())
    replays = [replay.LocalReplay([table]) for _ in range(2)]
    for made in replays:
        writer, ones = made.writer(), np.ones(1, np.float32)
        for row in range(9):
            writer.append(np.full((1, 2), row, np.float32))
            if row:
                writer.create_item_in_each(table.name, row - 1, 1, values=(ones, ones))
            writer.complete({"action": np.zeros(1, np.int32)})
    per_call = builder.config.num_steps_per_call
    datasets = [made.dataset(table.name, 2, num_batches=per_call, timeout_seconds=10.0) for made in replays]
    learner = builder.make_learner(
        builder.make_networks(spec),
        spec,
        replay.mix_datasets(*datasets),
        key=jax.random.key(0),
        counter=counting.Counter(),
        logger=loggers.InMemoryLogger(),
    )
    learner.step()
    learner.close()
    assert learner.save()
    for made in replays:
        (info,) = made.info().tables.values()
        assert info.num_samples == 2 * per_call
