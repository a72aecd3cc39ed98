"""IMPALA: V-trace against a plain loop, its loss by hand, masks, recurrent states, the queue, and learning."""

from __future__ import annotations

import dataclasses
import functools

import dm_env
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import _runtime, acting, environments, experiments, loggers, networks, replay, specs, testing, types
from acme_lite.agents import impala
from acme_lite.agents.impala import networks as impala_networks
from acme_lite.networks import distributions

rlax = _runtime.import_rlax()

T = 5
CONFIG = impala.IMPALAConfig(
    sequence_length=T, batch_size=4, queue_size=500, core="gru", core_size=6, hidden_sizes=(8,), overlap=False
)


class Episodes(dm_env.Environment):
    """Episodes of 1 to 7 random observations, half of them truncated, in which each step allows some of 3 actions."""

    name = "episodes"

    def __init__(self, seed=0, *, with_mask=True):
        self._with_mask = with_mask
        self.reseed(seed)

    def reseed(self, seed):
        self._rng = np.random.default_rng(seed)

    def reset(self):
        self._steps_left = int(self._rng.integers(1, 8))
        return dm_env.restart(self._observation())

    def step(self, action):
        assert not self._with_mask or self._mask[int(action)], "the action is illegal"
        self._steps_left -= 1
        reward = np.float32(self._rng.normal())
        if self._steps_left:
            return dm_env.transition(reward, self._observation())
        end = dm_env.termination if self._rng.integers(2) else dm_env.truncation
        return end(reward, self._observation())

    def _observation(self):
        self._mask = self._rng.integers(2, size=3).astype(np.int8)
        self._mask[self._rng.integers(3)] = 1
        features = self._rng.normal(size=2).astype(np.float32)
        return {"features": features, "action_mask": self._mask.copy()} if self._with_mask else {"features": features}

    def observation_spec(self):
        spec = {"features": specs.Array((2,), np.float32)}
        return {**spec, "action_mask": specs.BoundedArray((3,), np.int8, 0, 1)} if self._with_mask else spec

    def action_spec(self):
        return specs.DiscreteArray(3)

    def reward_spec(self):
        return specs.Array((), np.float32, name="reward")

    def discount_spec(self):
        return specs.BoundedArray((), np.float32, 0, 1, name="discount")


SPEC = specs.make_environment_spec(Episodes())


# V-trace


@functools.partial(jax.jit, static_argnames=("trace_lambda", "max_ratio", "max_policy_ratio"))
def vtrace(*stream, **settings):
    return impala.masked_vtrace(*stream, **settings)


def numpy_vtrace(value, reward, discount, ratio, mask, *, trace_lambda, max_ratio, max_policy_ratio):
    """Plain V-trace from the last step to the first; an episode's last row passes its value on and nothing else."""
    num = len(reward)
    target = np.zeros(num + 1)
    target[num] = value[num]
    mixed = np.array(value, np.float64)  # λ v_{t+1} + (1 - λ) V(o_{t+1})
    errors, advantages = np.zeros(num), np.zeros(num)
    for t in reversed(range(num)):
        if not mask[t]:
            target[t] = mixed[t] = value[t]
            continue
        td = min(max_ratio, ratio[t]) * (reward[t] + discount[t] * value[t + 1] - value[t])
        c = trace_lambda * min(1.0, ratio[t])
        target[t] = value[t] + td + discount[t] * c * (target[t + 1] - value[t + 1])
        errors[t] = target[t] - value[t]
        bootstrap = target[t + 1] if t + 1 == num else mixed[t + 1]
        advantages[t] = min(max_policy_ratio, ratio[t]) * (reward[t] + discount[t] * bootstrap - value[t])
        mixed[t] = trace_lambda * target[t] + (1 - trace_lambda) * value[t]
    return errors, advantages


def random_stream(seed, num=12):
    rng = np.random.default_rng(seed)
    mask = rng.random(num) < 0.75
    discount = np.where(rng.random(num) < 0.2, 0.0, 0.9) * mask
    ratio = np.exp(rng.normal(size=num))
    arrays = (rng.normal(size=num + 1), rng.normal(size=num), discount, ratio)
    return *(array.astype(np.float32) for array in arrays), mask


