"""How well do agents learn? Runs agents x tasks x seeds, and writes their learning curves.

Each run is an `experiments.run_experiment` in a process of its own, with a directory of its own: one that has finished
is not run again, one that was stopped goes on from its checkpoint. Ctrl-C stops the runs with a checkpoint each. Then,
or when all have ended, what all runs have logged so far is written to `results`: for each agent and task a CSV
file with one row per evaluation; for each task a plot of the interquartile mean over seeds with its 95 % bootstrap
interval, beside the published points where there are any; and a table that compares the means of all CSV files there
with those points. What differs from the agents' named configs stands in the files' names.

    uv run benchmarks/learning_curves.py --agents d4pg:acme mpo:dmpo --tasks dm_control:cartpole:swingup --seeds 0 1 2
    uv run benchmarks/learning_curves.py --agents dqn --tasks gym:CartPole-v1 --evaluate-every 10000 --cores 0 1
    uv run benchmarks/learning_curves.py --agents sac td3 --tasks gym:Pendulum-v1 --steps 10000 --no-run
"""

from __future__ import annotations

import ast
import collections
import concurrent.futures
import csv
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import queue
import re
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tyro

PUBLISHED_STEPS = (100_000, 250_000, 500_000)
PUBLISHED: Mapping[str, Mapping[str, tuple[float, float, float]]] = {
    "dm_control:ball_in_cup:catch": {
        "d4pg:acme": (777, 965, 967),
        "d4pg:ddpg": (387, 766, 910),
        "mpo:dmpo": (866, 951, 968),
        "mpo:acme": (293, 654, 822),
    },
    "dm_control:cartpole:balance": {
        "d4pg:acme": (995, 998, 999),
        "d4pg:ddpg": (968, 992, 997),
        "mpo:dmpo": (988, 998, 999),
        "mpo:acme": (861, 935, 959),
    },
    "dm_control:cartpole:swingup": {
        "d4pg:acme": (670, 865, 875),
        "d4pg:ddpg": (791, 856, 864),
        "mpo:dmpo": (649, 844, 859),
        "mpo:acme": (797, 849, 858),
    },
    "dm_control:cheetah:run": {
        "d4pg:acme": (131, 431, 614),
        "d4pg:ddpg": (222, 469, 591),
        "mpo:dmpo": (101, 347, 627),
        "mpo:acme": (220, 479, 626),
    },
    "dm_control:finger:spin": {
        "d4pg:acme": (381, 704, 824),
        "d4pg:ddpg": (476, 649, 763),
        "mpo:dmpo": (363, 622, 756),
        "mpo:acme": (468, 645, 782),
    },
    "dm_control:pendulum:swingup": {
        "d4pg:acme": (619, 772, 756),
        "d4pg:ddpg": (669, 763, 751),
        "mpo:dmpo": (416, 801, 831),
        "mpo:acme": (122, 805, 826),
    },
    "dm_control:reacher:easy": {
        "d4pg:acme": (567, 871, 951),
        "d4pg:ddpg": (499, 853, 931),
        "mpo:dmpo": (593, 945, 965),
        "mpo:acme": (473, 888, 962),
    },
    "dm_control:walker:walk": {
        "d4pg:acme": (374, 909, 968),
        "d4pg:ddpg": (474, 906, 951),
        "mpo:dmpo": (299, 786, 936),
        "mpo:acme": (328, 770, 938),
    },
}
"""Mean returns over 10 seeds of Acme's TensorFlow agents at `PUBLISHED_STEPS`: task -> agent -> returns."""
FIELDS = ("seed", "steps", "mean_return", "episodes", "seconds")
"""Columns of the CSV files; `steps` are environment steps, `seconds` those of the run so far, evaluations included."""
COLOURS = ("#c8501e", "#2a6f97", "#4f772d", "#7b4b94", "#b08900", "#7f8c9b")


