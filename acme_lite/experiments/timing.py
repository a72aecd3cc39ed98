"""Where a run's time goes."""

from __future__ import annotations

import time
from typing import Any

from acme_lite import replay


class TimedDataset:
    """A dataset that adds up the seconds spent in it; everything else is the dataset's own."""

    def __init__(self, dataset: replay.Dataset):
        self.seconds = 0.0
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
