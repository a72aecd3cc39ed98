"""The interface of an environment of N members that are stepped together."""

from __future__ import annotations

from typing import Protocol

import dm_env
from dm_env import specs as dm_specs

from acme_lite import types


class VectorEnvironment(Protocol):
    """N environments stepped together; steps are `dm_env.TimeStep`s whose fields are arrays `[N, ...]`.

    Each member keeps dm_env's convention: the step that ends an episode returns `LAST` with the true last observation,
    and the next step of that member ignores its action and returns `FIRST` (reward 0, discount 1) of the next episode.
    Termination gives discount 0, truncation keeps 1. The returned arrays are not written to afterwards.

    The k-th episode of member i (both from 0) draws its randomness from (seed, i, k) alone.

    Attributes:
        num_envs: N, at least 1.
    """

    num_envs: int

    def reset(self) -> dm_env.TimeStep:
        """Starts a new episode in every member: `step_type [N]` int FIRST, `reward [N]` 0, `discount [N]` 1."""

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        """Steps every member with `[N, ...]` actions."""

    def reseed(self, seed: int, episodes: types.IntArray | None = None) -> None:
        """Sets the seed from which the episodes from the next reset on derive.

        `episodes` `[N]` is how many episodes each member has had already; none unless given.
        """

    @property
    def episodes(self) -> types.IntArray:
        """`[N]` number of episodes that each member has started since it was seeded."""

    def observation_spec(self) -> types.SpecTree:
        """Spec tree of one member's observation."""

    def action_spec(self) -> types.SpecTree:
        """Spec tree of one member's action."""

    def reward_spec(self) -> dm_specs.Array:
        """Spec of one member's reward."""

    def discount_spec(self) -> dm_specs.BoundedArray:
        """Spec of one member's discount."""

    def close(self) -> None:
        """Frees what the members hold."""
