"""How fast are programs of many processes, how soon do they learn, and how much memory do they take?

    uv run benchmarks/distributed.py

Each measurement is a program of its own, watched from outside; topologies alternate. What is measured:

- steps/s: environment steps that the program's counter gained in a window of so many seconds, divided by the time
  between the two looks at it. The window begins so many seconds after the first SGD step was counted.
- first SGD step: from the start of the command, imports and all, until the counter shows it (at most 0.25 s late).
- memory: proportional set sizes of all its processes, launcher and zygote included, at the window's end.
- CPU: CPU seconds per second of the window, by node, and CPU time per environment step over all, which says more than
  rates do where other work shares the machine.
- samples per insert: what the Reverb server has counted at the window's end, and how far that is from the middle of
  the limiter's window, in error buffers (it must be at most 1); for a queue, how many items wait.
- time split: of each actor, from its log.
"""

from __future__ import annotations

import csv
import dataclasses
import itertools
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from typing import Any

import dm_env
import processes
import tyro
import watching

WORKLOADS: dict[str, dict[str, Any]] = {
    "D": {"agent": "dqn", "num_actors": 2, "steps_per_update": 1},
    "D'": {"agent": "impala", "num_actors": 2, "num_envs": 4},
    "sleep-1": {"agent": "dqn", "num_actors": 1, "steps_per_update": 4, "sleep_seconds": 0.005},
    "sleep-4": {"agent": "dqn", "num_actors": 4, "steps_per_update": 4, "sleep_seconds": 0.005},
    "pong-1": {"agent": "dqn", "env": "atari:Pong", "num_actors": 1, "steps_per_update": 4, "batch_size": 32},
    "pong-2": {"agent": "dqn", "env": "atari:Pong", "num_actors": 2, "steps_per_update": 4, "batch_size": 32},
    "pong-impala": {"agent": "impala", "env": "atari:Pong", "num_actors": 2, "num_envs": 4},
}


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What to measure."""

    workloads: tuple[str, ...] = ("D", "D'", "sleep-1", "sleep-4")
    """Names of `WORKLOADS`; pong-1, pong-2 and pong-impala are further ones."""
    topologies: tuple[str, ...] = ("learner", "node")
    """Where the Reverb server is: in the learner's process or in a node of its own."""
    placements: tuple[str, ...] = ("single",)
    """Where actors run: "single" pins each to a core in turn (the default of launch), "free" pins none, "apart" puts
    all on the last core and everything else on the others."""
    repeats: int = 3
    """Measurements of each."""
    seconds: float = 20.0
    """Length of the window."""
    settle_seconds: float = 5.0
    """From the first SGD step to the window."""
    num_steps_per_call: int = 8
    """DQN's learner steps in one compiled call."""


def make_experiment(workload: dict[str, Any], directory: pathlib.Path) -> Any:
    """Returns the experiment of a workload; it ends when it is stopped."""
    from acme_lite import environments, experiments
    from acme_lite.agents import dqn, impala

    class Slow(environments.Wrapper):
        """Sleeps at each step."""

        def reset(self) -> dm_env.TimeStep:
            return self.environment.reset()

        def step(self, action: Any) -> dm_env.TimeStep:
            time.sleep(workload["sleep_seconds"])
            return self.environment.step(action)

    def make_environment(seed: int) -> dm_env.Environment:
        environment = environments.make(workload.get("env", "gym:CartPole-v1"), seed=seed)
        return Slow(environment) if "sleep_seconds" in workload else environment

    builder: Any = impala.IMPALABuilder()
    if workload["agent"] == "dqn":
        batch_size, steps_per_update = workload.get("batch_size", 128), workload["steps_per_update"]
        config = dqn.DQNConfig(
            n_step=1,
            learning_rate=5e-4,
            double_q=False,
            epsilon=0.1,
            batch_size=batch_size,
            max_replay_size=50_000,
            min_replay_size=1_000,
            samples_per_insert=batch_size / steps_per_update,
            target_update_period=500 // steps_per_update,
            num_steps_per_call=workload["num_steps_per_call"],
        )
        builder = dqn.DQNBuilder(config)
    return experiments.ExperimentConfig(
        builder=builder,
        environment_factory=make_environment,
        num_envs=workload.get("num_envs", 1),
        max_num_actor_steps=10**9,
        evaluation=None,
        checkpointing=None,
        directory=directory,
    )


def launch(workload: dict[str, Any]) -> None:
    """Runs the program of a workload until it is stopped."""
    from acme_lite import experiments, launching

    folder = pathlib.Path(workload["folder"])
    program = experiments.make_distributed_experiment(
        make_experiment(workload, folder / "run"),
        workload["num_actors"],
        replay_in_learner=workload["topology"] == "learner",
    )
    policies = place(workload.get("placement", "single"), program.groups)
    policies["actor"] = dataclasses.replace(policies["actor"], max_restarts=workload.get("max_restarts", 5))
    launching.launch(program, log_directory=folder / "logs", policies=policies)


def place(placement: str, groups: Iterable[str]) -> dict[str, Any]:
    """Returns the policies of a placement; see `Benchmark.placements`."""
    from acme_lite import launching

    policies = {label: launching.DEFAULT_POLICIES.get(label, launching.NodePolicy()) for label in groups}
    *others, last = sorted(os.sched_getaffinity(0))
    if placement == "free":
        policies["actor"] = dataclasses.replace(policies["actor"], cores=None)
    elif placement == "apart":
        policies = {label: dataclasses.replace(policy, cores=tuple(others)) for label, policy in policies.items()}
        policies["actor"] = dataclasses.replace(policies["actor"], cores=(last,))
    return policies


