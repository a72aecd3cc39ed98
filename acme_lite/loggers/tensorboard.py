"""Rows as TensorBoard events.

One event holds a whole row and goes straight to the event file: tensorboardX's `SummaryWriter` would send an event per
scalar through a queue to a thread of its own.
"""

from __future__ import annotations

import itertools
import os
import pathlib
import threading
import time
from collections.abc import Mapping
from typing import Any

from acme_lite.loggers import scalars

# Newer tensorboardX waits for the disk at each flush.
_FLUSH_PERIOD_SECONDS = 1.0
# Event files of one process that are made within a second would have the same name otherwise.
_serial_numbers = itertools.count()

_IMPORTING = threading.Lock()
"""The package's modules import each other: of two threads that begin at once one would find them half made."""


class TensorBoardLogger:
    """Writes the numbers of each row as scalars named `<label>/<name>`; strings are left out.

    A process that is killed loses the rows of its last second, and with them those that no later row has pushed out.
    After `restore` the events go to a new file, and TensorBoard forgets those of later steps in the older ones.

    Args:
        directory: where the event file is made, at the first row.
        label: the part of the run that the rows come from.
        step_key: the name of the column that counts steps, the horizontal axis. A row without it stands at the step of
            the row before (0 at first).
    """

    def __init__(self, directory: str | os.PathLike[str], label: str, step_key: str = "actor_steps"):
        self._directory = pathlib.Path(directory)
        self._label = label
        self._step_key = step_key
        self._step = 0
        self._purge_step: int | None = None
        self._flush_time = 0.0
        self._events: Any = None

    def write(self, row: Mapping[str, Any]) -> None:
        with _IMPORTING:
            from tensorboardX.proto import event_pb2

            if self._events is None:
                self._events = self._open()
        cells = {name: scalars.to_scalar(name, value) for name, value in row.items()}
        self._step = int(cells.get(self._step_key, self._step))
        now = time.time()
        event = event_pb2.Event(wall_time=now, step=self._step)
        add = event.summary.value.add  # half the time of a list of values
        for name, value in cells.items():
            if not isinstance(value, str):
                add(tag=f"{self._label}/{name}", simple_value=value)
        self._events.write_event(event)
        if not 0 <= now - self._flush_time < _FLUSH_PERIOD_SECONDS:
            self._flush_time = now
            self._events.flush()

    def save(self) -> int:
        if self._events is not None:
            self._events.flush()
        return self._step

    def restore(self, state: int) -> None:
        self._step = state
        self._purge_step = state + 1
        self.close()
        self._events = None

    def close(self) -> None:
        if self._events is not None:
            self._events.close()

    def _open(self) -> Any:
        from tensorboardX import event_file_writer
        from tensorboardX.proto import event_pb2

        self._directory.mkdir(parents=True, exist_ok=True)
        suffix = f".{os.getpid()}.{next(_serial_numbers)}"
        events = event_file_writer.EventsWriter(str(self._directory / "events"), suffix)
        if self._purge_step is not None:
            start = event_pb2.SessionLog(status=event_pb2.SessionLog.START)
            events.write_event(event_pb2.Event(wall_time=time.time(), step=self._purge_step, session_log=start))
        return events