@dataclasses.dataclass(frozen=True)
class Curves:
    """What to run."""

    agents: tuple[str, ...] = ("d4pg:acme",)
    """Named configs of agents, as `examples/train.py` lists them."""
    tasks: tuple[str, ...] = ("dm_control:cartpole:swingup",)
    """Environments as suite:task."""
    seeds: tuple[int, ...] = (0,)
    """Seeds of each agent on each task."""
    steps: int = 100_000
    """Environment steps of a run."""
    num_envs: int = 1
    """Environments that are stepped together; the files' names say how many, unless it is one."""
    settings: tuple[str, ...] = ()
    """Settings of the agents other than their named configs', as name=value; they name the files, too."""
    normalize: bool = False
    """Whether observations get mean 0 and variance 1; the files' names say so."""
    evaluate_every: int = 5_000
    """Environment steps from one evaluation to the next."""
    evaluation_episodes: int = 5
    """Episodes of one evaluation."""
    checkpoint_every: int = 10_000
    """Environment steps from one checkpoint to the next; a run that is started again goes on from the last."""
    run: bool = True
    """Whether to run; otherwise only the files in `results` are written anew."""
    cores: tuple[int, ...] = ()
    """Cores of which each has one run at a time; unless given, each run has all cores."""
    at_once: int = 1
    """Runs at a time where no cores are given: with a GPU and many cores, all of them."""
    directory: str = "runs/learning_curves"
    """Where the runs' directories are."""
    results: str = "docs/results"
    """Where CSV files, plots and the table of means go."""

    def __post_init__(self) -> None:
        if self.at_once < 1 or (self.cores and self.at_once != 1):
            raise ValueError(f"at_once must be at least 1, and 1 where cores are given, got {self.at_once}.")

    @property
    def variant(self) -> tuple[str, ...]:
        """What the curves of these runs have other than those of the named configs, as name=value."""
        others = ["normalize=True"] * self.normalize + [f"num_envs={self.num_envs}"] * (self.num_envs != 1)
        return (*self.settings, *others)


@dataclasses.dataclass(frozen=True)
class Run:
    """One run: an agent on a task with a seed.

    Attributes:
        agent: name of its config.
        task: the environment.
        seed: of everything random.
        curves: the rest of what there is to know.
    """

    agent: str
    task: str
    seed: int
    curves: Curves

    @property
    def directory(self) -> pathlib.Path:
        """Where the run writes; everything that it follows from stands in the name."""
        curves = self.curves
        parts = [self.task, self.agent, *curves.variant]
        for name in ("evaluate_every", "evaluation_episodes"):
            if getattr(curves, name) != getattr(Curves, name):
                parts.append(f"{name}={getattr(curves, name)}")
        return pathlib.Path(curves.directory) / file_name(*parts, f"seed{self.seed}", str(curves.steps))

    @property
    def log(self) -> pathlib.Path:
        """Where its output goes."""
        return self.directory.with_name(f"{self.directory.name}.log")  # there may be dots in the name


def file_name(*parts: str) -> str:
    """Returns a name of task, agent and settings without characters that file names should not have."""
    return "_".join(re.sub(r"[^A-Za-z0-9.=-]+", "-", part).strip("-") for part in parts)


def make_config(agent: str, settings: Sequence[str]) -> Any:
    """Returns an agent's named config with other settings, given as name=value.

    Raises:
        ValueError: there is no such agent or setting, or the value is not allowed.
    """
    from acme_lite import agents, learning

    configs = agents.named_configs(agent.partition(":")[0])
    if agent not in configs:
        raise ValueError(f"There is no agent {agent!r}; there are {', '.join(configs)}.")
    changes = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        if name not in {field.name for field in dataclasses.fields(configs[agent])}:
            raise ValueError(f"settings must be settings of {agent} as name=value, got {setting!r}.")
        for parse in (ast.literal_eval, learning.LinearSchedule.parse, str):
            try:
                changes[name] = parse(value)
                break
            except (SyntaxError, ValueError):
                pass
    return dataclasses.replace(configs[agent], **changes)


