"""Do memory, connections and the samples per insert of a program stay where they are while its actors die?

    uv run benchmarks/soak_distributed.py --minutes 20

DQN on CartPole-v1; a random actor is killed with SIGKILL every so often, and started again by the launcher. Writes, for
each look from outside, a row of a CSV file: what was counted, the memory (proportional set size) and the open sockets
of each node, and how far samples per insert are from what the limiter keeps, in error buffers; and a plot of it.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import pathlib
import random
import statistics
import sys
import tempfile
import time
from typing import Any

import distributed
import processes
import tyro
import watching


@dataclasses.dataclass(frozen=True)
class Soak:
    """What to run."""

    minutes: float = 20.0
    """How long, from the first SGD step on."""
    num_actors: int = 4
    """Actors."""
    kill_seconds: float = 30.0
    """From one killed actor to the next."""
    interval_seconds: float = 5.0
    """From row to row."""
    topology: str = "learner"
    """Where the Reverb server is: in the learner's process ("learner") or in a node of its own ("node")."""
    seed: int = 0
    """Seed of which actor is killed."""
    output: pathlib.Path = pathlib.Path("runs/soak_distributed")
    """Where soak.csv and soak.png go."""


def main(soak: Soak) -> None:
    print(f"{processes.machine()}, {soak}", flush=True)
    soak.output.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        workload = {
            "agent": "dqn",
            "num_actors": soak.num_actors,
            "steps_per_update": 4,
            "num_steps_per_call": 8,
            "topology": soak.topology,
            "folder": folder,
            "max_restarts": 1_000,
        }
        limiter = distributed.make_limiter(workload)
        command = [sys.executable, distributed.__file__, json.dumps(workload)]
        with watching.Program(command, pathlib.Path(folder, "logs")) as program:
            program.wait_for_count("learner_steps")
            rows = watch(soak, program, limiter)
    write(soak, rows)
    report(rows)


def watch(soak: Soak, program: watching.Program, limiter: Any) -> list[dict[str, float]]:
    """Kills actors and looks at the program until the time is over."""
    rng = random.Random(soak.seed)
    rows: list[dict[str, float]] = []
    begun = time.monotonic()
    num_kills = 0
    while (seconds := time.monotonic() - begun) < 60 * soak.minutes:
        if seconds >= (num_kills + 1) * soak.kill_seconds:
            num_kills += program.kill(f"actor/{rng.randrange(soak.num_actors)}")
        counts = program.counts()
        rows.append(
            {
                "seconds": seconds,
                "kills": num_kills,
                "actor_steps": counts["actor_steps"],
                "learner_steps": counts["learner_steps"],
                "balance": distributed.balance(limiter, program.client("learner/0").tables()),
                **{f"megabytes {node}": size for node, size in program.memory().items()},
                **{f"sockets {node}": number for node, number in program.num_sockets().items()},
            }
        )
        time.sleep(soak.interval_seconds)
    return rows


def write(soak: Soak, rows: list[dict[str, float]]) -> None:
    """Writes the rows, and a plot of them."""
    from matplotlib import figure

    names = sorted({name for row in rows for name in row})
    with (soak.output / "soak.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, names)
        writer.writeheader()
        writer.writerows(rows)
    made = figure.Figure(figsize=(8, 9), layout="constrained")
    top, middle, bottom = made.subplots(3, sharex=True)
    minutes = [row["seconds"] / 60 for row in rows]
    for axes, kind in ((top, "megabytes"), (middle, "sockets")):
        for name in names:
            if name.startswith(kind):
                axes.plot(minutes, [row.get(name, float("nan")) for row in rows], label=name.removeprefix(kind))
        axes.set_ylabel(kind)
        axes.set_ylim(bottom=0)
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
    bottom.plot(minutes, [row["balance"] for row in rows])
    bottom.set_ylabel("balance in error buffers")
    bottom.set_ylim(-1.1, 1.1)
    bottom.set_xlabel("minutes")
    made.suptitle(f"{soak.num_actors} actors, one killed every {soak.kill_seconds:g} s, {rows[-1]['kills']:g} in all")
    made.savefig(soak.output / "soak.png", dpi=120)
    print(f"wrote {soak.output / 'soak.csv'} and {soak.output / 'soak.png'}")


def report(rows: list[dict[str, float]]) -> None:
    """Prints the second quarter of the time beside the last: the first still fills the replay."""
    quarter = max(len(rows) // 4, 1)
    early, late = rows[quarter : 2 * quarter], rows[-quarter:]
    steps = late[-1]["actor_steps"] - rows[0]["actor_steps"]
    seconds = late[-1]["seconds"] - rows[0]["seconds"]
    print(f"{rows[-1]['kills']:g} kills, {steps:,} environment steps, {steps / seconds:,.0f} per second")
    balances = [row["balance"] for row in rows]
    print(f"balance between {min(balances):+.2f} and {max(balances):+.2f} error buffers (it must stay within 1)")
    print("medians of the second and the last quarter, and the most of all:")
    for name in sorted({name for row in rows for name in row if " " in name}):
        values = [
            statistics.median(row[name] for row in part if name in row) if any(name in row for row in part) else 0.0
            for part in (early, late)
        ]
        print(f"    {name:24} {values[0]:7.1f} {values[1]:7.1f} {max(row.get(name, 0.0) for row in rows):7.1f}")


if __name__ == "__main__":
    main(tyro.cli(Soak, description=__doc__))
