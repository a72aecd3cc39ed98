"""What must hold for every agent, as checks of a builder.

A check takes an `Agent` (`make_agent` makes it) and raises an AssertionError that says in one sentence what is wrong.
The checks use the interfaces of `core` alone; of a learner that is an `SGDLearner` they look into the saved state, too.
"""

from __future__ import annotations

import contextlib
import functools
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from acme_lite import acting, core, environments, experiments, learning, loggers, specs, types
from acme_lite import replay as replay_lib
from acme_lite.testing import agent_parts, comparisons
from acme_lite.testing.agent_parts import Agent

_MAX_STEPS = 300
_EVALUATION = experiments.EvaluationConfig(every_steps=120, num_episodes=2)
_EVALUATED_AT = [120, 240, 300]
_CHECKPOINTING = experiments.CheckpointConfig(every_steps=100)
_MAX_EPISODE_STEPS = 40
_KILLED_AT = 250


def check_builder(builder: core.Builder, environment_factory: agent_parts.EnvironmentFactory) -> None:
    """Runs every check of this package (`CHECKS`) on a builder; takes some fifteen seconds.

    The builder's settings must let learning begin within the first 300 environment steps: choose a small network, batch
    and replay for the checks.

    Args:
        builder: the builder.
        environment_factory: `(seed) -> dm_env.Environment`, one environment that the agent can act in.

    Raises:
        AssertionError: something does not hold, or a part raised an error of its own; says what in one sentence.
        ValueError: `environment_factory` is no function.
    """
    agent_parts.check_factory(environment_factory)
    with _own_errors("making the parts"):
        agent = agent_parts.make_agent(builder, environment_factory)
    for check in CHECKS:
        with _own_errors(check.__name__):
            check(agent)


@contextlib.contextmanager
def _own_errors(where: str) -> Iterator[None]:
    """Turns errors of an agent's parts into AssertionErrors."""
    try:
        yield
    except AssertionError:
        raise
    except Exception as error:
        raise AssertionError(f"A part of the agent failed ({where}): {type(error).__name__}: {error}") from error


def check_policy(agent: Agent) -> None:
    """Checks the policies of training and evaluation, for one and for several members.

    Actions have the shapes, dtypes and bounds of their spec; extras and recurrent state keep theirs; ten steps after
    the first one compile nothing.
    """
    for evaluation in (False, True):
        policy = agent.builder.make_policy(agent.networks, agent.spec, evaluation=evaluation)
        for num_envs in (1, 3):
            _check_policy_types(agent, policy, num_envs, evaluation=evaluation)
            _check_actor(agent, agent.make_actor(policy, num_envs=num_envs), num_envs)


def _check_policy_types(agent: Agent, policy: acting.ActorCore, batch_size: int, *, evaluation: bool) -> None:
    state = acting.initial_state(policy, batch_size)
    observation = specs.zeros(agent.spec.observation, (batch_size,))
    action, extras, next_state = jax.eval_shape(
        policy.select_action, agent.variables["policy"], observation, state, jax.random.key(0)
    )
    policy_name = "evaluation" if evaluation else "training"
    compared = [("action", agent.spec.action, action)]
    if not evaluation:  # nothing records the extras of an evaluation
        compared.append(("extras", agent.extras_spec, extras))
    for name, spec, actual in compared:
        difference = comparisons.type_difference(_batched(spec, (batch_size,)), actual)
        assert difference is None, f"The {name} of the {policy_name} policy does not fit its spec: {difference}."
    difference = comparisons.type_difference(state, next_state)
    assert difference is None, f"The {policy_name} policy changes the type of its state: {difference}."


def _batched(spec: types.SpecTree, batch_shape: tuple[int, ...]) -> types.ArrayTree:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((*batch_shape, *leaf.shape), leaf.dtype), spec)