def perform(run: Run) -> bool:
    """Performs a run in this process; returns whether it came to its end."""
    from acme_lite import agents, environments, experiments
    from acme_lite.agents import builders

    curves, task = run.curves, run.task
    builder = agents.builder_class(run.agent.partition(":")[0])(make_config(run.agent, curves.settings))
    experiment = experiments.ExperimentConfig(
        builder=builders.NormalizedBuilder(builder) if curves.normalize else builder,
        environment_factory=lambda seed: environments.make(task, seed=seed),
        num_envs=curves.num_envs,
        max_num_actor_steps=curves.steps,
        seed=run.seed,
        evaluation=experiments.EvaluationConfig(curves.evaluate_every, curves.evaluation_episodes),
        checkpointing=experiments.CheckpointConfig(every_steps=curves.checkpoint_every),
        directory=run.directory,
    )
    return experiments.run_experiment(experiment).finished


def is_finished(run: Run) -> bool:
    return (run.directory / "result.json").exists()


class Workers:
    """Processes that perform runs, one at a time on each core."""

    def __init__(self, runs: Sequence[Run]):
        self._runs: queue.SimpleQueue[Run] = queue.SimpleQueue()
        for run in runs:
            self._runs.put(run)
        self._processes: set[subprocess.Popen] = set()
        self._lock = threading.Lock()
        self._stopped = False
        self.failed: list[Run] = []

    def stop(self) -> None:
        """Begins no further run, and has those under way write a checkpoint and end."""
        with self._lock:
            self._stopped = True
            for process in self._processes:
                process.send_signal(signal.SIGINT)

    def work(self, core: int | None) -> None:
        """Performs runs until none is left, on one core if it is given."""
        if core is not None:
            # The processes that this thread starts inherit its core: NumPy and XLA make a thread for each core that
            # they find when they are imported.
            os.sched_setaffinity(threading.get_native_id(), [core])
        while True:
            with self._lock:
                if self._stopped or self._runs.empty():
                    return
                run = self._runs.get()
                process = self._start(run)
                self._processes.add(process)
            code = process.wait()
            with self._lock:
                self._processes.discard(process)
                if code:
                    self.failed.append(run)

    def _start(self, run: Run) -> subprocess.Popen:
        run.directory.parent.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, __file__, "--worker", json.dumps(dataclasses.asdict(run))]
        print(f"{run.agent} {run.task} seed {run.seed}: writes to {run.directory} and {run.log}", flush=True)
        # In a session of its own, so that Ctrl-C reaches it once, from here.
        with run.log.open("a") as output:
            return subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)


def worker(arguments: dict[str, Any]) -> int:
    """Performs one run as a process of its own; returns its exit status."""
    perform(Run(**arguments | {"curves": Curves(**_tuples(arguments["curves"]))}))
    return 0


def _tuples(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()}


def read_evaluations(run: Run) -> list[dict[str, float]]:
    """Returns a row of `FIELDS` for each evaluation that a run has logged, whether it has ended or not."""
    logs = run.directory / "logs"
    if not (logs / "evaluator.csv").exists():
        return []
    seconds = {int(row["actor_steps"]): float(row["total_seconds"]) for row in _read(logs / "time_split.csv")}
    returns = collections.defaultdict(list)
    for row in _read(logs / "evaluator.csv"):
        returns[int(row["actor_steps"])].append(float(row["episode_return"]))
    return [
        dict(zip(FIELDS, (run.seed, steps, float(np.mean(each)), len(each), seconds[steps]), strict=True))
        for steps, each in sorted(returns.items())
        if steps in seconds  # the time is logged last: otherwise the evaluation is under way
    ]


