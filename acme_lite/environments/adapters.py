"""Environments that are `dm_env` already, given a way to be reseeded."""

from __future__ import annotations

from collections.abc import Mapping

import dm_env
import numpy as np

from acme_lite import types
from acme_lite.environments import seeding, wrappers


class DMControlEnvironment(wrappers.Wrapper):
    """A task of the DeepMind control suite; observations are plain dictionaries.

    Raises:
        ValueError: the environment has no task with a `np.random.RandomState`.
    """

    def __init__(self, environment: dm_env.Environment):
        random = getattr(getattr(environment, "task", None), "random", None)
        if not isinstance(random, np.random.RandomState):
            raise ValueError(
                f"DMControlEnvironment.environment must have a `task.random` of type RandomState, got {environment}."
            )
        super().__init__(environment, observation_spec=_plain(environment.observation_spec()))
        self._random = random

    def reseed(self, seed: int) -> None:
        """Sets the seed, in [0, 2^32), from which the next reset is drawn."""
        self._random.seed(seeding.check_seed(seed, 32))

    def reset(self) -> dm_env.TimeStep:
        timestep = self.environment.reset()
        return timestep._replace(observation=_plain(timestep.observation))

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        timestep = self.environment.step(action)
        return timestep._replace(observation=_plain(timestep.observation))


class BsuiteEnvironment(wrappers.Wrapper):
    """A bsuite environment, whose own generator and those of its bsuite wrappers (reward noise) are reseeded.

    What bsuite draws once when it builds the environment (its action mapping) stays.
    """

    def reseed(self, seed: int) -> None:
        """Sets the seed, in [0, 2^32), from which the next reset and its episode are drawn."""
        value = seeding.check_seed(seed, 32)
        layer, depth = self.environment, 0
        while layer is not None:
            # Only a layer's own fields: its unknown attributes are those of the environment that it wraps.
            fields = vars(layer)
            if "_rng" in fields:
                fields["_rng"].seed(seeding.episode_seed(value, depth, 0))
            layer, depth = fields.get("_env"), depth + 1

    def reset(self) -> dm_env.TimeStep:
        return self.environment.reset()

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        return self.environment.step(action)


def _plain(tree: types.ArrayTree) -> types.ArrayTree:
    return dict(tree) if isinstance(tree, Mapping) else tree
