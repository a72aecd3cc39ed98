"""The agents, one module each; a module is imported when it is first used."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

NAMES = {
    "d4pg": "D4PG",
    "dqn": "DQN",
    "impala": "IMPALA",
    "mpo": "MPO",
    "ppo": "PPO",
    "r2d2": "R2D2",
    "sac": "SAC",
    "td3": "TD3",
}
"""Every agent: the module `agents.<name>` holds `<Prefix>Config`, `<Prefix>Builder`, and `VARIANTS` if it has any."""


def config_class(name: str) -> type:
    """Returns the class of an agent's config."""
    return getattr(_module(name), f"{NAMES[name]}Config")


def builder_class(name: str) -> type:
    """Returns the class of an agent's builder."""
    return getattr(_module(name), f"{NAMES[name]}Builder")


def named_configs(name: str) -> dict[str, Any]:
    """Returns an agent's default config under its own name, and those of its variants as `<name>:<variant>`."""
    variants = getattr(_module(name), "VARIANTS", {})
    make = config_class(name)
    return {name: make(), **{f"{name}:{variant}": make(**settings) for variant, settings in variants.items()}}


def _module(name: str) -> ModuleType:
    if name not in NAMES:
        raise ValueError(f"There is no agent {name!r}; there are {', '.join(NAMES)}.")
    return importlib.import_module(f"acme_lite.agents.{name}")


def __getattr__(name: str) -> ModuleType:
    if name in NAMES:
        return _module(name)
    raise AttributeError(f"module 'acme_lite.agents' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *NAMES})
