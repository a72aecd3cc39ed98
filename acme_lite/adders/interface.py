"""The interface of adders."""

from __future__ import annotations

from typing import Protocol

import dm_env

from acme_lite import types


class Adder(Protocol):
    """Turns the steps of N streams into rows and items of a replay.

    All arguments have a leading `[N]` axis. In `add`, a member whose previous step was `LAST` gets the `FIRST` step of
    its next episode, and its action, reward and discount are not recorded. An adder may be `core.Saveable`.
    """

    def add_first(self, timestep: dm_env.TimeStep) -> None:
        """Takes the first step of every stream's episode.

        Raises:
            ValueError: a step is not FIRST, or the number of streams is not the writer's.
        """

    def add(self, action: types.ArrayTree, next_timestep: dm_env.TimeStep, extras: types.ArrayTree = ()) -> None:
        """Takes the actions, the steps that they led to, and what the policy gave beside the actions.

        Raises:
            ValueError: `add_first` was not called before.
        """

    def reset(self) -> None:
        """Drops the unfinished episodes of all streams; `add_first` must follow."""