@pytest.mark.parametrize(
    ("trace_lambda", "max_ratio", "max_policy_ratio"),
    [(1.0, 1.0, 1.0), (0.7, 2.0, 1.5), (0.0, 0.5, 3.0), (1.0, 9.0, 0.3)],
)
def test_vtrace_equals_a_plain_loop(trace_lambda, max_ratio, max_policy_ratio):
    settings = {"trace_lambda": trace_lambda, "max_ratio": max_ratio, "max_policy_ratio": max_policy_ratio}
    for seed in range(10):
        stream = random_stream(seed)
        assert not stream[-1].all() and (stream[3] > 1).any() and (stream[3] < 1).any()
        for result, expected in zip(vtrace(*stream, **settings), numpy_vtrace(*stream, **settings), strict=True):
            np.testing.assert_allclose(result, expected, rtol=1e-4, atol=1e-5)


def test_vtrace_by_hand():
    # Discount 0.5, ratios 1: δ_0 = 1 + 0.5 * 2 - 4 = -2, δ_1 = 3 + 0.5 * 6 - 2 = 4, so v_1 - V_1 = 4 and
    # v_0 - V_0 = -2 + 0.5 * 4 = 0. Advantages: 1 + 0.5 * (2 + 4) - 4 = 0, and 3 + 0.5 * 6 - 2 = 4.
    errors, advantages = vtrace(
        jnp.array([4.0, 2.0, 6.0]), jnp.array([1.0, 3.0]), jnp.array([0.5, 0.5]), jnp.ones(2), jnp.ones(2, bool)
    )
    np.testing.assert_allclose(errors, [0, 4])
    np.testing.assert_allclose(advantages, [0, 4])
    # Half as likely now: both temporal differences, the trace and the advantages are halved.
    errors, advantages = vtrace(
        jnp.array([4.0, 2.0, 6.0]), jnp.array([1.0, 3.0]), jnp.array([0.5, 0.5]), jnp.full(2, 0.5), jnp.ones(2, bool)
    )
    np.testing.assert_allclose(errors, [-1 + 0.5 * 0.5 * 2, 2])
    np.testing.assert_allclose(advantages, [0.5 * (1 + 0.5 * (2 + 2) - 4), 2])


