"""Replay: tables of experience, writers that fill them and datasets that draw from them."""

from acme_lite.replay import rate_limiters
from acme_lite.replay.datasets import mix_datasets, zip_datasets
from acme_lite.replay.interface import Dataset, Replay, ReplayInfo, Sample, SampleInfo, TableInfo, Writer
from acme_lite.replay.local import LocalReplay
from acme_lite.replay.rate_limiters import MinSize, Queue, SampleToInsertRatio
from acme_lite.replay.tables import Fifo, Lifo, Prioritized, Sequences, Signature, Table, Transitions, Uniform

__all__ = [
    "Dataset",
    "Fifo",
    "Lifo",
    "LocalReplay",
    "MinSize",
    "Prioritized",
    "Queue",
    "Replay",
    "ReplayInfo",
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