def _check_actor(agent: Agent, actor: core.Actor, num_envs: int) -> None:
    environment = agent.make_vector_environment(num_envs)
    timestep = environment.reset()
    actor.observe_first(timestep)

    def step(timestep: dm_env.TimeStep) -> dm_env.TimeStep:
        action = actor.select_action(timestep.observation)
        for member in range(num_envs):
            row = jax.tree.map(lambda leaf, member=member: leaf[member], action)
            jax.tree.map(_check_action, agent.spec.action, row)
        timestep = environment.step(action)
        actor.observe(action, timestep)
        actor.update()
        return timestep

    timestep = step(timestep)
    with comparisons.no_compilation("Ten steps of the actor after the first one"):
        for _ in range(10):
            timestep = step(timestep)
    environment.close()


def _check_action(spec: specs.Array, action: np.ndarray) -> None:
    if np.can_cast(action.dtype, spec.dtype, "same_kind"):
        action = np.asarray(action, spec.dtype)  # as environments get it
    try:
        spec.validate(action)
    except ValueError as error:
        raise AssertionError(f"The actor chose an action that its spec does not allow: {error}.") from error


def check_samples(agent: Agent) -> None:
    """Checks that the tables can be built, that the adder fills them, and that samples are what signatures say.

    Rewards are finite, discounts in [0, 1], probabilities in (0, 1].
    """
    names = [table.name for table in agent.tables]
    assert names and len(set(names)) == len(names), f"Tables need names, each its own, got {names}."
    for sample in agent.samples:
        one = isinstance(sample.info, replay_lib.SampleInfo)
        parts = [(sample.data, sample.info)] if one else zip(sample.data, sample.info, strict=True)
        for data, info in parts:
            problems = [_data_problem(table, data, info) for table in agent.tables]
            assert None in problems, f"A sample is not what its table's signature says: {problems[0]}."
            assert np.isfinite(data.reward).all(), "A sample holds a reward that is not a finite number."
            assert ((data.discount >= 0) & (data.discount <= 1)).all(), "A sample holds a discount beyond [0, 1]."
            assert ((info.probabilities > 0) & (info.probabilities <= 1)).all(), (
                "A sample holds a probability beyond (0, 1]."
            )


def _data_problem(table: replay_lib.Table, data: Any, info: replay_lib.SampleInfo) -> str | None:
    """Returns how a sample's data differ from a table's rows; None if they do not."""
    rows = np.shape(info.keys)
    if isinstance(table.items, replay_lib.Sequences):
        rows = (*rows, table.items.length)
    for name, spec in {"observation": table.signature.observation, **table.signature.fields}.items():
        difference = comparisons.type_difference(_batched(spec, rows), getattr(data, name, None))
        if difference is not None:
            return f"of its {name}, {difference}"
    if isinstance(table.items, replay_lib.Sequences):
        difference = comparisons.type_difference(_batched(table.items.start, np.shape(info.keys)), data.start)
        if difference is not None:
            return f"of its start, {difference}"
    return None


def check_learner(agent: Agent) -> None:
    """Checks that updates change the policy and nothing else.

    The learner serves the variables of `init_variables`, keeps their types, raises a KeyError for an unknown name, and
    compiles nothing in ten calls after the first one. New priorities are finite, not negative, and as many as there are
    keys. That the state keeps its types is what `SGDLearner` sees to.
    """
    names = sorted(agent.variables)
    served = [agent.variables[name] for name in names]
    learner, dataset = agent.make_learner(agent.samples)
    with contextlib.closing(learner):
        _check_served(served, learner.get_variables(names), "a fresh learner")
        (before,) = jax.device_get(learner.get_variables(["policy"]))
        learner.step()
        core.save(learner)  # waits for a call in a thread of its own, which compiles there
        with comparisons.no_compilation("Ten calls of the update after the first one"):
            learner.run(10)
        _check_unknown_name(learner)
    _check_served(served, learner.get_variables(names), "a learner that has learned")
    (after,) = learner.get_variables(["policy"])
    assert comparisons.value_difference(before, after) is not None, "Eleven calls of the update left the policy as is."
    for info, priorities in dataset.priorities:
        assert np.shape(priorities) == np.shape(info.keys), (
            f"There must be a new priority for each key, {np.shape(info.keys)}, got {np.shape(priorities)}."
        )
        assert np.isfinite(priorities).all() and (np.asarray(priorities) >= 0).all(), (
            "A new priority is not a finite number of at least 0."
        )


