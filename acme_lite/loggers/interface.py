"""The interface of loggers, which take rows of named scalars."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeAlias


class Logger(Protocol):
    """Takes rows of named scalars. A logger belongs to one thread. It may be `core.Saveable`, see `docs/resume.md`."""

    def write(self, row: Mapping[str, Any]) -> None:
        """Records a row.

        Args:
            row: name -> Python number, string, or NumPy or JAX scalar. Rows may have different names; none is dropped.

        Raises:
            ValueError: a value is not a scalar; names it.
        """

    def close(self) -> None:
        """Writes out what is buffered and frees what the logger holds; nothing may be written afterwards."""


LoggerFactory: TypeAlias = Callable[[str], Logger]
"""Makes the logger of the part of a run that has this label, such as "actor", "learner" or "evaluator"."""
