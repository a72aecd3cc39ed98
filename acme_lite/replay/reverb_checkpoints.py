"""Checkpoints that Reverb servers write, one after another, below one directory.

Each server has a folder there: it would rather load what it finds in its folder than what it is given, and removes what
is older. Its checkpoints are folders named by the time, and the file `DONE` is the last that it writes to one.
"""

from __future__ import annotations

import errno
import os
import pathlib
import shutil
import tempfile
import zlib

from acme_lite import checkpointing

_PREFIX = "server_"
_DONE = "DONE"
_READ_BYTES = 1 << 16  # up to a thousand times as much when it is decompressed


def make_folder(directory: pathlib.Path) -> pathlib.Path:
    """Returns a fresh folder for a server, below a directory that is made where it is not there."""
    directory.mkdir(parents=True, exist_ok=True)
    return pathlib.Path(tempfile.mkdtemp(prefix=_PREFIX, dir=directory))


def newest(directory: pathlib.Path) -> pathlib.Path | None:
    """Returns the newest complete checkpoint in a directory, whoever put it there; None if there is none."""
    complete = (done.parent for pattern in ("*", f"{_PREFIX}*/*") for done in directory.glob(f"{pattern}/{_DONE}"))
    return max(complete, key=lambda path: path.name, default=None)


def remove_unfinished(directory: pathlib.Path) -> None:
    """Removes what servers have begun to write in their folders below a directory and could not finish."""
    for path in directory.glob(f"{_PREFIX}*/*"):
        if not (path / _DONE).exists():
            shutil.rmtree(path)


def remove_folders(directory: pathlib.Path, *kept: pathlib.Path) -> None:
    """Removes the folders of servers below a directory, but for those that are kept."""
    for folder in directory.glob(f"{_PREFIX}*"):
        if folder not in kept:
            shutil.rmtree(folder)


def check_whole(checkpoint: pathlib.Path) -> None:
    """Checks that the files of a checkpoint hold what was written: each is one compressed stream with a checksum.

    Of some damages a server says no more than "corrupted record", and others end its process.

    Raises:
        CheckpointError: they do not; names the first.
    """
    for path in sorted(checkpoint.glob("*.tfrecord")):
        stream = zlib.decompressobj()
        with path.open("rb") as file:
            try:
                while compressed := file.read(_READ_BYTES):
                    stream.decompress(compressed)
            except zlib.error as error:
                raise checkpointing.CheckpointError(f"The Reverb checkpoint {path} is damaged: {error}.") from None
        if not stream.eof:
            raise checkpointing.CheckpointError(f"The Reverb checkpoint {path} is damaged: its end is missing.")


def check_written(checkpoint: pathlib.Path) -> None:
    """Takes the mark of completeness from a checkpoint whose last bytes did not come to the disk.

    A server overlooks that, since they are written when it closes a file.

    Raises:
        OSError: it is so.
    """
    try:
        check_whole(checkpoint)
    except checkpointing.CheckpointError as error:
        (checkpoint / _DONE).unlink()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(checkpoint)) from error
