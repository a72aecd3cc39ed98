"""The contents of a `LocalReplay`: tables over common rows, the lock that guards them, and waiting."""

from __future__ import annotations

import logging
import os
import pathlib
import sys
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from acme_lite.replay import interface, tables
from acme_lite.replay.blocks import Blocks
from acme_lite.replay.local_table import LocalTable, item_bytes
from acme_lite.replay.orders import leaves_anywhere, make_order
from acme_lite.replay.rows import Rows, row_bytes

_logger = logging.getLogger(__name__)

_WARN_SECONDS = 60.0
_MAX_ROWS = 2**31 - 2**16
_MIN_BLOCK_ROWS, _MAX_BLOCK_ROWS = 256, 1024


def _num_rows(table: tables.Table, *, short_episodes: bool) -> int:
    """Returns the rows that a full table takes: with long episodes, or with the shortest that give an item each."""
    items = table.items
    if not short_episodes:
        if isinstance(items, tables.Transitions):
            return table.max_size + items.n_step
        return table.max_size * items.period + items.length - items.period
    per_item = 2 if isinstance(items, tables.Transitions) else items.length + items.period
    # Where items leave in any order, the rows of some that are gone lie between those of the others.
    return table.max_size * per_item * (2 if leaves_anywhere(table) else 1)


def _memory(name: str, fallback: int) -> int:
    """Returns a line of /proc/meminfo in bytes, or what there is instead on other systems."""
    meminfo = pathlib.Path("/proc/meminfo")
    if meminfo.exists():
        for line in meminfo.read_text().splitlines():
            if line.startswith(f"{name}:"):
                return 1024 * int(line.split()[1])
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return fallback


def _container_memory(fallback: int, folder: pathlib.Path = pathlib.Path("/sys/fs/cgroup")) -> int:
    """Returns the bytes that a container's limit leaves, or `fallback` where there is no limit."""
    limit, used, parts = (folder / f"memory.{name}" for name in ("max", "current", "stat"))
    if not (limit.is_file() and used.is_file()) or not limit.read_text().strip().isdigit():
        return fallback
    # Files that were read are counted as used, too, but give way.
    lines = (line.split() for line in parts.read_text().splitlines()) if parts.is_file() else ()
    cached = sum(int(value) for name, value in lines if name == "inactive_file")
    return max(int(limit.read_text()) - int(used.read_text()) + cached, 0)


_FIELDS = {tables.Transitions: ("action",), tables.Sequences: ("action", "reward", "discount", "mask")}


def _describe(table: tables.Table) -> dict[str, str]:
    """Returns what must agree between the replay that was saved and the one that is restored."""

    def leaves(tree: Any) -> list[str]:
        flat = jax.tree_util.tree_flatten_with_path(tree)[0]
        return [
            f"{jax.tree_util.keystr(path)} {type(leaf).__name__ == 'FrameStack'} {leaf.shape} {leaf.dtype}"
            for path, leaf in flat
        ]

    described = {
        name: repr(getattr(table, name)) for name in ("max_size", "items", "sampler", "limiter", "max_times_sampled")
    }
    described["signature"] = repr((leaves(table.signature.observation), leaves(dict(table.signature.fields))))
    return described


def _kept_blocks(writer: dict[str, Any]) -> list[int]:
    """Returns the blocks that a saved writer holds."""
    return [block for kept in writer["kept"] for block in kept["blocks"]]


