"""acme_lite: distributed reinforcement learning agents from small parts, in JAX.

Submodules are imported when they are first used: `import acme_lite` costs what JAX costs, and neither TensorFlow nor
Reverb nor Launchpad is imported before something asks for it.
"""

from __future__ import annotations

import importlib
from types import ModuleType

from acme_lite import _runtime as _runtime  # sets what must be set before JAX's backend starts

__version__ = "0.1.0"

_SUBMODULES = frozenset(
    {
        "acting",
        "adders",
        "agents",
        "checkpointing",
        "command_line",
        "core",
        "counting",
        "environment_loop",
        "environments",
        "experiments",
        "launching",
        "learning",
        "loggers",
        "networks",
        "replay",
        "specs",
        "testing",
        "types",
    }
)


def __getattr__(name: str) -> ModuleType:
    if name in _SUBMODULES:
        return importlib.import_module(f"acme_lite.{name}")
    raise AttributeError(f"module 'acme_lite' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_SUBMODULES})
