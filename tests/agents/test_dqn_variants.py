"""DQN's variants: each loss against plain loops in NumPy or numbers by hand, masks, refusals, and named settings."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import _runtime, agents, learning, networks, replay, specs, types
from acme_lite.agents import dqn

rlax = _runtime.import_rlax()

NUM_OBSERVATIONS, NUM_ACTIONS, NUM_ATOMS, DISCOUNT = 4, 3, 5, 0.9
ALL_LEGAL = np.ones((NUM_OBSERVATIONS, NUM_ACTIONS), np.int8)
# With the tables below the best action is illegal at the next observation of some transitions.
SOME_LEGAL = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]], np.int8)

CATEGORICAL = {"distribution": "categorical", "num_atoms": NUM_ATOMS, "v_min": -2.0, "v_max": 2.0}
QUANTILE = {"distribution": "quantile", "num_atoms": NUM_ATOMS}
MUNCHAUSEN = {"munchausen": True, "n_step": 1, "double_q": False}


def look_up(params, observation):
    """A network that looks its output up; it does not see the mask."""
    number, _ = networks.split_action_mask(observation)
    return params[number]


TABLE = networks.FeedForwardNetwork(
    init=lambda key: jax.random.normal(key, (NUM_OBSERVATIONS, NUM_ACTIONS, NUM_ATOMS)), apply=look_up
)


def make_config(**settings):
    return dqn.DQNConfig(**{"discount": DISCOUNT, **settings})


def make_params(seed, num_atoms=NUM_ATOMS):
    shape = (NUM_OBSERVATIONS, NUM_ACTIONS) if num_atoms is None else (NUM_OBSERVATIONS, NUM_ACTIONS, num_atoms)
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def make_batch(legal=None):
    """Returns six transitions: three within an episode, one terminated, one truncated, one of several steps."""

    def observe(numbers):
        numbers = np.array(numbers)
        return numbers if legal is None else {"observation": numbers, "action_mask": legal[numbers]}

    return types.Transition(
        observation=observe([0, 1, 2, 3, 0, 1]),
        action=np.array([1, 2, 0, 1, 0, 1], np.int32),
        reward=np.array([0.5, -1.0, 0.0, 1.0, 3.0, 0.25], np.float32),
        discount=np.array([1.0, 1.0, 1.0, 0.0, 1.0, 0.81], np.float32),
        next_observation=observe([1, 2, 0, 3, 2, 1]),
    )


def call(config, params, target_params, batch):
    return dqn.loss_for(config)(params, target_params, batch, look_up, config=config)


def numbers_of(observation):
    return observation["observation"] if isinstance(observation, dict) else observation


def transitions(batch, legal):
    """Gives one transition after the other: start, action, reward, discount, end, and the actions legal there."""
    starts, ends = numbers_of(batch.observation), numbers_of(batch.next_observation)
    for start, action, reward, discount, end in zip(
        starts, batch.action, batch.reward, batch.discount, ends, strict=True
    ):
        yield start, int(action), float(reward), DISCOUNT * float(discount), end, np.flatnonzero(legal[end])


def best(values, legal):
    """Returns the legal action of the greatest value."""
    return max(legal, key=lambda action: values[action])


def softmax(logits):
    weights = [math.exp(float(logit) - float(max(logits))) for logit in logits]
    return [weight / sum(weights) for weight in weights]


def project(returns, probabilities, v_min, v_max, num_atoms):
    """Returns the projection of Bellemare et al. (2017), algorithm 1."""
    spacing = (v_max - v_min) / (num_atoms - 1)
    projected = [0.0] * num_atoms
    for value, probability in zip(returns, probabilities, strict=True):
        place = (min(max(value, v_min), v_max) - v_min) / spacing
        low, high = math.floor(place), math.ceil(place)
        if low == high:
            projected[low] += probability
        else:
            projected[low] += probability * (high - place)
            projected[high] += probability * (place - low)
    return projected


def categorical_by_loops(params, target_params, batch, legal, *, double_q):
    atoms = [-2.0, -1.0, 0.0, 1.0, 2.0]

    def mean(logits):
        return sum(p * z for p, z in zip(softmax(logits), atoms, strict=True))

    losses = []
    for start, action, reward, discount, end, legal_actions in transitions(batch, legal):
        chooser = params if double_q else target_params
        chosen = best([mean(chooser[end, a]) for a in range(NUM_ACTIONS)], legal_actions)
        returns = [reward + discount * z for z in atoms]
        target = project(returns, softmax(target_params[end, chosen]), -2.0, 2.0, NUM_ATOMS)
        predicted = softmax(params[start, action])
        losses.append(sum(t * math.log(t / p) for t, p in zip(target, predicted, strict=True) if t > 0))
    return losses


def quantile_by_loops(params, target_params, batch, legal, *, double_q, huber_delta):
    losses = []
    for start, action, reward, discount, end, legal_actions in transitions(batch, legal):
        chooser = params if double_q else target_params
        chosen = best([sum(chooser[end, a]) / NUM_ATOMS for a in range(NUM_ACTIONS)], legal_actions)
        loss = 0.0
        for i in range(NUM_ATOMS):
            tau = (2 * (i + 1) - 1) / (2 * NUM_ATOMS)
            for j in range(NUM_ATOMS):
                error = reward + discount * float(target_params[end, chosen, j]) - float(params[start, action, i])
                size = abs(error)
                if huber_delta is not None:
                    quadratic = size <= huber_delta
                    size = 0.5 * size**2 if quadratic else huber_delta * (size - 0.5 * huber_delta)
                loss += abs(tau - (error < 0)) * size / NUM_ATOMS
        losses.append(loss)
    return losses


def munchausen_by_loops(params, target_params, batch, legal, *, scale, temperature, clip):
    """Returns the temporal differences."""
    differences = []
    for start, action, reward, discount, end, legal_actions in transitions(batch, legal):
        here, there = target_params[start], target_params[end]
        starts_legal = list(np.flatnonzero(legal[start]))
        policy_here = softmax([here[a] / temperature for a in starts_legal])
        policy_there = softmax([there[a] / temperature for a in legal_actions])
        log_taken = (
            temperature * math.log(policy_here[starts_legal.index(action)]) if action in starts_legal else -math.inf
        )
        bonus = scale * min(max(log_taken, clip), 0.0)
        soft_value = sum(
            p * (float(there[a]) - (temperature * math.log(p) if p > 0 else 0.0))
            for p, a in zip(policy_there, legal_actions, strict=True)
        )
        differences.append(reward + bonus + discount * soft_value - float(params[start, action]))
    return differences


@pytest.mark.parametrize("legal", [None, SOME_LEGAL], ids=["all_legal", "masked"])
@pytest.mark.parametrize("double_q", [False, True], ids=["single", "double"])
def test_categorical_loss_against_loops(legal, double_q):
    params, target_params, batch = make_params(0), make_params(1), make_batch(legal)
    losses, priorities, metrics = call(make_config(**CATEGORICAL, double_q=double_q), params, target_params, batch)
    expected = categorical_by_loops(
        params, target_params, batch, ALL_LEGAL if legal is None else legal, double_q=double_q
    )
    np.testing.assert_allclose(losses, expected, rtol=2e-5)
    np.testing.assert_array_equal(priorities, losses)
    assert set(metrics) == {"q_value"}


@pytest.mark.parametrize("legal", [None, SOME_LEGAL], ids=["all_legal", "masked"])
@pytest.mark.parametrize(("double_q", "huber_delta"), [(False, 1.0), (True, 0.3), (True, None)])
def test_quantile_loss_against_loops(legal, double_q, huber_delta):
    params, target_params, batch = make_params(2), make_params(3), make_batch(legal)
    config = make_config(**QUANTILE, double_q=double_q, huber_delta=huber_delta)
    losses, priorities, metrics = call(config, params, target_params, batch)
    expected = quantile_by_loops(
        params,
        target_params,
        batch,
        ALL_LEGAL if legal is None else legal,
        double_q=double_q,
        huber_delta=huber_delta,
    )
    np.testing.assert_allclose(losses, expected, rtol=2e-5)
    np.testing.assert_array_equal(priorities, losses)
    assert set(metrics) == {"q_value"}


@pytest.mark.parametrize("legal", [None, SOME_LEGAL], ids=["all_legal", "masked"])
@pytest.mark.parametrize(
    ("scale", "temperature", "clip"), [(0.9, 0.03, -1.0), (0.5, 0.7, -0.2), (0.0, 0.1, -1.0), (0.9, 2.0, -1.0)]
)
def test_munchausen_against_loops(legal, scale, temperature, clip):
    params, target_params, batch = make_params(4, None), make_params(5, None), make_batch(legal)
    config = make_config(
        **MUNCHAUSEN, munchausen_scale=scale, munchausen_temperature=temperature, munchausen_clip=clip, huber_delta=None
    )
    losses, priorities, metrics = call(config, params, target_params, batch)
    expected = np.array(
        munchausen_by_loops(
            params,
            target_params,
            batch,
            ALL_LEGAL if legal is None else legal,
            scale=scale,
            temperature=temperature,
            clip=clip,
        )
    )
    np.testing.assert_allclose(priorities, np.abs(expected), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(losses, 0.5 * expected**2, rtol=1e-4, atol=1e-5)
    assert set(metrics) == {"td_error", "q_value", "log_policy_bonus"}
    np.testing.assert_allclose(metrics["td_error"], np.mean(np.abs(expected)), rtol=1e-4)


def test_plain_loss_honours_the_mask():
    params, batch = make_params(6, None), make_batch(SOME_LEGAL)
    config = make_config(huber_delta=None, double_q=False)
    _, priorities, _ = call(config, params, params, batch)
    expected = [
        abs(reward + discount * params[end, best(params[end], legal_actions)] - params[start, action])
        for start, action, reward, discount, end, legal_actions in transitions(batch, SOME_LEGAL)
    ]
    np.testing.assert_allclose(priorities, expected, rtol=1e-5)
    _, unmasked, _ = call(config, params, params, make_batch())
    assert not np.allclose(priorities, unmasked)


def test_categorical_loss_by_hand():
    # Three atoms -1, 0, 1; a return of 0.4 for sure splits into 0.6 at 0 and 0.4 at 1; the prediction is uniform.
    config = dqn.DQNConfig(discount=0.5, distribution="categorical", num_atoms=3, v_min=-1.0, v_max=1.0)
    params = np.zeros((2, 1, 3), np.float32)
    batch = types.Transition(
        observation=np.array([0]),
        action=np.array([0]),
        reward=np.array([0.4], np.float32),
        discount=np.array([0.0], np.float32),
        next_observation=np.array([1]),
    )
    (loss,), _, metrics = dqn.categorical_loss(params, params, batch, look_up, config=config)
    np.testing.assert_allclose(loss, 0.6 * math.log(0.6 * 3) + 0.4 * math.log(0.4 * 3), rtol=1e-5)
    np.testing.assert_allclose(metrics["q_value"], 0.0, atol=1e-7)
    # Rewards beyond the support count as its ends: all of the probability lies on the last atom.
    (loss,), _, _ = dqn.categorical_loss(params, params, batch._replace(reward=np.array([7.0])), look_up, config=config)
    np.testing.assert_allclose(loss, math.log(3), rtol=1e-5)


def test_munchausen_target_by_hand():
    # Temperature 1 and target values (0, log 3): the policy is (1/4, 3/4), the soft value log(1 + 3) = log 4.
    params = np.array([[0.0, 0.0], [0.0, 0.0]], np.float32)
    target_params = np.array([[0.0, math.log(3)], [0.0, math.log(3)]], np.float32)
    batch = types.Transition(
        observation=np.array([0, 0]),
        action=np.array([0, 1]),
        reward=np.array([1.0, 1.0], np.float32),
        discount=np.array([1.0, 0.0], np.float32),
        next_observation=np.array([1, 1]),
    )
    config = dqn.DQNConfig(
        discount=0.5, **MUNCHAUSEN, munchausen_scale=0.9, munchausen_temperature=1.0, munchausen_clip=-1.0
    )
    _, priorities, _ = dqn.munchausen_loss(params, target_params, batch, look_up, config=config)
    # log(1/4) = -1.39 is clipped to -1; log(3/4) = -0.29 is not.
    np.testing.assert_allclose(priorities, [1 - 0.9 * 1 + 0.5 * math.log(4), 1 + 0.9 * math.log(3 / 4)], rtol=1e-5)


def test_soft_dqn_at_a_low_temperature_is_dqn():
    params, target_params, batch = make_params(7, None), make_params(8, None), make_batch()
    soft = make_config(**MUNCHAUSEN, munchausen_scale=0.0, munchausen_temperature=1e-4)
    _, soft_priorities, _ = call(soft, params, target_params, batch)
    _, plain_priorities, _ = call(make_config(double_q=False), params, target_params, batch)
    np.testing.assert_allclose(soft_priorities, plain_priorities, atol=1e-3)


def test_categorical_loss_has_the_gradient_of_the_cross_entropy():
    params, target_params, batch = make_params(9), make_params(10), make_batch()
    config = make_config(**CATEGORICAL)
    atoms = jnp.linspace(-2.0, 2.0, NUM_ATOMS)

    def cross_entropy(params):
        selector = networks.categorical_mean(look_up(params, batch.next_observation), atoms)
        losses = jax.vmap(rlax.categorical_double_q_learning, in_axes=(None, 0, 0, 0, 0, None, 0, 0))(
            atoms,
            look_up(params, batch.observation),
            batch.action,
            batch.reward,
            DISCOUNT * batch.discount,
            atoms,
            look_up(target_params, batch.next_observation),
            selector,
        )
        return jnp.sum(losses)

    divergence = jax.grad(lambda params: jnp.sum(call(config, params, target_params, batch)[0]))(jnp.asarray(params))
    np.testing.assert_allclose(divergence, jax.grad(cross_entropy)(jnp.asarray(params)), atol=1e-5)


VARIANTS = {
    "plain": ({}, None),
    "munchausen": (MUNCHAUSEN, None),
    "categorical": (CATEGORICAL, NUM_ATOMS),
    "quantile": (QUANTILE, NUM_ATOMS),
}


@pytest.mark.parametrize(("settings", "num_atoms"), VARIANTS.values(), ids=VARIANTS.keys())
def test_gradients_reach_the_taken_actions_alone_and_not_the_target(settings, num_atoms):
    params, target_params, batch = make_params(11, num_atoms), make_params(12, num_atoms), make_batch(SOME_LEGAL)

    def total(params, target_params):
        return jnp.sum(call(make_config(**settings), params, target_params, batch)[0])

    gradient, to_target = jax.grad(total, argnums=(0, 1))(jnp.asarray(params), jnp.asarray(target_params))
    np.testing.assert_array_equal(to_target, np.zeros_like(target_params))
    taken = set(zip(numbers_of(batch.observation).tolist(), batch.action.tolist(), strict=True))
    for observation in range(NUM_OBSERVATIONS):
        for action in range(NUM_ACTIONS):
            assert bool(np.any(gradient[observation, action])) == ((observation, action) in taken)


@pytest.mark.parametrize(("settings", "num_atoms"), VARIANTS.values(), ids=VARIANTS.keys())
def test_termination_cuts_the_bootstrap_off_and_truncation_does_not(settings, num_atoms):
    params, target_params = make_params(13, num_atoms), make_params(14, num_atoms)
    changed = target_params.copy()
    changed[3] += 0.3 * np.arange(1, 1 + changed[3].size, dtype=np.float32).reshape(changed[3].shape)
    batch = make_batch()
    ends = types.Transition(*(field[:2] if len(field) else field for field in batch))._replace(
        next_observation=np.array([3, 3]), discount=np.array([0.0, 1.0], np.float32)
    )
    config = make_config(**settings)
    before, after = (np.asarray(call(config, params, target, ends)[0]) for target in (target_params, changed))
    assert before[0] == after[0] and before[1] != after[1]


@pytest.mark.parametrize(("settings", "num_atoms"), VARIANTS.values(), ids=VARIANTS.keys())
def test_the_discount_factor_is_used(settings, num_atoms):
    params, target_params, batch = make_params(15, num_atoms), make_params(16, num_atoms), make_batch()
    # All of it in the config, or all of it in the batch: the same losses; none of it: others.
    in_config, _, _ = call(make_config(**settings), params, target_params, batch)
    in_batch, _, _ = call(
        make_config(**settings, discount=1.0),
        params,
        target_params,
        batch._replace(discount=np.float32(DISCOUNT) * batch.discount),
    )
    nowhere, _, _ = call(make_config(**settings, discount=1.0), params, target_params, batch)
    np.testing.assert_allclose(in_config, in_batch, rtol=1e-5)
    bootstrapped = batch.discount > 0
    assert (np.abs(in_config - nowhere)[bootstrapped] > 1e-4).all()


@pytest.mark.parametrize(("settings", "num_atoms"), VARIANTS.values(), ids=VARIANTS.keys())
def test_where_no_action_is_legal_all_is_finite(settings, num_atoms):
    # As at an episode's end in games that have no move left, and in padding.
    legal = SOME_LEGAL.copy()
    legal[3] = 0
    params, batch = make_params(17, num_atoms), make_batch(legal)
    losses, priorities, metrics = call(make_config(**settings), params, params, batch)
    gradient = jax.grad(lambda params: jnp.sum(call(make_config(**settings), params, params, batch)[0]))(params)
    for value in (losses, priorities, gradient, *metrics.values()):
        assert np.isfinite(value).all()


def test_priorities_of_converged_categorical_predictions_are_zero_and_not_below():
    # Each observation leads to itself without a reward or a discount: what is predicted is what follows.
    rows = np.arange(500)
    params = np.random.default_rng(18).normal(size=(500, 1, NUM_ATOMS)).astype(np.float32)
    nothing = np.zeros(500, np.float32)
    batch = types.Transition(rows, nothing.astype(np.int32), nothing, nothing + 1, rows)
    config = dqn.DQNConfig(discount=1.0, **CATEGORICAL)
    losses, priorities, _ = dqn.categorical_loss(params, params, batch, look_up, config=config)
    np.testing.assert_allclose(losses, 0, atol=1e-6)
    assert (np.asarray(priorities) >= 0).all()  # rounding leaves some of the losses below zero


def test_priorities_and_importance_weights_of_a_variant():
    config = make_config(**CATEGORICAL, priority_exponent=0.5, importance_exponent=1.0)
    batch = make_batch()
    info = replay.SampleInfo(keys=(), probabilities=jnp.array([0.1, 0.2, 0.1, 0.4, 0.5, 1.0]), table_size=jnp.int32(9))
    core = dqn.make_core(config, TABLE, None)
    state = core.init(jax.random.key(0))
    losses, priorities, metrics = call(config, state.params, state.target_params, batch)
    _, output = core.update(state, replay.Sample(batch, info))
    np.testing.assert_allclose(output.priorities, priorities + 1e-6, rtol=1e-5)
    weights = np.array([1, 1 / 2, 1, 1 / 4, 1 / 5, 1 / 10])
    np.testing.assert_allclose(output.metrics["loss"], np.mean(weights * losses), rtol=1e-5)
    np.testing.assert_allclose(output.metrics["q_value"], metrics["q_value"], rtol=1e-5)
    assert set(output.metrics) == {"loss", "gradient_norm", "epsilon", "q_value"}


@pytest.mark.parametrize(("settings", "num_atoms"), VARIANTS.values(), ids=VARIANTS.keys())
def test_values_of_a_chain_are_learned(settings, num_atoms):
    # From 0 to 1 without a reward, from there with a reward of 1 to the end: values 0.9 and 1. From 2 in a circle that
    # is truncated at times, with a reward of 0.1 each step: value 0.1 / (1 - 0.9) = 1, as truncation ends nothing.
    batch = types.Transition(
        observation=np.array([0, 1, 2, 2]),
        action=np.zeros(4, np.int32),
        reward=np.array([0.0, 1.0, 0.1, 0.1], np.float32),
        discount=np.array([1.0, 0.0, 1.0, 1.0], np.float32),
        next_observation=np.array([1, 3, 2, 2]),
    )
    rate = learning.LinearSchedule(0.1, 0.001, 800)
    config = make_config(**settings, learning_rate=rate, target_update_period=5)
    shape = (4, 1) if num_atoms is None else (4, 1, num_atoms)
    table = networks.FeedForwardNetwork(init=lambda key: jax.random.normal(key, shape), apply=look_up)
    info = replay.SampleInfo(keys=(), probabilities=jnp.ones(4), table_size=jnp.int32(4))
    core = dqn.make_core(config, table, None)

    def update(state, _):
        return core.update(state, replay.Sample(batch, info))[0], ()

    state, _ = jax.jit(lambda state: jax.lax.scan(update, state, length=800))(core.init(jax.random.key(0)))
    values = np.asarray(dqn.mean_values(state.params, config))[:, 0]
    np.testing.assert_allclose(values[:3], [0.9, 1.0, 1.0], atol=0.03)


SPEC = specs.EnvironmentSpec(
    observation={
        "observation": specs.Array((4,), np.float32),
        "action_mask": specs.BoundedArray((NUM_ACTIONS,), np.int8, 0, 1),
    },
    action=specs.DiscreteArray(NUM_ACTIONS, dtype=np.int32),
    reward=specs.Array((), np.float32),
    discount=specs.BoundedArray((), np.float32, 0, 1),
)


@pytest.mark.parametrize(
    "settings",
    [{}, MUNCHAUSEN, CATEGORICAL, {**CATEGORICAL, "duelling": True}, {**QUANTILE, "duelling": True}],
    ids=["plain", "munchausen", "categorical", "categorical_duelling", "quantile_duelling"],
)
def test_policies_choose_the_best_legal_action(settings):
    builder = dqn.DQNBuilder(make_config(**settings, hidden_sizes=(8,)))
    network = builder.make_networks(SPEC)
    policy = builder.make_policy(network, SPEC, evaluation=True)
    params = {"params": network.init(jax.random.key(0)), "epsilon": jnp.float32(1.0)}
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, size=(200, NUM_ACTIONS)).astype(np.int8)
    mask[np.arange(200), rng.integers(NUM_ACTIONS, size=200)] = 1
    observation = {"observation": rng.normal(size=(200, 4)).astype(np.float32), "action_mask": mask}
    action, _, _ = jax.jit(policy.select_action)(params, observation, (), jax.random.key(1))
    values = np.asarray(dqn.mean_values(network.apply(params["params"], observation), builder.config))
    assert values.shape == (200, NUM_ACTIONS)
    np.testing.assert_array_equal(
        action, [best(row, np.flatnonzero(legal)) for row, legal in zip(values, mask, strict=True)]
    )
    assert len(set(np.asarray(action).tolist())) == NUM_ACTIONS
    # The network does not see the mask.
    other = {**observation, "action_mask": 1 - mask}
    np.testing.assert_array_equal(network.apply(params["params"], other), network.apply(params["params"], observation))


def test_mean_values_by_hand():
    logits = np.log(np.array([[[0.5, 0.25, 0.25], [0.1, 0.1, 0.8]]], np.float32))
    config = dqn.DQNConfig(distribution="categorical", num_atoms=3, v_min=-1.0, v_max=1.0)
    np.testing.assert_allclose(dqn.mean_values(logits, config), [[-0.25, 0.7]], rtol=1e-5)
    quantiles = np.array([[[0.0, 1.0, 5.0], [-1.0, -1.0, 2.0]]], np.float32)
    config = dqn.DQNConfig(distribution="quantile", num_atoms=3)
    np.testing.assert_allclose(dqn.mean_values(quantiles, config), [[2.0, 0.0]])


@pytest.mark.parametrize(
    ("settings", "shape"),
    [({}, (2, 3, 5)), (CATEGORICAL, (2, 3)), (QUANTILE, (2, 3, 4)), (QUANTILE, (2, 5))],
)
def test_a_network_of_another_shape_is_refused(settings, shape):
    with pytest.raises(ValueError, match=r"output must be of shape \('batch', 'actions'.*got \(2, "):
        dqn.mean_values(jnp.zeros(shape), make_config(**settings))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"distribution": "normal"}, "distribution must be one of None, 'categorical', 'quantile', got 'normal'"),
        ({"distribution": "categorical", "v_min": 1.0, "v_max": 1.0}, r"v_min < v_max must hold.*got \[1.0, 1.0\]"),
        ({"distribution": "categorical", "v_max": math.inf}, "v_min < v_max must hold for finite numbers"),
        ({"distribution": "categorical", "num_atoms": 1}, "num_atoms must be a whole number of at least 2, got 1"),
        ({"distribution": "quantile", "num_atoms": 5.0}, "num_atoms must be a whole number of at least 2, got 5.0"),
        ({**MUNCHAUSEN, "distribution": "categorical"}, "distribution must be None with munchausen.*got 'categorical'"),
        ({**MUNCHAUSEN, "distribution": "quantile"}, "distribution must be None with munchausen.*got 'quantile'"),
        ({**MUNCHAUSEN, "n_step": 3}, "n_step must be 1 with munchausen.*got 3"),
        ({**MUNCHAUSEN, "double_q": True}, "double_q must be False with munchausen.*got True"),
        ({**MUNCHAUSEN, "munchausen_scale": 1.5}, r"munchausen_scale must be in \[0, 1\], got 1.5"),
        ({**MUNCHAUSEN, "munchausen_temperature": 0.0}, "munchausen_temperature must be a finite number greater than"),
        ({**MUNCHAUSEN, "munchausen_clip": 0.5}, r"munchausen_clip must be .*, got 0.5"),
        # What nothing would use: most likely the setting that would have used it was forgotten.
        ({"v_max": 100.0}, "v_max must be 10.0 without a categorical distribution, got 100.0"),
        ({"distribution": "quantile", "v_min": 0.0}, "v_min must be -10.0 without a categorical distribution"),
        ({"distribution": "categorical", "huber_delta": 0.3}, "huber_delta must be 1.0 with a categorical.*got 0.3"),
        ({"distribution": "categorical", "huber_delta": None}, "huber_delta must be 1.0 with a categorical.*got None"),
        ({"importance_exponent": 0.9}, "importance_exponent must be 0.4 without a priority_exponent, got 0.9"),
        ({"num_atoms": 200}, "num_atoms must be 51 without a distribution, got 200"),
        ({"munchausen_scale": 0.5}, "munchausen_scale must be 0.9 without munchausen, got 0.5"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ValueError, match=rf"DQNConfig.*{message}"):
        dqn.DQNConfig(**settings)


def test_variants_have_their_settings():
    rainbow = dqn.variant_config("rainbow", v_min=0.0, v_max=100.0)
    assert rainbow == dqn.DQNConfig(
        distribution="categorical",
        v_min=0.0,
        v_max=100.0,
        n_step=3,
        double_q=False,
        priority_exponent=0.5,
        importance_exponent=0.5,
    )
    atari = dqn.variant_config("rainbow_atari")
    unlike = {"v_min", "v_max"} | set(dqn.VARIANTS["rainbow_atari"]) - set(dqn.VARIANTS["rainbow"])
    for field in dataclasses.fields(atari):
        assert field.name in unlike or getattr(atari, field.name) == getattr(rainbow, field.name), field.name
    # Dopamine: an update per 4 actor steps, targets every 8,000 and epsilon over 250,000 of them.
    assert atari.samples_per_insert / atari.batch_size == 1 / 4
    assert atari.target_update_period == 8_000 / 4
    assert atari.epsilon == learning.LinearSchedule(1.0, 0.01, 250_000 // 4)
    with pytest.raises(ValueError, match="name must be one of 'munchausen', 'rainbow', 'rainbow_atari', got 'rainbo'"):
        dqn.variant_config("rainbo")


def test_variants_are_offered_by_name():
    configs = agents.named_configs("dqn")
    assert list(configs) == ["dqn", "dqn:munchausen", "dqn:rainbow", "dqn:rainbow_atari"]
    assert configs["dqn"] == dqn.DQNConfig()
    assert configs["dqn:rainbow"] == dqn.variant_config("rainbow")


def test_each_config_has_its_loss():
    assert dqn.loss_for(dqn.DQNConfig()) is dqn.q_learning_loss
    assert dqn.loss_for(make_config(**MUNCHAUSEN)) is dqn.munchausen_loss
    assert dqn.loss_for(make_config(**CATEGORICAL)) is dqn.categorical_loss
    assert dqn.loss_for(make_config(**QUANTILE)) is dqn.quantile_loss
