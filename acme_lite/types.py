"""The records that flow between the parts, and names for their types.

Shape letters: `N` members of a vector environment (one stream each), `B` batch, `T` time. A "tree" is any pytree of
arrays; a "spec tree" has `dm_env.specs.Array` leaves.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np

ArrayTree: TypeAlias = Any
"""A pytree of arrays (NumPy or JAX)."""
SpecTree: TypeAlias = Any
"""A pytree of `dm_env.specs.Array`."""
Params: TypeAlias = Any
"""A pytree of parameters; acting receives everything it needs in one."""
BoolArray: TypeAlias = np.ndarray
IntArray: TypeAlias = np.ndarray


class Transition(NamedTuple):
    """An n-step transition, one per batch row.

    With k the number of steps that it spans (`n_step`, or fewer at an episode's ends):

        reward = sum_{i<k} discount_factor^i (prod_{j<i} d_j) r_i
        discount = discount_factor^{k-1} prod_{i<k} d_i

    so the learner applies the last discount factor itself.

    Attributes:
        observation: `[B, ...]` tree, the observation at the source step.
        action: `[B, ...]` tree, the action taken there.
        reward: `[B]` n-step return, in units of reward.
        discount: `[B]` in [0, 1]; 0 where the episode terminated on the way.
        next_observation: `[B, ...]` tree, the observation k steps later.
        extras: `[B, ...]` tree, what the policy gave beside the action at the source step.
    """

    observation: ArrayTree
    action: ArrayTree
    reward: ArrayTree
    discount: ArrayTree
    next_observation: ArrayTree
    extras: ArrayTree = ()


class Sequence(NamedTuple):
    """A window of steps, one per batch row.

    Row t holds the observation, the action taken on it, and what came back. The last row of an episode is its last
    observation with zero action, reward and discount.

    Attributes:
        observation: `[B, T, ...]` tree.
        action: `[B, T, ...]` tree.
        reward: `[B, T]` rewards.
        discount: `[B, T]` discounts of the environment in [0, 1]; 0 ends the episode.
        mask: `[B, T]` bool, True exactly where action, reward and discount are real: False on an episode's last
            observation and on padding.
        extras: `[B, T, ...]` tree, what the policy gave beside the action.
        start: `[B, ...]` tree, what was stored for the first row alone, such as a recurrent state.
    """

    observation: ArrayTree
    action: ArrayTree
    reward: ArrayTree
    discount: ArrayTree
    mask: ArrayTree
    extras: ArrayTree = ()
    start: ArrayTree = ()
