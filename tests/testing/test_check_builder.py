"""Each check finds what it looks for: builders with one fault each, and the sentence that names it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import acting, adders, experiments, learning, replay, testing
from acme_lite.agents import dqn

BUILDER = dqn.DQNBuilder(
    dqn.DQNConfig(
        n_step=1,
        hidden_sizes=(4,),
        learning_rate=1e-2,
        batch_size=8,
        samples_per_insert=2.0,
        min_replay_size=16,
        max_replay_size=100,
        priority_exponent=0.6,
        epsilon=0.2,
        num_steps_per_call=1,
        overlap=False,
    )
)


@dataclasses.dataclass(frozen=True)
class Changed:
    """A builder some of whose methods are replaced by functions `(builder, *args, **kwargs)`."""

    methods: dict[str, Callable[..., Any]]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        changed = object.__getattribute__(self, "methods").get(name)
        return getattr(BUILDER, name) if changed is None else functools.partial(changed, BUILDER)


def make_agent(**methods: Callable[..., Any]) -> testing.Agent:
    return testing.make_agent(Changed(methods), testing.observation_policy_probe)


@functools.cache
def sound_agent() -> testing.Agent:
    return testing.make_agent(BUILDER, testing.observation_policy_probe)


def fails(check: Callable[[testing.Agent], None], match: str, **methods: Callable[..., Any]) -> None:
    if set(methods) <= {"make_learner", "make_actor"}:
        # Nothing of what these agents have made so far is affected: it is not made again.
        agent = dataclasses.replace(sound_agent(), builder=Changed(methods))
        agent.__dict__["samples"] = sound_agent().samples
    else:
        agent = make_agent(**methods)
    with pytest.raises(AssertionError, match=match):
        check(agent)


def with_core(change: Callable[[learning.LearnerCore], learning.LearnerCore]) -> Callable[..., Any]:
    """Returns a `make_learner` around a changed core."""

    def make_learner(builder, networks, spec, dataset, *, key, counter, logger):
        core = change(dqn.make_core(builder.config, networks, spec))
        return learning.SGDLearner(core, dataset, key=key, counter=counter, logger=logger)

    return make_learner


def with_update(change: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a `make_learner` whose update is followed by `change(old state, new state, output)`."""

    def change_core(core):
        def update(state, sample):
            return change(state, *core.update(state, sample))

        return core._replace(update=update)

    return with_core(change_core)