@pytest.mark.parametrize("trace_lambda", [0.0, 0.4, 1.0])
def test_on_policy_it_gives_lambda_returns(trace_lambda):
    value, reward, discount, _, _ = random_stream(3)
    ones = jnp.ones(len(reward))
    errors, _ = vtrace(value, reward, discount, ones, ones > 0, trace_lambda=trace_lambda)
    expected = rlax.lambda_returns(reward, discount, value[1:], trace_lambda)
    np.testing.assert_allclose(errors + value[:-1], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("trace_lambda", [0.0, 0.6, 1.0])
def test_an_episode_cut_off_by_its_time_limit_has_no_advantage_under_the_right_values(trace_lambda):
    # Reward 1 for ever and discount 0.9 are worth 10, also at the last observation (row 5) of an episode that goes on
    # in truth. Then comes another episode, worth -3 per step and -30.
    mask = np.array([True] * 5 + [False] + [True] * 4)
    reward = np.array([1.0] * 5 + [0.0] + [-3.0] * 4, np.float32)
    discount = np.where(mask, 0.9, 0.0).astype(np.float32)
    value = np.array([10.0] * 6 + [-30.0] * 5, np.float32)
    ratio = np.array([1.0, 0.5, 2.0, 1.0, 1.0, 0.7, 1.0, 3.0, 1.0, 1.0], np.float32)
    errors, advantages = vtrace(value, reward, discount, ratio, mask, trace_lambda=trace_lambda)
    np.testing.assert_allclose(errors, np.zeros(10), atol=1e-5)
    np.testing.assert_allclose(advantages, np.zeros(10), atol=1e-5)
    # Without the mask the last observation counts as a step without reward, worth 0.
    plain = rlax.vtrace_td_error_and_advantage(value[:-1], value[1:], reward, discount, ratio, trace_lambda)
    assert plain.errors[5] < -5 and (trace_lambda == 0 or plain.pg_advantage[4] < -3)


def test_a_terminated_episode_has_no_advantage_under_the_right_values():
    # Two rewards of 1, discount 0.5: values 1.5 and 1; the value of the last observation (7) must not count.
    errors, advantages = vtrace(
        jnp.array([1.5, 1.0, 7.0, 0.0]),
        jnp.array([1.0, 1.0, 0.0]),
        jnp.array([0.5, 0.0, 0.0]),
        jnp.ones(3),
        jnp.array([True, True, False]),
    )
    np.testing.assert_allclose(errors, np.zeros(3), atol=1e-6)
    np.testing.assert_allclose(advantages, np.zeros(3), atol=1e-6)


# The loss


def table_network(params_shape=(3, 2)):
    """A network without a state that looks logits and value up: row of the table -> (logits, value)."""

    def unroll(params, observation, state, reset):
        rows = params[observation]
        return impala.PolicyAndValue(rows[..., :-1], rows[..., -1]), state

    return networks.RecurrentNetwork(lambda key: jnp.zeros(params_shape), None, unroll, lambda: ())


def table_loss(network, num_actions, config):
    loss = functools.partial(
        impala.impala_loss, network=network, distribution=distributions.categorical(num_actions), config=config
    )
    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def test_loss_by_hand():
    # One window: two steps and the row that bootstraps. Observations 0, 1, 2 have logits (0, log 3), (0, 0), (0, 0) and
    # values 1, 2, 4. Actions 1 and 0 have probabilities 3/4 and 1/2; they had 1/2 and 1/4 when they were taken.
    params = jnp.array([[0.0, np.log(3), 1.0], [0.0, 0.0, 2.0], [0.0, 0.0, 4.0]])
    batch = types.Sequence(
        observation=jnp.array([[0, 1, 2]]),
        action=jnp.array([[1, 0, 1]]),
        reward=jnp.array([[3.0, -9.0, 7.0]]),
        discount=jnp.array([[1.0, 1.0, 1.0]]),
        mask=jnp.array([[True, True, True]]),
        extras={"log_prob": jnp.log(jnp.array([[0.5, 0.25, 0.5]]))},
        start={"core_state": ()},
    )
    config = impala.IMPALAConfig(discount=0.5, value_cost=0.25, entropy_cost=0.1, max_abs_reward=2.0)
    (loss, metrics), gradient = table_loss(table_network(), 2, config)(params, batch)
    # Rewards are cut to 2 and -2, ratios 1.5 and 2 to 1. δ_0 = 2 + 0.5 * 2 - 1 = 2 and δ_1 = -2 + 0.5 * 4 - 2 = -2;
    # errors 2 + 0.5 * -2 = 1 and -2; advantages 2 + 0.5 * (2 - 2) - 1 = 1 and -2.
    policy_loss = -(1 * np.log(3 / 4) - 2 * np.log(1 / 2)) / 2
    value_loss = (0.5 * 1 + 0.5 * 4) / 2
    entropy = (-(0.25 * np.log(0.25) + 0.75 * np.log(0.75)) + np.log(2)) / 2
    np.testing.assert_allclose(metrics["policy_loss"], policy_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["value_loss"], value_loss, rtol=1e-5)
    np.testing.assert_allclose(metrics["entropy"], entropy, rtol=1e-5)
    np.testing.assert_allclose(metrics["importance_ratio"], (1.5 + 2) / 2, rtol=1e-5)
    np.testing.assert_allclose(metrics["value"], (1 + 2) / 2)
    np.testing.assert_allclose(loss, policy_loss + 0.25 * value_loss - 0.1 * entropy, rtol=1e-5)
    # No gradient flows into the bootstrap: value_cost * -error / 2 for the two steps, and nothing for the last row.
    np.testing.assert_allclose(gradient[:, -1], [0.25 * -1 / 2, 0.25 * 2 / 2, 0], rtol=1e-5)


# Windows that an actor has written


def make_parts(num_envs=3, *, with_mask=True, **settings):
    """Returns a builder, and what it has made for `Episodes`."""
    builder = impala.IMPALABuilder(dataclasses.replace(CONFIG, **settings))
    spec = specs.make_environment_spec(Episodes(with_mask=with_mask))
    network = builder.make_networks(spec)
    # Larger than fresh ones, so that states and probabilities vary.
    params = jax.tree.map(lambda leaf: 2 * leaf, jax.jit(network.init)(jax.random.key(0)))
    policy = builder.make_policy(network, spec)
    extras_spec = acting.extras_spec(policy, params, spec.observation)
    (table,) = builder.make_tables(spec, extras_spec)
    local = replay.LocalReplay([table.widened(num_envs)])
    adder = builder.make_adder(local.writer(num_envs), spec, extras_spec)
    actor = builder.make_actor(
        policy, testing.FixedVariables({"policy": params}), adder, key=jax.random.key(1), num_envs=num_envs
    )
    members = [Episodes(seed, with_mask=with_mask) for seed in range(num_envs)]
    environment = environments.SyncVectorEnvironment(members, seed=0)
    return builder, network, params, local, actor, environment


def play(environment, actor, num_steps):
    """Returns what was seen: `[N, ...]` steps."""
    timestep = environment.reset()
    actor.observe_first(timestep)
    seen = [timestep]
    for _ in range(num_steps):
        action = actor.select_action(timestep.observation)
        timestep = environment.step(action)
        actor.observe(action, timestep)
        seen.append(timestep)
    return seen


@pytest.fixture(scope="module", params=["gru", "lstm"])
def windows(request):
    """All windows of three environments, the network, its parameters, and the steps that were seen."""
    _, network, params, local, actor, environment = make_parts(core=request.param)
    seen = play(environment, actor, 80)
    batch = next(local.dataset("queue", local.info().tables["queue"].size, timeout_seconds=1.0)).data
    assert len(batch.reward) > 40
    assert not batch.mask[:, 0].all() and not batch.mask[:, -1].all() and batch.mask.all(axis=1).any()
    return batch, network, params, seen


def unroll(network, params, batch):
    reset = networks.episode_starts(jnp.asarray(batch.mask))
    return jax.jit(network.unroll)(params, batch.observation, batch.start["core_state"], reset)[0]


def test_windows_give_what_the_network_gives_episode_by_episode(windows):
    batch, network, params, seen = windows
    apply = jax.jit(network.apply)
    expected = {}  # an observation's features -> logits and value, from its episode played alone
    for member in range(3):
        state = ()
        for timestep in seen:
            if timestep.step_type[member] == dm_env.StepType.FIRST:
                state = jax.tree.map(lambda leaf: leaf[None], network.initial_state())
            observation = {name: leaf[member : member + 1] for name, leaf in timestep.observation.items()}
            output, state = apply(params, observation, state)
            expected[observation["features"].tobytes()] = np.append(output.logits[0], output.value[0])
    output = unroll(network, params, batch)
    for i, t in np.ndindex(batch.mask.shape):
        got = np.append(output.logits[i, t], output.value[i, t])
        np.testing.assert_allclose(got, expected[batch.observation["features"][i, t].tobytes()], rtol=1e-4, atol=1e-5)


def test_actions_are_legal_and_log_probabilities_are_those_of_the_learner(windows):
    batch, network, params, _ = windows
    mask = batch.mask
    legal = np.take_along_axis(batch.observation["action_mask"], batch.action[..., None], axis=-1)[..., 0]
    assert legal[mask].all()
    logits = networks.mask_illegal(unroll(network, params, batch).logits, batch.observation["action_mask"])
    log_prob = np.asarray(distributions.categorical(3).log_prob(logits, batch.action))
    np.testing.assert_allclose(log_prob[mask], batch.extras["log_prob"][mask], rtol=1e-4, atol=1e-5)
    # Where only one action is legal it is certain; elsewhere it is not.
    alone = batch.observation["action_mask"].sum(axis=-1) == 1
    np.testing.assert_allclose(log_prob[alone & mask], 0, atol=1e-6)
    assert (log_prob[~alone & mask] < -1e-3).all()


@functools.cache
def compiled_loss(network):
    loss = functools.partial(
        impala.impala_loss,
        network=network,
        distribution=impala_networks.make_distribution(SPEC),
        config=CONFIG,
    )
    return jax.jit(jax.value_and_grad(loss, has_aux=True))


def loss_and_gradient(batch, network, params):
    (value, metrics), gradient = compiled_loss(network)(params, batch)
    return value, metrics, gradient


def off_policy(batch):
    """Returns the batch with other log-probabilities, so that ratios are not 1."""
    rng = np.random.default_rng(0)
    log_prob = batch.extras["log_prob"] + rng.normal(size=batch.mask.shape).astype(np.float32) * batch.mask
    return batch._replace(extras={"log_prob": log_prob})


def test_what_stands_beside_a_last_observation_changes_nothing(windows):
    batch, network, params, _ = windows
    batch, rng = off_policy(batch), np.random.default_rng(0)
    changed = batch._replace(
        action=np.where(batch.mask, batch.action, rng.integers(3, size=batch.mask.shape)).astype(np.int32),
        reward=np.where(batch.mask, batch.reward, 50).astype(np.float32),
        discount=np.where(batch.mask, batch.discount, 1).astype(np.float32),
        extras={"log_prob": np.where(batch.mask, batch.extras["log_prob"], -200).astype(np.float32)},
    )
    assert testing.value_difference(changed, batch) is not None
    expected = loss_and_gradient(batch, network, params)
    assert np.isfinite(expected[0]) and all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(expected[2]))
    assert testing.value_difference(loss_and_gradient(changed, network, params), expected) is None


