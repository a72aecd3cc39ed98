"""The writer of a `ReverbReplay`."""

from __future__ import annotations

import contextlib
import threading
import weakref
from typing import Any, NoReturn

import numpy as np

from acme_lite import types
from acme_lite.replay import interface, tables
from acme_lite.replay.reverb_layout import pack_starts
from acme_lite.replay.reverb_link import Link

_POLL_MS = 50
_PUSH_MS = 5
_BURST = 32
# Reverb warns on stderr where 50 items or more have no answer, at every tenth of them.
_SEND_AHEAD, _SENT_LATER = 64, 32


class ReverbWriter:
    """An `interface.Writer` of a `ReverbReplay`; made by `ReverbReplay.writer`. Use it from one thread at a time.

    It keeps the last rows here. A transition is sent as one array; a row of a sequence, or a row's frames, when the
    first item refers to it. All streams share one connection, so items arrive in the order in which they were created.

    Transitions without stacks of frames are sent in bursts of 32, since Reverb's threads wake up anew for each that
    comes alone; what is left of a burst is sent within 20 ms, or as soon as somebody waits for it.

    Departures from the interface: `create_items` waits while more than `max_in_flight_items` items have no answer
    (real back-pressure: Reverb itself would pile them up), and `close` cannot call back what the server has received.

    Attributes:
        num_streams: N.
    """

    def __init__(self, link: Link, num_streams: int):
        self.num_streams = num_streams
        self._link = link
        self._layout = link.layout
        self._lock = threading.RLock()
        self._num_kept = link.layout.window + max(link.layout.stack - 1, 0)
        shape = (self._num_kept, num_streams)
        self._rows = np.zeros(shape, link.layout.row)
        self._row_bytes = self._rows.view(np.uint8).reshape(*shape, link.layout.row.itemsize)
        frames = np.zeros(shape, link.layout.frame)
        self._frame_bytes = frames.view(np.uint8).reshape(*shape, link.layout.frame.itemsize)
        self._write_observation = link.layout.observation_writer(self._rows, frames)
        self._write_fields = link.layout.fields_writer(self._rows)
        self._num_rows = 0
        self._first = np.zeros(num_streams, np.int64)  # row with which each stream's episode begins
        self._begins = np.ones(num_streams, bool)
        self._fields_checked = False
        self._closed = False
        self._in_flight = 0
        self._pushed_at = 0
        has_sequences = any(isinstance(table.items, tables.Sequences) for table in link.tables.values())
        # Columns: rows of each stream, frames of each stream, rows of zeros, frames of zeros, then transitions.
        self._num_before = 2 * num_streams + 2 if has_sequences or link.layout.stack else 0
        self._generation = -1
        self._opened: list[Any] = []  # Reverb's writer
        # Unless it was closed, its destructor waits for a server that may be gone, and holds Python's lock meanwhile.
        weakref.finalize(self, _close, self._opened, _POLL_MS).atexit = False  # at the end the link closes it
        self._connect()
        link.add_writer(self)

    def append(self, observation: types.ArrayTree, fields: types.ArrayTree | None = None) -> int:
        if fields is not None:
            self.complete(fields)
        elif self._closed:
            self._raise_closed()
        number = self._num_rows
        if not number:
            self._layout.check_observation(observation, self.num_streams)
        slot = number % self._num_kept
        self._write_observation(slot, observation)
        if self._layout.stack:
            self._first[self._begins] = number
            self._begins[:] = False
            self._rows["age"][slot] = np.minimum(number - self._first, self._layout.stack - 1)
        if self._num_before:
            self._row_refs[slot] = None
            self._frame_refs[slot] = None
        self._num_rows = number + 1
        return number

    def complete(self, fields: types.ArrayTree) -> None:
        if not self._fields_checked or self._closed:
            if self._closed:
                self._raise_closed()
            if not self._num_rows:
                raise ValueError("complete needs an open row: append one first.")
            self._layout.check_fields(fields, self.num_streams)
            self._fields_checked = True
        self._write_fields((self._num_rows - 1) % self._num_kept, fields)

    def end_episode(self, mask: types.BoolArray) -> None:
        if not self._num_rows:
            raise ValueError("end_episode needs an open row: append one first.")
        mask = np.asarray(mask, bool)
        if mask.shape != (self.num_streams,):
            raise ValueError(f"mask must have shape [{self.num_streams}], got {mask.shape}.")
        self._layout.clear_fields(self._rows[(self._num_rows - 1) % self._num_kept], mask)
        self._begins |= mask

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
        declaration = self._link.table(table)
        items = declaration.items
        streams, starts, lengths = (np.asarray(array, np.int64) for array in (streams, starts, lengths))
        priorities = np.ones(len(starts)) if priorities is None else declaration.check_priorities(priorities)
        self._check_items(table, streams, starts, lengths)
        if priorities.shape != starts.shape:
            raise ValueError(f"priorities must have shape [{len(starts)}], got {priorities.shape}.")
        if isinstance(items, tables.Transitions):
            declaration.check_values(values, len(starts))
        else:
            values = declaration.start_leaves(values, len(starts))
        with self._lock:
            self._connect()
            self._note_created(table, len(starts))
            if isinstance(items, tables.Transitions):
                first, last = (self._row_bytes[rows % self._num_kept, streams] for rows in (starts, starts + lengths))
                frames = self._transition_frames(streams, starts, starts + lengths) if self._layout.stack else None
                self._add_transitions(table, first, last, priorities.tolist(), values, frames)
            else:
                self._send()
                packed = pack_starts(items, values, len(starts))
                each = zip(
                    streams.tolist(), starts.tolist(), lengths.tolist(), priorities.tolist(), packed, strict=True
                )
                for item in each:
                    self._create_sequence(table, items.length, *item)
        self._keep_in_bounds()

    def create_item_in_each(self, table: str, start: int, length: int, *, values: types.ArrayTree = ()) -> None:
        num = self.num_streams
        declaration = self._link.table(table)
        if self._layout.stack or isinstance(declaration.items, tables.Sequences):
            self.create_items(table, np.arange(num), np.full(num, start), np.full(num, length), values=values)
            return
        if not self._is_in_window(table, start, length):
            self._raise_out_of_window(table, 0, start, length)
        declaration.check_values(values, num)
        with self._lock:
            self._connect()
            self._note_created(table, num)
            first, last = self._row_bytes[start % self._num_kept], self._row_bytes[(start + length) % self._num_kept]
            self._add_transitions(table, first, last, [1.0] * num, values, None)
        self._keep_in_bounds()

    def flush(self, timeout_seconds: float | None = None) -> None:
        self._link.wait(lambda: self._flush(0, _POLL_MS), timeout_seconds, self._describe)

    def send(self) -> None:
        """Sends what is left of a burst, from any thread; for the link."""
        with self._lock:
            if self._num_packed and not self._closed:
                self._connect()
                self._send()

    def push(self) -> None:
        """Gives what has been created a moment to arrive; for the link."""
        if self._in_flight and not self._closed:
            self._flush(0, _PUSH_MS)

    def disconnect(self) -> None:
        """Forgets what the server has not let in, and opens a new stream when it is used next; for the link."""
        with self._lock:
            _close(self._opened)
            self._generation = -1

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            if self._in_flight:
                self._flush(0, _POLL_MS)
            self._closed = True
            _close(self._opened)

    def _connect(self) -> None:
        """Opens a stream to the server; again after it was replaced, when rows must be sent anew."""
        if self._closed:
            self._raise_closed()
        link = self._link
        if self._generation == link.generation:
            return
        self.disconnect()
        self._generation = link.generation
        chunker = link.binding.ConstantChunkerOptions
        self._writer = link.client.NewTrajectoryWriter(chunker(1, 1), False)
        self._opened.append(self._writer)
        for column in range(self._num_before):
            run = self._num_kept if column >= 2 * self.num_streams else 1
            # A row is sent when an item first refers to it: of those sent since, as many may be older as newer.
            self._writer.ConfigureChunker(column, chunker(run, 2 * self._num_kept))
        self._row_refs = np.full((self._num_kept, self.num_streams), None)
        self._frame_refs = np.full((self._num_kept, self.num_streams), None)
        self._zero_refs: list[list[Any]] = [[], []]
        self._in_flight = self._pushed_at = 0
        self._begin_burst(_BURST)

    def _note_created(self, table: str, num_items: int) -> None:
        """Counts items before they are sent: whoever compares with the server's counts must not find more there."""
        self._in_flight += num_items
        self._link.note_created(table, num_items)

    def _begin_burst(self, num_items: int) -> None:
        self._packed = np.empty((num_items, self._layout.transition.itemsize), np.uint8)
        self._write_transitions = self._layout.transition_writer(self._packed)
        self._num_packed = 0
        # (table, priority, the item's columns beside the packed one) of each packed transition
        self._targets: list[tuple[str, float, list[list[Any]]]] = []

    def _add_transitions(
        self,
        table: str,
        first: np.ndarray,
        last: np.ndarray,
        priorities: list[float],
        values: types.ArrayTree,
        frames: list[list[list[Any]]] | None,
    ) -> None:
        """Adds transitions to the burst, and sends it once it is full, or where they refer to frames."""
        begin, num_items = self._num_packed, len(priorities)
        if begin + num_items > len(self._packed):
            self._send()
            begin = 0
            if num_items > _BURST:
                self._begin_burst(num_items)
        end = begin + num_items
        self._write_transitions(slice(begin, end), first, last, values)
        self._targets += zip([table] * num_items, priorities, frames or [[]] * num_items, strict=True)
        self._num_packed = end
        if frames or end >= _BURST:
            self._send()
        elif not begin:
            self._link.send_soon()

    def _send(self) -> None:
        """Sends the burst."""
        if not self._num_packed:
            return
        packed, targets = list(self._packed[: self._num_packed]), self._targets
        self._begin_burst(_BURST)
        refs = self._writer.Append([None] * self._num_before + packed)[self._num_before :]
        squeezed = [True, False] if self._layout.stack else [True]
        create = self._writer.CreateItem
        for ref, (table, priority, frames) in zip(refs, targets, strict=True):
            create(table, priority, [[ref], *frames], squeezed)

    def _create_sequence(
        self, table: str, longest: int, stream: int, start: int, length: int, priority: float, packed: np.ndarray
    ) -> None:
        rows = [self._row(stream, number) for number in range(start, start + length)]
        columns = [rows + self._zeros(0)[: longest - length]]
        if self._layout.stack:
            begin = max(start - self._layout.stack + 1, 0, self._num_rows - self._num_kept)
            frames = [self._frame(stream, number) for number in range(begin, start + length)]
            before = self._layout.stack - 1 + length - len(frames)
            columns.append(self._zeros(1)[:before] + frames + self._zeros(1)[: longest - length])
        squeezed = [False] * len(columns)
        if packed.size:
            columns.append([self._append(self._num_before, packed)])
            squeezed.append(True)
        self._writer.CreateItem(table, priority, columns, squeezed)

    def _transition_frames(self, streams: np.ndarray, starts: np.ndarray, ends: np.ndarray) -> list[list[list[Any]]]:
        """Returns for each transition its column of frames: those of its first row's stack, and of its last row's."""
        return [
            # Neighbours must not be the same frame: Reverb would take the two for a run.
            [self._stack(stream, start) + self._stack(stream, end)[::-1]]
            for stream, start, end in zip(streams.tolist(), starts.tolist(), ends.tolist(), strict=True)
        ]

    def _stack(self, stream: int, row: int) -> list[Any]:
        """Returns the frames of a row's largest stack, zeros from before its episode."""
        age = int(self._rows["age"][row % self._num_kept, stream])
        frames = [self._frame(stream, number) for number in range(row - age, row + 1)]
        return self._zeros(1)[: self._layout.stack - len(frames)] + frames

    def _row(self, stream: int, number: int) -> Any:
        refs, slot = self._row_refs, number % self._num_kept
        if refs[slot, stream] is None:
            refs[slot, stream] = self._append(stream, self._row_bytes[slot, stream])
        return refs[slot, stream]

    def _frame(self, stream: int, number: int) -> Any:
        refs, slot = self._frame_refs, number % self._num_kept
        if refs[slot, stream] is None:
            refs[slot, stream] = self._append(self.num_streams + stream, self._frame_bytes[slot, stream])
        return refs[slot, stream]

    def _zeros(self, which: int) -> list[Any]:
        """Returns a run of zero rows (0) or frames (1), as long as any item needs."""
        if not self._zero_refs[which]:
            num_bytes = (self._row_bytes, self._frame_bytes)[which].shape[-1]
            zeros = np.zeros(num_bytes, np.uint8)
            column = 2 * self.num_streams + which
            self._zero_refs[which] = [self._append(column, zeros) for _ in range(self._num_kept)]
        return self._zero_refs[which]

    def _append(self, column: int, data: np.ndarray) -> Any:
        return self._writer.Append([None] * column + [data])[column]

    def _flush(self, num_items: int, timeout_ms: int) -> bool:
        """Returns whether the server has let in all but so many items."""
        with self._lock:
            self._connect()
            self._send()
            if self._in_flight <= num_items:
                return True
            try:
                self._writer.Flush(num_items, timeout_ms)
            except RuntimeError as error:
                if "Timeout exceeded" in str(error):
                    return False
                raise RuntimeError(f"The Reverb server at {self._link.address} refused items: {error}") from error
            self._in_flight = self._pushed_at = num_items
            return True

    def _keep_in_bounds(self) -> None:
        link = self._link
        if self._in_flight - self._pushed_at < _SEND_AHEAD or self._flush(_SENT_LATER, _PUSH_MS):
            return
        self._pushed_at = self._in_flight
        if self._in_flight > link.max_in_flight_items:
            most = link.max_in_flight_items // 2
            link.wait(lambda: self._flush(most, _POLL_MS), link.timeout_seconds, self._describe)

    def _describe(self) -> str:
        return f"the limiter to let in what was written ({self._link.describe()})"

    def _raise_closed(self) -> NoReturn:
        self._link.check_open()
        raise interface.ClosedError("The writer was closed.")

    def _is_in_window(self, table: str, start: int, length: int, stream: int = 0) -> bool:
        items = self._link.tables[table].items
        if isinstance(items, tables.Transitions):
            longest, last_end = items.n_step, self._num_rows - 1
        else:
            longest, last_end = items.length, self._num_rows
        return (
            max(self._num_rows - self._layout.window, 0) <= start <= last_end - length
            and 1 <= length <= longest
            and 0 <= stream < self.num_streams
        )

    def _check_items(self, table: str, streams: np.ndarray, starts: np.ndarray, lengths: np.ndarray) -> None:
        if not streams.shape == starts.shape == lengths.shape == (len(starts),):
            raise ValueError(
                f"streams, starts and lengths must have the same shape [M], got {streams.shape}, {starts.shape} and "
                f"{lengths.shape}."
            )
        # Python's numbers: few items are the rule.
        for stream, start, length in zip(streams.tolist(), starts.tolist(), lengths.tolist(), strict=True):
            if not self._is_in_window(table, start, length, stream):
                self._raise_out_of_window(table, stream, start, length)

    def _raise_out_of_window(self, table: str, stream: int, start: int, length: int) -> NoReturn:
        raise ValueError(
            f"Items of table {table!r}, {self._link.tables[table].items}, must lie within the last "
            f"{self._layout.window} of the {self._num_rows} rows of {self.num_streams} streams, got stream {stream}, "
            f"start {start}, length {length}."
        )


def _close(opened: list[Any], flush_ms: int = 0) -> None:
    """Closes Reverb's writer, if one is open; what it could not send in so much time is lost."""
    while opened:
        writer = opened.pop()
        if flush_ms:
            with contextlib.suppress(RuntimeError):  # the limiter let in less, or the server is gone
                writer.Flush(0, flush_ms)
        writer.Close()
