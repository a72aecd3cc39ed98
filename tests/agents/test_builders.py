"""What builders of agents share: the learner made of `make_core`, and its settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import counting, learning, loggers, replay, testing
from acme_lite.agents import builders


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
