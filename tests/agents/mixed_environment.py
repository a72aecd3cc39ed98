"""A task with actions of several kinds, in a tree."""

from __future__ import annotations

import dm_env
import numpy as np

from acme_lite import specs


class MixedEnvironment(dm_env.Environment):
    """Rewards an action whose parts all fit the observation; episodes of 1 to 6 steps, half of them cut off.

    The observation is a dict: `target` `[2]` in units of 100, and `button`, one of three. The action is a dict:
    `button`, the same again, and `aim`, a tuple of an array `[2]` in [0, 4], which should be target / 100 + 2, and one
    of the integers 1 and 2, which should be 2. The reward is the number of the two choices that are right, less the
    mean distance of the aim.
    """

    name = "mixed"

    def __init__(self, seed: int = 0):
        self._steps_left = 0
        self._truncates = False
        self.reseed(seed)

    def reseed(self, seed: int) -> None:
        self._rng = np.random.default_rng(seed)

    def reset(self) -> dm_env.TimeStep:
        self._steps_left = int(self._rng.integers(1, 7))
        self._truncates = bool(self._rng.integers(2))
        return dm_env.restart(self._observe())

    def step(self, action) -> dm_env.TimeStep:
        target, button = self._observation["target"], self._observation["button"]
        aim, integer = action["aim"]
        distance = np.mean(np.abs(aim - target / 100 - 2))
        reward = np.float32(int(action["button"] == button) + int(integer[0] == 2) - distance)
        self._steps_left -= 1
        if self._steps_left:
            return dm_env.transition(reward, self._observe())
        return (dm_env.truncation if self._truncates else dm_env.termination)(reward, self._observe())

    def _observe(self) -> dict[str, np.ndarray]:
        self._observation = {
            "target": self._rng.uniform(-100, 100, 2).astype(np.float32),
            "button": np.array(self._rng.integers(3), np.int32),
        }
        return self._observation

    def observation_spec(self) -> dict[str, specs.Array]:
        return {"target": specs.Array((2,), np.float32), "button": specs.DiscreteArray(3)}

    def action_spec(self) -> dict[str, object]:
        integer = specs.BoundedArray((1,), np.int32, 1, 2)
        return {"button": specs.DiscreteArray(3), "aim": (specs.BoundedArray((2,), np.float32, 0, 4), integer)}

    def reward_spec(self) -> specs.Array:
        return specs.Array((), np.float32, name="reward")

    def discount_spec(self) -> specs.BoundedArray:
        return specs.BoundedArray((), np.float32, 0, 1, name="discount")
