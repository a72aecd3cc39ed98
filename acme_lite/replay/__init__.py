"""Replay: tables of experience, writers that fill them and datasets that draw from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acme_lite.replay import rate_limiters
from acme_lite.replay.datasets import mix_datasets, zip_datasets
from acme_lite.replay.interface import ClosedError, Dataset, Replay, ReplayInfo, Sample, SampleInfo, TableInfo, Writer
from acme_lite.replay.local import LocalReplay
from acme_lite.replay.rate_limiters import MinSize, Queue, SampleToInsertRatio
from acme_lite.replay.tables import (
    DEFAULT_TABLE,
    Fifo,
    Lifo,
    Prioritized,
    Sequences,
    Signature,
    Table,
    Transitions,
    Uniform,
)

if TYPE_CHECKING:
    from acme_lite.replay.reverb_replay import ReverbReplay

__all__ = [
    "DEFAULT_TABLE",
    "ClosedError",
    "Dataset",
    "Fifo",
    "Lifo",
    "LocalReplay",
    "MinSize",
    "Prioritized",
    "Queue",
    "Replay",
    "ReplayInfo",
    "ReverbReplay",
    "Sample",
    "SampleInfo",
    "SampleToInsertRatio",
    "Sequences",
    "Signature",
    "Table",
    "TableInfo",
    "Transitions",
    "Uniform",
    "Writer",
    "mix_datasets",
    "rate_limiters",
    "zip_datasets",
]


def __getattr__(name: str) -> Any:
    # Reverb brings TensorFlow: it is imported when it is asked for.
    if name == "ReverbReplay":
        from acme_lite.replay.reverb_replay import ReverbReplay

        return ReverbReplay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
