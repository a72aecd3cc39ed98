"""The interfaces of replay: writers, datasets and the replay that makes both."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

from acme_lite import types
from acme_lite.replay import rate_limiters, tables


class ClosedError(RuntimeError):
    """A replay, a writer or a dataset was closed, and is of no use any more."""


class SampleInfo(NamedTuple):
    """Where a batch was drawn from. All arrays stay on the host: inside jit, 64-bit keys would be cut to 32 bits.

    Attributes:
        keys: `[B]` (or `[K, B]`) int64, names of the items, unique within the table (and with `LocalReplay` growing
            with insertion).
        probabilities: `[B]` (or `[K, B]`) float64, the probability with which each item was drawn, in (0, 1].
        table_size: number of items in the table when the batch was drawn.
    """

    keys: np.ndarray
    probabilities: np.ndarray
    table_size: int


class Sample(NamedTuple):
    """A batch.

    Attributes:
        data: `types.Transition` or `types.Sequence`, leaves `[B, ...]` (`[K, B, ...]` where a dataset draws K batches
            at once).
        info: `SampleInfo` of the batch (a tuple of them where datasets were put together).
    """

    data: Any
    info: Any


class TableInfo(NamedTuple):
    """The state of one table.

    Attributes:
        size: number of items that can be sampled.
        max_size: largest number of items.
        num_inserts: items inserted since the start.
        num_samples: items sampled since the start.
        num_pending: items that writers have created and the limiter holds back.
        limiter: the limiter's state in words, for messages.
    """

    size: int
    max_size: int
    num_inserts: int
    num_samples: int
    num_pending: int
    limiter: str


def make_table_info(table: tables.Table, counts: rate_limiters.Counts, num_pending: int) -> TableInfo:
    """Returns the state of a table in numbers and words."""
    return TableInfo(
        size=counts.size,
        max_size=table.max_size,
        num_inserts=counts.inserts,
        num_samples=counts.samples,
        num_pending=num_pending,
        limiter=(
            f"table {table.name!r}: {counts.inserts} inserts, {counts.samples} samples, size {counts.size} of "
            f"{table.max_size}, {num_pending} pending, {table.limiter}"
        ),
    )


class ReplayInfo(NamedTuple):
    """The state of a replay.

    Attributes:
        tables: name -> `TableInfo`.
        num_bytes: bytes that the replay takes when it is full of episodes that are long beside one item.
    """

    tables: dict[str, TableInfo]
    num_bytes: int


class Writer(Protocol):
    """Writes the steps of N streams, and items that are ranges of them.

    A stream's rows are numbered 0, 1, 2, ... over all its episodes; every `append` opens one row in each stream, so all
    streams always have the same number of rows. A row has two halves: the observation, known when it is opened, and the
    fields (action, reward, ...), known one step later. Opening a row zeroes nothing: the fields of an open row are
    undefined until `complete`, or until `end_episode`, which sets them to zero.
    """

    num_streams: int

    def append(self, observation: types.ArrayTree, fields: types.ArrayTree | None = None) -> int:
        """Opens the next row of every stream with `[N, ...]` observations and returns the row's number.

        With `fields`, completes the row that is open before, in less time than `complete` takes.
        """

    def complete(self, fields: types.ArrayTree) -> None:
        """Fills in the `[N, ...]` fields of the open row (for a stream whose episode has ended they must be zero)."""

    def end_episode(self, mask: types.BoolArray) -> None:
        """Ends the episode of the streams where `mask` `[N]`: the open row is its last, its fields become zero.

        The next row of these streams begins an episode (a stack of frames starts anew there).
        """

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
        """Creates M items.

        An item of a `Transitions` table covers the rows `start` and `start + length` of its stream, an item of a
        `Sequences` table the rows `start, ..., start + length - 1`, padded with zeros up to the table's length.
        The rows must be among the last `window` rows that the writer keeps. What the limiter does not let in yet
        waits (`flush`), and this does not wait for it; a `ReverbReplay` does once too many items wait.

        Args:
            table: the table's name.
            streams: `[M]` in [0, N).
            starts: `[M]` row numbers.
            lengths: `[M]` at least 1.
            priorities: `[M]` finite and not negative; 1 unless given.
            values: tree `[M, ...]` of the table's item values: for `Transitions` the (reward, discount) pair, for
                `Sequences` a tree like `Sequences.start`.

        Raises:
            KeyError: there is no such table.
            ValueError: a priority is negative, infinite, NaN or too large (`tables.Prioritized`), rows are out of the
                window, or `values` does not fit the table.
        """

    def create_item_in_each(self, table: str, start: int, length: int, *, values: types.ArrayTree = ()) -> None:
        """Creates the same item in every stream, in their order, with priority 1.

        What `create_items` does for all streams with equal starts and lengths, in less time: the usual case of streams
        that are all within their episodes. `values` has leaves `[N, ...]`.

        Raises:
            KeyError: there is no such table.
            ValueError: the rows are out of the window, or `values` does not fit the table.
        """

    def flush(self, timeout_seconds: float | None = None) -> None:
        """Returns once the limiter has let in all items created so far.

        Raises:
            TimeoutError: it did not in this time; the message holds the limiter's counts. The writer stays usable.
        """

    def close(self) -> None:
        """Ends the writer and drops what is pending (except what a Reverb server has received already)."""


class Dataset(Iterator[Sample], Protocol):
    """An endless iterator of samples of one table (or of several datasets put together)."""

    def __next__(self) -> Sample:
        """Returns the next sample; waits for the limiter.

        Raises:
            TimeoutError: the limiter gave no batch within the dataset's `timeout_seconds`; holds its counts.
        """

    def ready(self) -> bool:
        """Whether the next sample can be had without waiting."""

    def due(self) -> bool:
        """Whether a single-threaded runner should draw now.

        As `ready`, but only up to the middle of the limiter's window.
        """

    def update_priorities(self, info: Any, priorities: Any) -> None:
        """Sets the priorities of a sample's items.

        Args:
            info: the `info` of a sample of this dataset; items that have left the table meanwhile are skipped.
            priorities: array of the same shape as `info.keys` (a tuple of them where datasets were put together).
        """

    def state(self) -> Any:
        """Returns what is needed to go on drawing the same samples (with the replay's own state beside it)."""

    def restore(self, state: Any) -> None:
        """Puts back what `state` returned."""

    def close(self) -> None:
        """Stops drawing; `__next__` in another thread ends with an error."""


class Replay(Protocol):
    """Tables of experience. Safe from several threads."""

    def writer(self, num_streams: int = 1) -> Writer:
        """Returns a writer of N streams."""

    def dataset(
        self,
        table: str,
        batch_size: int,
        *,
        num_batches: int | None = None,
        seed: int = 0,
        timeout_seconds: float | None = None,
    ) -> Dataset:
        """Returns a dataset that draws `batch_size` items at a time, `[B, ...]`.

        With `num_batches` K it draws K batches at once, `[K, B, ...]`.

        Raises:
            ValueError: the table's limiter could never give so many items at once.
        """

    def can_insert(self, num_items: int, table: str | None = None) -> bool:
        """Whether the limiter would let in so many more items now (in every table unless one is named)."""

    def can_sample(self, table: str, num_items: int) -> bool:
        """Whether the limiter would give so many items now."""

    def update_priorities(self, table: str, keys: np.ndarray, priorities: np.ndarray) -> None:
        """Sets priorities by key; keys that have left the table are skipped.

        Raises:
            ValueError: a priority is negative, infinite, NaN or too large (`tables.Prioritized`).
        """

    def info(self) -> ReplayInfo:
        """Returns sizes, counts and limiter states."""

    def save(self) -> Any:
        """Returns the whole contents as a tree of what a checkpoint holds, see `checkpointing.trees`."""

    def restore(self, state: Any) -> None:
        """Puts back what `save` returned into a replay of the same tables."""

    def close(self) -> None:
        """Frees the contents; whoever waits in another thread gets an error."""