def _read(path: pathlib.Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def read_rows(path: pathlib.Path) -> list[dict[str, float]]:
    """Returns the rows of a file that `write_evaluations` has written, or none if there is no such file."""
    return [{name: float(row[name]) for name in FIELDS} for row in _read(path)]


def write_evaluations(path: pathlib.Path, rows: Sequence[Mapping[str, float]]) -> None:
    """Writes rows of `FIELDS`; rows of other seeds or steps that are there already stay."""
    merged = {(row["seed"], row["steps"]): row for row in [*read_rows(path), *rows]}
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(FIELDS)
        for _, row in sorted(merged.items()):
            seed, steps, mean_return, episodes, seconds = (row[name] for name in FIELDS)
            writer.writerow([int(seed), int(steps), f"{mean_return:.2f}", int(episodes), f"{seconds:.0f}"])
    temporary.replace(path)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """Returns the means `[...]` of the middle half of values `[S, ...]`; values at its ends count in part.

    Reference: Agarwal et al., Deep Reinforcement Learning at the Edge of the Statistical Precipice (2021), section 4.3.
    """
    ordered = np.sort(values, axis=0)
    size = len(ordered)
    # Value k stands for the part [k, k + 1] / size of the distribution; its weight is how much of it is in the middle.
    edges = np.clip(np.arange(size + 1) / size, 0.25, 0.75)
    return np.tensordot(np.diff(edges) / 0.5, ordered, axes=1)


def mean(values: np.ndarray) -> np.ndarray:
    """Returns the means `[...]` of values `[S, ...]`."""
    return values.mean(axis=0)


def bootstrap_interval(
    values: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], *, num_resamples: int = 2_000
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the ends `[...]` of the 95 % percentile bootstrap interval of a statistic over `[S, ...]`."""
    draws = np.random.default_rng(0).integers(len(values), size=(num_resamples, len(values)))
    low, high = np.percentile([statistic(values[draw]) for draw in draws], [2.5, 97.5], axis=0)
    return low, high


def returns_by_step(rows: Sequence[Mapping[str, float]]) -> dict[int, np.ndarray]:
    """Returns, for each step in order, the mean returns `[S]` of the seeds that were evaluated there."""
    returns = collections.defaultdict(list)
    for row in sorted(rows, key=lambda row: (row["steps"], row["seed"])):
        returns[int(row["steps"])].append(row["mean_return"])
    return {step: np.array(each) for step, each in returns.items()}


def plot(
    path: pathlib.Path, task: str, variant: Sequence[str], curves: Mapping[str, Sequence[Mapping[str, float]]]
) -> None:
    """Writes a plot of curves of one task: agent -> rows of `FIELDS`; `variant` is what all have other than usual."""
    from matplotlib import ticker
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    last = max((row["steps"] for rows in curves.values() for row in rows), default=0)
    if task in PUBLISHED:
        last = max(last, PUBLISHED_STEPS[0])
    for number, (agent, rows) in enumerate(curves.items()):
        colour = COLOURS[number % len(COLOURS)]
        _draw(axes, agent, returns_by_step(rows), colour)
        published = PUBLISHED.get(task, {}).get(agent)
        if published is not None:
            points = [(step, value) for step, value in zip(PUBLISHED_STEPS, published, strict=True) if step <= last]
            axes.plot(*zip(*points, strict=True), "*", color=colour, markersize=13, markeredgecolor="black")
    if any(agent in PUBLISHED.get(task, {}) for agent in curves):
        axes.plot(
            [], [], "*", color="white", markersize=13, markeredgecolor="black", label="published, mean of 10 seeds"
        )
    figure.suptitle(task, x=0.01, ha="left", fontsize=13, fontweight="bold")
    axes.set_title(textwrap.fill(", ".join(variant), 100), loc="left", fontsize=10)
    axes.set_xlabel("environment steps", fontsize=11)
    axes.set_ylabel("evaluation return, interquartile mean", fontsize=11)
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.set_xlim(0, last * 1.02)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    backend_agg.FigureCanvasAgg(figure).print_figure(path, dpi=90, format="png")


def _draw(axes: Any, label: str, returns: Mapping[int, np.ndarray], colour: str) -> None:
    """Draws one curve; where the number of seeds changes on its way, the new number stands beside it."""
    steps = list(returns)
    sizes = [len(each) for each in returns.values()]
    middle = [interquartile_mean(each) for each in returns.values()]
    text = f"{label}, {max(sizes)} {'seed' if max(sizes) == 1 else 'seeds'}"
    axes.plot(steps, middle, "o-", color=colour, linewidth=2, markersize=3.5, label=text)
    low, high = zip(*(bootstrap_interval(each, interquartile_mean) for each in returns.values()), strict=True)
    axes.fill_between(steps, low, high, color=colour, alpha=0.15, linewidth=0)
    for before, size, step, value in zip(sizes, sizes[1:], steps[1:], middle[1:], strict=False):
        if size != before:
            place = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center"}
            axes.annotate(f"n = {size}", (step, value), color=colour, fontsize=9, **place)


def comparisons(results: pathlib.Path, variant: Sequence[str]) -> list[tuple[Any, ...]]:
    """Returns a row of the table of means for each published point at which there is an evaluation in `results`."""
    rows: list[tuple[Any, ...]] = []
    for task, agents in PUBLISHED.items():
        for agent, published in agents.items():
            returns = returns_by_step(read_rows(results / f"{file_name(task, agent, *variant)}.csv"))
            for step, value in zip(PUBLISHED_STEPS, published, strict=True):
                if step in returns:
                    low, high = bootstrap_interval(returns[step], mean)
                    reached = "yes" if high >= 0.95 * value else "no"
                    ours = (len(returns[step]), f"{mean(returns[step]):.1f}", f"{low:.1f} to {high:.1f}")
                    rows.append((task, agent, f"{step:,}", *ours, f"{value:.0f}", f"{0.95 * value:.1f}", reached))
    return rows


def summarise(results: pathlib.Path, variant: Sequence[str]) -> None:
    """Writes and prints the means over seeds beside the published ones, if there are any to compare."""
    rows = comparisons(results, variant)
    if not rows:
        return
    packages = [name for name in ("jax", "numpy", "dm_control", "mujoco") if importlib.util.find_spec(name)]
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    machine = f"{platform.platform()}, {os.cpu_count()} cores, Python {platform.python_version()}, {versions}"
    lines = [
        "# Learning curves beside published ones",
        "",
        f"Means over seeds of evaluation returns, {', '.join(variant) or 'settings of the named configs'}.",
        f"Written on {machine}; where the curves were made, the agents' pages say.",
        "A mean reaches the published one if the upper end of its 95 % bootstrap interval is at least 0.95 of that.",
        "",
        "| task | agent | steps | seeds | mean | interval | published | 0.95 x published | reached |",
        "|---|---|---|---|---|---|---|---|---|",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]
    print("\n".join(lines))
    (results / f"{file_name('summary', *variant)}.md").write_text("\n".join(lines) + "\n")


def report(runs: Sequence[Run], curves: Curves) -> None:
    """Writes CSV files, plots and the table of what the runs have logged, and prints their last evaluations."""
    results = pathlib.Path(curves.results)
    for task in curves.tasks:
        drawn = {}
        for agent in curves.agents:
            rows = [row for run in runs if (run.agent, run.task) == (agent, task) for row in read_evaluations(run)]
            path = results / f"{file_name(task, agent, *curves.variant)}.csv"
            if rows:
                write_evaluations(path, rows)
            ends = {row["seed"]: row for row in rows}
            for seed, row in ends.items():
                print(
                    f"{agent} {task} seed {seed}, step {row['steps']:,}: mean return {row['mean_return']:.1f}, ", end=""
                )
                print(f"{row['seconds']:,.0f} s")
            if path.exists():
                drawn[agent] = read_rows(path)
        if drawn:
            plot(results / f"{file_name(task, *curves.variant)}.png", task, curves.variant, drawn)
    summarise(results, curves.variant)


def main(curves: Curves) -> None:
    for agent in curves.agents:
        make_config(agent, curves.settings)  # a wrong name fails now, and not in a worker's log
    runs = [Run(agent, task, seed, curves) for seed in curves.seeds for task in curves.tasks for agent in curves.agents]
    missing = [run for run in runs if not is_finished(run)] if curves.run else []
    workers = Workers(missing)
    cores = curves.cores or (None,) * curves.at_once

    def stop(signum: int, frame: Any) -> None:
        print("Stops: the runs under way write checkpoints.", flush=True)
        workers.stop()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    with concurrent.futures.ThreadPoolExecutor(len(cores)) as threads:
        for done in concurrent.futures.as_completed([threads.submit(workers.work, core) for core in cores]):
            done.result()
    report(runs, curves)
    if workers.failed:
        logs = ", ".join(str(run.log) for run in workers.failed)
        sys.exit(f"{len(workers.failed)} of {len(missing)} runs failed; see {logs}.")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        sys.exit(worker(json.loads(sys.argv[2])))
    main(tyro.cli(Curves, description=__doc__))
