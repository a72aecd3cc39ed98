"""Environments: adapters of other packages' environments, wrappers, and vector environments.

What needs Gymnasium is imported when it is asked for, and so is every other suite when `make` is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from acme_lite.environments.adapters import BsuiteEnvironment, DMControlEnvironment
from acme_lite.environments.factory import make, make_vector
from acme_lite.environments.seeding import episode_seed
from acme_lite.environments.sync_vector import SyncVectorEnvironment
from acme_lite.environments.vector import VectorEnvironment
from acme_lite.environments.wrappers import (
    ActionRepeat,
    CanonicalActions,
    ConcatenateObservations,
    FlattenObservation,
    FrameStack,
    SinglePrecision,
    StepLimit,
    Wrapper,
)

if TYPE_CHECKING:
    from acme_lite.environments.gymnasium_environments import GymnasiumEnvironment, GymnasiumVectorEnvironment

__all__ = [
    "ActionRepeat",
    "BsuiteEnvironment",
    "CanonicalActions",
    "ConcatenateObservations",
    "DMControlEnvironment",
    "FlattenObservation",
    "FrameStack",
    "GymnasiumEnvironment",
    "GymnasiumVectorEnvironment",
    "SinglePrecision",
    "StepLimit",
    "SyncVectorEnvironment",
    "VectorEnvironment",
    "Wrapper",
    "episode_seed",
    "make",
    "make_vector",
]

_LAZY = frozenset({"GymnasiumEnvironment", "GymnasiumVectorEnvironment"})


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module("acme_lite.environments.gymnasium_environments"), name)
    raise AttributeError(f"module 'acme_lite.environments' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
