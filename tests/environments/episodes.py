"""Environments whose observations say what must come next, for the tests of this folder."""

import dm_env
import gymnasium
import numpy as np
from dm_env import specs as dm_specs

TERMINATES, TRUNCATES, DOES_BOTH = range(3)


class RandomEpisodes(gymnasium.Env):
    """Episodes of 1 to 4 steps; observes [start, steps taken, length, how it ends]; rewards start + steps + action."""

    observation_space = gymnasium.spaces.Box(-np.inf, np.inf, (4,), np.float32)
    action_space = gymnasium.spaces.Discrete(3)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        start = np.round(self.np_random.uniform(0, 100), 2)
        # One buffer that is written to for ever: whoever does not copy sees it change.
        self._state = np.array([start, 0, self.np_random.integers(1, 5), self.np_random.integers(0, 3)], np.float32)
        return self._state, {}

    def step(self, action):
        self._state[1] += 1
        start, steps, length, kind = self._state
        over = steps >= length
        return (
            self._state,
            start + steps + action,
            bool(over and kind != TRUNCATES),
            bool(over and kind != TERMINATES),
            {},
        )


class Scripted(dm_env.Environment):
    """Gives the same episode again and again; records its actions and seeds."""

    def __init__(self, observations, rewards, discounts, *, observation_spec, action_spec=None):
        self._observations, self._rewards, self._discounts = observations, rewards, discounts
        self._observation_spec = observation_spec
        self._action_spec = action_spec or dm_specs.DiscreteArray(2, name="action")
        self._position = None
        self.actions = []
        self.seeds = []
        self.is_closed = False

    def reseed(self, seed):
        self.seeds.append(seed)

    def reset(self):
        self._position = 0
        return dm_env.restart(self._observations[0])

    def step(self, action):
        if self._position is None:
            return self.reset()
        self.actions.append(action)
        reward, discount = self._rewards[self._position], self._discounts[self._position]
        self._position += 1
        observation = self._observations[self._position]
        if self._position == len(self._rewards):
            self._position = None
            return dm_env.TimeStep(dm_env.StepType.LAST, reward, discount, observation)
        return dm_env.TimeStep(dm_env.StepType.MID, reward, discount, observation)

    def observation_spec(self):
        return self._observation_spec

    def action_spec(self):
        return self._action_spec

    def close(self):
        self.is_closed = True


def scripted(num_steps=3, discount=1.0, action_spec=None):
    """Observations [0.], [1.], ..., rewards 1, 2, ... and one discount."""
    return Scripted(
        [np.array([float(step)]) for step in range(num_steps + 1)],
        [float(step + 1) for step in range(num_steps)],
        [discount] * num_steps,
        observation_spec=dm_specs.Array((1,), np.float64, "observation"),
        action_spec=action_spec,
    )


def scripted_tree(num_steps=2):
    """Observations are {"b": (scalar, matrix), "a": vector}, each filled with the number of the step."""
    spec = {
        "b": (dm_specs.DiscreteArray(9, np.int64, "count"), dm_specs.Array((2, 2), np.float64, "matrix")),
        "a": dm_specs.BoundedArray((3,), np.float64, 0.0, 9.0, "vector"),
    }
    observations = [
        {"b": (np.int64(step), np.full((2, 2), step, np.float64)), "a": np.full(3, step, np.float64)}
        for step in range(num_steps + 1)
    ]
    return Scripted(observations, [1.0] * num_steps, [1.0] * num_steps, observation_spec=spec)
