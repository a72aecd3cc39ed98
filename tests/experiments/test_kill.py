"""A run that is killed with SIGKILL; `benchmarks/kill_and_resume.py` does it many times."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_run_that_is_killed_comes_to_the_same_end(tmp_path):
    settings = "--kills 2 --steps 1500 --checkpoint-every 100 --clock-share 0 --seed 0"
    script = [sys.executable, str(ROOT / "benchmarks" / "kill_and_resume.py"), *settings.split()]
    done = subprocess.run(script, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Killed 2 times; 2 starts went on from a checkpoint" in done.stdout
    assert "equal those of the run that was left alone" in done.stdout
