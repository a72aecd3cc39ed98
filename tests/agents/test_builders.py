"""What builders of agents share: the learner made of `make_core`, its settings, actions, normalised observations."""

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import acting, counting, experiments, learning, loggers, replay, specs, testing
from acme_lite.agents import builders, dqn, impala, ppo, r2d2, sac
from acme_lite.experiments import identity, run_directory
from acme_lite.networks import running_statistics


def counting_core():
    """A core whose state is the sum of what it has been given."""

    def update(state, sample):
        return state + jnp.sum(sample.data), learning.LearnerOutput({"sum": state})

    return learning.LearnerCore(jax.random.uniform, update, lambda state: {"policy": state})


class Builder(builders.CoreBuilder):
    def make_core(self, networks, spec):
        assert (networks, spec) == ("networks", "spec")
        return counting_core()


class TwoSteps(Builder):
    @property
    def learner_settings(self):
        return {"num_steps_per_call": 2}


def make_learner(builder, data):
    shape = np.shape(data)
    sample = replay.Sample(np.asarray(data, np.float32), replay.SampleInfo(np.zeros(shape, int), np.ones(shape), 1))
    dataset = testing.RecordedDataset([sample])
    key, logger = jax.random.key(3), loggers.InMemoryLogger()
    return builder.make_learner("networks", "spec", dataset, key=key, counter=counting.Counter(), logger=logger)


@pytest.mark.parametrize(("builder", "data", "num_steps"), [(Builder(), [1, 2], 1), (TwoSteps(), [[1, 2], [3, 4]], 2)])
def test_the_learner_runs_the_core_with_the_builders_settings(builder, data, num_steps):
    learner = make_learner(builder, data)
    (before,) = learner.get_variables(["policy"])
    variables = builder.init_variables("networks", "spec", jax.random.key(3))
    np.testing.assert_array_equal(before, variables["policy"])
    learner.step()
    learner.close()
    assert learner.num_steps == num_steps
    np.testing.assert_allclose(learner.get_variables(["policy"])[0], before + np.sum(data), rtol=1e-6)


def test_a_builder_without_a_core_cannot_be_made():
    class Nothing(builders.CoreBuilder):
        pass

    with pytest.raises(TypeError, match="make_core"):
        Nothing()


@pytest.mark.parametrize("agent", ["d4pg", "dqn", "impala", "mpo", "ppo", "r2d2", "sac", "td3"])
def test_settings_refuse_values_of_kinds_that_they_are_not_annotated_with(agent):
    config = getattr(importlib.import_module(f"acme_lite.agents.{agent}"), f"{agent.upper()}Config")
    kinds = {"Schedule": learning.LinearSchedule(1.0, 0.5, 10), "tuple": (1,), "bool": True, "None": None, "list": [1]}
    fields = dataclasses.fields(config)
    wrong = [(field.name, value) for field in fields for kind, value in kinds.items() if kind not in field.type]
    for name, value in wrong:
        with pytest.raises(ValueError, match=rf"{name} .*must "):
            config(**{name: value})


@pytest.mark.filterwarnings("error::UserWarning")  # JAX warns of 64 bits that it does not have
@pytest.mark.parametrize("make", [dqn.DQNBuilder, impala.IMPALABuilder, ppo.PPOBuilder, r2d2.R2D2Builder])
def test_a_discrete_action_of_64_bits_is_chosen_with_32(make):
    spec = specs.EnvironmentSpec(
        observation=specs.Array((2,), np.float32),
        action=specs.DiscreteArray(3, np.int64),
        reward=specs.Array((), np.float32),
        discount=specs.BoundedArray((), np.float32, 0, 1),
    )
    builder = make()
    nets, key = builder.make_networks(spec), jax.random.key(0)
    policy = builder.make_policy(nets, spec)
    variables = jax.eval_shape(functools.partial(builder.init_variables, nets, spec), key)
    observation, state = specs.zeros(spec.observation, (4,)), acting.initial_state(policy, 4)
    action, _, _ = jax.eval_shape(policy.select_action, variables["policy"], observation, state, key)
    assert (action.shape, action.dtype) == ((4,), np.int32)


def test_a_normalised_agent_learns_and_acts_by_the_same_statistics():
    settings = dict(hidden_sizes=(8,), batch_size=16, min_replay_size=32, max_replay_size=500, overlap=False)
    inner = sac.SACBuilder(sac.SACConfig(samples_per_insert=8.0, **settings))
    builder = builders.NormalizedBuilder(inner)
    agent = testing.make_agent(builder, lambda seed: testing.observation_policy_probe(seed, continuous=True))
    samples = [
        sample._replace(data=sample.data._replace(observation=5 + 3 * sample.data.observation))
        for sample in agent.samples[:4]
    ]
    learner, _ = agent.make_learner(samples)
    learner.run(4)
    learner.close()
    (params,) = learner.get_variables(["policy"])
    rows = np.concatenate([sample.data.observation for sample in samples])
    (moments,) = params["statistics"].values()
    assert moments.num_rows == len(rows) == 64
    np.testing.assert_allclose([moments.mean[0], moments.variance[0]], [rows.mean(), rows.var()], rtol=1e-4)
    normalized = running_statistics.normalize(params["statistics"], rows)
    np.testing.assert_allclose([normalized.mean(), normalized.std()], [0, 1], atol=1e-3)
    for evaluation in (False, True):
        policies = [each.make_policy(agent.networks, agent.spec, evaluation=evaluation) for each in (builder, inner)]
        pairs = [(params, rows), (params["inner"], normalized)]
        actions = [
            policy.select_action(*pair, (), jax.random.key(0))[0] for policy, pair in zip(policies, pairs, strict=True)
        ]
        np.testing.assert_array_equal(*actions)


def test_a_normalised_agent_has_the_actor_of_the_builder_inside():
    class Acting(dqn.DQNBuilder):
        def make_actor(self, *args, **kwargs):
            return args, kwargs

    settings = {"key": jax.random.key(0), "num_envs": 1}
    actor = builders.NormalizedBuilder(Acting()).make_actor("policy", "variables", None, **settings)
    assert actor == (("policy", "variables", None), settings)


@pytest.mark.parametrize("name", ["make_learner", "init_variables"])
def test_what_normalising_could_not_keep_is_refused(name):
    builder = type("Own", (dqn.DQNBuilder,), {name: lambda *args, **kwargs: None})()
    with pytest.raises(ValueError, match=rf"must have the {name} of CoreBuilder, got Own\("):
        builders.NormalizedBuilder(builder)


def test_a_normalised_agent_has_a_name_and_a_config_of_its_own():
    def identity_of(builder):
        experiment = experiments.ExperimentConfig(builder, testing.value_probe)
        return identity.agent_name(experiment), run_directory.config_hash(identity.describe(experiment, "probe"))

    name, config_hash = identity_of(dqn.DQNBuilder())
    normalized_name, normalized_hash = identity_of(builders.NormalizedBuilder(dqn.DQNBuilder()))
    assert (name, normalized_name) == ("dqn", "dqn_normalized")
    assert config_hash != normalized_hash


def test_observations_are_not_normalised_twice():
    with pytest.raises(ValueError, match="must not normalise observations itself, got one with normalize_observations"):
        builders.NormalizedBuilder(ppo.PPOBuilder(ppo.PPOConfig(normalize_observations=True)))


def test_a_builder_without_a_core_cannot_be_normalised():
    with pytest.raises(ValueError, match=r"NormalizedBuilder.builder must derive from CoreBuilder, got <object"):
        builders.NormalizedBuilder(object())
