"""Several datasets as one: side by side, or in one batch (demonstrations beside replay)."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np

from acme_lite.replay import interface


class ZippedDataset:
    """An `interface.Dataset` of tuples of samples; made by `zip_datasets`."""

    def __init__(self, datasets: tuple[interface.Dataset, ...]):
        if not datasets:
            raise ValueError("datasets must hold at least one dataset, got none.")
        sources = [source for dataset in datasets if (source := getattr(dataset, "source", None)) is not None]
        if len(set(sources)) < len(sources):
            # There may be items for each of them alone and not for both: whoever asked `ready` would wait for ever.
            names = [name for _, name in sources]
            raise ValueError(f"datasets must be of different tables where their limiters hold back, got {names}.")
        self._datasets = datasets
        self._drawn: list[interface.Sample] = []

    def __iter__(self) -> ZippedDataset:
        return self

    def __next__(self) -> interface.Sample:
        # What was drawn before another dataset's timeout is kept for the next call.
        while len(self._drawn) < len(self._datasets):
            self._drawn.append(next(self._datasets[len(self._drawn)]))
        drawn, self._drawn = self._drawn, []
        return interface.Sample(tuple(sample.data for sample in drawn), tuple(sample.info for sample in drawn))

    def ready(self) -> bool:
        return all(dataset.ready() for dataset in self._datasets[len(self._drawn) :])

    def due(self) -> bool:
        return self.ready() and (bool(self._drawn) or self._datasets[0].due())

    def update_priorities(self, info: tuple, priorities: tuple) -> None:
        for dataset, part, values in zip(self._datasets, info, priorities, strict=True):
            dataset.update_priorities(part, values)

    def state(self) -> tuple:
        return tuple(dataset.state() for dataset in self._datasets)

    def restore(self, state: tuple) -> None:
        for dataset, part in zip(self._datasets, state, strict=True):
            dataset.restore(part)
        self._drawn = []

    def close(self) -> None:
        for dataset in self._datasets:
            dataset.close()


class MixedDataset:
    """An `interface.Dataset` of batches put together; made by `mix_datasets`."""

    def __init__(self, datasets: tuple[interface.Dataset, ...]):
        self._zipped = ZippedDataset(datasets)

    def __iter__(self) -> MixedDataset:
        return self

    def __next__(self) -> interface.Sample:
        data, info = next(self._zipped)
        axis = info[0].keys.ndim - 1
        return interface.Sample(jax.tree.map(lambda *leaves: np.concatenate(leaves, axis), *data), info)

    def ready(self) -> bool:
        return self._zipped.ready()

    def due(self) -> bool:
        return self._zipped.due()

    def update_priorities(self, info: tuple, priorities: Any) -> None:
        if not isinstance(priorities, tuple):
            sizes = [part.keys.shape[-1] for part in info]
            if np.shape(priorities)[-1:] != (sum(sizes),):
                raise ValueError(f"priorities must have {sum(sizes)} entries per batch, got {np.shape(priorities)}.")
            priorities = np.split(np.asarray(priorities), np.cumsum(sizes)[:-1], axis=-1)
        self._zipped.update_priorities(info, tuple(priorities))

    def state(self) -> tuple:
        return self._zipped.state()

    def restore(self, state: tuple) -> None:
        self._zipped.restore(state)

    def close(self) -> None:
        self._zipped.close()


def zip_datasets(*datasets: interface.Dataset) -> ZippedDataset:
    """Returns a dataset of `Sample(tuple of data, tuple of info)`, one of each dataset.

    It is due when the first dataset is due and the others are ready: the first sets the pace. What was drawn before a
    `TimeoutError` of another dataset is kept for the next call, and is not part of `state`.

    Raises:
        ValueError: there are no datasets, or two of one table that may have items for one of them alone.
    """
    return ZippedDataset(datasets)


def mix_datasets(*datasets: interface.Dataset) -> MixedDataset:
    """Returns a dataset whose batches are those of all datasets, put together along the batch axis in this order.

    Their data must have equal structures. `info` is a tuple, one per dataset; `update_priorities` takes one array for
    the whole batch, or a tuple. The first dataset sets the pace, as in `zip_datasets`.

    Raises:
        ValueError: as `zip_datasets`.
    """
    return MixedDataset(datasets)
