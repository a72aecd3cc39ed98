"""A directory of checkpoints.

A checkpoint is a folder: `arrays/`, written by Orbax, with the small arrays as one, `folders/`, with the files of the
state's folders, `state.json`, which says how these make up the state, and `manifest.json`, which lists every file with
its size and checksum. It is written under a hidden name, brought to the disk and renamed, so a checkpoint that has its
name is whole; the older ones are removed only then.
"""

from __future__ import annotations

import ctypes
import errno
import json
import logging
import math
import os
import pathlib
import re
import shutil
import sys
import time
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from acme_lite.checkpointing import trees

_logger = logging.getLogger(__name__)

_PREFIX = "checkpoint-"
_NAME = re.compile(_PREFIX + r"\d+")  # anything else, such as a copy made by hand, is none of ours
_LEFTOVER = re.compile(r"\.(removed-)?" + _NAME.pattern)
_ARRAYS, _FOLDERS, _STATE, _MANIFEST = "arrays", "folders", "state.json", "manifest.json"
_FORMAT = 4
_CHUNK_BYTES = 1 << 20
_SMALL, _SMALL_BYTES = "small", 1 << 20
_STRAGGLER_SECONDS = 5.0
_NAP_SECONDS = 0.1
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_FULL_TEXTS = ("No space left", "Disk quota exceeded", "File too large")


class CheckpointError(RuntimeError):
    """There are checkpoints, and none of them can be read."""


class DiskFullError(OSError):
    """Nothing more can be written; says where, and what is left."""


def disk_full(error: BaseException | None, directory: pathlib.Path, what: str, advice: str) -> DiskFullError | None:
    """Returns an error that explains a full disk, if that is what an error, or one that led to it, is about.

    Args:
        error: what was raised.
        directory: where it was written.
        what: what could not be written.
        advice: a last sentence.
    """
    while error is not None:
        if isinstance(error, DiskFullError):
            return error
        by_number = isinstance(error, OSError) and error.errno in _FULL
        if by_number or any(text in str(error) for text in _FULL_TEXTS):  # Orbax and Reverb tell in words alone
            existing = next(path for path in (directory, *directory.absolute().parents) if path.exists())
            free = shutil.disk_usage(existing).free
            return DiskFullError(
                errno.ENOSPC,
                f"{what} could not be written to {directory}, where {free:,} bytes are free: the disk is full, or a "
                f"limit on files is reached. {advice}",
            )
        error = error.__cause__ or error.__context__
    return None


class Checkpoints:
    """The checkpoints of one run, in a directory of their own. One process at a time may write there.

    Attributes:
        directory: where they lie; made at the first `save`.

    Args:
        directory: where they lie.
        keep: how many whole ones are kept, at least 1.
    """

    def __init__(self, directory: str | os.PathLike[str], *, keep: int = 2):
        if keep < 1:
            raise ValueError(f"keep must be at least 1, got {keep}.")
        self.directory = pathlib.Path(directory)
        self._keep = keep
        self._damaged: set[str] = set()

    def names(self) -> list[str]:
        """Returns the names of the checkpoints, oldest first."""
        if not self.directory.is_dir():
            return []
        return sorted((path.name for path in self.directory.iterdir() if _NAME.fullmatch(path.name)), key=_number)

    def save(self, state: Any, labels: Mapping[str, Any]) -> pathlib.Path:
        """Writes a checkpoint, removes those that are too many, and returns its folder.

        Files of the state's folders become links to the same contents (copies where the file system has none): they may
        be removed or replaced afterwards, but not be written into.

        Args:
            state: see `trees`.
            labels: of JSON's own types; what `load_newest` gives beside the state.

        Raises:
            DiskFullError: the disk is full; the older checkpoints are as before.
            OSError: it could not be written for another reason, or a folder of the state is not there.
            TypeError: the state holds something that a checkpoint cannot.
        """
        description, leaves = trees.flatten(state)
        names = self.names()
        number = 1 + max(map(_number, names), default=0)
        path = self.directory / f"{_PREFIX}{number:06d}"
        temporary = self.directory / f".{path.name}"
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            temporary.mkdir()
            layout = _write_arrays(temporary / _ARRAYS, leaves.arrays)
            for index, folder in enumerate(leaves.folders):
                shutil.copytree(folder, temporary / _FOLDERS / str(index), copy_function=_link)
            (temporary / _STATE).write_text(
                json.dumps({"labels": dict(labels), "arrays": layout, "state": description})
            )
            _seal(temporary)
            os.rename(temporary, path)
            _sync(self.directory)
        except Exception as error:
            _remove_failed(temporary)
            what = f"A checkpoint of up to {sum(array.nbytes for array in leaves.arrays):,} bytes"
            names = self.names()
            last = f"The last whole one is {self.directory / names[-1]}." if names else "There is no earlier one."
            explained = disk_full(error, self.directory, what, last)
            if explained is not None:
                raise explained from error
            raise
        whole = [name for name in (*names, path.name) if name not in self._damaged]
        for name in {*names, path.name}.difference(whole[-self._keep :]):
            self._remove(name)
        self._damaged.clear()
        return path

    def load_newest(self) -> tuple[Any, dict[str, Any], pathlib.Path] | None:
        """Returns the state, the labels and the folder of the newest checkpoint; None where there is none.

        One that is damaged is logged as a warning, and the one before it is taken. A folder of the state is where it
        lies in the checkpoint now.

        Raises:
            CheckpointError: all are damaged; says what is wrong with each.
        """
        problems = []
        for name in reversed(self.names()):
            path = self.directory / name
            try:
                state, labels = _read(path)
            except Exception as error:  # whatever a damaged file makes its readers raise
                problems.append(f"{path}: {error}")
                self._damaged.add(name)
                _logger.warning("The checkpoint %s cannot be read, and the one before it is taken: %s", path, error)
            else:
                return state, labels, path
        if problems:
            raise CheckpointError(
                "None of the run's checkpoints can be read; delete their folder to start the run anew:\n  "
                + "\n  ".join(problems)
            )
        return None

    def clear(self) -> None:
        """Removes all checkpoints, and their directory where nothing else lies in it."""
        if self.directory.is_dir():
            for name in self.names():
                self._remove(name)
            self._remove_leftovers()
            if not any(self.directory.iterdir()):
                self.directory.rmdir()

    def _remove(self, name: str) -> None:
        # Under its own name, a folder of which a part is gone would pass for a damaged checkpoint.
        hidden = self.directory / f".removed-{name}"
        os.rename(self.directory / name, hidden)
        _delete(hidden)

    def _remove_leftovers(self) -> None:
        """Removes what a process that was killed has left half written or half removed."""
        for path in self.directory.iterdir():
            if _LEFTOVER.fullmatch(path.name):
                _delete(path)


