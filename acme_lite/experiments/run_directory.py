"""Run directories: where a run writes follows from what it runs.

A directory holds `config.json` from the start and `result.json` once the run has finished. While a run is under way it
holds a lock on `.lock` there, which ends with its process, however that ends.
"""

from __future__ import annotations

import dataclasses
import enum
import errno
import functools
import hashlib
import itertools
import json
import logging
import math
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from acme_lite.launching import log_directory
from acme_lite.loggers import atomic

CONFIG_FILE = "config.json"
RESULT_FILE = "result.json"

_LOCK_FILE = ".lock"

_logger = logging.getLogger(__name__)
_MISSING = object()
_HASH_DIGITS = 8


class RunDirectory(NamedTuple):
    """The directory of a run that is under way.

    Attributes:
        path: the directory.
        resumed: whether the run goes on there; otherwise it begins.
        close: gives the directory free for other processes.
    """

    path: pathlib.Path
    resumed: bool
    close: Callable[[], None]


def never(path: pathlib.Path) -> bool:
    """Says that no run can be resumed."""
    return False


def make_run_directory(
    root: str | os.PathLike[str],
    parts: Sequence[Any],
    config: Any,
    *,
    can_resume: Callable[[pathlib.Path], bool] = never,
) -> RunDirectory:
    """Makes the directory of a run, named after its parts and a hash of its config, and returns it.

    For the parts ("dqn", "CartPole-v1", "seed0") it is `<root>/dqn-CartPole-v1-seed0-<hash>`. What happens if the run
    was started before: see `open_run_directory`.

    Args:
        root: where runs lie.
        parts: agent, environment, seed; characters that file names should not have become "_".
        config: everything that the run follows from, see `describe`.
        can_resume: as in `open_run_directory`.

    Raises:
        ValueError: there are no parts.
        RuntimeError: as in `open_run_directory`.
    """
    if not parts:
        raise ValueError("parts must hold at least one part of a name, got none.")
    name = "-".join(re.sub(r"[^A-Za-z0-9._+-]+", "_", str(part)) for part in parts)
    path = pathlib.Path(root) / f"{name}-{config_hash(config)}"
    return open_run_directory(path, config, can_resume=can_resume)


def open_run_directory(
    directory: str | os.PathLike[str], config: Any, *, can_resume: Callable[[pathlib.Path], bool] = never
) -> RunDirectory:
    """Makes a directory, named by the user, for a run with this config, and returns it.

    If a run with this config was finished there, the next of `<directory>-2`, `<directory>-3`, ... is taken. An
    unfinished one goes on if it can be resumed; otherwise what it has written is moved to `interrupted-<k>`.

    Args:
        directory: the directory.
        config: everything that the run follows from, see `describe`.
        can_resume: whether an unfinished run can go on in its directory.

    Raises:
        ValueError: the directory holds another config (the message says which fields differ), a damaged one, or other
            files, or cannot be made.
        RuntimeError: another process runs there; names it.
    """
    base = pathlib.Path(directory)
    for number in itertools.count(1):
        path = base if number == 1 else base.with_name(f"{base.name}-{number}")
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                raise
            raise ValueError(f"directory must be a folder that can be made, got {path}: {error}.") from error
        _check_config(path, config)
        if is_finished(path):
            continue
        unlock = _lock(path)
        try:
            _check_config(path, config)  # another process may have been quicker
            if not is_finished(path):
                resumed = can_resume(path)
                if not resumed:
                    _start_anew(path)
                write_json(path / CONFIG_FILE, describe(config))
                return RunDirectory(path, resumed, unlock)
        except BaseException:
            unlock()
            raise
        unlock()
    raise AssertionError("there are more numbers than directories")


def is_finished(directory: str | os.PathLike[str]) -> bool:
    """Whether a run has finished in this directory."""
    return (pathlib.Path(directory) / RESULT_FILE).exists()


def config_hash(config: Any) -> str:
    """Returns the first 8 hexadecimal digits of the SHA-256 of a config's description."""
    canonical = json.dumps(describe(config), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:_HASH_DIGITS]


def write_json(path: str | os.PathLike[str], tree: Any) -> None:
    """Writes a tree of JSON's own types, readably; the file is replaced at once."""
    with atomic.replacing(path) as temporary:
        temporary.write_text(json.dumps(tree, indent=2, allow_nan=False) + "\n", encoding="utf-8")


