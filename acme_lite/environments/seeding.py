"""Seeds of episodes: hashes of (seed, member, episode), so that no generator's state need be saved to resume a run."""

from __future__ import annotations

import hashlib
import operator
import struct
from collections.abc import Sequence

import numpy as np


def check_seed(seed: int, num_bits: int) -> int:
    """Returns a seed as a Python integer.

    Raises:
        ValueError: it is no integer in [0, 2^num_bits).
    """
    try:
        value = operator.index(seed)
    except TypeError:
        value = -1
    if not 0 <= value < 2**num_bits:
        raise ValueError(f"seed must be an integer in [0, 2**{num_bits}), got {seed!r}.")
    return value


def episode_seed(seed: int, member: int, episode: int) -> int:
    """Returns the seed of an episode, in [0, 2^31), which depends on these three numbers alone.

    It is a hash and not a `np.random.SeedSequence`, which costs twenty times as much.

    Args:
        seed: in [0, 2^64).
        member: which member of a vector environment, from 0.
        episode: how many episodes that member has started before.
    """
    digest = hashlib.blake2b(struct.pack("<QQQ", seed, member, episode), digest_size=4).digest()
    return int.from_bytes(digest, "little") >> 1


def check_episodes(episodes: Sequence[int] | np.ndarray | None, num_envs: int) -> np.ndarray:
    """Returns episode counts `[N]` as a new int64 array; zeros for None.

    Raises:
        ValueError: they are not N integers of at least 0.
    """
    if episodes is None:
        return np.zeros(num_envs, np.int64)
    counts = np.asarray(episodes)
    if counts.shape != (num_envs,) or not np.issubdtype(counts.dtype, np.integer) or (counts < 0).any():
        raise ValueError(f"episodes must be {num_envs} integers of at least 0, got {episodes!r}.")
    return counts.astype(np.int64)