def _check_served(expected: types.ArrayTree, served: types.ArrayTree, who: str) -> None:
    difference = comparisons.type_difference(expected, served)
    assert difference is None, f"The variables of {who} are not those of init_variables: {difference}."


def _check_unknown_name(learner: core.Learner) -> None:
    name = "no_such_variable"
    try:
        learner.get_variables([name])
    except KeyError as error:
        assert name in str(error), f"The KeyError for an unknown variable must name it, got {error}."
    else:
        raise AssertionError("get_variables must raise a KeyError for a variable that there is not.")


def check_restored_learner(agent: Agent) -> None:
    """Checks that a fresh learner that takes over another's saved state goes on as it does, bit for bit.

    That holds for its variables after each step and for the priorities that it sends back.
    """
    names = sorted(agent.variables)
    learner, dataset = agent.make_learner(agent.samples[:6])
    fresh, fresh_dataset = agent.make_learner(agent.samples[3:6], seed=1)
    with contextlib.closing(learner), contextlib.closing(fresh):
        learner.run(3)
        fresh.restore(learner.save())
        num_before = len(dataset.priorities)
        _check_same(learner.get_variables(names), fresh.get_variables(names), "right after it was restored")
        for step in range(1, 4):
            learner.step()
            fresh.step()
            _check_same(learner.get_variables(names), fresh.get_variables(names), f"{step} steps later")
    _check_same(learner.get_variables(names), fresh.get_variables(names), "after it was closed")
    difference = comparisons.value_difference(dataset.priorities[num_before:], fresh_dataset.priorities)
    assert difference is None, (
        f"A restored learner sends back other priorities than the one that was saved: {difference}."
    )


def _check_same(expected: types.ArrayTree, actual: types.ArrayTree, when: str) -> None:
    difference = comparisons.value_difference(expected, actual)
    assert difference is None, (
        f"A restored learner has other variables than the one that was saved, {when}: {difference}."
    )


def check_seeds(agent: Agent) -> None:
    """Checks that keys and seeds reach the learner, the actor and the dataset.

    Learners of two keys must serve different policies, actors of two keys must draw different actions (of a policy
    that is made random), and datasets of two seeds must draw different items, if a table samples at random. That equal
    seeds give equal results is part of `check_runs`.
    """
    learners = [agent.make_learner([], seed=seed)[0] for seed in (0, 1)]
    policies = [learner.get_variables(["policy"]) for learner in learners]
    for learner in learners:
        learner.close()
    assert comparisons.value_difference(*policies) is not None, (
        "make_learner must use its key: learners of two keys begin with the same policy."
    )
    if any(_num_choices(leaf) > 1 for leaf in jax.tree.leaves(agent.spec.action)):
        policy = _random_policy(agent)
        actions = [_first_actions(agent, agent.make_actor(policy, num_envs=3, seed=seed)) for seed in (0, 1)]
        assert comparisons.value_difference(*actions) is not None, (
            "make_actor must use its key: actors of two keys draw the same actions."
        )
    if any(isinstance(table.sampler, replay_lib.Uniform | replay_lib.Prioritized) for table in agent.tables):
        (sample,) = agent.draw_samples(1, seed=1)
        assert comparisons.value_difference(agent.samples[0].data, sample.data) is not None, (
            "make_dataset must use its seed: datasets of two seeds draw the same items."
        )


def _num_choices(spec: specs.Array) -> float:
    return spec.num_values if isinstance(spec, specs.DiscreteArray) else np.inf


def _random_policy(agent: Agent) -> acting.ActorCore:
    """Returns the agent's policy with actions that are drawn at random, within their spec."""
    policy = agent.builder.make_policy(agent.networks, agent.spec)

    def select_action(
        params: types.Params, observation: types.ArrayTree, state: types.ArrayTree, key: jax.Array
    ) -> tuple[types.ArrayTree, types.ArrayTree, types.ArrayTree]:
        batch_size = jax.tree.leaves(observation)[0].shape[0]
        _, extras, state = policy.select_action(params, observation, state, key)
        return jax.tree.map(lambda spec: _random_action(spec, batch_size, key), agent.spec.action), extras, state

    return acting.ActorCore(policy.init, select_action)