def describe(value: Any) -> Any:
    """Returns a config as a tree of JSON's own types that is the same in every process.

    Dataclasses and named tuples become objects of their fields, with their class beside; functions and classes become
    their qualified names, and so do objects of any other class, whose contents are not looked into. What a function
    has closed over is not seen either: two lambdas written in the same function look alike.
    """
    if hasattr(value, "__array__") and not isinstance(value, type):
        value = np.asarray(value).tolist()
    fields = _fields(value)
    if fields is not None:
        return {"__class__": _qualified_name(type(value)), **describe(fields)}
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, Set):
        return sorted((describe(item) for item in value), key=json.dumps)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [describe(item) for item in value]
    return _describe_leaf(value)


def _fields(value: Any) -> dict[str, Any] | None:
    """Returns the fields of a record, or None for anything else."""
    if isinstance(value, type):
        return None
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return value._asdict()
    if isinstance(value, functools.partial):
        return {"function": value.func, "arguments": value.args, "keywords": value.keywords}
    return None


def _describe_leaf(value: Any) -> Any:
    if isinstance(value, enum.Enum):
        return f"{_qualified_name(type(value))}.{value.name}"
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "__qualname__") or hasattr(value, "__name__"):
        return _qualified_name(value)
    # An object that writes itself down for users (a schedule) is described so; the default names its address.
    return _qualified_name(type(value)) if type(value).__str__ is object.__str__ else str(value)


def differences(there: Any, here: Any, path: str = "") -> list[str]:
    """Returns one line for each field in which two descriptions differ, such as `seed: 0 there, 1 here`."""
    if isinstance(there, dict) and isinstance(here, dict):
        names = [*there, *(name for name in here if name not in there)]
        return [
            line
            for name in names
            for line in differences(
                there.get(name, _MISSING), here.get(name, _MISSING), f"{path}.{name}" if path else name
            )
        ]
    if there == here:
        return []
    shown = ["nothing" if side is _MISSING else json.dumps(side) for side in (there, here)]
    return [f"{path}: {shown[0]} there, {shown[1]} here"]


def _qualified_name(value: Any) -> str:
    module = getattr(value, "__module__", None) or type(value).__module__  # NumPy's functions have none of their own
    return f"{module}.{getattr(value, '__qualname__', None) or value.__name__}"


def _contents(directory: pathlib.Path) -> list[pathlib.Path]:
    """Returns what lies in a directory, but for hidden files, which a crash may have left, and a launcher's logs."""
    return [
        path
        for path in sorted(directory.iterdir())
        if not (path.name.startswith(".") or log_directory.is_launchers(path))
        and not (log_directory.holds_logs(path) and not _contents(path))
    ]


def _check_config(directory: pathlib.Path, config: Any) -> None:
    """Raises ValueError if a directory belongs to another run or to none."""
    file = directory / CONFIG_FILE
    if not file.exists():
        if _contents(directory):
            raise ValueError(f"directory must be new, empty or a run's, got {directory}, which has no {CONFIG_FILE}.")
        return
    try:
        there = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"directory must hold a whole {CONFIG_FILE} or none, got {file}: {error}.") from error
    differing = differences(there, describe(config))
    if differing:
        raise ValueError(
            f"directory must be new or hold a run with this config, got {directory}, where these fields differ:\n  "
            + "\n  ".join(differing)
        )


def _lock(directory: pathlib.Path) -> Callable[[], None]:
    """Locks a directory for this process, where the system can; returns what unlocks it.

    Raises:
        RuntimeError: it is locked already.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return lambda: None
    file = (directory / _LOCK_FILE).open("a+")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        file.seek(0)
        owner = file.read().strip()
        file.close()
        raise RuntimeError(
            f"A run of this experiment is under way in {directory} (process {owner or 'unknown'}): wait for its end, "
            "or choose another directory or seed."
        ) from None
    except OSError as error:  # some network file systems have no locks
        _logger.warning("%s cannot be locked (%s): start this run once only.", directory, error)
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file.close


def _start_anew(directory: pathlib.Path) -> None:
    """Moves what an unfinished run has written to `interrupted-<k>`, so that nothing is lost and nothing mixed."""
    written = [path for path in _contents(directory) if not path.name.startswith("interrupted-")]
    if not any(path.name != CONFIG_FILE for path in written):
        return
    number = next(k for k in itertools.count(1) if not (directory / f"interrupted-{k}").exists())
    aside = directory / f"interrupted-{number}"
    aside.mkdir()
    for path in written:
        if path.name != CONFIG_FILE:
            _move(path, aside)
    _logger.warning(
        "A run that had not finished in %s has no checkpoint here to go on from: moved to %s.", directory, aside
    )


def _move(path: pathlib.Path, directory: pathlib.Path) -> None:
    """Moves a path into a directory, but leaves a launcher's logs where nodes that run write them."""
    target = directory / path.name
    if not log_directory.holds_logs(path):
        path.rename(target)
        return
    target.mkdir()
    for each in _contents(path):
        _move(each, target)
