"""Do more actors change the return per environment step?

    uv run benchmarks/actors_and_returns.py
    uv run benchmarks/actors_and_returns.py --tasks dqn-catch

Each run is a program of `examples/train.py` with so many actors; there are as many environments in all, however many
actors share them (PPO's 8). Runs that the CSV file holds already are not made again, and a run that was interrupted
goes on from its last checkpoint. At the end come a table and a plot of everything in the file: training returns in
tenths of the steps, and the final policy's evaluation, as means and standard deviations over seeds; and how far the
samples per insert were from what the limiter keeps when the run ended, in its error buffers (at most 1 either way).
"""

from __future__ import annotations

import csv
import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
from typing import Any

import processes
import tyro

EXAMPLE = pathlib.Path(__file__).resolve().parent.parent / "examples" / "train.py"
NUM_PARTS = 10
FIELDS = ("task", "actors", "seed", "steps", "training_return", "evaluation_return", "balance", "seconds")


@dataclasses.dataclass(frozen=True)
class Task:
    """What to train where.

    Attributes:
        agent: as `examples/train.py` calls it.
        env: environment as suite:task.
        steps: environment steps.
        num_envs: environments of all actors together, at least one for each.
    """

    agent: str
    env: str
    steps: int
    num_envs: int = 1


TASKS = {
    "dqn-catch": Task("dqn", "bsuite:catch/0", 30_000),
    "dqn-cartpole": Task("dqn", "gym:CartPole-v1", 100_000),
    "ppo-cartpole": Task("ppo", "gym:CartPole-v1", 100_000, num_envs=8),
    "d4pg-swingup": Task("d4pg:acme", "dm_control:cartpole:swingup", 100_000),
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What to run."""

    tasks: tuple[str, ...] = tuple(TASKS)
    """Names of `TASKS`."""
    actors: tuple[int, ...] = (1, 2, 4)
    """Numbers of actors."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Seeds."""
    output: pathlib.Path = pathlib.Path("runs/actors_and_returns")
    """Where the runs, returns.csv and a plot for each task go."""


def run(benchmark: Benchmark, name: str, num_actors: int, seed: int) -> list[dict[str, Any]]:
    """Makes a run, and returns its rows."""
    task = TASKS[name]
    directory = benchmark.output / f"{name}-{num_actors}-{seed}"
    options = {
        "env": task.env,
        "steps": task.steps,
        "num-actors": num_actors,
        "num-envs": max(task.num_envs // num_actors, 1),
        "seed": seed,
        "evaluate-every": task.steps,
        "checkpoint-every": task.steps // 4,
        "directory": directory,
    }
    words = [word for option, value in options.items() for word in (f"--{option}", str(value))]
    if not (directory / "result.json").exists():
        subprocess.run([sys.executable, str(EXAMPLE), task.agent, *words], check=True, stdout=subprocess.DEVNULL)
    result = json.loads((directory / "result.json").read_text())
    evaluation = result["evaluations"][-1]
    assert evaluation["actor_steps"] >= task.steps, "the last evaluation is that of the final policy"
    rows = []
    for part, returns in enumerate(read_training_returns(directory / "logs", task.steps)):
        rows.append({"task": name, "actors": num_actors, "seed": seed, "steps": (part + 1) * task.steps // NUM_PARTS})
        rows[-1]["training_return"] = f"{statistics.fmean(returns):.4f}" if returns else ""
    rows[-1] |= {
        "evaluation_return": f"{statistics.fmean(evaluation['returns']):.4f}",
        "balance": f"{balance(task.agent, result['counts']):.3f}",
        "seconds": f"{result['seconds']['total']:.1f}",
    }
    return rows


def balance(agent: str, counts: dict[str, int]) -> float:
    """Returns how far samples lag behind the ratio that the limiter keeps, in error buffers; 0 where it is a queue."""
    from acme_lite import agents
    from acme_lite.replay import rate_limiters

    config = agents.named_configs(agent.partition(":")[0])[agent]
    if not hasattr(config, "samples_per_insert"):
        return 0.0
    limiter = rate_limiters.from_samples_per_insert(
        config.samples_per_insert,
        min_size=config.min_replay_size,
        items_per_call=config.batch_size * config.num_steps_per_call,
    )
    state = rate_limiters.Counts(inserts=counts["replay_inserts"], samples=counts["replay_samples"])
    return limiter.balance(state) / limiter.error_buffer


def read_training_returns(logs: pathlib.Path, steps: int) -> list[list[float]]:
    """Returns the training episodes' returns in each part of the run, by the count of all actors' steps."""
    parts: list[list[float]] = [[] for _ in range(NUM_PARTS)]
    for path in logs.glob("actor_*.csv"):
        with path.open() as file:
            for row in csv.DictReader(file):
                part = min(int(float(row["actor_steps"])) * NUM_PARTS // steps, NUM_PARTS - 1)
                parts[part].append(float(row["episode_return"]))
    return parts


def read(path: pathlib.Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open() as file:
        return list(csv.DictReader(file))


def append(path: pathlib.Path, rows: list[dict[str, Any]]) -> None:
    """Adds the rows of one run to the file at once."""
    whole = path.with_suffix(".partial")
    with whole.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS)
        writer.writeheader()
        writer.writerows([*read(path), *rows])
    os.replace(whole, path)


def mean_and_deviation(values: list[float]) -> str:
    deviation = statistics.stdev(values) if len(values) > 1 else float("nan")
    return f"{statistics.fmean(values):8.2f} ± {deviation:6.2f}"


def report(benchmark: Benchmark, rows: list[dict[str, str]]) -> None:
    """Prints a table, and draws the plots, of all rows."""
    from matplotlib import figure

    for name in sorted({row["task"] for row in rows}):
        print(f"{name}: {TASKS[name]}")
        print("    actors  seeds  mean training return  final evaluation          balance           seconds")
        made = figure.Figure(figsize=(8, 4.8), layout="constrained")
        axes = made.add_subplot()
        for num_actors in sorted({int(row["actors"]) for row in rows if row["task"] == name}):
            own = [row for row in rows if row["task"] == name and int(row["actors"]) == num_actors]
            seeds = sorted({row["seed"] for row in own})
            curves = [
                {int(row["steps"]): float(row["training_return"]) for row in own if row["seed"] == seed}
                for seed in seeds
                if all(row["training_return"] for row in own if row["seed"] == seed)
            ]
            ends = [row for row in own if row["evaluation_return"]]
            columns = [[statistics.fmean(curve.values()) for curve in curves]]
            columns += [[float(row[field]) for row in ends] for field in ("evaluation_return", "balance", "seconds")]
            print(f"    {num_actors:6}  {len(seeds):5}  " + "  ".join(mean_and_deviation(one) for one in columns))
            draw(axes, curves, f"{num_actors} actor{'s' * (num_actors > 1)}")
        axes.set_xlabel("environment steps")
        axes.set_ylabel("training return")
        axes.set_title(f"{name}: mean over seeds, from the least to the greatest")
        axes.legend()
        made.savefig(benchmark.output / f"{name}.png", dpi=120)


def draw(axes: Any, curves: list[dict[int, float]], label: str) -> None:
    steps = sorted(curves[0])
    by_step = [[curve[step] for curve in curves] for step in steps]
    (line,) = axes.plot(steps, [statistics.fmean(values) for values in by_step], label=label)
    least, greatest = [min(values) for values in by_step], [max(values) for values in by_step]
    axes.fill_between(steps, least, greatest, color=line.get_color(), alpha=0.15)


def main(benchmark: Benchmark) -> None:
    print(f"{processes.machine()}, {benchmark}", flush=True)
    benchmark.output.mkdir(parents=True, exist_ok=True)
    path = benchmark.output / "returns.csv"
    for seed in benchmark.seeds:
        for name in benchmark.tasks:
            for num_actors in benchmark.actors:
                made = {(row["task"], int(row["actors"]), int(row["seed"])) for row in read(path)}
                if (name, num_actors, seed) not in made:
                    append(path, run(benchmark, name, num_actors, seed))
                    print(f"{name}, {num_actors} actors, seed {seed}: done", flush=True)
    report(benchmark, read(path))


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
