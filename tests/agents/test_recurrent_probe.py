"""What a recurrent agent needs of the library: memory, masks, stored states, vectorised acting."""

from __future__ import annotations

import dataclasses
import functools

import dm_env
import jax
import numpy as np
import pytest

from acme_lite import acting, environment_loop, environments, experiments, loggers, replay, specs, types
from tests.agents import contract, memory_environment, probe_recurrent

CONFIG = probe_recurrent.RecurrentProbeConfig()
BUILDER = probe_recurrent.RecurrentProbeBuilder(CONFIG)
SPEC = specs.make_environment_spec(memory_environment.MemoryEnvironment())
NETWORK = BUILDER.make_networks(SPEC)


def make_params(seed):
    # Larger than fresh ones, so that the state and the greedy action vary.
    return jax.tree.map(lambda leaf: 3 * leaf, jax.jit(NETWORK.init)(jax.random.key(seed)))


@pytest.fixture(scope="module")
def windows():
    """All windows that one actor has written, oldest first, and the parameters it acted with."""
    params = make_params(0)
    policy = BUILDER.make_policy(NETWORK, SPEC)
    (table,) = BUILDER.make_tables(SPEC, acting.extras_spec(policy, params, SPEC.observation))
    table = dataclasses.replace(
        table, sampler=replay.Fifo(), limiter=replay.rate_limiters.MinSize(1), max_times_sampled=1
    )
    local = replay.LocalReplay([table])
    adder = BUILDER.make_adder(local.writer(1), SPEC, acting.extras_spec(policy, params, SPEC.observation))
    variables = contract.FixedVariables({"policy": params})
    actor = BUILDER.make_actor(policy, variables, adder, key=jax.random.key(1), num_envs=1)
    environment = environments.SyncVectorEnvironment([memory_environment.MemoryEnvironment()], seed=0)
    environment_loop.EnvironmentLoop(environment, actor).run(num_episodes=40)
    return next(local.dataset("replay", local.info().tables["replay"].size, timeout_seconds=1.0)).data, params


@pytest.mark.parametrize(("recurrent", "low", "high"), [(True, 0.9, 1.0), (False, -0.4, 0.4)])
def test_it_learns_to_remember_and_stays_at_chance_without_its_state(recurrent, low, high, tmp_path):
    experiment = experiments.ExperimentConfig(
        probe_recurrent.RecurrentProbeBuilder(dataclasses.replace(CONFIG, recurrent=recurrent)),
        memory_environment.MemoryEnvironment,
        num_envs=4,
        max_num_actor_steps=2_500,
        evaluation=experiments.EvaluationConfig(every_steps=2_500, num_episodes=200),
        directory=tmp_path / "run",
        logger_factory=lambda label: loggers.InMemoryLogger(),
    )
    result = experiments.run_experiment(experiment, quiet=True)
    assert low <= result.evaluations[-1].mean_return <= high


def loss_gradient_and_priorities(batch, params):
    @functools.partial(jax.value_and_grad, has_aux=True)
    def loss(params):
        return probe_recurrent.loss_fn(params, make_params(1), batch, network=NETWORK, discount=CONFIG.discount)

    (value, priorities), gradient = jax.jit(loss)(params)
    return value, gradient, priorities


def last_observations(mask):
    """Returns `[B, T]` bool: True for the rows right behind the last real one of a window."""
    behind = np.zeros_like(mask)
    behind[:, 1:] = mask[:, :-1] & ~mask[:, 1:]
    return behind


def test_padding_leaves_loss_gradient_and_priorities_as_they_are(windows):
    batch, params = windows
    unreal = ~batch.mask
    padding = unreal & ~last_observations(batch.mask)
    assert padding.any() and batch.mask.all(axis=1).any()
    rng = np.random.default_rng(0)

    def garbage(leaf, rows):
        noise = 100 * rng.normal(size=leaf.shape) if leaf.dtype == np.float32 else rng.integers(2, size=leaf.shape)
        return np.where(rows.reshape(rows.shape + (1,) * (leaf.ndim - 2)), noise.astype(leaf.dtype), leaf)

    # An episode's last observation is real; the action, reward, discount and extras beside it are not.
    changed = types.Sequence(
        observation=jax.tree.map(lambda leaf: garbage(leaf, padding), batch.observation),
        action=garbage(batch.action, unreal),
        reward=garbage(batch.reward, unreal),
        discount=garbage(batch.discount, unreal),
        mask=batch.mask,
        extras=jax.tree.map(lambda leaf: garbage(leaf, unreal), batch.extras),
    )
    assert contract.any_differs(changed.observation, batch.observation)
    expected = loss_gradient_and_priorities(batch, params)
    assert expected[0] > 0 and (expected[2] > 0).all()
    contract.assert_equal(loss_gradient_and_priorities(changed, params), expected)


