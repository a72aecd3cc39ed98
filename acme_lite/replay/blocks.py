"""Which rows may be written: blocks of consecutive rows that are used again."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from acme_lite.replay.orders import Order

_NUM_SPARE_BLOCKS = 8


class Blocks:
    """Blocks of consecutive rows, numbered from 1 (block 0 is never given out).

    A block is held while a writer may add rows to it or make items of its rows, and while items wait that refer to it.
    Its holders mark it with the newest keys of their items; once it is released and these items have left, no item
    refers to it any more, and it is given out again.

    Args:
        orders: the orders of all tables.
        num_blocks: blocks to make room for.
        most_blocks: blocks that items may take before the oldest ones give way. Those that are held come on top, twice,
            and a few more.

    Attributes:
        crowded: whether items had to give way.
    """

    def __init__(self, orders: list[Order], num_blocks: int, most_blocks: int):
        self.crowded = False
        self._orders = orders
        self._most_blocks = most_blocks
        self._newest_keys = np.full((len(orders), num_blocks + 1), -1, np.int64)
        self._num_holders = np.zeros(num_blocks + 1, np.int32)
        self._num_used = 1
        self._free: list[int] = []

    def take(self) -> int:
        """Returns a block for one holder; removes the oldest items where there is no other way."""
        block = self._take_free()
        while block is None:
            num_held = np.count_nonzero(self._num_holders)
            if self._num_used <= self._most_blocks + 2 * num_held + _NUM_SPARE_BLOCKS:
                return self.take_new()
            self.crowded = True
            self._remove_items()
            block = self._take_free()
        return block

    def take_new(self) -> int:
        """Returns a block for one holder that was never used."""
        block = self._num_used
        if block == len(self._num_holders):
            self._grow(block + block // 4 + 64)
        self._num_used += 1
        return self._hand_out(block)

    def hold(self, blocks: Iterable[int]) -> None:
        """Keeps blocks from being used again until they are released as often as they were held."""
        for block in blocks:
            self._num_holders[block] += 1

    def release(self, blocks: Iterable[int]) -> None:
        """Takes back one hold."""
        for block in blocks:
            self._num_holders[block] -= 1

    def mark(self, table: int, blocks: Iterable[int], key: int) -> None:
        """Notes that items up to `key` of one table may refer to blocks, which the caller holds."""
        for block in blocks:
            self._newest_keys[table, block] = max(self._newest_keys[table, block], key)

    def in_use(self) -> np.ndarray:
        """Returns the blocks that are held or that items may refer to."""
        oldest_keys = np.array([order.oldest_key for order in self._orders])
        used = (self._newest_keys[:, : self._num_used] >= oldest_keys[:, None]).any(axis=0)
        used |= self._num_holders[: self._num_used] > 0
        return np.flatnonzero(used)

    def newest_keys(self, blocks: np.ndarray) -> np.ndarray:
        """Returns `[num_tables, M]` upper bounds of the keys of the items that refer to blocks `[M]`."""
        bounds = np.array([order.next_key - 1 for order in self._orders])
        return np.where(self._num_holders[blocks] > 0, bounds[:, None], self._newest_keys[:, blocks])

    def forget_items(self) -> None:
        """Notes that no item refers to any block."""
        self._newest_keys[:] = -1
        self._free = []

    def restore(self, blocks: np.ndarray, newest_keys: np.ndarray) -> None:
        """Takes back one hold of blocks `[M]`, with bounds `[num_tables, M]` that `newest_keys` returned."""
        self._newest_keys[:, blocks] = newest_keys
        self._num_holders[blocks] -= 1

    def _take_free(self) -> int | None:
        if not self._free:
            free = np.ones(self._num_used, bool)
            free[0] = False
            free[self.in_use()] = False
            self._free = np.flatnonzero(free)[::-1].tolist()
        if not self._free:
            return None
        return self._hand_out(self._free.pop())

    def _hand_out(self, block: int) -> int:
        self._newest_keys[:, block] = -1
        self._num_holders[block] = 1
        return block

    def _remove_items(self) -> None:
        """Removes the fewest items that make a block free.

        There is such a block, for new ones are given out while all are held.
        """
        oldest_keys = np.array([order.oldest_key for order in self._orders])
        newest_keys = self._newest_keys[:, : self._num_used]
        cost = np.maximum(newest_keys + 1 - oldest_keys[:, None], 0).sum(axis=0).astype(np.float64)
        cost[self._num_holders[: self._num_used] > 0] = np.inf
        cost[0] = np.inf
        for order, key in zip(self._orders, newest_keys[:, cost.argmin()].tolist(), strict=True):
            order.remove_until(key)

    def _grow(self, num_blocks: int) -> None:
        newest_keys = np.full((len(self._orders), num_blocks), -1, np.int64)
        newest_keys[:, : self._newest_keys.shape[1]] = self._newest_keys
        num_holders = np.zeros(num_blocks, np.int32)
        num_holders[: len(self._num_holders)] = self._num_holders
        self._newest_keys, self._num_holders = newest_keys, num_holders
