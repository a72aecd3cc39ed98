"""What must hold for every agent.

Checks of an agent's parts take an `Agent`, which `make_agent` makes of a builder and an environment factory; checks of
whole runs take these two. A check raises an AssertionError that says what is wrong. The checks use the interfaces of
`core` alone, but for `check_learner`, which looks into what an `SGDLearner` saves.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dm_env
import jax
import jax.monitoring
import numpy as np
import pytest

from acme_lite import (
    acting,
    core,
    counting,
    environment_loop,
    environments,
    experiments,
    learning,
    loggers,
    specs,
    types,
)
from acme_lite import replay as replay_lib

EnvironmentFactory = Callable[[int], dm_env.Environment]

LeafTypes = tuple[Any, list[tuple[tuple[int, ...], Any]]]

_MAX_ACTOR_STEPS = 20_000
_COMPILATIONS: list[str] = []


def _record_compilation(event: str, seconds: float, **kwargs: Any) -> None:
    if event == "/jax/core/compile/backend_compile_duration":
        _COMPILATIONS.append(event)


jax.monitoring.register_event_duration_secs_listener(_record_compilation)


class FixedVariables:
    """A source of variables that never change."""

    def __init__(self, variables: dict[str, types.ArrayTree]):
        self._variables = variables

    def get_variables(self, names: Sequence[str]) -> list[types.ArrayTree]:
        return [self._variables[name] for name in names]


class RecordedDataset:
    """A dataset that gives samples drawn before, and keeps the priorities that come back."""

    def __init__(self, samples: Sequence[replay_lib.Sample]):
        self._samples = list(samples)
        self.priorities: list[tuple[Any, Any]] = []

    def __iter__(self) -> Iterator[replay_lib.Sample]:
        return self

    def __next__(self) -> replay_lib.Sample:
        return self._samples.pop(0)

    def update_priorities(self, info: Any, priorities: Any) -> None:
        self.priorities.append((info, priorities))


@dataclasses.dataclass(frozen=True)
class Agent:
    """A builder with what it has made for an environment, and samples that its first policy has gathered there.

    Attributes:
        builder: the builder.
        environment_factory: `(seed) -> environment`.
        spec: of one environment.
        networks: the builder's.
        variables: name -> tree, of a fresh learner.
        extras_spec: of the training policy.
        tables: the builder's.
        samples: in the order in which a learner would have drawn them.
    """

    builder: core.Builder
    environment_factory: EnvironmentFactory
    spec: specs.EnvironmentSpec
    networks: Any
    variables: dict[str, types.ArrayTree]
    extras_spec: types.SpecTree
    tables: Sequence[replay_lib.Table]
    samples: Sequence[replay_lib.Sample]


def make_vector_environment(
    environment_factory: EnvironmentFactory, num_envs: int
) -> environments.SyncVectorEnvironment:
    return environments.SyncVectorEnvironment([environment_factory(seed) for seed in range(num_envs)], seed=0)


def make_agent(builder: core.Builder, environment_factory: EnvironmentFactory, *, num_samples: int = 11) -> Agent:
    """Makes an agent's parts and lets its first policy act in two environments until enough samples were drawn."""
    environment = make_vector_environment(environment_factory, 2)
    spec = specs.make_environment_spec(environment)
    networks = builder.make_networks(spec)
    variables = dict(jax.jit(functools.partial(builder.init_variables, networks, spec))(jax.random.key(0)))
    policy = builder.make_policy(networks, spec)
    extras_spec = acting.extras_spec(policy, variables["policy"], spec.observation)
    tables = [table.widened(environment.num_envs) for table in builder.make_tables(spec, extras_spec)]
    local = replay_lib.LocalReplay(tables)
    adder = builder.make_adder(local.writer(environment.num_envs), spec, extras_spec)
    actor = builder.make_actor(
        policy, FixedVariables(variables), adder, key=jax.random.key(1), num_envs=environment.num_envs
    )
    loop = environment_loop.EnvironmentLoop(environment, actor)
    samples = draw_samples(local, builder.make_dataset(local, seed=0), loop, num_samples)
    return Agent(builder, environment_factory, spec, networks, variables, extras_spec, tables, samples)


def draw_samples(
    local: replay_lib.LocalReplay,
    dataset: replay_lib.Dataset,
    loop: environment_loop.EnvironmentLoop,
    num_samples: int,
) -> list[replay_lib.Sample]:
    """Draws whenever the limiter lets it, and acts otherwise."""
    samples: list[replay_lib.Sample] = []
    while len(samples) < num_samples:
        if dataset.ready():
            samples.append(next(dataset))
        else:
            assert local.can_insert(loop.num_envs), f"Neither acting nor learning can go on: {local.info()}."
            assert loop.steps < _MAX_ACTOR_STEPS, f"{len(samples)} batches after {loop.steps} steps: {local.info()}."
            loop.step()
    return samples


