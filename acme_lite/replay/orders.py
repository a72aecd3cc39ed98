"""The order of a table's items: which slot each one has, which are drawn and which are removed.

An item's key is the number of items inserted before it. Slots are places in the table's columns.

Draws are made item by item, as by a Reverb server, also within a batch: `Uniform` and `Prioritized` draw with
replacement (uniformly where all priorities are 0), `Fifo` and `Lifo` draw the oldest or newest item again and again
until `max_times_sampled` removes it. Only then does the next draw, also of the same batch, go to the next item.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np

from acme_lite.replay import tables
from acme_lite.replay.sum_tree import SumTree


class Draw(NamedTuple):
    """Items drawn.

    Attributes:
        slots: `[M]` their slots.
        keys: `[M]` int64, their keys.
        probabilities: `[M]` float64, with which each was drawn.
    """

    slots: np.ndarray
    keys: np.ndarray
    probabilities: np.ndarray


class Order(Protocol):
    """The order of a table's items.

    Attributes:
        num_slots: number of slots.
        slots_move: whether `make_room` may ask for items to be moved.
        next_key: key of the next item.
    """

    num_slots: int
    slots_move: bool
    next_key: int

    @property
    def size(self) -> int:
        """Number of items."""

    @property
    def oldest_key(self) -> int:
        """Key of the oldest item; `next_key` where there is none."""

    def make_room(self, num: int) -> np.ndarray | None:
        """Removes the oldest items so that `num` more fit; at most the table's size.

        Returns:
            None, or the slots of the live items, which the caller must move to slots 0, 1, 2, ...
        """

    def insert(self, num: int, priorities: np.ndarray | None) -> list[tuple[int, int]]:
        """Adds items, for which there must be room; returns the ranges of slots (start, stop) that they take."""

    def insert_one(self, priority: float) -> int:
        """Makes room for one item where slots do not move, adds it, and returns its slot."""

    def can_draw(self, num: int) -> bool:
        """Whether there are so many draws left before `max_times_sampled` has removed all items."""

    def draw(self, num: int, rng: np.random.Generator) -> Draw:
        """Draws items and removes those that have been drawn `max_times_sampled` times."""

    def set_priorities(self, keys: np.ndarray, priorities: np.ndarray) -> None:
        """Sets the priorities of those items `keys` `[M]` that are still there."""

    def remove_until(self, key: int) -> None:
        """Removes the items up to this key, if there are any."""

    def slots(self) -> np.ndarray:
        """Returns the slots in use, oldest first."""

    def save(self) -> dict[str, Any]:
        """Returns the order, without what the slots hold."""

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `save` returned."""


class Priorities:
    """p^exponent of every slot, 0 where there is no item.

    Sums over new items are put off until the next draw, when they cost a few calls for all of them.
    """

    def __init__(self, exponent: float, num_slots: int):
        self._exponent = exponent
        self._tree = SumTree(num_slots)
        self._leaves = self._tree.leaves
        # Ranges of slots whose sums are put off: older ones, and the latest, which grows.
        self._stale: list[tuple[int, int]] = []
        self._start = self._stop = 0

    def insert(self, start: int, stop: int, priorities: np.ndarray | None) -> None:
        """Sets the priorities of the slots in [start, stop), 1 unless given."""
        self._leaves[start:stop] = 1.0 if priorities is None else priorities**self._exponent
        self._mark(start, stop)

    def insert_one(self, slot: int, priority: float) -> None:
        self._leaves[slot] = priority**self._exponent
        if slot == self._stop:
            self._stop = slot + 1
        else:
            self._mark(slot, slot + 1)

    def clear(self, slots: np.ndarray) -> None:
        if len(slots):
            self._tree.set(slots, np.zeros(len(slots)))

    def set(self, slots: np.ndarray, priorities: np.ndarray) -> None:
        self._tree.set(slots, priorities**self._exponent)

    def draw(self, num: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray] | None:
        """Returns `[num]` slots and the probabilities with which they were drawn; None if all priorities are 0.

        Raises:
            ValueError: the sum of the priorities is beyond float64.
        """
        with np.errstate(over="ignore"):  # it is told below
            self._refresh()
        total = self._tree.total
        if not total > 0:
            return None
        if total == np.inf:
            raise ValueError(
                f"The priorities of all items, raised to the exponent, add up to {total}: none can be drawn."
            )
        slots = self._tree.sample(num, rng)
        return slots, self._leaves.take(slots) / total

    def leaves(self, slots: np.ndarray) -> np.ndarray:
        """Returns p^exponent of slots."""
        return self._leaves[slots]

    def restore(self, slots: np.ndarray, leaves: np.ndarray) -> None:
        """Sets p^exponent of slots, and 0 everywhere else."""
        self._leaves[:] = 0
        self._leaves[slots] = leaves
        self._stale = []
        self._start = self._stop
        self._tree.refresh(0, len(self._leaves))

    def _mark(self, start: int, stop: int) -> None:
        if start != self._stop:
            if len(self._stale) > 4:
                self._stale = [(0, len(self._leaves))]
            self._stale.append((self._start, self._stop))
            self._start = start
        self._stop = stop

    def _refresh(self) -> None:
        for start, stop in (*self._stale, (self._start, self._stop)):
            if stop > start:
                self._tree.refresh(start, stop)
        self._stale = []
        self._start = self._stop