def test_loss_and_gradient_with_padding_are_those_without(windows):
    batch, network, params, _ = windows
    batch = off_policy(batch)
    cut = 3
    # Windows whose fourth row is an episode's last observation, cut off there, and followed by nonsense instead.
    ends = ~batch.mask[:, cut]
    assert ends.any()
    rows = jax.tree.map(lambda leaf: leaf[ends], batch)
    first = jax.tree.map(lambda leaf: leaf[:, : cut + 1], rows._replace(start=()))._replace(start=rows.start)
    rng = np.random.default_rng(1)
    padding = np.zeros_like(rows.mask)
    padding[:, cut + 1 :] = True
    padded = rows._replace(
        observation={
            "features": np.where(
                padding[..., None], 9 * rng.normal(size=(*padding.shape, 2)), rows.observation["features"]
            ).astype(np.float32),
            "action_mask": np.where(padding[..., None], 0, rows.observation["action_mask"]),
        },
        action=np.where(padding, 0, rows.action),
        reward=np.where(padding, 30, rows.reward).astype(np.float32),
        discount=np.where(padding, 1, rows.discount).astype(np.float32),
        mask=rows.mask & ~padding,
        extras={"log_prob": np.where(padding, 0, rows.extras["log_prob"]).astype(np.float32)},
    )
    for one, other in zip(
        jax.tree.leaves(loss_and_gradient(padded, network, params)),
        jax.tree.leaves(loss_and_gradient(first, network, params)),
        strict=True,
    ):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-6)


