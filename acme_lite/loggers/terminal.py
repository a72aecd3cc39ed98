"""Rows as lines on the terminal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acme_lite.loggers import output, scalars


class TerminalLogger:
    """Prints each row as one line, such as `actor | actor_steps 1,000 | episode_return 23.5`.

    Args:
        label: the part of the run that the rows come from.
    """

    def __init__(self, label: str):
        self._label = label

    def write(self, row: Mapping[str, Any]) -> None:
        cells = [f"{name} {scalars.format_scalar(scalars.to_scalar(name, value))}" for name, value in row.items()]
        output.say(" | ".join([self._label, *cells]))

    def close(self) -> None:
        pass
