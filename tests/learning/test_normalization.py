"""Normalised observations: learner and actor use the same numbers, whatever the core."""

import jax
import jax.numpy as jnp
import numpy as np

from acme_lite import acting, learning, replay, specs, types
from acme_lite.networks import running_statistics

SPEC = specs.Array((2,), np.float32)
POLICY = acting.feed_forward(lambda params, observation, key: observation * params)


def recording_core():
    """A core whose state is what it has seen of the sample, as metrics need scalars."""

    def update(state, sample):
        next_observation = getattr(sample.data, "next_observation", jnp.zeros(()))
        return (sample.data.observation, next_observation), learning.LearnerOutput({"loss": jnp.float32(0)})

    return learning.LearnerCore(
        init=lambda key: (jnp.zeros((4, 2)), jnp.zeros((4, 2))),
        update=update,
        variables=lambda state: {"policy": jnp.float32(2), "other": state[0]},
    )


def make_transitions(rng):
    rows = rng.normal([10, -10], [3, 2], (2, 4, 2)).astype(np.float32)
    ones = np.ones(4, np.float32)
    return types.Transition(rows[0], np.zeros(4, np.int32), ones, ones, rows[1])


def test_a_core_sees_rows_normalised_as_the_policy_that_it_serves_does():
    rng = np.random.default_rng(0)
    core = learning.normalize_observations(recording_core(), SPEC)
    policy = acting.normalize_observations(POLICY)
    state = core.init(jax.random.key(0))
    for _ in range(3):
        before = core.variables(state)["policy"]
        data = make_transitions(rng)
        state, _ = jax.jit(core.update)(state, replay.Sample(data, ()))
        for seen, rows in zip(state.inner, (data.observation, data.next_observation), strict=True):
            action, extras, _ = policy.select_action(before, rows, (), jax.random.key(1))
            np.testing.assert_allclose(action, 2 * seen, rtol=1e-6)
            assert extras == ()
    assert core.variables(state)["other"] is state.inner[0]
    np.testing.assert_allclose(state.statistics[""].num_rows, 12)  # a transition counts once


def test_masked_rows_of_sequences_do_not_count():
    rng = np.random.default_rng(1)
    core = learning.normalize_observations(recording_core(), SPEC)
    rows, mask = rng.normal(size=(3, 5, 2)).astype(np.float32), rng.random((3, 5)) < 0.5
    zeros = np.zeros((3, 5), np.float32)
    data = types.Sequence(rows, zeros, zeros, zeros, mask)
    state, _ = core.update(core.init(jax.random.key(0)), replay.Sample(data, ()))
    np.testing.assert_allclose(state.statistics[""].mean, rows[mask].mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(state.statistics[""].variance, rows[mask].var(axis=0), rtol=1e-5)


def test_statistics_are_saved_with_the_learner():
    class Samples:
        def __init__(self):
            self._rng = np.random.default_rng(2)

        def __next__(self):
            return replay.Sample(make_transitions(self._rng), replay.SampleInfo(np.arange(4), np.ones(4), 4))

    def make_learner():
        return learning.SGDLearner(
            learning.normalize_observations(recording_core(), SPEC), Samples(), key=jax.random.key(0)
        )

    learner, fresh = make_learner(), make_learner()
    learner.run(3)
    learner.close()
    fresh.restore(learner.save())
    (saved,), (restored,) = learner.get_variables(["policy"]), fresh.get_variables(["policy"])
    assert isinstance(saved["statistics"][""], running_statistics.Moments) and saved["statistics"][""].num_rows == 12
    jax.tree.map(np.testing.assert_array_equal, saved, restored)
