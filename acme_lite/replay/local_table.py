"""One table of a `LocalReplay`: its items, its limiter, and the items that the limiter holds back.

Nothing here locks: the replay does.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import numpy as np

from acme_lite import types
from acme_lite.replay import interface, rate_limiters, tables
from acme_lite.replay.blocks import Blocks
from acme_lite.replay.orders import Draw, Order, leaves_anywhere
from acme_lite.replay.rows import Rows

_ROOM_AHEAD = 256


class Items(NamedTuple):
    """Items that were created together.

    Attributes:
        columns: an array `[M, ...]` for each field of the table's records: (first row, last row, reward, discount) of
            transitions, (rows, leaves of the start values ...) of sequences, with physical row numbers.
        priorities: `[M]` float64, or None for 1.
    """

    columns: tuple[np.ndarray, ...]
    priorities: np.ndarray | None

    @property
    def num(self) -> int:
        return len(self.columns[0])

    def part(self, start: int, stop: int | None = None) -> Items:
        """Returns some of them."""
        priorities = None if self.priorities is None else self.priorities[start:stop]
        return Items(tuple(column[start:stop] for column in self.columns), priorities)


class Owner(Protocol):
    """Whose items wait: a writer.

    Attributes:
        num_pending: items of all tables that wait.
        newest_keys: `[num_tables]` keys of its newest items that did not wait; -1 where there are none.
    """

    num_pending: int
    newest_keys: list[int]

    def held_blocks(self) -> list[int]:
        """Returns the blocks of all rows that new items may refer to."""


class Pending(NamedTuple):
    """Items that the limiter has not let in yet.

    Attributes:
        owner: whose they are; None where they were restored.
        items: the items.
        blocks: blocks of rows that they may refer to, held for them.
    """

    owner: Owner | None
    items: Items
    blocks: list[int]


def _record_dtype(items: tables.Transitions | tables.Sequences) -> np.dtype:
    # One record per item: a random draw then costs one cache miss, not one per field.
    if isinstance(items, tables.Transitions):
        return np.dtype([("first", "i4"), ("last", "i4"), ("reward", "f4"), ("discount", "f4")])
    start = [(f"start_{i}", leaf.dtype, leaf.shape) for i, leaf in enumerate(jax.tree.leaves(items.start))]
    return np.dtype([("rows", "i4", (items.length,)), *start])


def item_bytes(table: tables.Table) -> int:
    """Returns the bytes that one item takes beside its rows."""
    num_bytes = _record_dtype(table.items).itemsize
    if isinstance(table.sampler, tables.Prioritized):
        num_bytes += 2 * 8
    if leaves_anywhere(table):
        num_bytes = 2 * (num_bytes + 2 * 8)
    return num_bytes


class LocalTable:
    """The items of one table.

    Attributes:
        declaration: what the table is.
        order: which items there are.
        pending: what the limiter holds back, in the order in which it was created.
        is_transitions: whether items are transitions and not sequences.
        longest: greatest length of an item.

    Args:
        declaration: what the table is.
        index: its number among the replay's tables.
        order: a new order of its items.
        rows: the rows that items refer to.
        blocks: which blocks of rows are in use.
    """

    def __init__(self, declaration: tables.Table, index: int, order: Order, rows: Rows, blocks: Blocks):
        self.declaration = declaration
        self.is_transitions = isinstance(declaration.items, tables.Transitions)
        self.longest = (
            declaration.items.n_step if isinstance(declaration.items, tables.Transitions) else declaration.items.length
        )
        self.order = order
        self._index = index
        self.pending: deque[Pending] = deque()
        self._rows = rows
        self._blocks = blocks
        self._records = np.empty(self.order.num_slots, _record_dtype(declaration.items))
        self._columns = tuple(self._records[name] for name in self._records.dtype.names or ())
        self._gather: Callable[[np.ndarray], types.Transition | types.Sequence] = (
            self._gather_transitions if isinstance(declaration.items, tables.Transitions) else self._gather_sequences
        )
        self._start_structure: Any = jax.tree.structure(getattr(declaration.items, "start", ()))
        self._limiter = declaration.limiter
        self._num_samples = 0
        self._inserts_at_sample = 0
        self._room = 0
        self._due_key = 0  # key that must be reached before so many items can be due
        self._due_items = 0
        self._free_key = -1  # key of the next item for which there was room for so many
        self._free_items = 0

    @property
    def counts(self) -> rate_limiters.Counts:
        order = self.order
        return rate_limiters.Counts(order.next_key, self._num_samples, order.size, self._inserts_at_sample)

    def create(self, owner: Owner, items: Items) -> None:
        """Inserts new items as far as the limiter lets them in; the others wait."""
        num_allowed = 0 if self.pending else self._num_allowed(items.num)
        if num_allowed:
            self._insert(items if num_allowed == items.num else items.part(0, num_allowed))
            owner.newest_keys[self._index] = self.order.next_key - 1
        if num_allowed < items.num:
            items = items.part(num_allowed)
            blocks = owner.held_blocks()
            self._blocks.hold(blocks)
            self.pending.append(Pending(owner, items, blocks))
            owner.num_pending += items.num

    def create_one(self, owner: Owner, record: tuple, priority: float) -> None:
        """Does what `create` does for one item, given as a record of Python's numbers, in less time."""
        order = self.order
        if self.pending or order.slots_move or not (self._room or self._num_allowed(1)):
            self.create(owner, Items(tuple(np.array([value]) for value in record), np.array([priority])))
        else:
            self._records[order.insert_one(priority)] = record
            self._room -= 1
            owner.newest_keys[self._index] = order.next_key - 1

    def admit(self) -> None:
        """Inserts those waiting items that the limiter lets in now."""
        while self.pending:
            owner, items, blocks = self.pending[0]
            num_allowed = self._num_allowed(items.num)
            if not num_allowed:
                break
            self._insert(items.part(0, num_allowed))
            if owner is not None:
                owner.num_pending -= num_allowed
            if num_allowed < items.num:
                self.pending[0] = Pending(owner, items.part(num_allowed), blocks)
                break
            self._release(blocks)
            self.pending.popleft()

    def drop_pending(self, owner: Owner) -> None:
        """Forgets what a writer has waiting."""
        for pending in self.pending:
            if pending.owner is owner:
                owner.num_pending -= pending.items.num
                self._release(pending.blocks)
        self.pending = deque(pending for pending in self.pending if pending.owner is not owner)

    def clear(self) -> None:
        """Removes all items and forgets those that wait."""
        for owner, items, blocks in self.pending:
            self._release(blocks)
            if owner is not None:
                owner.num_pending -= items.num
        self.pending.clear()
        self.order.remove_until(self.order.next_key)

    def can_insert(self, num_items: int) -> bool:
        if self.pending:
            return False
        # Asked at every step: what may be inserted may be until something is, for samples only make more room.
        key = self.order.next_key
        if num_items <= self._room or (key == self._free_key and num_items <= self._free_items):
            return True
        if not self._limiter.can_insert(self.counts, num_items):
            return False
        self._free_key, self._free_items = key, num_items
        return True

    def can_sample(self, num_items: int) -> bool:
        return self.order.can_draw(num_items) and self._limiter.can_sample(self.counts, num_items)

    def due(self, num_items: int) -> bool:
        order = self.order
        # Asked at every step, and before so many inserts the answer is known: samples only put it off.
        if order.next_key < self._due_key and num_items >= self._due_items:
            return False
        counts = self.counts
        if self._limiter.due(counts, num_items):
            return order.can_draw(num_items)
        self._due_key = order.next_key + self._limiter.inserts_until_due(counts, num_items)
        self._due_items = num_items
        return False

    def sample(self, shape: tuple[int, ...], rng: np.random.Generator) -> interface.Sample:
        """Draws items; the caller has asked `can_sample`."""
        num_items = math.prod(shape)
        size = self.order.size
        draw = self.order.draw(num_items, rng)
        self._num_samples += num_items
        self._inserts_at_sample = self.order.next_key
        if len(shape) > 1:
            draw = Draw(*(array.reshape(shape) for array in draw))
        data = self._gather(self._records.take(draw.slots))
        return interface.Sample(data, interface.SampleInfo(draw.keys, draw.probabilities, size))

    def info(self) -> interface.TableInfo:
        num_pending = sum(pending.items.num for pending in self.pending)
        return interface.make_table_info(self.declaration, self.counts, num_pending)

    def save(self) -> dict[str, Any]:
        """Returns items and counts."""
        records = self._records[self.order.slots()]
        return {
            "num_samples": self._num_samples,
            "inserts_at_sample": self._inserts_at_sample,
            "order": self.order.save(),
            "records": {name: records[name].copy() for name in records.dtype.names or ()},
            "pending": [
                {"columns": list(items.columns), "priorities": items.priorities, "blocks": np.array(blocks)}
                for _, items, blocks in self.pending
            ],
        }

    def restore(self, state: dict[str, Any], physical: np.ndarray, block_rows: int) -> None:
        """Puts back what `save` returned into an empty table.

        Args:
            state: what `save` returned.
            physical: number of a block when it was saved -> its number now.
            block_rows: rows of a block.
        """

        def move(name: str, column: np.ndarray) -> np.ndarray:
            column = np.asarray(column)
            if name not in ("first", "last", "rows"):
                return column
            return physical[column // block_rows] * block_rows + column % block_rows

        names = self._records.dtype.names or ()
        self._num_samples = int(state["num_samples"])
        self._inserts_at_sample = int(state["inserts_at_sample"])
        self._room = self._due_key = self._free_items = 0
        self.order.restore(state["order"])
        slots = self.order.slots()
        for name in names:
            self._records[name][slots] = move(name, state["records"][name])
        for saved in state["pending"]:
            columns = tuple(move(name, column) for name, column in zip(names, saved["columns"], strict=True))
            blocks = physical[np.asarray(saved["blocks"])].tolist()
            self._blocks.hold(blocks)
            self.pending.append(Pending(None, Items(columns, saved["priorities"]), blocks))

    def _num_allowed(self, num_items: int) -> int:
        """Returns how many of so many items the limiter lets in now.

        Room once found only grows until it is used: samples make more of it. So all of it is looked
        for at once, and the limiter is not asked again before it is used up.
        """
        if self._room < num_items:
            can_insert, counts = self._limiter.can_insert, self.counts
            if can_insert(counts, num_items + _ROOM_AHEAD):
                self._room = num_items + _ROOM_AHEAD
            else:
                refused = num_items + _ROOM_AHEAD
                while refused - self._room > 1:
                    middle = (self._room + refused) // 2
                    if can_insert(counts, middle):
                        self._room = middle
                    else:
                        refused = middle
        return min(self._room, num_items)

    def _release(self, blocks: list[int]) -> None:
        """Lets go of blocks that were held for waiting items, some of which may have been inserted."""
        self._blocks.mark(self._index, blocks, self.order.next_key - 1)
        self._blocks.release(blocks)

    def _insert(self, items: Items) -> None:
        max_size = self.declaration.max_size
        for start in range(0, items.num, max_size):
            chunk = items if items.num <= max_size else items.part(start, start + max_size)
            moved = self.order.make_room(chunk.num)
            if moved is not None:
                self._records[: len(moved)] = self._records[moved]
            done = 0
            for first_slot, end_slot in self.order.insert(chunk.num, chunk.priorities):
                stop = done + end_slot - first_slot
                for target, column in zip(self._columns, chunk.columns, strict=True):
                    target[first_slot:end_slot] = column[done:stop]
                done = stop
        self._room -= items.num

    def _gather_transitions(self, records: np.ndarray) -> types.Transition:
        first, last = records["first"].astype(np.intp), records["last"].astype(np.intp)
        fields = self._rows.fields
        return types.Transition(
            observation=self._rows.observation.gather(first),
            action=fields["action"].gather(first),
            reward=records["reward"].copy(),
            discount=records["discount"].copy(),
            next_observation=self._rows.observation.gather(last),
            extras=fields["extras"].gather(first) if "extras" in fields else (),
        )

    def _gather_sequences(self, records: np.ndarray) -> types.Sequence:
        rows = records["rows"].astype(np.intp)
        fields = self._rows.fields
        return types.Sequence(
            observation=self._rows.observation.gather(rows),
            action=fields["action"].gather(rows),
            reward=fields["reward"].gather(rows),
            discount=fields["discount"].gather(rows),
            mask=fields["mask"].gather(rows),
            extras=fields["extras"].gather(rows) if "extras" in fields else (),
            start=self._start_structure.unflatten([records[name].copy() for name in records.dtype.names[1:]]),
        )
