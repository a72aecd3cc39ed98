"""A replay in this process: NumPy columns, one lock, and one indexing call per column and batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from acme_lite import types
from acme_lite.replay import interface, tables
from acme_lite.replay.local_writer import LocalWriter
from acme_lite.replay.store import Store

_STATE_WORDS = 6
_WORD = 2**64


class LocalReplay:
    """An `interface.Replay` in the memory of this process.

    Each step is stored once. A leaf of the observation that is declared as a `specs.FrameStack` is stored frame by
    frame and stacked when it is sampled. Memory is touched only as it is needed. Where few of the rows belong to an
    item (an adder that leaves short ends of episodes out, many writers that were opened for a few steps each), it takes
    more than the log says at the start, and where the machine has no more, the oldest items leave early, with a
    warning in the log.

    Items are drawn one by one, as by a Reverb server, also within a batch. Uniform and prioritised draws are with
    replacement; `Fifo` and `Lifo` give the oldest or newest item until `max_times_sampled` removes it, so with
    `max_times_sampled` 0 the whole batch is that one item. Where fewer draws are left than a batch needs, it waits.

    `save` holds all items, also those that the limiter has not let in yet (no `flush` will wait for these after
    `restore`), and the rows that writers keep for further items. After `restore`, `LocalWriter.restore` goes on with
    these; a writer that is still open may also go on with its own. Datasets have a state of their own, and with both
    put back draw the same batches.

    Args:
        tables: declarations of the tables, at least one, all with equal signatures.

    Raises:
        ValueError: the declarations do not fit together.
        MemoryError: the tables would not fit into this machine's memory.
    """

    def __init__(self, tables: Sequence[tables.Table]):
        self._store = Store(tables)

    def writer(self, num_streams: int = 1) -> LocalWriter:
        if num_streams < 1:
            raise ValueError(f"num_streams must be at least 1, got {num_streams}.")
        return LocalWriter(self._store, num_streams)

    def dataset(
        self,
        table: str,
        batch_size: int,
        *,
        num_batches: int | None = None,
        seed: int = 0,
        timeout_seconds: float | None = None,
    ) -> LocalDataset:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if num_batches is not None and num_batches < 1:
            raise ValueError(f"num_batches must be at least 1 or None, got {num_batches}.")
        shape = (batch_size,) if num_batches is None else (num_batches, batch_size)
        with self._store.lock:
            self._store.table(table).declaration.check_dataset(batch_size * (num_batches or 1))
        return LocalDataset(self._store, table, shape, seed=seed, timeout_seconds=timeout_seconds)

    def can_insert(self, num_items: int, table: str | None = None) -> bool:
        # Without the lock: a look at counts, which may have changed anyway by the time that the caller acts on it.
        if table is not None:
            return self._store.table(table).can_insert(num_items)
        if not self._store.tables:
            self._store.check_open()
        for one in self._store.tables.values():  # noqa: SIM110 - a generator takes three times as long
            if not one.can_insert(num_items):
                return False
        return True

    def can_sample(self, table: str, num_items: int) -> bool:
        with self._store.lock:
            return self._store.table(table).can_sample(num_items)

    def update_priorities(self, table: str, keys: np.ndarray, priorities: np.ndarray) -> None:
        _update_priorities(self._store, table, keys, priorities)

    def info(self) -> interface.ReplayInfo:
        with self._store.lock:
            return interface.ReplayInfo(
                tables={name: table.info() for name, table in self._store.tables.items()},
                num_bytes=self._store.num_bytes,
            )

    def save(self) -> dict[str, Any]:
        with self._store.lock:
            return self._store.save()

    def restore(self, state: dict[str, Any]) -> None:
        with self._store.lock:
            self._store.restore(state)

    def close(self) -> None:
        with self._store.lock:
            self._store.close()


class LocalDataset:
    """An `interface.Dataset` of one table of a `LocalReplay`; made by `LocalReplay.dataset`.

    Iterate from one thread at a time.

    Attributes:
        source: see `tables.Table.source`.
        batch_size: B.
    """

    def __init__(self, store: Store, table: str, shape: tuple[int, ...], *, seed: int, timeout_seconds: float | None):
        self.source = store.table(table).declaration.source(store)
        self.batch_size = shape[-1]
        self._store = store
        self._table = table
        self._shape = shape
        self._num_items = shape[0] * shape[-1] if len(shape) > 1 else shape[0]
        self._timeout_seconds = timeout_seconds
        self._bits = np.random.PCG64(seed)
        self._rng = np.random.Generator(self._bits)
        self._closed = False

    def __iter__(self) -> LocalDataset:
        return self

    def __next__(self) -> interface.Sample:
        store = self._store
        with store.lock:
            store.wait(self._ready, self._timeout_seconds, self._describe)
            sample = store.table(self._table).sample(self._shape, self._rng)
            store.admit()
            store.notify()
        return sample

    def ready(self) -> bool:
        with self._store.lock:
            return self._ready()

    def due(self) -> bool:
        store = self._store
        target = store.tables.get(self._table) or store.table(self._table)
        return target.due(self._num_items)  # without the lock, as `can_insert`

    def update_priorities(self, info: interface.SampleInfo, priorities: types.ArrayTree) -> None:
        _update_priorities(self._store, self._table, info.keys, priorities)

    def state(self) -> np.ndarray:
        """Returns the state of the generator, `[6]` uint64 words."""
        state: Any = self._bits.state
        values = (state["state"]["state"], state["state"]["inc"])
        words = [word for value in values for word in divmod(value, _WORD)]
        return np.array([*words, state["has_uint32"], state["uinteger"]], np.uint64)

    def restore(self, state: np.ndarray) -> None:
        words = [int(word) for word in np.asarray(state).ravel()]
        if len(words) != _STATE_WORDS:
            raise ValueError(f"state must be the {_STATE_WORDS} words that LocalDataset.state gives, got {state!r}.")
        self._bits.state = {
            "bit_generator": "PCG64",
            "state": {"state": words[0] * _WORD + words[1], "inc": words[2] * _WORD + words[3]},
            "has_uint32": words[4],
            "uinteger": words[5],
        }

    def close(self) -> None:
        with self._store.lock:
            self._closed = True
            self._store.notify()

    def _ready(self) -> bool:
        if self._closed:
            raise interface.ClosedError("The dataset was closed.")
        return self._store.table(self._table).can_sample(self._num_items)

    def _describe(self) -> str:
        return f"{self._num_items} items from {self._store.table(self._table).info().limiter}"


def _update_priorities(store: Store, table: str, keys: np.ndarray, priorities: types.ArrayTree) -> None:
    keys = np.asarray(keys)
    with store.lock:
        target = store.table(table)
        priorities = target.declaration.check_priorities(priorities)
        if keys.shape != priorities.shape:
            raise ValueError(f"priorities must have the shape of the keys {keys.shape}, got {priorities.shape}.")
        target.order.set_priorities(keys.ravel(), priorities.ravel())