def test_a_window_over_two_episodes_counts_as_two_windows(windows):
    batch, network, params, _ = windows
    batch = off_policy(batch)
    (chosen,) = np.nonzero(~batch.mask[:, 2] & batch.mask[:, 0] & batch.mask[:, 1])
    whole = jax.tree.map(lambda leaf: leaf[chosen[:1]], batch)
    first = jax.tree.map(lambda leaf: leaf[:, :3], whole._replace(start=()))._replace(start=whole.start)
    second = jax.tree.map(lambda leaf: leaf[:, 3:], whole._replace(start=()))._replace(
        start={"core_state": jax.tree.map(lambda leaf: leaf[None], network.initial_state())}
    )
    weights = [int(part.mask[:, :-1].sum()) for part in (first, second)]
    assert min(weights) > 0
    gradients = [loss_and_gradient(part, network, params)[2] for part in (whole, first, second)]
    mean = jax.tree.map(lambda *leaves: np.average(leaves, axis=0, weights=weights), *gradients[1:])
    for one, other in zip(jax.tree.leaves(gradients[0]), jax.tree.leaves(mean), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-3, atol=1e-6)


def test_illegal_actions_get_no_gradient():
    params = jnp.array([[0.3, -0.2, 0.1, 1.0]])
    batch = types.Sequence(
        observation={"row": jnp.array([[0, 0]]), "action_mask": jnp.array([[[1, 0, 1], [0, 0, 0]]])},
        action=jnp.array([[2, 0]]),
        reward=jnp.array([[3.0, 0.0]]),
        discount=jnp.array([[0.0, 0.0]]),
        mask=jnp.array([[True, False]]),
        extras={"log_prob": jnp.array([[-0.7, 0.0]])},
        start={"core_state": ()},
    )
    table = table_network()
    network = table._replace(
        unroll=lambda params, observation, state, reset: table.unroll(params, observation["row"], state, reset)
    )
    _, gradient = table_loss(network, 3, impala.IMPALAConfig())(params, batch)
    assert np.isfinite(gradient).all()
    assert gradient[0, 1] == 0 and (np.abs(gradient[0, [0, 2, 3]]) > 1e-3).all()


