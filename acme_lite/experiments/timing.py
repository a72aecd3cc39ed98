"""Where a run's time goes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Any

from acme_lite import loggers, replay
from acme_lite.environment_loop import EnvironmentLoop
from acme_lite.experiments import coordination

_LOG_SECONDS = 5.0


class TimedDataset:
    """A dataset that adds up the seconds spent in it; everything else is the dataset's own."""

    def __init__(self, dataset: replay.Dataset):
        self.seconds = 0.0
        self.batch_size = getattr(dataset, "batch_size", None)
        self._dataset = dataset
        self._lost = False  # samples that were drawn refer to items that are gone
        self.ready = dataset.ready
        self.due = dataset.due
        self.state = dataset.state
        self.restore = dataset.restore
        self.close = dataset.close

    def __iter__(self) -> TimedDataset:
        return self

    def __next__(self) -> replay.Sample:
        start = time.perf_counter()
        sample = next(self._dataset)
        self._lost = False
        self.seconds += time.perf_counter() - start
        return sample

    def forget_samples(self) -> None:
        """Drops the priorities of samples drawn so far, whose items are gone: others may have their keys by now."""
        self._lost = True

    def update_priorities(self, info: Any, priorities: Any) -> None:
        if self._lost:
            return
        start = time.perf_counter()
        self._dataset.update_priorities(info, priorities)
        self.seconds += time.perf_counter() - start


class ActorTimeSplit:
    """Where an actor's time goes, logged every few seconds."""

    def __init__(self, loop: EnvironmentLoop, counts: coordination.Counts, logger: loggers.Logger):
        self._loop, self._counts, self._logger = loop, counts, logger
        self._start = self._logged = time.perf_counter()
        self._waiting_seconds = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time in which the actor waits for its items to be taken."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._waiting_seconds += time.perf_counter() - begun

    def log(self, *, at_once: bool = True) -> None:
        """Writes a row; unless `at_once`, only if the last one is a while ago."""
        now, loop = time.perf_counter(), self._loop
        if not at_once and now - self._logged < _LOG_SECONDS:
            return
        self._logged = now
        self._logger.write(
            {
                "actor_steps": self._counts.actor_steps,
                "own_steps": loop.steps,
                "environment_seconds": loop.environment_seconds,
                "acting_seconds": loop.acting_seconds,
                "adding_seconds": loop.adding_seconds,
                "waiting_seconds": self._waiting_seconds,
                "total_seconds": now - self._start,
            }
        )