def with_policy(change: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a `make_policy` whose results go through `change(action, extras, state)`."""

    def make_policy(builder, networks, spec, **kwargs):
        policy = builder.make_policy(networks, spec, **kwargs)
        return policy._replace(select_action=lambda *args: change(*policy.select_action(*args)))

    return make_policy


# The policy.


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda action, extras, state: (action.astype(float), extras, state),
            r"The action of the training policy does not fit its spec: it is float32\[1\], expected int32\[1\]",
        ),
        (
            lambda action, extras, state: (action[:, None], extras, state),
            r"The action of the training policy does not fit its spec: it is int32\[1, 1\], expected int32\[1\]",
        ),
        (
            lambda action, extras, state: (action + 5, extras, state),
            "The actor chose an action that its spec does not allow",
        ),
        (
            lambda action, extras, state: (action, extras, jnp.zeros(3)),
            "The training policy changes the type of its state",
        ),
    ],
)
def test_policies_beyond_their_spec(change, match):
    fails(testing.check_policy, match, make_policy=with_policy(change))


def test_a_policy_for_evaluation_beyond_its_spec():
    def make_policy(builder, networks, spec, *, evaluation=False, **kwargs):
        change = with_policy(lambda action, extras, state: (action[:1], extras, state)) if evaluation else None
        kwargs["evaluation"] = evaluation
        return change(builder, networks, spec, **kwargs) if change else builder.make_policy(networks, spec, **kwargs)

    fails(testing.check_policy, "The action of the evaluation policy does not fit its spec", make_policy=make_policy)


def test_extras_that_depend_on_the_number_of_members():
    def change(action, extras, state):
        return action, {"batch": jnp.zeros((len(action), len(action)))}, state

    fails(testing.check_policy, "The extras of the training policy do", make_policy=with_policy(change))


def test_a_policy_that_compiles_at_each_step():
    class Recompiling(acting.PolicyActor):
        def select_action(self, observation):
            jax.jit(lambda leaf: leaf + 1)(jnp.zeros(3))  # a new function each time
            return super().select_action(observation)

    def make_actor(builder, policy, variables, adder, *, key, num_envs):
        return Recompiling(policy, variables, adder, key=key, num_envs=num_envs)

    fails(
        testing.check_policy, r"Ten steps of the actor after the first one compiled 10 functions", make_actor=make_actor
    )


# Tables, adders and datasets.


def test_tables_of_one_name():
    fails(
        testing.check_samples,
        r"Tables need names, each its own, got \['replay', 'replay'\]",
        make_tables=lambda builder, *args: list(builder.make_tables(*args)) * 2,
    )


def test_no_tables():
    fails(testing.check_samples, r"Tables need names, each its own, got \[\]", make_tables=lambda builder, *args: [])


class Dataset:
    """A dataset whose samples go through a function."""

    def __init__(self, dataset, change=lambda sample: sample, ready=None):
        self._dataset, self._change = dataset, change
        self.ready = ready or dataset.ready

    def __next__(self):
        return self._change(next(self._dataset))

    def __getattr__(self, name):
        return getattr(self._dataset, name)


def with_data(**changes: Callable[[np.ndarray], Any]) -> Callable[..., Any]:
    """Returns a `make_dataset` in whose data some fields are changed."""

    def change(sample):
        data = sample.data._replace(
            **{name: function(getattr(sample.data, name)) for name, function in changes.items()}
        )
        return sample._replace(data=data)

    return lambda builder, replay, *, seed: Dataset(builder.make_dataset(replay, seed=seed), change)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"action": lambda action: action.astype(np.int64)[:, None]}, r"of its action, it is int32\[8, 1\], expected"),
        (
            {"observation": lambda leaf: leaf[:4]},
            r"of its observation, it is float32\[4, 1\], expected float32\[8, 1\]",
        ),
        ({"observation": lambda leaf: {"a": leaf}}, "of its observation, its structure is"),
        ({"reward": lambda reward: np.where(reward > 0, np.inf, reward)}, "a reward that is not a finite number"),
        ({"discount": lambda discount: discount + 1.5}, r"a discount beyond \[0, 1\]"),
    ],
)
def test_samples_that_are_not_what_the_signature_says(changes, match):
    fails(testing.check_samples, match, make_dataset=with_data(**changes))


def test_probabilities_of_zero():
    def change(sample):
        return sample._replace(info=sample.info._replace(probabilities=0 * sample.info.probabilities))

    fails(
        testing.check_samples,
        r"a probability beyond \(0, 1\]",
        make_dataset=lambda builder, replay, *, seed: Dataset(builder.make_dataset(replay, seed=seed), change),
    )


def test_a_dataset_that_never_gives_a_sample():
    fails(
        testing.check_samples,
        "The limiter lets in no items and the dataset gives no samples",
        make_dataset=lambda builder, replay, *, seed: Dataset(
            builder.make_dataset(replay, seed=seed), ready=lambda: False
        ),
    )


def test_an_adder_that_writes_nothing(monkeypatch):
    class Silent(adders.NStepTransitionAdder):
        def add(self, action, next_timestep, extras=()):
            pass

    monkeypatch.setattr(testing.agent_parts, "_MAX_ACTOR_STEPS", 200)
    fails(
        testing.check_samples,
        r"The dataset gave 0 samples within 20\d environment steps",
        make_adder=lambda builder, writer, *args: Silent(writer, n_step=1, discount=0.9),
    )


# The learner.


def test_init_variables_without_a_policy():
    with pytest.raises(AssertionError, match=r"init_variables must give the variable 'policy', got \['params'\]"):
        make_agent(init_variables=lambda builder, *args: {"params": builder.init_variables(*args)["policy"]})


def test_init_variables_that_are_not_the_learners():
    def variables(state):
        return {"policy": {"params": state.params, "epsilon": state.epsilon, "steps": state.steps}}

    fails(
        testing.check_learner,
        "The variables of a fresh learner are not those of init_variables: its structure is",
        make_learner=with_core(lambda core: core._replace(variables=variables)),
    )


def test_updates_that_change_the_types_of_the_state():
    def update(old, new, output):
        return new._replace(
            target_params=jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), new.target_params)
        ), output

    agent = dataclasses.replace(sound_agent(), builder=Changed({"make_learner": with_update(update)}))
    agent.__dict__["samples"] = sound_agent().samples
    with pytest.raises(ValueError, match=r"state\.target_params.* must keep its shape .* float32, got .* bfloat16"):
        testing.check_learner(agent)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (
            lambda old, new, output: (new._replace(params=old.params), output),
            "Eleven calls of the update left the policy as is",
        ),
        (
            lambda old, new, output: (new, output._replace(priorities=output.priorities[:3])),
            r"There must be a new priority for each key, \(8,\), got \(3,\)",
        ),
        (
            lambda old, new, output: (new, output._replace(priorities=-output.priorities)),
            "A new priority is not a finite number of at least 0",
        ),
    ],
)
def test_updates_with_a_fault(change, match):
    fails(testing.check_learner, match, make_learner=with_update(change))


class Recompiling(learning.SGDLearner):
    def step(self):
        jax.jit(lambda leaf: leaf + 1)(jnp.zeros(3))  # a new function each time
        super().step()


class WithoutKeyError(learning.SGDLearner):
    def get_variables(self, names):
        try:
            return super().get_variables(names)
        except KeyError:
            return [None for _ in names]


class WithNamelessKeyError(learning.SGDLearner):
    def get_variables(self, names):
        try:
            return super().get_variables(names)
        except KeyError:
            raise KeyError from None


class Forgetful(learning.SGDLearner):
    """Restores everything but the optimiser."""

    def restore(self, state):
        fresh = self.save()["state"].opt_state
        super().restore({**state, "state": state["state"]._replace(opt_state=fresh)})


class WithoutState(learning.SGDLearner):
    """Restores nothing."""

    def restore(self, state):
        pass


class PriorityLosing(learning.SGDLearner):
    """Restores all but what the last call left behind."""

    def restore(self, state):
        super().restore({**state, "pending": None})


def as_learner(learner_class: type) -> Callable[..., Any]:
    def make_learner(builder, networks, spec, dataset, **kwargs):
        return learner_class(dqn.make_core(builder.config, networks, spec), dataset, **kwargs)

    return make_learner


@pytest.mark.parametrize(
    ("check", "learner_class", "match"),
    [
        (
            testing.check_learner,
            Recompiling,
            r"Ten calls of the update after the first one compiled 10 functions",
        ),
        (testing.check_learner, WithoutKeyError, "get_variables must raise a KeyError"),
        (testing.check_learner, WithNamelessKeyError, "The KeyError for an unknown variable must name it"),
        (testing.check_restored_learner, Forgetful, "other variables than the one that was saved, 1 steps later"),
        (testing.check_restored_learner, WithoutState, "that was saved, right after it was restored"),
        (testing.check_restored_learner, PriorityLosing, "sends back other priorities than the one that was saved"),
    ],
)
def test_learners_with_a_fault(check, learner_class, match):
    fails(check, match, make_learner=as_learner(learner_class))


# Seeds.


def without_key(name: str, **fixed: Any) -> dict[str, Callable[..., Any]]:
    return {name: lambda builder, *args, **kwargs: getattr(builder, name)(*args, **{**kwargs, **fixed})}


@pytest.mark.parametrize(
    ("methods", "match"),
    [
        (without_key("make_learner", key=jax.random.key(3)), "make_learner must use its key"),
        (without_key("make_actor", key=jax.random.key(3)), "make_actor must use its key"),
        (without_key("make_dataset", seed=3), "make_dataset must use its seed"),
    ],
)
def test_seeds_that_are_not_used(methods, match):
    fails(testing.check_seeds, match, **methods)


# Runs.


def test_runs_that_depend_on_more_than_the_seed():
    calls = itertools.count()
    fails(
        testing.check_runs,
        "Runs of one seed learned different variables",
        make_learner=lambda builder, *args, key, **kwargs: builder.make_learner(
            *args, key=jax.random.fold_in(key, next(calls)), **kwargs
        ),
    )


@pytest.mark.slow
def test_an_evaluation_that_depends_on_more_than_the_seed():
    calls = itertools.count()

    def make_actor(builder, policy, variables, adder, *, key, num_envs):
        if adder is None:
            key = jax.random.fold_in(key, next(calls))
            policy = policy._replace(
                select_action=lambda params, observation, state, key: (
                    jax.random.bernoulli(key, shape=(num_envs,)).astype(jnp.int32),
                    (),
                    state,
                )
            )
        return builder.make_actor(policy, variables, adder, key=key, num_envs=num_envs)

    fails(testing.check_runs, "Runs of one seed were evaluated differently", make_actor=make_actor)


@pytest.mark.slow
def test_runs_that_do_not_depend_on_the_seed():
    def variables(state):
        return {"policy": {"params": jax.tree.map(jnp.zeros_like, state.params), "epsilon": state.epsilon}}

    fails(
        testing.check_runs,
        "Runs of two seeds learned the same policy",
        make_learner=with_core(lambda core: core._replace(variables=variables)),
    )


def test_runs_that_never_learn():
    def make_tables(builder, *args):
        (table,) = builder.make_tables(*args)
        limiter = replay.SampleToInsertRatio(2.0, min_size=5_000, error_buffer=100.0)
        return [dataclasses.replace(table, max_size=10_000, limiter=limiter)]

    fails(testing.check_runs, "Learning did not begin within 300 environment steps", make_tables=make_tables)
    fails(
        testing.check_run_with_several_environments,
        "A run with three members did not learn",
        make_tables=make_tables,
    )


class WithoutMemory:
    """An actor that cannot be saved."""

    def __init__(self, actor):
        self.select_action, self.observe_first = actor.select_action, actor.observe_first
        self.observe, self.update = actor.observe, actor.update


def test_a_run_that_goes_on_with_an_actor_that_was_not_saved():
    fails(
        testing.check_resumed_run,
        "A run that was killed and started again learned other variables than one that was never stopped",
        make_actor=lambda builder, *args, **kwargs: WithoutMemory(builder.make_actor(*args, **kwargs)),
    )


def test_a_run_that_goes_on_in_an_environment_that_does_not_follow_its_seed():
    def make_environment(seed):
        probe = testing.observation_policy_probe(seed)
        probe.reseed = lambda seed: None
        return probe

    with pytest.raises(AssertionError, match="A run that was killed and started again learned other variables"):
        testing.check_resumed_run(dataclasses.replace(sound_agent(), environment_factory=make_environment))


def test_a_run_that_begins_anew_is_no_resumed_run(monkeypatch):
    seldom = experiments.CheckpointConfig(every_steps=1_000)
    monkeypatch.setattr("acme_lite.testing.contract._CHECKPOINTING", seldom)
    with pytest.raises(AssertionError, match="started again began anew instead of going on from its checkpoint"):
        testing.check_resumed_run(sound_agent())


def with_nan_swallowed(old, new, output):
    return new, output._replace(metrics=jax.tree.map(jnp.nan_to_num, output.metrics), priorities=None)


def test_rewards_of_nan_that_nobody_hears_of():
    fails(
        testing.check_nan_rewards,
        "A run with rewards of NaN went through",
        make_learner=with_update(with_nan_swallowed),
    )


def test_rewards_of_nan_that_raise_another_error():
    class Strict(adders.NStepTransitionAdder):
        def add(self, action, next_timestep, extras=()):
            if np.isnan(next_timestep.reward).any():
                raise ZeroDivisionError("no reward")
            super().add(action, next_timestep, extras)

    fails(
        testing.check_nan_rewards,
        "must end a run with a NonFiniteMetricError, got ZeroDivisionError: no reward",
        make_adder=lambda builder, writer, *args: Strict(writer, n_step=1, discount=0.9),
    )


# The whole.


def test_errors_of_parts_become_one_sentence():
    def make_policy(builder, *args, **kwargs):
        raise RuntimeError("no policy today")

    with pytest.raises(
        AssertionError, match=r"A part of the agent failed \(making the parts\): RuntimeError: no policy today"
    ):
        testing.check_builder(Changed({"make_policy": make_policy}), testing.value_probe)

    def make_learner(builder, *args, **kwargs):
        raise RuntimeError("no learner today")

    with pytest.raises(
        AssertionError, match=r"A part of the agent failed \(check_learner\): RuntimeError: no learner today"
    ):
        testing.check_builder(Changed({"make_learner": make_learner}), testing.value_probe)


def test_an_environment_instead_of_a_factory_is_refused():
    with pytest.raises(ValueError, match=r"environment_factory must be a function \(seed\) -> dm_env.Environment, got"):
        testing.check_builder(BUILDER, testing.value_probe())


def test_every_check_is_run_and_exported():
    exported = {name for name in testing.__all__ if name.startswith("check_")}
    assert {check.__name__ for check in testing.CHECKS} == exported - {"check_builder", "check_values", "check_actions"}
