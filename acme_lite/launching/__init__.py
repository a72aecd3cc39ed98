"""Programs of many processes: nodes that call each other, and a launcher that watches over them.

What needs gRPC or Launchpad is imported when it is asked for.
"""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = {
    "CallHandle": "node",
    "CallNode": "node",
    "CallOptions": "node",
    "CallTimeoutError": "calls",
    "Client": "calls",
    "DEFAULT_POLICIES": "policies",
    "NodeFailedError": "supervisor",
    "NodePolicy": "policies",
    "ProgramStoppedError": "calls",
    "RemoteError": "calls",
    "Server": "calls",
    "connect": "calls",
    "launch": "supervisor",
    "report_status": "status",
    "say": "status",
}

__all__ = [
    "DEFAULT_POLICIES",
    "CallHandle",
    "CallNode",
    "CallOptions",
    "CallTimeoutError",
    "Client",
    "NodeFailedError",
    "NodePolicy",
    "ProgramStoppedError",
    "RemoteError",
    "Server",
    "connect",
    "launch",
    "report_status",
    "say",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'acme_lite.launching' has no attribute {name!r}")
    return getattr(importlib.import_module(f"acme_lite.launching.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULES})