def make_learner(agent: Agent, samples: Sequence[replay_lib.Sample], seed: int = 0) -> tuple[Any, RecordedDataset]:
    """Returns a learner that will draw these samples, and the dataset that gives them."""
    dataset = RecordedDataset(samples)
    learner = agent.builder.make_learner(
        agent.networks,
        agent.spec,
        dataset,
        key=jax.random.key(seed),
        counter=counting.Counter(),
        logger=loggers.InMemoryLogger(),
    )
    return learner, dataset


def leaf_types(tree: types.ArrayTree) -> LeafTypes:
    """Returns the structure of a tree, and the shapes and dtypes of its leaves."""
    return jax.tree.structure(tree), [(np.shape(leaf), jax.dtypes.result_type(leaf)) for leaf in jax.tree.leaves(tree)]


def assert_equal(one: types.ArrayTree, other: types.ArrayTree) -> None:
    """Checks that two trees are equal, bit for bit."""
    assert leaf_types(one) == leaf_types(other)
    for first, second in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
        np.testing.assert_array_equal(first, second)


def any_differs(one: types.ArrayTree, other: types.ArrayTree) -> bool:
    """Whether any leaves of two trees of one structure differ."""
    return not all(jax.tree.leaves(jax.tree.map(np.array_equal, one, other)))


def check_samples(agent: Agent) -> None:
    """Tables are built, the adder fills them, and batches are what the table's signature says."""
    assert len({table.name for table in agent.tables}) == len(agent.tables) > 0
    items, signature = agent.tables[0].items, agent.tables[0].signature
    for sample in agent.samples:
        one = isinstance(sample.info, replay_lib.SampleInfo)
        parts = [(sample.data, sample.info)] if one else zip(sample.data, sample.info, strict=True)
        for data, info in parts:
            rows = (*info.keys.shape, items.length) if isinstance(items, replay_lib.Sequences) else info.keys.shape
            _check_rows(signature.observation, data.observation, rows)
            for name, field in signature.fields.items():
                _check_rows(field, getattr(data, name), rows)
            assert np.isfinite(data.reward).all()
            assert ((data.discount >= 0) & (data.discount <= 1)).all()
            assert ((info.probabilities > 0) & (info.probabilities <= 1)).all()


def _check_rows(spec: types.SpecTree, rows: types.ArrayTree, batch_shape: tuple[int, ...]) -> None:
    assert jax.tree.structure(spec) == jax.tree.structure(rows)
    for leaf, array in zip(jax.tree.leaves(spec), jax.tree.leaves(rows), strict=True):
        assert array.shape == (*batch_shape, *leaf.shape), leaf
        assert array.dtype == leaf.dtype, leaf


def check_policy(agent: Agent) -> None:
    """Actions obey their spec in training and evaluation; extras and state keep theirs; nothing compiles anew."""
    for evaluation in (False, True):
        policy = agent.builder.make_policy(agent.networks, agent.spec, evaluation=evaluation)
        for num_envs in (1, 3):
            _check_policy_shapes(agent, policy, num_envs, training=not evaluation)
            actor = agent.builder.make_actor(
                policy, FixedVariables(agent.variables), None, key=jax.random.key(0), num_envs=num_envs
            )
            _check_actor(agent.spec, make_vector_environment(agent.environment_factory, num_envs), actor)


def _check_policy_shapes(agent: Agent, policy: acting.ActorCore, batch_size: int, *, training: bool) -> None:
    state = acting.initial_state(policy, batch_size)
    observation = specs.zeros(agent.spec.observation, (batch_size,))
    action, extras, next_state = jax.eval_shape(
        policy.select_action, agent.variables["policy"], observation, state, jax.random.key(0)
    )
    _check_rows(agent.spec.action, action, (batch_size,))
    assert leaf_types(next_state) == leaf_types(state)
    if training:
        _check_rows(agent.extras_spec, extras, (batch_size,))


def _check_actor(spec: specs.EnvironmentSpec, environment: environments.VectorEnvironment, actor: core.Actor) -> None:
    timestep = environment.reset()
    actor.observe_first(timestep)
    for step in range(11):
        action = actor.select_action(timestep.observation)
        for member in range(environment.num_envs):
            jax.tree.map(lambda leaf, rows, member=member: leaf.validate(rows[member]), spec.action, action)
        timestep = environment.step(action)
        actor.observe(action, timestep)
        actor.update()
        if step == 0:
            _COMPILATIONS.clear()
    assert not _COMPILATIONS, f"Ten steps of the policy after the first one compiled {len(_COMPILATIONS)} functions."


def check_learner(agent: Agent) -> None:
    """A learner serves what `init_variables` gives, keeps the state's structure, shapes and dtypes, and compiles once.

    Ten calls of the update after the first one compile nothing; they change the policy.
    """
    learner, dataset = make_learner(agent, agent.samples)
    names = sorted(agent.variables)
    assert "policy" in names
    served = leaf_types([agent.variables[name] for name in names])
    assert leaf_types(learner.get_variables(names)) == served
    (before,) = jax.device_get(learner.get_variables(["policy"]))
    state = _core_state(learner)
    learner.step()
    assert _core_state(learner) == state  # waits for a call in a thread of its own, which compiles there
    _COMPILATIONS.clear()
    learner.run(10)
    assert _core_state(learner) == state
    assert not _COMPILATIONS, f"Ten calls of the update after the first one compiled {len(_COMPILATIONS)} functions."
    learner.close()
    assert leaf_types(learner.get_variables(names)) == served
    (after,) = learner.get_variables(["policy"])
    assert any_differs(before, after)
    for info, priorities in dataset.priorities:
        assert priorities.shape == info.keys.shape
        assert np.isfinite(priorities).all() and (priorities >= 0).all()
    with pytest.raises(KeyError, match="no_such_variable"):
        learner.get_variables(["no_such_variable"])


