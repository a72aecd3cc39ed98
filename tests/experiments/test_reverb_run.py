"""An experiment in one process around a Reverb server."""

from __future__ import annotations

import dataclasses
import importlib.util

import dm_env
import numpy as np
import pytest

from acme_lite import experiments, specs
from acme_lite.agents import dqn


class CueEnvironment(dm_env.Environment):
    """Episodes of four steps; the reward of each is 1 if the action is the cue that is shown, 0 otherwise."""

    name = "cue"

    def __init__(self, seed):
        self.reseed(seed)

    def reseed(self, seed):
        self._rng = np.random.default_rng(seed)

    def reset(self):
        self._steps = 0
        return dm_env.restart(self._show())

    def step(self, action):
        self._steps += 1
        reward = np.float32(int(action) == self._cue)
        return dm_env.termination(reward, self._show()) if self._steps == 4 else dm_env.transition(reward, self._show())

    def _show(self):
        self._cue = int(self._rng.integers(2))
        return np.array([self._cue, 1 - self._cue], np.float32)

    def observation_spec(self):
        return specs.Array((2,), np.float32)

    def action_spec(self):
        return specs.DiscreteArray(2, np.int32)


CONFIG = dqn.DQNConfig(
    n_step=1,
    hidden_sizes=(16,),
    learning_rate=3e-3,
    batch_size=16,
    samples_per_insert=8.0,
    min_replay_size=32,
    max_replay_size=500,
    epsilon=0.2,
    num_steps_per_call=1,
    overlap=False,
)


def run(directory, config=CONFIG, *, num_envs=1, num_steps=400, **settings):
    experiment = experiments.ExperimentConfig(
        dqn.DQNBuilder(config),
        CueEnvironment,
        num_envs=num_envs,
        max_num_actor_steps=num_steps,
        evaluation=experiments.EvaluationConfig(every_steps=num_steps, num_episodes=20),
        directory=directory,
    )
    return experiments.run_experiment(experiment, quiet=True, **settings)


def test_unknown_replay_is_refused(tmp_path):
    with pytest.raises(ValueError, match="local, reverb, got 'redis'"):
        run(tmp_path, replay="redis")


needs_reverb = pytest.mark.skipif(
    importlib.util.find_spec("reverb") is None, reason="Reverb's wheels are for Python 3.10 alone"
)


@needs_reverb
def test_dqn_learns_with_reverb_at_the_pace_of_the_local_replay(tmp_path):
    result = run(tmp_path / "reverb", replay="reverb")
    assert result.evaluations[-1].mean_return == 4.0
    # Draws are others, steps and their pace are not.
    assert result.counts == run(tmp_path / "local").counts


@needs_reverb
def test_all_episodes_of_many_members_may_end_together(tmp_path):
    # At each end 400 members write 4 items each at once, more than writers have on their way by default.
    config = dataclasses.replace(CONFIG, n_step=4, max_replay_size=5_000, samples_per_insert=1.0)
    result = run(tmp_path, config, num_envs=400, num_steps=4_000, replay="reverb")
    assert result.counts["actor_steps"] == 4_000
