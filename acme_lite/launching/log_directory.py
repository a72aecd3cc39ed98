"""The directory where a launcher writes the logs of its nodes; it may be a run's directory, or lie in one."""

from __future__ import annotations

import pathlib
from typing import IO

_LOCK_FILE = ".launcher.lock"  # `.lock` is a run's
CONNECTIONS_FILE = "nodes.json"


def lock(directory: pathlib.Path) -> IO[bytes]:
    """Locks a directory until the file that it returns is closed, or this process has ended, however it ends.

    Raises:
        RuntimeError: it is that of another launcher.
    """
    import fcntl  # not on Windows, where a run's directory asks this module what is a launcher's

    file = (directory / _LOCK_FILE).open("wb")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.close()
        raise RuntimeError(f"log_directory {directory} is that of another program that runs: choose another") from None
    except OSError:  # some network file systems have no locks
        pass
    return file


def holds_logs(path: pathlib.Path) -> bool:
    """Returns whether a launcher's directory is or lies here."""
    return path.is_dir() and any(path.rglob(_LOCK_FILE))


def is_launchers(path: pathlib.Path) -> bool:
    """Returns whether a launcher has written a file."""
    written = path.suffix == ".log" or path.name == CONNECTIONS_FILE
    return written and path.is_file() and (path.parent / _LOCK_FILE).exists()