def measure(benchmark: Benchmark, name: str, topology: str, placement: str) -> dict[str, Any]:
    """Runs the program of a workload, and returns what was seen."""
    with tempfile.TemporaryDirectory() as folder:
        workload = {**WORKLOADS[name], "topology": topology, "placement": placement, "folder": folder}
        workload["num_steps_per_call"] = benchmark.num_steps_per_call
        command = [sys.executable, __file__, json.dumps(workload)]
        with watching.Program(command, pathlib.Path(folder, "logs")) as program:
            program.wait_for_count("learner_steps")
            first = time.monotonic() - program.begun
            time.sleep(benchmark.settle_seconds)
            begun, counts, cpu = time.monotonic(), program.counts(), program.cpu_seconds()
            time.sleep(benchmark.seconds)
            seconds, last, last_cpu = time.monotonic() - begun, program.counts(), program.cpu_seconds()
            tables = program.client("learner/0").tables()
            memory = program.memory()
        split = read_time_split(pathlib.Path(folder, "run", "logs"))
    return {
        "rate": (last["actor_steps"] - counts["actor_steps"]) / seconds,
        "learner_rate": (last["learner_steps"] - counts["learner_steps"]) / seconds,
        "first": first,
        "memory": memory,
        "cpu": {node: (value - cpu.get(node, 0.0)) / seconds for node, value in last_cpu.items()},
        "balance": describe_balance(make_limiter(workload), tables),
        "split": split,
    }


def make_limiter(workload: dict[str, Any]) -> Any:
    """Returns the limiter of a workload's table."""
    from acme_lite import specs
    from acme_lite.experiments import parts

    experiment = make_experiment(workload, pathlib.Path())
    spec = specs.make_environment_spec(experiment.environment_factory(0))
    (table,) = parts.make_plan(experiment, spec).tables
    return table.limiter


def balance(limiter: Any, tables: dict[str, Any]) -> float:
    """Returns how far samples lag behind the ratio that a limiter keeps, in its error buffers: at most 1 either way."""
    from acme_lite.replay import rate_limiters

    (info,) = tables.values()
    counts = rate_limiters.Counts(info.num_inserts, info.num_samples, info.size, 0)
    return limiter.balance(counts) / limiter.error_buffer


def describe_balance(limiter: Any, tables: dict[str, Any]) -> str:
    """Returns in words how a table's counts stand to what its limiter keeps."""
    (info,) = tables.values()
    if not hasattr(limiter, "balance"):
        waiting = info.num_inserts - info.num_samples
        return f"{waiting} of at most {limiter.size} items wait"
    return (
        f"{info.num_samples:,} samples of {info.num_inserts:,} inserts, {balance(limiter, tables):+.2f} error buffers "
        f"from {limiter.samples_per_insert:g} per insert"
    )


def read_time_split(logs: pathlib.Path) -> list[dict[str, float]]:
    """Returns the shares of each actor's time."""
    splits = []
    for path in sorted(logs.glob("time_split_*.csv")):
        with path.open() as file:
            row = list(csv.DictReader(file))[-1]
        seconds = {name.removesuffix("_seconds"): float(value) for name, value in row.items() if "_seconds" in name}
        total = seconds.pop("total")
        splits.append({name: value / total for name, value in seconds.items()})
    return splits


def report(name: str, topology: str, placement: str, results: list[dict[str, Any]]) -> None:
    def spread(values: list[float], form: str) -> str:
        return f"{statistics.median(values):{form}} ({min(values):{form}} to {max(values):{form}})"

    memory = [sum(result["memory"].values()) for result in results]
    last = results[-1]
    print(
        f"{name}, replay in {'the learner' if topology == 'learner' else 'a node of its own'}, actors {placement}: "
        f"{spread([result['rate'] for result in results], ',.0f')} steps/s, "
        f"{spread([result['learner_rate'] for result in results], ',.1f')} learner steps/s, "
        f"first SGD step after {spread([result['first'] for result in results], '.1f')} s, "
        f"{spread(memory, ',.0f')} MB"
    )
    print("    MB: " + ", ".join(f"{node} {size:.0f}" for node, size in sorted(last["memory"].items())))
    cpu = {node: statistics.median(one["cpu"][node] for one in results) for node in sorted(last["cpu"])}
    per_step = sum(cpu.values()) / statistics.median(one["rate"] for one in results)
    print("    CPU: " + ", ".join(f"{node} {share:.2f}" for node, share in cpu.items()), end="")
    print(f"; {1e6 * per_step:,.0f} µs per environment step")
    for index, split in enumerate(last["split"]):
        shares = ", ".join(f"{part} {share:.0%}" for part, share in split.items())
        print(f"    actor {index}: {shares}, rest {1 - sum(split.values()):.0%}")
    print(f"    {last['balance']}", flush=True)


def main(benchmark: Benchmark) -> None:
    print(f"{processes.machine()}, {benchmark}")
    print("medians (lowest to highest)", flush=True)
    for name in benchmark.workloads:
        variants = list(itertools.product(benchmark.topologies, benchmark.placements))
        results: dict[tuple[str, str], list[dict[str, Any]]] = {variant: [] for variant in variants}
        for _ in range(benchmark.repeats):
            for variant in variants:
                results[variant].append(measure(benchmark, name, *variant))
        for variant in variants:
            report(name, *variant, results[variant])


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        launch(json.loads(sys.argv[1]))
    else:
        main(tyro.cli(Benchmark, description=__doc__))