def _random_action(spec: specs.Array, batch_size: int, key: jax.Array) -> jax.Array:
    low, high = getattr(spec, "minimum", -1), getattr(spec, "maximum", 1)
    uniform = jax.random.uniform(key, (batch_size, *spec.shape))
    if np.issubdtype(spec.dtype, np.floating):
        low, high = jnp.maximum(low, -1.0), jnp.minimum(high, 1.0)
        return (low + uniform * (high - low)).astype(spec.dtype)
    return jnp.floor(low + uniform * (high - low + 1)).astype(spec.dtype)


def _first_actions(agent: Agent, actor: core.Actor) -> list[types.ArrayTree]:
    """Returns the first 20 actions for the first observation of each member."""
    environment = agent.make_vector_environment(3)
    timestep = environment.reset()
    environment.close()
    actor.observe_first(timestep)
    return [actor.select_action(timestep.observation) for _ in range(20)]


def check_runs(agent: Agent) -> None:
    """Checks whole runs of 300 steps: learning begins, counts and evaluations are exact, and the seed decides all.

    The same seed gives the same run, bit for bit, and another seed another one. Episodes are cut off after 40 steps.
    """
    first = _whole_run(agent)
    assert first.finished and first.counts["actor_steps"] == _MAX_STEPS, (
        f"A run of {_MAX_STEPS} steps counted {first.counts}."
    )
    assert first.counts.get("learner_steps", 0) > 0, (
        f"Learning did not begin within {_MAX_STEPS} environment steps: check with a smaller replay and batch."
    )
    evaluated = [evaluation.actor_steps for evaluation in first.evaluations]
    assert evaluated == _EVALUATED_AT, f"A run was evaluated at the steps {evaluated}, due at {_EVALUATED_AT}."
    second = _run(agent)
    assert first.counts == second.counts, f"Runs of one seed counted {first.counts} and {second.counts}."
    difference = comparisons.value_difference(first.variables, second.variables)
    assert difference is None, f"Runs of one seed learned different variables: {difference}."
    assert first.evaluations == second.evaluations, "Runs of one seed were evaluated differently."
    other = _run(agent, seed=1, evaluation=None)
    assert comparisons.value_difference(first.variables["policy"], other.variables["policy"]) is not None, (
        "Runs of two seeds learned the same policy."
    )


def check_run_with_several_environments(agent: Agent) -> None:
    """Checks that a run with three members learns, and ends (and is evaluated) less than three steps late."""
    result = _run(agent, num_envs=3)
    assert result.finished and result.counts.get("learner_steps", 0) > 0, (
        f"A run with three members did not learn: {result.counts}."
    )
    steps = [evaluation.actor_steps for evaluation in result.evaluations]
    in_time = [due <= step <= due + 2 for due, step in zip(_EVALUATED_AT, steps, strict=False)]
    assert len(steps) == len(_EVALUATED_AT) and all(in_time), (
        f"A run with three members was evaluated at the steps {steps}, due at {_EVALUATED_AT}."
    )


def check_resumed_run(agent: Agent) -> None:
    """Checks that a run that was killed and started again equals one that was never stopped.

    Its final variables are the same, bit for bit, and so are its counts. Checkpoints are due after 100 and 200 of the
    300 steps, the run is killed after 250. They wait for the end of an episode, so episodes are cut off after 40 steps.

    It asks of the environment that `reseed(seed)`, which the loop calls before each episode, decides everything that
    is random in it: what an environment carries over from the episodes before is lost with its process. And it asks of
    an actor, adder or dataset of one's own that it is `core.Saveable`, if it has a key, a state or a generator.
    """
    expected = _whole_run(agent)
    with tempfile.TemporaryDirectory() as directory:
        with contextlib.suppress(_KilledError):
            _run_in(directory, agent, checkpointing=_CHECKPOINTING, observers=[_StepCounter(_KILLED_AT)])
        counter = _StepCounter()
        result = _run_in(directory, agent, checkpointing=_CHECKPOINTING, observers=[counter])
    who = "A run that was killed and started again"
    assert counter.steps < _KILLED_AT, f"{who} began anew instead of going on from its checkpoint."
    assert result.counts == expected.counts, f"{who} counted {result.counts}, without the stop {expected.counts}."
    difference = comparisons.value_difference(expected.variables, result.variables)
    assert difference is None, f"{who} learned other variables than one that was never stopped: {difference}."