def test_a_padded_window_counts_as_the_same_window_without_padding(windows):
    batch, params = windows
    lengths = batch.mask.sum(axis=1)
    shortest = int(np.argmin(lengths))
    assert lengths[shortest] + 1 < CONFIG.length
    row = jax.tree.map(lambda leaf: leaf[shortest : shortest + 1], batch)
    cut = jax.tree.map(lambda leaf: leaf[:, : lengths[shortest] + 1], row)
    assert cut.mask.shape[1] == cut.mask.sum() + 1  # the real steps and the last observation
    padded, plain = (loss_gradient_and_priorities(window, params) for window in (row, cut))
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-6), padded, plain)


def test_stored_states_are_those_that_the_policy_had(windows):
    batch, params = windows
    stored = batch.extras["state"]
    _, states = jax.jit(functools.partial(probe_recurrent.unroll, NETWORK))(params, batch.observation, stored[:, 0])
    np.testing.assert_allclose(stored[batch.mask], np.asarray(states)[batch.mask], rtol=1e-4, atol=1e-5)
    begins = batch.observation["cue"][:, 0, 0] != 0
    assert begins.any() and not begins.all()
    assert not stored[begins, 0].any()
    assert (np.abs(stored[~begins, 0]).max(axis=1) > 0.01).all()
    # A window that begins within an episode goes on where the one before it was after `period` rows.
    (later,) = np.nonzero(~begins)
    np.testing.assert_array_equal(stored[later, 0], stored[later - 1, CONFIG.period])


def test_four_members_act_as_four_actors_of_one_do():
    num_envs = 4
    variables = contract.FixedVariables({"policy": make_params(3)})
    policy = BUILDER.make_policy(NETWORK, SPEC, evaluation=True)

    def make_actor(size, seed):
        return BUILDER.make_actor(policy, variables, None, key=jax.random.key(seed), num_envs=size)

    def row_of(timestep, member):
        return dm_env.TimeStep(*jax.tree.map(lambda leaf: leaf[member : member + 1], tuple(timestep)))

    environment = contract.make_vector_environment(memory_environment.MemoryEnvironment, num_envs)
    together, alone = make_actor(num_envs, 0), [make_actor(1, seed) for seed in range(1, 1 + num_envs)]
    timestep = environment.reset()
    together.observe_first(timestep)
    for member, actor in enumerate(alone):
        actor.observe_first(row_of(timestep, member))
    seen, num_firsts = set(), np.zeros(num_envs, int)
    for _ in range(40):
        action = together.select_action(timestep.observation)
        single = [actor.select_action(row_of(timestep, member).observation) for member, actor in enumerate(alone)]
        np.testing.assert_array_equal(action, np.concatenate(single))
        seen |= set(action.tolist())
        timestep = environment.step(action)
        num_firsts += timestep.step_type == dm_env.StepType.FIRST
        together.observe(action, timestep)
        for member, actor in enumerate(alone):
            actor.observe(action[member : member + 1], row_of(timestep, member))
    assert seen == {0, 1} and (num_firsts > 3).all()


def test_the_environment_rewards_the_cue_at_the_query_alone():
    environment = memory_environment.MemoryEnvironment(seed=1)
    lengths, cues = set(), set()
    for episode in range(60):
        timestep = environment.reset()
        cue, length, queries = int(timestep.observation["cue"][0]), 0, 0
        right = episode % 2 == 0
        while not timestep.last():
            for spec, leaf in zip(
                jax.tree.leaves(SPEC.observation), jax.tree.leaves(timestep.observation), strict=True
            ):
                spec.validate(leaf)
            queries += int(timestep.observation["query"])
            timestep = environment.step(int(cue == 1) if right else int(cue == -1))
            assert timestep.observation["cue"] == 0
            assert timestep.last() or timestep.reward == 0
            length += 1
        assert queries == 1 and timestep.reward == (1 if right else -1) and timestep.discount == 0
        lengths.add(length)
        cues.add(cue)
    assert lengths == {2, 3, 4, 5, 6} and cues == {-1, 1}
