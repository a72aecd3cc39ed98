"""A task that only a memory solves."""

from __future__ import annotations

import dm_env
import numpy as np

from acme_lite import specs


class MemoryEnvironment(dm_env.Environment):
    """Shows a cue at the first step alone and asks for it at the last.

    The observation is a dict: `cue` `[1]`, -1 or 1 at the first step and 0 afterwards, and `query`, 1 at the step whose
    action counts. Between the two lie blank steps, of a number that is drawn for each episode. Action 0 names the cue
    -1, action 1 the cue 1: the reward is 1 if the action at the query is right and -1 otherwise, and the episode
    terminates. So a policy without memory has a mean return of 0.

    Args:
        seed: of the cues and the numbers of blank steps.
        min_blanks: least number of blank steps.
        max_blanks: greatest number of blank steps.
    """

    name = "memory"

    def __init__(self, seed: int = 0, *, min_blanks: int = 0, max_blanks: int = 4):
        self._blanks = (min_blanks, max_blanks)
        self._steps_to_query = 0
        self._cue = 1
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def reset(self) -> dm_env.TimeStep:
        low, high = self._blanks
        self._steps_to_query = 1 + int(self._rng.integers(low, high + 1))
        self._cue = 2 * int(self._rng.integers(2)) - 1
        return dm_env.restart(self._observation(self._cue))

    def step(self, action) -> dm_env.TimeStep:
        self._steps_to_query -= 1
        if self._steps_to_query < 0:
            right = 2 * int(action) - 1 == self._cue
            return dm_env.termination(np.float32(1 if right else -1), self._observation(0))
        return dm_env.transition(np.float32(0), self._observation(0))

    def _observation(self, cue: int) -> dict[str, np.ndarray]:
        return {"cue": np.array([cue], np.float32), "query": np.array(self._steps_to_query == 0, np.int32)}

    def observation_spec(self) -> dict[str, specs.Array]:
        return {"cue": specs.BoundedArray((1,), np.float32, -1, 1), "query": specs.DiscreteArray(2)}

    def action_spec(self) -> specs.DiscreteArray:
        return specs.DiscreteArray(2)

    def reward_spec(self) -> specs.Array:
        return specs.Array((), np.float32, name="reward")

    def discount_spec(self) -> specs.BoundedArray:
        return specs.BoundedArray((), np.float32, 0, 1, name="discount")
