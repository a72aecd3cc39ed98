"""Rows as comma-separated values, in a file that is complete after every row."""

from __future__ import annotations

import csv
import itertools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from acme_lite.loggers import atomic, scalars


class CSVLogger:
    """Writes rows to a CSV file whose first line names the columns.

    Each row is handed to the operating system at once, so a process that is killed loses none. A column that appears
    late is added at the right: the file is rewritten with the wider header and replaced at once, and the rows before
    it have nothing there. Names and texts are put on one line. An existing file is continued; half a line at its end,
    which only a crash of the machine leaves, is cut off. `save` gives the number of rows, and `restore` drops the rows
    behind that number.

    Args:
        path: the file; its folder is made if there is none.
    """

    def __init__(self, path: str | os.PathLike[str]):
        self._path = pathlib.Path(path)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        self._columns, self._num_rows = _read_columns(self._path)
        self._known = set(self._columns)
        self._open()

    def write(self, row: Mapping[str, Any]) -> None:
        if not row:
            return
        cells = {name if name in self._known else _one_line(name): _cell(name, value) for name, value in row.items()}
        if not cells.keys() <= self._known:
            self._widen([name for name in cells if name not in self._known])
        self._writer.writerow([cells.get(name, "") for name in self._columns])
        self._file.flush()
        self._num_rows += 1

    def save(self) -> int:
        """Returns the number of rows, which are on the disk then."""
        os.fsync(self._file.fileno())
        return self._num_rows

    def restore(self, state: int) -> None:
        if state < self._num_rows:
            self._file.close()
            with self._path.open("rb+") as file:
                for _ in range(1 + state):  # no cell and no name holds the end of a line
                    file.readline()
                file.truncate(file.tell())
            self._num_rows = state
            self._open()

    def drop_after(self, column: str, value: float) -> None:
        """Drops the rows from the first one on that has a greater number in this column."""
        if column not in self._known:
            return
        index = self._columns.index(column)
        with self._path.open(newline="", encoding="utf-8") as file:
            rows = csv.reader(file)
            next(rows)
            kept = itertools.takewhile(lambda row: not row[index] or float(row[index]) <= value, rows)
            num_kept = sum(1 for _ in kept)
        self.restore(num_kept)

    def close(self) -> None:
        self._file.close()

    def _open(self) -> None:
        self._file = self._path.open("a", newline="", encoding="utf-8")
        self._writer = csv.writer(self._file, lineterminator="\n")

    def _widen(self, names: list[str]) -> None:
        """Adds columns; if that fails, the file is as before."""
        columns = self._columns + names
        with (
            atomic.replacing(self._path) as temporary,
            self._path.open(newline="", encoding="utf-8") as old,
            temporary.open("w", newline="", encoding="utf-8") as new,
        ):
            writer = csv.writer(new, lineterminator="\n")
            writer.writerow(columns)
            rows = csv.reader(old)
            next(rows, None)
            writer.writerows(row + [""] * (len(columns) - len(row)) for row in rows)
        self._file.close()
        self._open()
        self._columns = columns
        self._known = set(columns)


def _cell(name: str, value: Any) -> scalars.Scalar:
    scalar = scalars.to_scalar(name, value)
    return _one_line(scalar) if isinstance(scalar, str) else scalar


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


def _read_columns(path: pathlib.Path) -> tuple[list[str], int]:
    """Returns columns and number of rows (none where there is no file), after cutting off half a line at its end."""
    if not path.exists():
        return [], 0
    with path.open("rb+") as file:
        content = file.read()
        file.truncate(content.rfind(b"\n") + 1)
    with path.open(newline="", encoding="utf-8") as lines:
        return next(csv.reader(lines), []), max(content.count(b"\n") - 1, 0)
