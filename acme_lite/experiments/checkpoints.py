"""When a run writes checkpoints, and where."""

from __future__ import annotations

import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

from acme_lite import checkpointing, replay
from acme_lite.experiments import config

_FOLDER = "checkpoints"


def open_checkpoints(
    settings: config.CheckpointConfig, config_hash: str, run_directory: pathlib.Path
) -> checkpointing.Checkpoints:
    """Returns the checkpoints of the run with this config in this directory.

    Elsewhere their folder is named after both: directories of different runs may have the same name.
    """
    if settings.directory is None:
        return checkpointing.Checkpoints(run_directory / _FOLDER, keep=settings.keep)
    name = run_directory.name if config_hash in run_directory.name else f"{run_directory.name}-{config_hash}"
    return checkpointing.Checkpoints(pathlib.Path(settings.directory) / name, keep=settings.keep)


def can_resume(settings: config.CheckpointConfig | None, config_hash: str, run_directory: pathlib.Path) -> bool:
    """Returns whether there is a checkpoint, whole or damaged, of the run with this config in this directory."""
    return settings is not None and bool(open_checkpoints(settings, config_hash, run_directory).names())


def why_left_out(settings: config.CheckpointConfig | None, contents: replay.Replay) -> str:
    """Returns why no checkpoint holds the contents of the replay; "" if checkpoints hold them."""
    if settings is None:
        return "no checkpoints are written"
    if not settings.include_replay:
        return "CheckpointConfig.include_replay is False"
    if contents.info().num_bytes <= settings.max_replay_bytes:
        return ""
    return f"the replay is greater than CheckpointConfig.max_replay_bytes = {settings.max_replay_bytes:,}"


def _check_directory(named: str | pathlib.Path, directory: pathlib.Path) -> None:
    """Fails now, and not at the first checkpoint, if nothing can be written there."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=directory).close()
    except OSError as error:
        raise ValueError(
            f"CheckpointConfig.directory must be a folder that can be made and written to, got {str(named)!r}: {error}"
        ) from error


class Schedule:
    """Writes checkpoints of a run.

    Attributes:
        seconds: time spent on them.

    Args:
        settings: when to write.
        checkpoints: where to.
        config_hash: of the run, so that it goes on from its own checkpoints alone.

    Raises:
        ValueError: they cannot be written to the directory that the settings name.
    """

    def __init__(self, settings: config.CheckpointConfig, checkpoints: checkpointing.Checkpoints, config_hash: str):
        self.seconds = 0.0
        if settings.directory is not None:
            _check_directory(settings.directory, checkpoints.directory)
        self._settings = settings
        self._checkpoints = checkpoints
        self._config_hash = config_hash
        self._next_step = settings.every_steps

    def due(self, steps: int) -> bool:
        """Whether a checkpoint should be written at the next end of an episode."""
        return steps >= self._next_step

    def write(self, steps: int, save: Callable[[], Any]) -> None:
        """Writes a checkpoint of what `save` returns.

        Raises:
            OSError: see `checkpointing.Checkpoints.save`.
        """
        start = time.perf_counter()
        self._checkpoints.save(save(), {"actor_steps": steps, "config": self._config_hash})
        self._begin_period(steps)
        self.seconds += time.perf_counter() - start

    def load(self) -> tuple[Any, pathlib.Path]:
        """Returns the state of the newest checkpoint that is whole, and its folder.

        Raises:
            CheckpointError: all are damaged.
            ValueError: they are another run's.
        """
        loaded = self._checkpoints.load_newest()
        assert loaded is not None, "whoever resumes has seen a checkpoint"
        state, labels, path = loaded
        if labels["config"] != self._config_hash:
            raise ValueError(
                f"CheckpointConfig.directory must hold this run's checkpoints or none, got {path.parent}, whose "
                "checkpoints are those of a run with another config."
            )
        self._begin_period(labels["actor_steps"])
        return state, path

    def clear(self) -> None:
        """Removes all checkpoints: the run has finished."""
        self._checkpoints.clear()

    def _begin_period(self, steps: int) -> None:
        period = self._settings.every_steps
        self._next_step = (steps // period + 1) * period