def _delete(path: pathlib.Path) -> None:
    """Removes a folder, or a file or a link that somebody has put in its place."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def _number(name: str) -> int:
    return int(name.removeprefix(_PREFIX))


def _write_arrays(path: pathlib.Path, arrays: Sequence[np.ndarray]) -> list[Any]:
    """Writes arrays, the small ones as one, and returns for each of these its type and shape, and None for the others.

    Each array that Orbax writes costs it about a millisecond, and some strings that TensorStore never frees.
    """
    import orbax.checkpoint as ocp  # half a second

    native = [array.astype(array.dtype.newbyteorder("="), copy=False) for array in arrays]
    layout = [[array.dtype.name, list(array.shape)] if array.nbytes < _SMALL_BYTES else None for array in native]
    named = {str(index): array for index, array in enumerate(native) if layout[index] is None}
    if small := b"".join(array.tobytes() for array, described in zip(native, layout, strict=True) if described):
        named[_SMALL] = np.frombuffer(small, np.uint8)
    if named:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
            checkpointer.save(path.absolute(), named)
        _give_memory_back()
    return layout


def _give_memory_back() -> None:
    """Gives what Orbax's threads have freed back to the system.

    Their allocations leave gaps, so that a process would grow by one or two megabytes with each checkpoint.
    """
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim is not None:
            trim(0)


def _read_arrays(path: pathlib.Path, layout: Sequence[Any]) -> list[np.ndarray]:
    """Returns the arrays that `_write_arrays` wrote, and whose layout it returned."""
    import orbax.checkpoint as ocp

    if not path.exists():
        return []
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as checkpointer:
        named = checkpointer.restore(path.absolute())
    small, begin, arrays = np.asarray(named.get(_SMALL, ())), 0, []
    for index, described in enumerate(layout):
        if described is None:
            arrays.append(np.asarray(named[str(index)]))
        else:
            dtype, shape = trees.find_dtype(described[0]), described[1]
            end = begin + dtype.itemsize * math.prod(shape)
            arrays.append(np.frombuffer(small[begin:end].tobytes(), dtype).reshape(shape).copy())
            begin = end
    return arrays


def _remove_failed(path: pathlib.Path) -> None:
    """Removes what could not be written to its end. Once one of Orbax's threads has failed, others write on a while."""
    deadline = time.monotonic() + _STRAGGLER_SECONDS
    while path.exists() and time.monotonic() < deadline:
        shutil.rmtree(path, ignore_errors=True)
        time.sleep(_NAP_SECONDS)


def _read(path: pathlib.Path) -> tuple[Any, dict[str, Any]]:
    try:
        manifest = json.loads((path / _MANIFEST).read_text())
    except ValueError as error:
        raise ValueError(f"{_MANIFEST} cannot be read ({error})") from error
    if manifest["format"] != _FORMAT:
        raise ValueError(f"it has the format {manifest['format']}, and this version reads {_FORMAT}")
    for name, expected in manifest["files"].items():
        found = _measure(path / name)
        if found != expected:
            raise ValueError(f"{name} has size and checksum {found}, and had {expected} when it was written")
    content = json.loads((path / _STATE).read_text())
    folders = path.absolute() / _FOLDERS
    numbers = range(len(list(folders.iterdir())) if folders.exists() else 0)
    leaves = trees.Leaves(_read_arrays(path / _ARRAYS, content["arrays"]), [folders / str(index) for index in numbers])
    return trees.unflatten(content["state"], leaves), content["labels"]


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # on another file system, or on one without links
        shutil.copy2(source, target)


def _seal(folder: pathlib.Path) -> None:
    """Lists the files of a folder with their sizes and checksums, and brings all of it to the disk."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    listed = {path.relative_to(folder).as_posix(): _measure(path) for path in files}
    manifest = folder / _MANIFEST
    manifest.write_text(json.dumps({"format": _FORMAT, "files": listed}))
    for path in (*files, manifest, *(path for path in folder.rglob("*") if path.is_dir()), folder):
        _sync(path)


def _measure(path: pathlib.Path) -> list[int]:
    """Returns the size of a file and its CRC-32."""
    size = checksum = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            size += len(chunk)
            checksum = zlib.crc32(chunk, checksum)
    return [size, checksum]


def _sync(path: pathlib.Path) -> None:
    """Waits until a file, or a directory's names, are on the disk."""
    if os.name == "nt" and path.is_dir():  # Windows opens no directories
        return
    descriptor = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
