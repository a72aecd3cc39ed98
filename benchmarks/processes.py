"""What a figure was measured on, and measurements in processes of their own."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from typing import Any


def machine() -> str:
    """Returns what a figure depends on: the system, the cores that this process may use, and versions."""
    cores = sorted(os.sched_getaffinity(0))
    versions = f"Python {platform.python_version()}, JAX {importlib.metadata.version('jax')}"
    return f"{platform.platform()}, cores {cores}, {versions}"


def measure_alone(script: str, arguments: Any, *, timeout_seconds: float | None = None) -> Any:
    """Returns what a script prints as JSON, in its last line, when its one argument is `arguments` as JSON.

    Raises:
        RuntimeError: the script fails; holds what it wrote to stderr.
        subprocess.TimeoutExpired: it takes longer than `timeout_seconds`.
    """
    command = [sys.executable, script, json.dumps(arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=timeout_seconds)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])