class Ring:
    """Items that leave only at the old end, so that slot = key modulo the table's size.

    Serves every sampler without `max_times_sampled`, and `Fifo` with it.
    """

    slots_move = False

    def __init__(self, max_size: int, sampler: tables.Sampler, max_times_sampled: int):
        self.num_slots = max_size
        self.next_key = 0
        self.oldest_key = 0
        self._times_oldest_drawn = 0
        self._sampler = sampler
        self._max_times_sampled = max_times_sampled
        self._priorities = Priorities(sampler.exponent, max_size) if isinstance(sampler, tables.Prioritized) else None

    @property
    def size(self) -> int:
        return self.next_key - self.oldest_key

    def make_room(self, num: int) -> None:
        # The slots of the removed items are those of the new ones, so their priorities need no clearing.
        self._remove(self.next_key + num - self.num_slots)

    def insert(self, num: int, priorities: np.ndarray | None) -> list[tuple[int, int]]:
        start = self.next_key % self.num_slots
        self.next_key += num
        stop = start + num
        ranges = [(start, stop)] if stop <= self.num_slots else [(start, self.num_slots), (0, stop - self.num_slots)]
        if self._priorities is not None:
            _insert_priorities(self._priorities, ranges, priorities)
        return ranges

    def insert_one(self, priority: float) -> int:
        key = self.next_key
        num_slots = self.num_slots
        if key - self.oldest_key == num_slots:
            self.oldest_key += 1
            self._times_oldest_drawn = 0
        slot = key % num_slots
        self.next_key = key + 1
        if self._priorities is not None:
            self._priorities.insert_one(slot, priority)
        return slot

    def can_draw(self, num: int) -> bool:
        if self._max_times_sampled:
            return self.size * self._max_times_sampled - self._times_oldest_drawn >= num
        return self.size > 0

    def draw(self, num: int, rng: np.random.Generator) -> Draw:
        if self._priorities is not None and (drawn := self._priorities.draw(num, rng)) is not None:
            slots, probabilities = drawn
            return Draw(slots, self._keys_of(slots), probabilities)
        if isinstance(self._sampler, (tables.Uniform, tables.Prioritized)):
            size = self.size
            slots = _below(size, num, rng)
            if size < self.num_slots and self.oldest_key:
                slots = (slots + self.oldest_key) % self.num_slots
            return Draw(slots, self._keys_of(slots), _filled(num, 1.0 / size))
        if isinstance(self._sampler, tables.Lifo):
            keys = np.full(num, self.next_key - 1)
        elif self._max_times_sampled:
            keys = self._take_oldest(num)
        else:
            keys = np.full(num, self.oldest_key)
        return Draw(keys % self.num_slots, keys, _filled(num, 1.0))

    def _keys_of(self, slots: np.ndarray) -> np.ndarray:
        first_slot = self.oldest_key % self.num_slots
        keys = slots + (self.oldest_key - first_slot)
        if first_slot:
            keys += (slots < first_slot) * self.num_slots
        return keys

    def _take_oldest(self, num: int) -> np.ndarray:
        times = np.arange(self._times_oldest_drawn, self._times_oldest_drawn + num)
        keys = self.oldest_key + times // self._max_times_sampled
        num_removed, self._times_oldest_drawn = divmod(self._times_oldest_drawn + num, self._max_times_sampled)
        self.oldest_key += num_removed
        return keys

    def set_priorities(self, keys: np.ndarray, priorities: np.ndarray) -> None:
        if self._priorities is None:
            return
        if len(keys) and (keys.min() < self.oldest_key or keys.max() >= self.next_key):
            found = (keys >= self.oldest_key) & (keys < self.next_key)
            keys, priorities = keys[found], priorities[found]
        self._priorities.set(keys % self.num_slots, priorities)

    def remove_until(self, key: int) -> None:
        if self._priorities is not None:
            self._priorities.clear(np.arange(self.oldest_key, min(key + 1, self.next_key)) % self.num_slots)
        self._remove(key + 1)

    def _remove(self, oldest_key: int) -> None:
        if oldest_key > self.oldest_key:
            self.oldest_key = min(oldest_key, self.next_key)
            self._times_oldest_drawn = 0

    def slots(self) -> np.ndarray:
        return np.arange(self.oldest_key, self.next_key) % self.num_slots

    def save(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "oldest_key": self.oldest_key,
            "next_key": self.next_key,
            "times_oldest_drawn": self._times_oldest_drawn,
        }
        if self._priorities is not None:
            state["priorities"] = self._priorities.leaves(self.slots())
        return state

    def restore(self, state: dict[str, Any]) -> None:
        self.oldest_key = int(state["oldest_key"])
        self.next_key = int(state["next_key"])
        self._times_oldest_drawn = int(state["times_oldest_drawn"])
        if self._priorities is not None:
            self._priorities.restore(self.slots(), np.asarray(state["priorities"]))


