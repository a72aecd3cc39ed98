"""Runs scripts in processes that see two CPU devices."""

import os
import subprocess
import sys


def run(script: str) -> str:
    """Returns what a script has printed; fails with its errors where it fails."""
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout.strip()