def test_many_environments_act_as_one_alone_does():
    builder, network, params, _, _, environment = make_parts(num_envs=4, core="lstm", with_mask=False)
    policy = builder.make_policy(network, specs.make_environment_spec(environment), evaluation=True)
    variables = testing.FixedVariables({"policy": params})

    def make_actor(size):
        return builder.make_actor(policy, variables, None, key=jax.random.key(0), num_envs=size)

    def row_of(timestep, member):
        return dm_env.TimeStep(*jax.tree.map(lambda leaf: leaf[member : member + 1], tuple(timestep)))

    together, alone = make_actor(4), [make_actor(1) for _ in range(4)]
    timestep = environment.reset()
    together.observe_first(timestep)
    for member, actor in enumerate(alone):
        actor.observe_first(row_of(timestep, member))
    seen = set()
    for _ in range(40):
        action = together.select_action(timestep.observation)
        single = [actor.select_action(row_of(timestep, member).observation) for member, actor in enumerate(alone)]
        np.testing.assert_array_equal(action, np.concatenate(single))
        seen |= set(action.tolist())
        timestep = environment.step(action)
        together.observe(action, timestep)
        for member, actor in enumerate(alone):
            actor.observe(action[member : member + 1], row_of(timestep, member))
    assert len(seen) > 1


def test_evaluation_takes_the_likeliest_legal_action():
    builder, network, params, _, _, environment = make_parts()
    policy = builder.make_policy(network, SPEC, evaluation=True)
    observation = environment.reset().observation
    state = acting.initial_state(policy, 3)
    actions = {
        tuple(policy.select_action(params, observation, state, jax.random.key(seed))[0].tolist()) for seed in range(5)
    }
    assert len(actions) == 1
    logits = np.asarray(network.apply(params, observation, state)[0].logits)
    expected = np.where(observation["action_mask"], logits, -np.inf).argmax(axis=-1)
    np.testing.assert_array_equal(next(iter(actions)), expected)


# The queue


def test_the_queue_holds_actors_back_and_gives_each_window_once():
    *_, local, actor, environment = make_parts(num_envs=2, queue_size=4, batch_size=3)
    dataset = local.dataset("queue", 3, timeout_seconds=1.0)
    timestep = environment.reset()
    actor.observe_first(timestep)
    seen, keys = [], []
    for _ in range(200):
        if dataset.ready():
            keys += next(dataset).info.keys.tolist()
        elif local.can_insert(2):
            action = actor.select_action(timestep.observation)
            timestep = environment.step(action)
            actor.observe(action, timestep)
        info = local.info().tables["queue"]
        seen.append(info.num_inserts - info.num_samples)
    assert keys == list(range(len(keys))) and len(keys) > 15
    # Without the learner, acting fills the queue and no more.
    while local.can_insert(2):
        action = actor.select_action(timestep.observation)
        timestep = environment.step(action)
        actor.observe(action, timestep)
    info = local.info().tables["queue"]
    assert max(seen) <= 5 and 4 <= info.num_inserts - info.num_samples <= 5 and info.num_pending == 0
    assert info.num_samples == len(keys)


def test_a_burst_that_no_batch_divides_does_not_come_to_a_halt(tmp_path):
    experiment = experiments.ExperimentConfig(
        impala.IMPALABuilder(dataclasses.replace(CONFIG, batch_size=5, queue_size=5, core="none", core_size=64)),
        Episodes,
        num_envs=8,
        max_num_actor_steps=400,
        evaluation=None,
        directory=tmp_path / "run",
        logger_factory=lambda label: loggers.InMemoryLogger(),
    )
    result = experiments.run_experiment(experiment, quiet=True)
    assert result.finished and result.counts["learner_steps"] > 10


# Specs and settings


class Trees(Episodes):
    """`Episodes` without a mask whose action is a tree."""

    def __init__(self, seed=0):
        super().__init__(seed, with_mask=False)

    def action_spec(self):
        return {"first": specs.DiscreteArray(2), "rest": specs.BoundedArray((2,), np.int32, [1, 0], [3, 1])}


def test_actions_may_be_a_tree_of_discrete_ones(tmp_path):
    experiment = experiments.ExperimentConfig(
        impala.IMPALABuilder(CONFIG),
        Trees,
        num_envs=2,
        max_num_actor_steps=300,
        evaluation=experiments.EvaluationConfig(every_steps=300, num_episodes=2),
        directory=tmp_path / "run",
        logger_factory=lambda label: loggers.InMemoryLogger(),
    )
    result = experiments.run_experiment(experiment, quiet=True)
    assert result.finished and result.counts["learner_steps"] > 5
    action = experiments.load_policy(result.directory)({"features": np.zeros(2, np.float32)})
    jax.tree.map(lambda spec, leaf: spec.validate(leaf), Trees().action_spec(), action)


