"""A replay in a Reverb server: in this process, or elsewhere."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from acme_lite.replay import interface, tables
from acme_lite.replay.reverb_dataset import PrefetchingReverbDataset, ReverbDataset, update_priorities
from acme_lite.replay.reverb_link import Link
from acme_lite.replay.reverb_writer import ReverbWriter

_LAST_PORT = 65535


class ReverbReplay:
    """An `interface.Replay` around a Reverb server, which this process starts or which another process has started.

    Both sides build it from the same declarations. Where the server does otherwise than `LocalReplay`:

    - Keys are random, and do not grow with insertion.
    - The server asks the limiter for each item, not for each batch. So a table whose items leave once they have been
      sampled (`max_times_sampled`) gives a batch only if its size stays at the limiter's `min_size` to the last item.
    - What the limiter holds back lies at the server: closing the writer does not drop it.
    - A seed has no effect, and a dataset has no state: the server draws with a generator of its own.
    - Numbers of bytes are those before the server's compression and without its own records (about 1 kB per item).
    - With `prefetch` a dataset draws up to two batches ahead: what is inserted, and new priorities, show two batches
      later at the latest. The server counts what was drawn, not what was taken.

    A server that is gone for a while is waited for: writers and datasets go on when it is back.

    Args:
        tables: declarations of the tables, at least one, all with equal signatures.
        address: "host:port" of a server elsewhere; without it, a server is started in this process.
        port: where the new server listens; a free port unless given.
        checkpoint_directory: where the new server writes its checkpoints, and whose newest it loads; a fresh temporary
            folder unless given, so that nothing is found again. It belongs to one server at a time, and the newest
            checkpoint alone is kept there.
        prefetch: whether datasets draw ahead in a thread, which is the fastest way that draws no more than two batches
            ahead (`benchmarks/reverb_replay.py` holds others against it). Unless given they do, except for a table in
            this process whose items leave once they have been sampled (`max_times_sampled`). Without it they draw
            exactly when they are asked. With a server in this process, either way asks that nobody else samples from
            the table.
        loopback_only: whether the new server refuses whoever is not on this machine. Reverb asks nobody who they are:
            whoever reaches it can read, write and erase.
        max_in_flight_items: a writer waits while more of its items than this have been sent without an answer.
        timeout_seconds: how long to wait for the server to answer, and for the limiter where `max_in_flight_items` are
            on their way.

    Raises:
        CheckpointError: the newest checkpoint in the directory is damaged; names it.
        ImportError: Reverb is not installed; the message says what to install.
        OSError: the port is taken.
        TimeoutError: the server at the address does not answer.
        ValueError: the declarations do not fit together, or are not those of the server or of the newest checkpoint.
    """

    def __init__(
        self,
        tables: Sequence[tables.Table],
        *,
        address: str | None = None,
        port: int | None = None,
        checkpoint_directory: str | os.PathLike | None = None,
        prefetch: bool | None = None,
        loopback_only: bool = True,
        max_in_flight_items: int = 1_000,
        timeout_seconds: float = 60.0,
    ):
        if address is not None and (port is not None or checkpoint_directory is not None):
            raise ValueError(
                f"port and checkpoint_directory belong to a new server, got {port} and {checkpoint_directory} beside "
                f"the address {address!r} of another."
            )
        if address is not None and prefetch is False:
            raise ValueError("prefetch=False needs a server in this process, got the address of another.")
        if address is not None and not _is_address(address):
            raise ValueError(f'address must be "host:port" with a port in [1, {_LAST_PORT}], got {address!r}.')
        if port is not None and not (_is_whole(port) and 0 <= port <= _LAST_PORT):
            raise ValueError(
                f"port must be a whole number in [1, {_LAST_PORT}], or 0 or None for a free one, got {port!r}."
            )
        if not (_is_whole(max_in_flight_items) and max_in_flight_items >= 1):
            raise ValueError(f"max_in_flight_items must be a whole number of at least 1, got {max_in_flight_items!r}.")
        if not (_is_number(timeout_seconds) and timeout_seconds > 0):
            raise ValueError(f"timeout_seconds must be a finite number greater than 0, got {timeout_seconds!r}.")
        self._link = Link(
            tables,
            address=address,
            port=port,
            checkpoint_directory=None
            if checkpoint_directory is None
            else pathlib.Path(checkpoint_directory).absolute(),
            loopback_only=loopback_only,
            max_in_flight_items=max_in_flight_items,
            timeout_seconds=timeout_seconds,
        )
        self._prefetch = prefetch

    @property
    def address(self) -> str:
        """The server's address as host and port."""
        return self._link.address

    def writer(self, num_streams: int = 1) -> ReverbWriter:
        if num_streams < 1:
            raise ValueError(f"num_streams must be at least 1, got {num_streams}.")
        self._link.check_open()
        return ReverbWriter(self._link, num_streams)

    def dataset(
        self,
        table: str,
        batch_size: int,
        *,
        num_batches: int | None = None,
        seed: int = 0,
        timeout_seconds: float | None = None,
    ) -> interface.Dataset:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        if num_batches is not None and num_batches < 1:
            raise ValueError(f"num_batches must be at least 1 or None, got {num_batches}.")
        shape = (batch_size,) if num_batches is None else (num_batches, batch_size)
        declaration = self._link.table(table)
        num_items = batch_size * (num_batches or 1)
        declaration.check_dataset(num_items)
        most = declaration.max_size - declaration.limiter.min_size_to_sample + 1
        if declaration.max_times_sampled and num_items > most:
            raise ValueError(
                f"Table {table!r} could never give {num_items} items at once: a Reverb server stops at the limiter's "
                f"min_size {declaration.limiter.min_size_to_sample} while items leave after "
                f"{declaration.max_times_sampled} samples, so with max_size {declaration.max_size} it gives at most "
                f"{most}."
            )
        prefetch = self._prefetch
        if prefetch is None:
            prefetch = not (self._link.has_server and declaration.max_times_sampled)
        make = PrefetchingReverbDataset if prefetch else ReverbDataset
        return make(self._link, declaration, shape, timeout_seconds)

    def can_insert(self, num_items: int, table: str | None = None) -> bool:
        link = self._link
        link.check_open()
        declarations = list(link.tables.values()) if table is None else [link.table(table)]
        if all(link.plans(one) for one in declarations):
            return all(one.limiter.can_insert(link.planned(one), num_items) for one in declarations)
        counts = link.settled_counts()
        return all(
            not link.num_pending(one.name, counts[one.name]) and link.can_insert(one, counts[one.name], num_items)
            for one in declarations
        )

    def can_sample(self, table: str, num_items: int) -> bool:
        declaration = self._link.table(table)
        return self._link.can_sample(declaration, self._link.settled_counts()[table], num_items)

    def update_priorities(self, table: str, keys: np.ndarray, priorities: np.ndarray) -> None:
        update_priorities(self._link, self._link.table(table), keys, priorities)

    def info(self) -> interface.ReplayInfo:
        link = self._link
        counts = link.settled_counts()
        return interface.ReplayInfo(
            tables={
                name: interface.make_table_info(table, counts[name], link.num_pending(name, counts[name]))
                for name, table in link.tables.items()
            },
            num_bytes=sum(table.max_size * link.layout.item_bytes(table.items) for table in link.tables.values()),
        )

    def save(self) -> dict[str, pathlib.Path | str]:
        """Writes a checkpoint at the server, and returns its path there: as a string where that may be elsewhere.

        It holds the items in the tables, not those that the limiter holds back. The next one takes its place: who wants
        to keep it links or copies it, as `checkpointing.Checkpoints.save` does. A temporary folder of checkpoints is
        kept when the replay is closed once it has been saved.

        Raises:
            DiskFullError: the disk of the server in this process is full.
        """
        return {"checkpoint": self._link.checkpoint()}

    def restore(self, state: dict[str, pathlib.Path | str]) -> None:
        """Replaces the server by one that starts from what `save` returned; open writers and datasets go on with it.

        Raises:
            CheckpointError: the checkpoint is damaged; names it.
            FileNotFoundError: the checkpoint is gone.
            ValueError: the checkpoint is of other tables, or of other settings; the server runs on.
            RuntimeError: the server is not in this process, or no new one could be started; then the replay is closed.
        """
        if not self._link.has_server:
            raise RuntimeError(
                f"The Reverb server at {self.address} can only be restored where it runs: start it with the "
                "checkpoint_directory."
            )
        checkpoint = pathlib.Path(state["checkpoint"]).absolute()
        if not checkpoint.is_dir():
            raise FileNotFoundError(f"There is no checkpoint {str(checkpoint)!r}.")
        self._link.start(checkpoint)

    def close(self) -> None:
        self._link.close()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_address(value: Any) -> bool:
    host, _, port = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 1 <= int(port) <= _LAST_PORT
