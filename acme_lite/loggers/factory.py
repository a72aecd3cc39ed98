"""Loggers put together."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from acme_lite import core
from acme_lite.loggers import csv_logger, interface, tensorboard


class Dispatcher:
    """Sends each row to several loggers, in their order.

    Args:
        loggers: who gets the rows; they are closed with the dispatcher.
    """

    def __init__(self, loggers: Sequence[interface.Logger]):
        self._loggers = tuple(loggers)

    def write(self, row: Mapping[str, Any]) -> None:
        for logger in self._loggers:
            logger.write(row)

    def save(self) -> list[Any]:
        return [core.save(logger) for logger in self._loggers]

    def restore(self, state: list[Any]) -> None:
        for logger, part in zip(self._loggers, state, strict=True):
            core.restore(logger, part)

    def close(self) -> None:
        """Closes every logger, also where another one fails to close."""
        with contextlib.ExitStack() as stack:
            for logger in reversed(self._loggers):
                stack.callback(logger.close)


def make_logger_factory(
    directory: str | os.PathLike[str],
    *,
    step_key: str = "actor_steps",
    tensorboard_events: bool = True,
    drop_after_step: int | None = None,
) -> interface.LoggerFactory:
    """Returns a factory of loggers that write under a run's directory.

    The logger with a label writes `<directory>/logs/<label>.csv`, and TensorBoard events in
    `<directory>/tensorboard/<label>`.

    Args:
        directory: the run's directory.
        step_key: the column that is TensorBoard's horizontal axis.
        tensorboard_events: whether to write TensorBoard events at all.
        drop_after_step: what earlier loggers have written behind this step is dropped; None keeps all.
    """
    root = pathlib.Path(directory)

    def make_logger(label: str) -> interface.Logger:
        rows = csv_logger.CSVLogger(root / "logs" / f"{label}.csv")
        if drop_after_step is not None:
            rows.drop_after(step_key, drop_after_step)
        if not tensorboard_events:
            return rows
        events = tensorboard.TensorBoardLogger(root / "tensorboard" / label, label, step_key)
        if drop_after_step is not None:
            events.restore(drop_after_step)
        return Dispatcher([rows, events])

    return make_logger