@pytest.mark.parametrize(
    ("action", "advice"),
    [
        (specs.BoundedArray((2,), np.float32, -1, 1), r"For such actions use d4pg, mpo, sac, td3 or ppo\."),
        (specs.Array((), np.int32), r"No agent takes such actions\."),
        ({"turn": specs.Array((), np.float32), "move": specs.DiscreteArray(3)}, r"For such actions use ppo\."),
    ],
)
def test_actions_that_are_not_discrete_are_refused_with_advice(action, advice):
    with pytest.raises(ValueError, match=rf"IMPALA needs discrete actions.*{advice}"):
        impala.IMPALABuilder().make_networks(SPEC._replace(action=action))


def test_an_action_mask_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"'action_mask' must have shape \(4,\), .* got \(3,\)"):
        impala.IMPALABuilder().make_networks(SPEC._replace(action=specs.DiscreteArray(4)))


@pytest.mark.parametrize("image_torso", impala_networks.IMAGE_TORSOS)
def test_images_get_the_torso_that_is_named(image_torso):
    spec = SPEC._replace(observation=specs.FrameStack((4, 84, 84), np.uint8, 0, 255))
    builder = impala.IMPALABuilder(impala.IMPALAConfig(image_torso=image_torso, core="lstm", core_size=7))
    network = builder.make_networks(spec)
    params = jax.eval_shape(network.init, jax.random.key(0))
    assert sum("conv" in name for name in params) == {"residual": 15, "convolutional": 3}[image_torso]
    observation, state = specs.zeros(spec.observation, (2, 3)), specs.zeros(jax.eval_shape(network.initial_state), (2,))
    output, _ = jax.eval_shape(network.unroll, params, observation, state, np.zeros((2, 3), bool))
    assert output.logits.shape == (2, 3, 3) and output.value.shape == (2, 3)


@pytest.mark.parametrize(
    ("field", "value", "allowed"),
    [
        ("discount", 1.5, r"in \[0, 1\]"),
        ("trace_lambda", -0.1, r"in \[0, 1\]"),
        ("sequence_length", 0, "a whole number of at least 1"),
        ("queue_size", 15, "a whole number of at least 16"),
        ("core", "rnn", "one of 'none', 'gru', 'lstm'"),
        ("image_torso", "vit", "one of 'residual', 'convolutional'"),
        ("optimizer", "sgd", "one of 'adam', 'rmsprop'"),
        ("max_abs_reward", 0.0, "a finite number greater than 0, or None"),
        ("max_ratio", -1.0, "a finite number greater than 0"),
        ("entropy_cost", float("nan"), "a finite number of at least 0"),
        ("hidden_sizes", (64, 0), "a tuple of whole numbers of at least 1"),
    ],
)
def test_bad_settings_are_named_with_what_is_allowed(field, value, allowed):
    with pytest.raises(ValueError, match=rf"IMPALAConfig\.{field} must be {allowed}, got "):
        impala.IMPALAConfig(**{field: value})


# Learning


@pytest.mark.parametrize(
    ("core", "low", "high"),
    [("gru", 0.9, 1.0), ("none", -0.15, 0.15), pytest.param("lstm", 0.9, 1.0, marks=pytest.mark.slow)],
)
def test_it_learns_to_remember_and_stays_at_chance_without_a_core(core, low, high, tmp_path):
    config = impala.IMPALAConfig(
        sequence_length=8, batch_size=16, core=core, core_size=16, hidden_sizes=(16,), learning_rate=1e-2, overlap=False
    )
    experiment = experiments.ExperimentConfig(
        impala.IMPALABuilder(config),
        testing.MemoryEnvironment,
        num_envs=16,
        max_num_actor_steps=6_000,
        # Without memory returns are -1 or 1 alike: the mean of so many has a standard deviation of 0.03.
        evaluation=experiments.EvaluationConfig(every_steps=6_000, num_episodes=1_000),
        directory=tmp_path / "run",
        logger_factory=lambda label: loggers.InMemoryLogger(),
    )
    result = experiments.run_experiment(experiment, quiet=True)
    assert low <= result.evaluations[-1].mean_return <= high
