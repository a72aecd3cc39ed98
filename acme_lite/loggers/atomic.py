"""Files that are replaced at once: a reader, or whoever comes after a crash, sees the old one or the new one."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
    """Gives a path to write to, which takes the place of `path` when the block ends without an error.

    The new file lies beside `path`, hidden and with the same suffix, until then; after an error it is removed.
    """
    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}{path.suffix}")
    try:
        yield temporary
        with temporary.open("rb+") as file:  # first the contents and then the name, also where the machine dies
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
