"""The writer of a `LocalReplay`."""

from __future__ import annotations

from typing import Any, NamedTuple, NoReturn

import numpy as np

from acme_lite import types
from acme_lite.replay import interface
from acme_lite.replay.local_table import Items, LocalTable
from acme_lite.replay.rows import ZERO_ROW
from acme_lite.replay.store import Store


class _Kept(NamedTuple):
    """Blocks of rows that new items may refer to.

    Attributes:
        first_row: number of their first row.
        blocks: the blocks.
        newest_keys: the writer's newest keys when it took them: no older item refers to them.
    """

    first_row: int
    blocks: list[int]
    newest_keys: list[int]


class LocalWriter:
    """An `interface.Writer` of a `LocalReplay`; made by `LocalReplay.writer`. Use it from one thread at a time.

    Close it when it is no longer needed: until then the replay keeps the rows that new items may refer to.

    It takes blocks of rows from the store and fills them vector step by vector step, so that the rows of one step
    follow one another. If a block has fewer rows than there are streams, they are spread over several.

    Attributes:
        num_streams: N.
        num_pending: items created that the limiter has not let in yet.
        newest_keys: per table, the key of the newest item that it let in at once; -1 where there is none.
    """

    def __init__(self, store: Store, num_streams: int):
        with store.lock:
            self._number = store.add_writer(self)
        self.num_streams = num_streams
        self.num_pending = 0
        self.newest_keys = [-1] * len(store.tables)
        self._store = store
        self._lock = store.lock
        self._rows = store.rows
        self._write_observation = store.rows.observation.write
        self._write_fields = tuple((name, columns.write) for name, columns in store.rows.fields.items())
        self._window = max(table.declaration.items.window for table in store.tables.values())
        self._num_rows = 0
        self._open: slice | np.ndarray = slice(0, 0)
        self._fields_checked = False
        # Of the last rows (a power of two): physical numbers [row modulo their number, stream], unless the rows of each
        # step follow one another; first of each step.
        self._mask = (1 << (self._window - 1).bit_length()) - 1
        self._physical = np.zeros((self._mask + 1, num_streams), np.int64)
        self._first_rows = [0] * (self._mask + 1)
        num_lanes = -(-num_streams // store.block_rows)
        self._lane_width = -(-num_streams // num_lanes)
        self._lanes, self._streams = divmod(np.arange(num_streams), self._lane_width)
        self._steps_per_block = store.block_rows // self._lane_width
        self._step = self._steps_per_block
        self._one_lane = num_lanes == 1
        self._offsets = self._streams
        self._first_row = 0
        self._kept: list[_Kept] = []
        self._stacks = {stack: np.zeros((num_streams, stack), np.int32) for stack in store.rows.frames}
        self._begins: np.ndarray | None = np.ones(num_streams, bool)
        self._closed = False

    def append(self, observation: types.ArrayTree, fields: types.ArrayTree | None = None) -> int:
        with self._lock:
            if fields is not None:
                if not self._fields_checked:
                    self._check_fields(fields)
                for name, write in self._write_fields:
                    write(self._open, fields[name])
            number, step = self._num_rows, self._step
            if not number:
                self._rows.observation.check(observation, self.num_streams)
            if step == self._steps_per_block:
                self._next_blocks()
                step = 0
            first = self._first_row + step * self._lane_width
            self._first_rows[number & self._mask] = first
            if self._one_lane:
                rows: slice | np.ndarray = slice(first, first + self.num_streams)
            else:
                rows = self._physical[number & self._mask] = self._offsets + first
            self._open = rows
            self._write_observation(rows, observation)
            if self._stacks:
                self._write_stacks(self._offsets + first)
            self._step = step + 1
            self._num_rows = number + 1
        return number

    def complete(self, fields: types.ArrayTree) -> None:
        with self._lock:
            if not self._fields_checked:
                self._check_fields(fields)
            for name, write in self._write_fields:
                write(self._open, fields[name])

    def end_episode(self, mask: types.BoolArray) -> None:
        with self._lock:
            if not self._num_rows:
                raise ValueError("end_episode needs an open row: append one first.")
            mask = np.asarray(mask, bool)
            if mask.shape != (self.num_streams,):
                raise ValueError(f"mask must have shape [{self.num_streams}], got {mask.shape}.")
            rows = (self._offsets + self._first_rows[(self._num_rows - 1) & self._mask])[mask]
            for columns in self._rows.fields.values():
                columns.clear(rows)
            self._begins = mask.copy() if self._begins is None else self._begins | mask

    def create_items(
        self,
        table: str,
        streams: types.IntArray,
        starts: types.IntArray,
        lengths: types.IntArray,
        *,
        priorities: np.ndarray | None = None,
        values: types.ArrayTree = (),
    ) -> None:
        if not len(starts):
            return
        store = self._store
        with self._lock:
            target = store.tables.get(table) or store.table(table)
            if self._closed:
                self._raise_closed()
            if priorities is not None:
                priorities = target.declaration.check_priorities(priorities)
            arrays = (streams, starts, lengths) if priorities is None else (streams, starts, lengths, priorities)
            if (
                target.is_transitions
                and self._one_lane
                and all(type(one) is np.ndarray and one.size == 1 for one in arrays)
            ):
                stream, start, length, *priority = [one.item() for one in arrays]
                self._create_transition(target, stream, start, length, values, *priority)
            else:
                target.create(self, self._make_items(target, streams, starts, lengths, priorities, values))
            if store.num_waiting:
                store.notify()

    def create_item_in_each(self, table: str, start: int, length: int, *, values: types.ArrayTree = ()) -> None:
        store = self._store
        with self._lock:
            target = store.tables.get(table) or store.table(table)
            if self._closed:
                self._raise_closed()
            num_streams = self.num_streams
            if not self._one_lane or not target.is_transitions:
                starts, lengths = np.full(num_streams, start), np.full(num_streams, length)
                target.create(self, self._make_items(target, np.arange(num_streams), starts, lengths, None, values))
            elif num_streams == 1:
                self._create_transition(target, 0, start, length, values)
            else:
                self._check_window(target, 0, start, length)
                target.declaration.check_values(values, num_streams)
                first, last = (self._offsets + self._first_rows[row & self._mask] for row in (start, start + length))
                target.create(self, Items((first, last, *values), None))
            if store.num_waiting:
                store.notify()

    def flush(self, timeout_seconds: float | None = None) -> None:
        with self._lock:
            self._store.wait(self._is_flushed, timeout_seconds, self._describe)

    def close(self) -> None:
        with self._lock:
            self.end()
            self._store.notify()

    def save(self) -> int:
        """Returns the writer's number in its replay: its rows are saved with the replay, which must come after."""
        return self._number

    def restore(self, state: int) -> None:
        """Goes on with the rows of the writer that had this number when the replay, restored before, was saved.

        Items that waited then are no longer this writer's: `flush` does not wait for them.

        Raises:
            ValueError: the replay holds no such rows, or of another number of streams.
        """
        with self._lock:
            rows = self._store.restored_writer(state, self.num_streams)
            self.end()
            self._closed = False
            self._restore_rows(rows)

    def save_rows(self) -> dict[str, Any]:
        """Returns where the rows are that new items may refer to, for a caller that holds the lock."""
        return {
            "num_streams": self.num_streams,
            "num_rows": self._num_rows,
            "newest_keys": list(self.newest_keys),
            "kept": [
                {"first_row": kept.first_row, "blocks": list(kept.blocks), "newest_keys": list(kept.newest_keys)}
                for kept in self._kept
            ],
            "step": self._step,
            "first_rows": np.array(self._first_rows),
            "rows": self._physical.copy(),
            "stacks": [frames.copy() for frames in self._stacks.values()],
            "begins": None if self._begins is None else self._begins.copy(),
        }

    def _restore_rows(self, state: dict[str, Any]) -> None:
        self._num_rows = state["num_rows"]
        self.newest_keys = list(state["newest_keys"])
        self._kept = [_Kept(**kept) for kept in state["kept"]]
        self._first_rows = state["first_rows"].tolist()
        self._physical = np.array(state["rows"])
        for frames, saved in zip(self._stacks.values(), state["stacks"], strict=True):
            frames[:] = saved
        self._begins = None if state["begins"] is None else np.array(state["begins"])
        if self._kept:
            self._use_blocks(self._kept[-1].blocks)
        self._step = state["step"]
        if self._num_rows:
            first = self._first_rows[(self._num_rows - 1) & self._mask]
            self._open = slice(first, first + self.num_streams) if self._one_lane else self._offsets + first

    def end(self) -> None:
        """Does what `close` does, for a caller that holds the lock."""
        self._closed = True
        for table in self._store.tables.values():
            table.drop_pending(self)
        while self._kept:
            self._release_oldest()
        # The next call finds no room, or fields that are not checked, and learns that the writer is closed.
        self._step = self._steps_per_block
        self._fields_checked = False

    def forget_items(self) -> None:
        """Forgets which items refer to its rows: others have taken the place of all."""
        none = [-1] * len(self.newest_keys)
        self.newest_keys = list(none)
        self._kept = [kept._replace(newest_keys=none) for kept in self._kept]

    def held_blocks(self) -> list[int]:
        """Returns the blocks of all rows that new items may refer to."""
        return [block for kept in self._kept for block in kept.blocks]

    def _next_blocks(self) -> None:
        if self._closed:
            self._raise_closed()
        store = self._store
        blocks = [store.take_block() for _ in range(self._lanes[-1] + 1)]
        self._kept.append(_Kept(self._num_rows, blocks, list(self.newest_keys)))
        self._use_blocks(blocks)
        self._step = 0
        oldest_needed = self._num_rows + 1 - self._window - store.rows.history
        while len(self._kept) > 1 and self._kept[1].first_row <= oldest_needed:
            self._release_oldest()

    def _use_blocks(self, blocks: list[int]) -> None:
        # Rows of the streams in a step, beside the first of them.
        self._offsets = (np.array(blocks) - blocks[0])[self._lanes] * self._store.block_rows + self._streams
        self._first_row = blocks[0] * self._store.block_rows

    def _release_oldest(self) -> None:
        kept = self._kept.pop(0)
        for table, (before, newest) in enumerate(zip(kept.newest_keys, self.newest_keys, strict=True)):
            if newest > before:
                self._store.blocks.mark(table, kept.blocks, newest)
        self._store.blocks.release(kept.blocks)

    def _write_stacks(self, rows: np.ndarray) -> None:
        """Notes for the open row which rows hold its frames."""
        for stack, frames in self._stacks.items():
            frames[:, :-1] = frames[:, 1:]
            frames[:, -1] = rows
            if self._begins is not None:
                frames[self._begins] = rows[self._begins, None]
            self._rows.frames[stack][self._open] = frames
        self._begins = None

    def _create_transition(
        self,
        table: LocalTable,
        stream: int,
        start: int,
        length: int,
        values: types.ArrayTree,
        priority: float = 1.0,
    ) -> None:
        """Creates one item without small arrays, where a step's rows are consecutive."""
        self._check_window(table, stream, start, length)
        table.declaration.check_values(values, 1)
        reward, discount = values
        first_rows, mask = self._first_rows, self._mask
        first, last = first_rows[start & mask] + stream, first_rows[(start + length) & mask] + stream
        # Python's numbers: NumPy's scalars take twice as long.
        table.create_one(self, (first, last, float(reward[0]), float(discount[0])), priority)

    def _check_window(self, table: LocalTable, stream: int, start: int, length: int) -> None:
        num_rows = self._num_rows
        if not (
            num_rows - self._window <= start >= 0
            and start + length < num_rows
            and 1 <= length <= table.longest
            and 0 <= stream < self.num_streams
        ):
            self._raise_out_of_window(table, stream, start, length)

    def _make_items(
        self,
        table: LocalTable,
        streams: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        priorities: np.ndarray | None,
        values: types.ArrayTree,
    ) -> Items:
        streams, starts, lengths = (np.asarray(array, np.int64) for array in (streams, starts, lengths))
        self._check_items(table, streams, starts, lengths)
        columns: tuple[np.ndarray, ...]
        if table.is_transitions:
            table.declaration.check_values(values, len(starts))
            reward, discount = (np.asarray(value) for value in values)
            rows = self._physical_rows(starts, streams), self._physical_rows(starts + lengths, streams)
            columns = (*rows, reward, discount)
        else:
            steps = np.arange(table.longest)
            windows = self._physical_rows(starts[:, None] + steps, streams[:, None])
            windows[steps >= lengths[:, None]] = ZERO_ROW
            columns = (windows, *table.declaration.start_leaves(values, len(starts)))
        if priorities is not None and priorities.shape != starts.shape:
            raise ValueError(f"priorities must have shape [{len(starts)}], got {priorities.shape}.")
        return Items(columns, priorities)

    def _physical_rows(self, numbers: np.ndarray, streams: np.ndarray) -> np.ndarray:
        """Returns the physical numbers of the rows of streams."""
        if self._one_lane:
            return np.array(self._first_rows).take(numbers & self._mask) + streams
        return self._physical[numbers & self._mask, streams]

    def _check_items(self, table: LocalTable, streams: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
        if not streams.shape == starts.shape == lengths.shape == (len(starts),):
            raise ValueError(
                f"streams, starts and lengths must have the same shape [M], got {streams.shape}, {starts.shape} and "
                f"{lengths.shape}."
            )
        first_start = max(self._num_rows - self._window, 0)
        last_end = self._num_rows - 1 if table.is_transitions else self._num_rows
        lowest, highest = np.minimum.reduce, np.maximum.reduce
        if (
            lowest(starts) < first_start
            or highest(starts + lengths) > last_end
            or lowest(lengths) < 1
            or highest(lengths) > table.longest
            or lowest(streams) < 0
            or highest(streams) >= self.num_streams
        ):
            wrong = (starts < first_start) | (starts + lengths > last_end) | (lengths < 1) | (lengths > table.longest)
            wrong |= (streams < 0) | (streams >= self.num_streams)
            item = int(wrong.argmax())
            self._raise_out_of_window(table, int(streams[item]), int(starts[item]), int(lengths[item]))

    def _raise_out_of_window(self, table: LocalTable, stream: int, start: int, length: int) -> NoReturn:
        raise ValueError(
            f"Items of table {table.declaration.name!r}, {table.declaration.items}, must lie within the last "
            f"{self._window} of the {self._num_rows} rows of {self.num_streams} streams, got stream {stream}, start "
            f"{start}, length {length}."
        )

    def _is_flushed(self) -> bool:
        if self._closed:
            self._raise_closed()
        return not self.num_pending

    def _raise_closed(self) -> NoReturn:
        raise interface.ClosedError("The writer was closed.")

    def _check_fields(self, fields: types.ArrayTree) -> None:
        if self._closed:
            self._raise_closed()
        if not self._num_rows:
            raise ValueError("complete needs an open row: append one first.")
        expected = self._rows.fields
        if set(fields) != set(expected):
            raise ValueError(f"fields must hold {sorted(expected)}, got {sorted(fields)}.")
        for name, columns in expected.items():
            columns.check(fields[name], self.num_streams)
        self._fields_checked = True

    def _describe(self) -> str:
        states = "; ".join(table.info().limiter for table in self._store.tables.values())
        return f"the limiter to let in {self.num_pending} items ({states})"
