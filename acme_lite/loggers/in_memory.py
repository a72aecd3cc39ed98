"""Rows kept in memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from acme_lite.loggers import scalars


class InMemoryLogger:
    """Keeps every row.

    Attributes:
        rows: the rows so far, oldest first, with Python's own numbers.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, scalars.Scalar]] = []

    def write(self, row: Mapping[str, Any]) -> None:
        self.rows.append({name: scalars.to_scalar(name, value) for name, value in row.items()})

    def close(self) -> None:
        pass
