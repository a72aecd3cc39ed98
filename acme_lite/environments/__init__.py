"""Environments: adapters of other packages' environments, wrappers, and vector environments.

What needs Gymnasium is imported when it is asked for, and so is every other suite when `make` is called.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from acme_lite.environments.adapters import BsuiteEnvironment as BsuiteEnvironment
from acme_lite.environments.adapters import DMControlEnvironment as DMControlEnvironment
from acme_lite.environments.factory import make as make
from acme_lite.environments.factory import make_vector as make_vector
from acme_lite.environments.seeding import episode_seed as episode_seed
from acme_lite.environments.sync_vector import SyncVectorEnvironment as SyncVectorEnvironment
from acme_lite.environments.vector import VectorEnvironment as VectorEnvironment
from acme_lite.environments.wrappers import ActionRepeat as ActionRepeat
from acme_lite.environments.wrappers import CanonicalActions as CanonicalActions
from acme_lite.environments.wrappers import ConcatenateObservations as ConcatenateObservations
from acme_lite.environments.wrappers import FlattenObservation as FlattenObservation
from acme_lite.environments.wrappers import FrameStack as FrameStack
from acme_lite.environments.wrappers import SinglePrecision as SinglePrecision
from acme_lite.environments.wrappers import StepLimit as StepLimit
from acme_lite.environments.wrappers import Wrapper as Wrapper

if TYPE_CHECKING:
    from acme_lite.environments.gymnasium_environments import GymnasiumEnvironment as GymnasiumEnvironment
    from acme_lite.environments.gymnasium_environments import GymnasiumVectorEnvironment as GymnasiumVectorEnvironment

_LAZY = frozenset({"GymnasiumEnvironment", "GymnasiumVectorEnvironment"})


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module("acme_lite.environments.gymnasium_environments"), name)
    raise AttributeError(f"module 'acme_lite.environments' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LAZY})
