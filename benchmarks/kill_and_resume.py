"""Does a run that is killed again and again come to the same end as one that is left alone?

    uv run benchmarks/kill_and_resume.py --kills 50

Starts `examples/train.py`, kills it with SIGKILL at random moments (while it starts, while it runs, around the writing
of a checkpoint), starts it again each time, and compares what is there at the end with a run that was left alone: the
variables bit for bit, every row of the logs but for times, and the evaluations. Exits with 1 if anything differs, or if
the run comes to its end before it was killed so often.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import tyro

EXAMPLE = pathlib.Path(__file__).resolve().parent.parent / "examples" / "train.py"
LIMIT_SECONDS = 600.0


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to run, and how often to kill it."""

    kills: int = 50
    """Times that the run is killed."""
    steps: int = 400_000
    """Environment steps of the run; so many that it does not come to its end before the last kill."""
    checkpoint_every: int = 2_000
    """Environment steps from one checkpoint to the next."""
    env: str = "gym:CartPole-v1"
    """Environment as suite:task."""
    seed: int = 0
    """Seed of the run, and of the moments of the kills."""
    clock_share: float = 0.3
    """Share of the kills that come at a random time after the start; the others wait for checkpoints."""
    start_seconds: float = 5.0
    """A kill by the clock comes within this time from the start."""
    arguments: str = ""
    """Further arguments of the example, separated by spaces."""


def command(settings: Settings, directory: pathlib.Path) -> list[str]:
    options = {
        "env": settings.env,
        "steps": settings.steps,
        "seed": settings.seed,
        "evaluate-every": max(settings.steps // 10, 1),
        "evaluation-episodes": 5,
        "checkpoint-every": settings.checkpoint_every,
        "directory": directory,
    }
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    return [sys.executable, str(EXAMPLE), "dqn", *words, *settings.arguments.split()]


def checkpoints(directory: pathlib.Path) -> set[str]:
    folder = directory / "checkpoints"
    try:
        return {path.name for path in folder.iterdir()}
    except FileNotFoundError:
        return set()


def run_and_kill(settings: Settings, directory: pathlib.Path, rng: random.Random, log: pathlib.Path) -> bool:
    """Starts the run and kills it; returns False where it came to its end before."""
    before = checkpoints(directory)
    with log.open("ab") as file:
        process = subprocess.Popen(command(settings, directory), stdout=file, stderr=file)
    try:
        if rng.random() < settings.clock_share:
            time.sleep(rng.uniform(0, settings.start_seconds))
        else:
            # Names change while a checkpoint is written and while old ones are removed.
            changes, limit = rng.randint(1, 8), time.monotonic() + LIMIT_SECONDS
            while changes and process.poll() is None and time.monotonic() < limit:
                time.sleep(0.001)
                now = checkpoints(directory)
                changes -= now != before
                before = now
            time.sleep(rng.uniform(0, 0.2))
        ended = process.poll() is not None
    finally:
        process.kill()
        code = process.wait()
    if ended and code != 0:
        raise SystemExit(f"The run ended by itself with exit code {code}; its output is in {log}.")
    return not ended


def rows(directory: pathlib.Path) -> dict[str, list[dict[str, str]]]:
    found = {}
    for path in sorted((directory / "logs").iterdir()):
        with path.open() as file:
            found[path.stem] = [
                {name: value for name, value in row.items() if "second" not in name} for row in csv.DictReader(file)
            ]
    return found


def differences(left: pathlib.Path, killed: pathlib.Path) -> list[str]:
    """Returns what differs between the ends of two runs."""
    found = []
    results = [json.loads((directory / "result.json").read_text()) for directory in (left, killed)]
    found += [name for name in ("counts", "evaluations") if results[0][name] != results[1][name]]
    with np.load(left / "variables.npz") as one, np.load(killed / "variables.npz") as two:
        same = sorted(one) == sorted(two) and all(np.array_equal(one[name], two[name]) for name in one)
    found += [] if same else ["variables"]
    logs = [rows(directory) for directory in (left, killed)]
    return found + [f"logs/{name}.csv" for name in logs[0] if logs[0][name] != logs[1].get(name)]


def main(settings: Settings) -> None:
    folder = pathlib.Path(tempfile.mkdtemp(prefix="kill_and_resume-"))
    rng = random.Random(settings.seed)
    log = folder / "output"
    started = time.monotonic()
    kills = 0
    while kills < settings.kills and run_and_kill(settings, folder / "killed", rng, log):
        kills += 1
    for name in ("killed", "left"):
        with log.open("ab") as file:
            if not (folder / name / "result.json").exists():
                subprocess.run(command(settings, folder / name), check=True, stdout=file, stderr=file)
    resumed = log.read_text(errors="replace").count("goes on after environment step")
    differing = differences(folder / "left", folder / "killed")
    result = json.loads((folder / "killed" / "result.json").read_text())
    means = [round(sum(one["returns"]) / len(one["returns"]), 1) for one in result["evaluations"]]
    print(f"{platform.machine()}, Python {platform.python_version()}; {time.monotonic() - started:.0f} s in all")
    print(f"Killed {kills} times; {resumed} starts went on from a checkpoint. At the end: {result['counts']}.")
    print(f"Mean returns of the evaluations: {means}.")
    if differing:
        raise SystemExit(f"Not as the run that was left alone: {', '.join(differing)}. Files: {folder}")
    print("Counts, evaluations, variables and log rows equal those of the run that was left alone.")
    shutil.rmtree(folder)
    if kills < settings.kills:
        raise SystemExit(f"The run came to its end after {kills} of {settings.kills} kills: it needs more --steps.")


if __name__ == "__main__":
    main(tyro.cli(Settings, description=__doc__))
