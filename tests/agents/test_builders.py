"""What builders of agents share: the learner made of `make_core`, its settings, and how they choose actions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import acting, counting, learning, loggers, replay, specs, testing
from acme_lite.agents import builders, dqn, impala, ppo, r2d2


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