def _move_writer(
    writer: dict[str, Any], physical: np.ndarray, move: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
    """Returns a saved writer with the numbers that its blocks and rows have now."""
    return writer | {
        "kept": [kept | {"blocks": physical[kept["blocks"]].tolist()} for kept in writer["kept"]],
        "first_rows": move(writer["first_rows"]),
        "rows": move(writer["rows"]),
        "stacks": [move(frames) for frames in writer["stacks"]],
    }


def check_tables(declarations: Sequence[tables.Table]) -> None:
    """Raises ValueError unless these tables can stand in one replay."""
    if not declarations:
        raise ValueError("tables must hold at least one table, got none.")
    names = [table.name for table in declarations]
    if len(set(names)) < len(names):
        raise ValueError(f"tables must have names of their own, got {names}.")
    first = _describe(declarations[0])["signature"]
    for table in declarations[1:]:
        if _describe(table)["signature"] != first:
            raise ValueError(
                f"tables of one replay must have equal signatures, got different ones for {names[0]!r} and "
                f"{table.name!r}; make a replay for each."
            )
    for table in declarations:
        fields = table.signature.fields
        missing = sorted(set(_FIELDS[type(table.items)]) - set(fields))
        if missing:
            raise ValueError(
                f"Signature.fields of table {table.name!r} must hold {missing} for items of type "
                f"{type(table.items).__name__}, got {sorted(fields)}."
            )


class Store:
    """Tables over common rows.

    Public methods of the replay, its writers and its datasets take the lock; what is called here holds it already.

    Attributes:
        lock: guards everything.
        tables: name -> table.
        rows: the rows.
        blocks: which blocks of rows are in use.
        block_rows: rows of a block.
        num_bytes: bytes taken when full of long episodes.
        num_waiting: threads in `wait`.
    """

    def __init__(self, declarations: Sequence[tables.Table]):
        check_tables(declarations)
        signature = declarations[0].signature
        bytes_per_row = row_bytes(signature)
        num_rows = sum(_num_rows(table, short_episodes=False) for table in declarations)
        self.num_bytes = num_rows * bytes_per_row + sum(table.max_size * item_bytes(table) for table in declarations)
        available = min(_memory("MemAvailable", sys.maxsize), _container_memory(sys.maxsize))
        names = ", ".join(table.name for table in declarations)
        _logger.info("Replay (%s) takes %.1f MB when it is full.", names, self.num_bytes / 1e6)
        if self.num_bytes > available:
            raise MemoryError(
                f"The replay's tables ({names}) need {self.num_bytes:,} bytes when they are full, and this machine has "
                f"{available:,} bytes left: lower max_size."
            )
        # Short episodes are rare, and the memory for them untouched until then; more than the machine has cannot be
        # asked for. Where few of the rows are of an item (an adder that leaves short ends out), it takes even more.
        machine_rows = _memory("MemTotal", self.num_bytes) // max(bytes_per_row, 1)
        for_short_episodes = sum(_num_rows(table, short_episodes=True) for table in declarations)
        most_rows = min(max(num_rows, available // max(bytes_per_row, 1)), _MAX_ROWS)
        num_rows = min(max(num_rows, min(for_short_episodes, machine_rows)), _MAX_ROWS)
        self.block_rows = min(max(num_rows // 64, _MIN_BLOCK_ROWS), _MAX_BLOCK_ROWS)
        num_blocks = -(-num_rows // self.block_rows)
        self.lock = threading.Lock()
        orders = [make_order(table) for table in declarations]
        self.blocks = Blocks(orders, num_blocks, max(num_blocks, most_rows // self.block_rows))
        self.rows = Rows(signature, (num_blocks + 64) * self.block_rows)
        self.tables = {
            table.name: LocalTable(table, index, order, self.rows, self.blocks)
            for index, (table, order) in enumerate(zip(declarations, orders, strict=True))
        }
        self._changed = threading.Condition(self.lock)
        self.num_waiting = 0
        self._writers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()
        self._num_writers = 0
        self._restored_writers: dict[int, dict[str, Any]] = {}
        self._closed = False
        self._warned = False

    def table(self, name: str) -> LocalTable:
        """Returns a table.

        Raises:
            KeyError: there is none of this name.
            ClosedError: the replay was closed.
        """
        try:
            return self.tables[name]
        except KeyError:
            self.check_open()
            raise KeyError(f"There is no table {name!r}; there are {sorted(self.tables)}.") from None

    def add_writer(self, writer: Any) -> int:
        """Notes a writer, which `save` asks for its rows and `close` must end; returns its number."""
        self.check_open()
        self._num_writers += 1
        self._writers[self._num_writers] = writer
        return self._num_writers

    def restored_writer(self, number: int, num_streams: int) -> dict[str, Any]:
        """Returns, once, the state of a writer that was open when the contents were saved; holds its blocks.

        Raises:
            ValueError: there is none, or one of another number of streams.
        """
        writer = self._restored_writers.get(number)
        if writer is None:
            raise ValueError(
                f"The rows of writer {number} are not here: restore the replay first, from what was saved with it."
            )
        if writer["num_streams"] != num_streams:
            raise ValueError(f"state must be of a writer of {num_streams} streams, got {writer['num_streams']}.")
        return self._restored_writers.pop(number)

    def take_block(self) -> int:
        """Returns a block for one holder; removes the oldest items where there is no other way."""
        self.check_open()
        block = self.blocks.take()
        if self.blocks.crowded and not self._warned:
            self._warned = True
            _logger.warning(
                "Replay (%s): few of the rows that are written belong to an item, and memory holds no more of them, so "
                "the oldest items leave before max_size is reached.",
                ", ".join(self.tables),
            )
        if (block + 1) * self.block_rows > self.rows.num_rows:
            self.rows.grow((block + block // 4 + 64) * self.block_rows)
        return block

    def admit(self) -> None:
        """Inserts what waits and may be inserted, after samples have made room."""
        for table in self.tables.values():
            table.admit()

    def notify(self) -> None:
        """Wakes those who wait, after a change that may concern them."""
        if self.num_waiting:
            self._changed.notify_all()

    def wait(self, ready: Callable[[], bool], timeout_seconds: float | None, describe: Callable[[], str]) -> None:
        """Waits, and releases the lock meanwhile.

        Args:
            ready: whether to go on; may raise.
            timeout_seconds: how long to wait; for ever if None, with a warning logged every minute.
            describe: returns what is waited for.

        Raises:
            TimeoutError: it took too long.
            ClosedError: the replay was closed.
        """
        if ready():
            return
        started = time.monotonic()
        warned = started
        self.num_waiting += 1
        try:
            while not ready():
                waited = time.monotonic() - started
                if timeout_seconds is not None and waited >= timeout_seconds:
                    raise TimeoutError(f"Waited {waited:.1f} s for {describe()}.")
                if time.monotonic() - warned >= _WARN_SECONDS:
                    warned = time.monotonic()
                    _logger.warning("Has waited %.0f s for %s.", waited, describe())
                left = _WARN_SECONDS if timeout_seconds is None else timeout_seconds - waited
                self._changed.wait(min(left, _WARN_SECONDS))
                self.check_open()
        finally:
            self.num_waiting -= 1

    def save(self) -> dict[str, Any]:
        """Returns everything that items refer to."""
        blocks = self.blocks.in_use()
        return {
            "tables": {name: table.save() for name, table in self.tables.items()},
            "declarations": {name: _describe(table.declaration) for name, table in self.tables.items()},
            "blocks": blocks,
            "newest_keys": self.blocks.newest_keys(blocks),
            "columns": [self._in_blocks(array)[blocks] for array in self.rows.arrays()],
            "frames": [self._in_blocks(array)[blocks] for array in self.rows.frames.values()],
            "writers": {number: writer.save_rows() for number, writer in self._writers.items()},
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `save` returned, in blocks that no writer holds.

        Raises:
            ValueError: it was saved from other tables.
        """
        self._check_declarations(state["declarations"])
        for table in self.tables.values():
            table.clear()
        self.blocks.forget_items()
        for writer in self._restored_writers.values():
            self.blocks.release(_kept_blocks(writer))
        saved = np.asarray(state["blocks"])
        physical = np.zeros(int(saved.max(initial=0)) + 1, np.int64)
        physical[saved] = [self.take_block() for _ in saved]
        blocks = physical[saved]
        for array, contents in zip(self.rows.arrays(), state["columns"], strict=True):
            self._in_blocks(array)[blocks] = contents

        def move(rows: np.ndarray) -> np.ndarray:
            # Rows that were never written, or are not kept any more, may name any block.
            moved = physical.take(np.asarray(rows) // self.block_rows, mode="clip") * self.block_rows
            return moved + rows % self.block_rows

        for array, contents in zip(self.rows.frames.values(), state["frames"], strict=True):
            self._in_blocks(array)[blocks] = move(contents)
        for name, table in self.tables.items():
            table.restore(state["tables"][name], physical, self.block_rows)
        self._restored_writers = {
            number: _move_writer(writer, physical, move) for number, writer in state["writers"].items()
        }
        for writer in self._restored_writers.values():
            self.blocks.hold(_kept_blocks(writer))
        self.blocks.restore(blocks, np.asarray(state["newest_keys"]))
        for writer in self._writers.values():
            writer.forget_items()
        self.notify()

    def close(self) -> None:
        """Frees the contents and wakes those who wait."""
        for writer in list(self._writers.values()):
            writer.end()
        self._closed = True
        self.tables = {}
        self.rows.free()
        self._changed.notify_all()

    def check_open(self) -> None:
        """Raises ClosedError if the replay was closed."""
        if self._closed:
            raise interface.ClosedError("The replay was closed.")

    def _in_blocks(self, array: np.ndarray) -> np.ndarray:
        return array.reshape(-1, self.block_rows, *array.shape[1:])

    def _check_declarations(self, saved: dict[str, dict[str, str]]) -> None:
        if sorted(saved) != sorted(self.tables):
            raise ValueError(f"state was saved from tables {sorted(saved)}, and this replay has {sorted(self.tables)}.")
        for name, table in self.tables.items():
            for field, value in _describe(table.declaration).items():
                if saved[name][field] != value:
                    raise ValueError(
                        f"state was saved from a table {name!r} with {field} {saved[name][field]}, and here it is "
                        f"{value}."
                    )
