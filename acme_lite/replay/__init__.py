"""Replay: tables of experience, writers that fill them and datasets that draw from them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acme_lite.replay import rate_limiters as rate_limiters
from acme_lite.replay.datasets import mix_datasets as mix_datasets
from acme_lite.replay.datasets import zip_datasets as zip_datasets
from acme_lite.replay.interface import Dataset as Dataset
from acme_lite.replay.interface import Replay as Replay
from acme_lite.replay.interface import ReplayInfo as ReplayInfo
from acme_lite.replay.interface import Sample as Sample
from acme_lite.replay.interface import SampleInfo as SampleInfo
from acme_lite.replay.interface import TableInfo as TableInfo
from acme_lite.replay.interface import Writer as Writer
from acme_lite.replay.local import LocalReplay as LocalReplay
from acme_lite.replay.rate_limiters import MinSize as MinSize
from acme_lite.replay.rate_limiters import Queue as Queue
from acme_lite.replay.rate_limiters import SampleToInsertRatio as SampleToInsertRatio
from acme_lite.replay.tables import Fifo as Fifo
from acme_lite.replay.tables import Lifo as Lifo
from acme_lite.replay.tables import Prioritized as Prioritized
from acme_lite.replay.tables import Sequences as Sequences
from acme_lite.replay.tables import Signature as Signature
from acme_lite.replay.tables import Table as Table
from acme_lite.replay.tables import Transitions as Transitions
from acme_lite.replay.tables import Uniform as Uniform

if TYPE_CHECKING:
    from acme_lite.replay.reverb_replay import ReverbReplay as ReverbReplay


def __getattr__(name: str) -> Any:
    # Reverb brings TensorFlow: it is imported when it is asked for.
    if name == "ReverbReplay":
        from acme_lite.replay.reverb_replay import ReverbReplay

        return ReverbReplay
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