class Sparse:
    """Items that leave anywhere, because `Uniform`, `Prioritized` or `Lifo` drew them `max_times_sampled` times.

    Live and removed items lie between `_head` and `_tail` of 2 * max_size slots, oldest first. When the tail meets the
    end, or most of the items between are gone, the live ones are moved together at slot 0.
    """

    slots_move = True

    def __init__(self, max_size: int, sampler: tables.Sampler, max_times_sampled: int):
        self.num_slots = 2 * max_size
        self.next_key = 0
        self._max_size = max_size
        self._sampler = sampler
        self._max_times_sampled = max_times_sampled
        self._priorities = (
            Priorities(sampler.exponent, self.num_slots) if isinstance(sampler, tables.Prioritized) else None
        )
        self._head = self._tail = 0
        self._size = 0
        self._num_draws = 0
        self._keys = np.zeros(self.num_slots, np.int64)
        self._draws_left = np.zeros(self.num_slots, np.int64)

    @property
    def size(self) -> int:
        return self._size

    @property
    def oldest_key(self) -> int:
        return int(self._keys[self._head]) if self._head < self._tail else self.next_key

    def make_room(self, num: int) -> np.ndarray | None:
        while self._size + num > self._max_size:
            self._remove_up_to_slot(self._head)
        if self._tail + num <= self.num_slots and (
            self._tail - self._head <= 2 * self._size or self._tail - self._head < 16
        ):
            return None
        live = self.slots()
        num_live = len(live)
        self._keys[:num_live] = self._keys[live]
        self._draws_left[:num_live] = self._draws_left[live]
        if self._priorities is not None:
            self._priorities.restore(np.arange(num_live), self._priorities.leaves(live))
        self._head, self._tail = 0, num_live
        return live

    def insert(self, num: int, priorities: np.ndarray | None) -> list[tuple[int, int]]:
        start, stop = self._tail, self._tail + num
        self._keys[start:stop] = np.arange(self.next_key, self.next_key + num)
        self._draws_left[start:stop] = self._max_times_sampled
        if self._priorities is not None:
            _insert_priorities(self._priorities, [(start, stop)], priorities)
        self._tail = stop
        self._size += num
        self._num_draws += num * self._max_times_sampled
        self.next_key += num
        return [(start, stop)]

    def insert_one(self, priority: float) -> int:
        raise NotImplementedError("Slots move: use make_room and insert.")

    def can_draw(self, num: int) -> bool:
        return self._num_draws >= num

    def draw(self, num: int, rng: np.random.Generator) -> Draw:
        rounds = []
        while num:
            slots, probabilities = self._propose(num, rng)
            allowed = _rank(slots) < self._draws_left[slots]
            slots, probabilities = slots[allowed], self._one_by_one(slots[allowed], probabilities[allowed])
            rounds.append((slots, self._keys[slots], probabilities))
            self._count_draws(slots)
            num -= len(slots)
        return Draw(*(np.concatenate(parts) for parts in zip(*rounds, strict=True)))

    def _propose(self, num: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Returns `[num]` slots and probabilities; slots that have no draws left, or not as many, are to be skipped.

        What is left is distributed as if drawn item by item: a draw that hits an item that is gone is made again.
        """
        if isinstance(self._sampler, tables.Lifo):
            slots = np.repeat(self.slots()[-num:][::-1], self._max_times_sampled)
            slots = slots[_rank(slots) < self._draws_left[slots]][:num]
            return slots, np.ones(len(slots))
        if self._priorities is not None and (drawn := self._priorities.draw(num, rng)) is not None:
            return drawn
        probabilities = _filled(num, 1.0 / self._size)
        if 2 * self._size < self._tail - self._head:
            return self.slots()[_below(self._size, num, rng)], probabilities
        return self._head + _below(self._tail - self._head, num, rng), probabilities

    def _one_by_one(self, slots: np.ndarray, probabilities: np.ndarray) -> np.ndarray:
        """Returns the probabilities where an item's last draw leaves its part of all to those that come after."""
        if isinstance(self._sampler, tables.Lifo):
            return probabilities
        left = np.where(_rank(slots) == self._draws_left[slots] - 1, probabilities, 0.0)
        # Rounding must not leave less than the draw's own part.
        return probabilities / np.maximum(1 - (np.cumsum(left) - left), probabilities)

    def _count_draws(self, slots: np.ndarray) -> None:
        np.subtract.at(self._draws_left, slots, 1)
        self._num_draws -= len(slots)
        gone = np.unique(slots[self._draws_left[slots] == 0])
        self._size -= len(gone)
        if self._priorities is not None:
            self._priorities.clear(gone)
        self._skip_removed()

    def set_priorities(self, keys: np.ndarray, priorities: np.ndarray) -> None:
        if self._priorities is None:
            return
        slots = self._head + np.searchsorted(self._keys[self._head : self._tail], keys)
        found = slots < self._tail
        found[found] = (self._keys[slots[found]] == keys[found]) & (self._draws_left[slots[found]] > 0)
        self._priorities.set(slots[found], priorities[found])

    def remove_until(self, key: int) -> None:
        self._remove_up_to_slot(
            int(np.searchsorted(self._keys[self._head : self._tail], key, "right")) + self._head - 1
        )

    def _remove_up_to_slot(self, slot: int) -> None:
        removed = np.arange(self._head, slot + 1)
        self._size -= int(np.count_nonzero(self._draws_left[removed]))
        self._num_draws -= int(self._draws_left[removed].sum())
        self._draws_left[removed] = 0
        if self._priorities is not None:
            self._priorities.clear(removed)
        self._head = slot + 1
        self._skip_removed()

    def _skip_removed(self) -> None:
        """Moves the head to the oldest item."""
        while self._head < self._tail and not self._draws_left[self._head]:
            chunk = self._draws_left[self._head : min(self._head + 1024, self._tail)] > 0
            self._head += int(chunk.argmax()) if chunk.any() else len(chunk)

    def slots(self) -> np.ndarray:
        return self._head + np.flatnonzero(self._draws_left[self._head : self._tail])

    def save(self) -> dict[str, Any]:
        # Removed items between live ones are kept: draws that hit them are made again, which the generator remembers.
        state: dict[str, Any] = {
            "next_key": self.next_key,
            "head": self._head,
            "keys": self._keys[self._head : self._tail].copy(),
            "draws_left": self._draws_left[self._head : self._tail].copy(),
        }
        if self._priorities is not None:
            state["priorities"] = self._priorities.leaves(self.slots())
        return state

    def restore(self, state: dict[str, Any]) -> None:
        keys, draws_left = np.asarray(state["keys"]), np.asarray(state["draws_left"])
        self.next_key, self._head = int(state["next_key"]), int(state["head"])
        self._tail = self._head + len(keys)
        self._keys[self._head : self._tail] = keys
        self._draws_left[:] = 0
        self._draws_left[self._head : self._tail] = draws_left
        self._size = int(np.count_nonzero(draws_left))
        self._num_draws = int(draws_left.sum())
        if self._priorities is not None:
            self._priorities.restore(self.slots(), np.asarray(state["priorities"]))


def leaves_anywhere(table: tables.Table) -> bool:
    """Returns whether items may leave before older ones."""
    return table.max_times_sampled > 0 and not isinstance(table.sampler, tables.Fifo)


def make_order(table: tables.Table) -> Order:
    """Returns the order that a declaration asks for."""
    order = Sparse if leaves_anywhere(table) else Ring
    return order(table.max_size, table.sampler, table.max_times_sampled)


def _insert_priorities(target: Priorities, ranges: list[tuple[int, int]], priorities: np.ndarray | None) -> None:
    done = 0
    for start, stop in ranges:
        target.insert(start, stop, None if priorities is None else priorities[done : done + stop - start])
        done += stop - start


def _below(high: int, num: int, rng: np.random.Generator) -> np.ndarray:
    """Returns `[num]` int64 uniform in [0, high), in half the time of `rng.integers` (and biased by less than 1e-9)."""
    return (rng.random(num) * high).astype(np.int64)


def _filled(num: int, value: float) -> np.ndarray:
    array = np.empty(num)
    array.fill(value)
    return array


def _rank(values: np.ndarray) -> np.ndarray:
    """Returns `[M]` how often each value has occurred before, in order."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1])))
    lengths = np.diff(np.concatenate((starts, [len(values)])))
    ranks = np.empty(len(values), np.int64)
    ranks[order] = np.arange(len(values)) - np.repeat(starts, lengths)
    return ranks