def _core_state(learner: core.Learner) -> LeafTypes:
    """Returns what the state of a learner around a core consists of; the rest of `save` grows from row to row."""
    assert isinstance(learner, learning.SGDLearner)
    return leaf_types(learner.save()["state"])


def check_restored_learner(agent: Agent) -> None:
    """A fresh learner that takes over another's state has its variables, and goes on as it does, bit for bit."""
    names = sorted(agent.variables)
    learner, dataset = make_learner(agent, agent.samples[:6])
    learner.run(3)
    fresh, fresh_dataset = make_learner(agent, agent.samples[3:6], seed=1)
    assert any_differs(fresh.get_variables(["policy"]), learner.get_variables(["policy"]))
    fresh.restore(learner.save())
    num_before = len(dataset.priorities)
    assert_equal(fresh.get_variables(names), learner.get_variables(names))
    for _ in range(3):
        learner.step()
        fresh.step()
        assert_equal(fresh.get_variables(names), learner.get_variables(names))
    learner.close()
    fresh.close()
    assert_equal(fresh.get_variables(names), learner.get_variables(names))
    assert_equal(fresh_dataset.priorities, dataset.priorities[num_before:])


def run(
    builder: core.Builder, environment_factory: EnvironmentFactory, directory: pathlib.Path, **settings: Any
) -> experiments.ExperimentResult:
    """Runs a short experiment: 300 steps, evaluated every 120 and at the end, in a directory of its own."""
    evaluation = experiments.EvaluationConfig(every_steps=120, num_episodes=2)
    settings = {"max_num_actor_steps": 300, "evaluation": evaluation} | settings
    name = "-".join(str(settings.get(setting, 0)) for setting in ("seed", "num_envs"))
    experiment = experiments.ExperimentConfig(
        builder,
        environment_factory,
        directory=directory / name,
        logger_factory=lambda label: loggers.InMemoryLogger(),
        **settings,
    )
    return experiments.run_experiment(experiment, quiet=True)


def check_runs(builder: core.Builder, environment_factory: EnvironmentFactory, directory: pathlib.Path) -> None:
    """The same seed gives the same run, bit for bit, another seed another one; counts and evaluations are exact."""
    # The second run takes a directory of its own, since the first one has finished.
    first, second = (run(builder, environment_factory, directory) for _ in range(2))
    assert first.finished and first.directory != second.directory
    assert first.counts == second.counts
    assert first.evaluations == second.evaluations
    assert_equal(first.variables, second.variables)
    assert first.counts["actor_steps"] == 300
    assert first.counts["learner_steps"] > 0
    assert [evaluation.actor_steps for evaluation in first.evaluations] == [120, 240, 300]
    assert [len(evaluation.returns) for evaluation in first.evaluations] == [2, 2, 2]
    other = run(builder, environment_factory, directory, seed=1)
    assert any_differs(first.variables["policy"], other.variables["policy"])


def check_run_with_several_environments(
    builder: core.Builder, environment_factory: EnvironmentFactory, directory: pathlib.Path
) -> None:
    """With N members a run ends less than N steps late, and so do evaluations."""
    result = run(builder, environment_factory, directory, num_envs=3)
    assert result.finished
    assert 300 <= result.counts["actor_steps"] <= 302
    steps = [evaluation.actor_steps for evaluation in result.evaluations]
    assert all(due <= step <= due + 2 for due, step in zip([120, 240, 300], steps, strict=True)), steps
    assert steps[-1] == result.counts["actor_steps"]


class NaNRewards(dm_env.Environment):
    """Gives rewards that are not a number, as a broken simulator might."""

    def __init__(self, environment: dm_env.Environment):
        self._environment = environment

    def reset(self) -> dm_env.TimeStep:
        return self._environment.reset()

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        return self._environment.step(action)._replace(reward=np.float32("nan"))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._environment, name)

    def observation_spec(self) -> types.SpecTree:
        return self._environment.observation_spec()

    def action_spec(self) -> types.SpecTree:
        return self._environment.action_spec()


def check_nan_rewards(builder: core.Builder, environment_factory: EnvironmentFactory, directory: pathlib.Path) -> None:
    """Rewards that are not a number stop a run with an error that names a metric."""
    with pytest.raises(learning.NonFiniteMetricError, match=r"The metric '\w+' became (nan|inf|-inf) at learner step"):
        run(builder, lambda seed: NaNRewards(environment_factory(seed)), directory)