class _KilledError(Exception):
    """Ends a run."""


class _StepCounter:
    """Counts the environment steps of a run, and ends it after some of them.

    Attributes:
        steps: so far.

    Args:
        last: after how many the run ends.
    """

    def __init__(self, last: int | None = None):
        self.steps = 0
        self._last = last

    def observe_first(self, timestep: dm_env.TimeStep) -> None:
        pass

    def observe(self, action: types.ArrayTree, next_timestep: dm_env.TimeStep) -> None:
        self.steps += int(np.sum(next_timestep.step_type != dm_env.StepType.FIRST))
        if self.steps == self._last:
            raise _KilledError

    def get_metrics(self, member: int) -> dict[str, float]:
        return {}


def check_nan_rewards(agent: Agent) -> None:
    """Checks that rewards that are not a number stop a run with an error that names a metric."""
    try:
        _run(agent, environment_factory=lambda seed: _NaNRewards(agent.environment_factory(seed)), evaluation=None)
    except learning.NonFiniteMetricError as error:
        assert "metric '" in str(error), f"The error after rewards of NaN must name a metric, got: {error}"
    except Exception as error:
        raise AssertionError(
            f"Rewards of NaN must end a run with a NonFiniteMetricError, got {type(error).__name__}: {error}"
        ) from error
    else:
        raise AssertionError("A run with rewards of NaN went through: no metric showed that learning went wrong.")


class _NaNRewards(environments.Wrapper):
    """Gives rewards that are not a number, as a broken simulator might."""

    def __init__(self, environment: dm_env.Environment):
        super().__init__(environment, reward_spec=specs.Array((), np.float32, name="reward"))

    def reset(self) -> dm_env.TimeStep:
        return self.environment.reset()

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        return self.environment.step(action)._replace(reward=np.float32("nan"))


@functools.lru_cache(maxsize=1)
def _whole_run(agent: Agent) -> experiments.ExperimentResult:
    """Returns a run that no check has changed: two checks in a row compare with it."""
    return _run(agent)


def _run(agent: Agent, **settings: Any) -> experiments.ExperimentResult:
    """Runs 300 steps, in episodes of 40 at most, in a directory that is deleted afterwards."""
    with tempfile.TemporaryDirectory() as directory:
        return _run_in(directory, agent, **settings)


def _run_in(
    directory: str,
    agent: Agent,
    *,
    environment_factory: agent_parts.EnvironmentFactory | None = None,
    evaluation: experiments.EvaluationConfig | None = _EVALUATION,
    **settings: Any,
) -> experiments.ExperimentResult:
    def limited(seed: int) -> dm_env.Environment:
        return environments.StepLimit(agent.environment_factory(seed), _MAX_EPISODE_STEPS)

    experiment = experiments.ExperimentConfig(
        agent.builder,
        environment_factory or limited,
        max_num_actor_steps=_MAX_STEPS,
        evaluation=evaluation,
        directory=directory,
        logger_factory=lambda label: loggers.InMemoryLogger(),
        **settings,
    )
    return experiments.run_experiment(experiment, quiet=True)


CHECKS: tuple[Callable[[Agent], None], ...] = (
    check_policy,
    check_samples,
    check_learner,
    check_restored_learner,
    check_seeds,
    check_runs,
    check_run_with_several_environments,
    check_resumed_run,
    check_nan_rewards,
)
"""The checks that `check_builder` runs, in this order; each takes an `Agent` and stands alone."""
