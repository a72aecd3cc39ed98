"""How much slower is the library than the ideal loop, which has no library between environment and gradient?

DQN on CartPole-v1, MLP 64-64, batch 128: A1 takes one SGD step per environment step, A4 one per four; K is the number
of SGD steps in one compiled call. Each measurement is a process of its own with nothing beside it; ideal loop and
library alternate, at the same CPU affinity and XLA settings, and medians are compared. Beside them runs the ideal loop
on the newer of XLA's two CPU runtimes, which JAX 0.6 takes unless told otherwise.

    uv run benchmarks/loop_overhead.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import ideal_dqn
import tyro

WORKLOADS = {"A1": 1, "A4": 4}
"""Environment steps per SGD step."""
VARIANTS = (("ideal", 1), ("newer", 1), ("library", 1), ("ideal", 8), ("newer", 8), ("library", 8), ("overlap", 8))
"""Name, and SGD steps per call. "newer" is the ideal loop on the newer of XLA's two CPU runtimes."""
REVERB_VARIANTS = (("reverb", 1), ("reverb", 8), ("reverb overlap", 8))
"""The library's with a Reverb server in the same process as its replay."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """How to measure."""

    repeats: int = 5
    """Measurements of each variant."""
    steps: int = 20_000
    """Environment steps of a measurement of A1; A4 takes twice as many."""
    warm_up_steps: int = 3_000
    """Environment steps before the clock starts."""
    workloads: tuple[str, ...] = ("A1", "A4")
    """Which workloads to run."""
    reverb: bool = False
    """Whether to measure the library around a Reverb server, too."""
    cores: tuple[int, ...] = ()
    """Cores to run on; all that this process may use unless given."""


class Clock:
    """An observer that reads the clock when the environment has made `start` steps, and at every later step's end."""

    def __init__(self, start: int):
        self._start = start
        self._steps = 0
        self.started = self.now = 0.0

    def observe_first(self, timestep: Any) -> None:
        pass

    def observe(self, action: Any, next_timestep: Any) -> None:
        self.now = time.perf_counter()
        if self._steps < self._start:
            self._steps += int(next_timestep.step_type[0] != 0)
            self.started = self.now

    def get_metrics(self, member: int) -> dict[str, Any]:
        return {}


def run_library(
    num_steps: int, *, num_updates: int, steps_per_update: int, measure_from: int, overlap: bool, replay: str
) -> dict:
    """Runs the library and returns environment steps per second from step `measure_from` on, and the time split."""
    from acme_lite import environments, experiments
    from acme_lite.agents import dqn

    config = dqn.DQNConfig(
        n_step=1,
        learning_rate=5e-4,
        double_q=False,
        epsilon=ideal_dqn.EPSILON,
        batch_size=ideal_dqn.BATCH,
        max_replay_size=ideal_dqn.CAPACITY,
        min_replay_size=ideal_dqn.MIN_SIZE,
        samples_per_insert=ideal_dqn.BATCH / steps_per_update,
        target_update_period=500 // steps_per_update,
        num_steps_per_call=num_updates,
        overlap=overlap,
    )
    clock = Clock(measure_from)
    with tempfile.TemporaryDirectory() as directory:
        experiment = experiments.ExperimentConfig(
            builder=dqn.DQNBuilder(config),
            environment_factory=lambda seed: environments.make("gym:CartPole-v1", seed=seed),
            max_num_actor_steps=num_steps,
            evaluation=None,
            directory=directory,
            observers=(clock,),
        )
        result = experiments.run_experiment(experiment, quiet=True, replay=replay)
    split = {name: value / result.seconds["total"] for name, value in result.seconds.items() if name != "total"}
    rate = (num_steps - measure_from) / (clock.now - clock.started)
    return {"steps_per_second": rate, "split": split, "learner_steps": result.counts["learner_steps"]}


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """Runs one measurement in this process."""
    variant, steps_per_update = arguments["variant"], WORKLOADS[arguments["workload"]]
    common = {
        "num_updates": arguments["num_updates"],
        "steps_per_update": steps_per_update,
        "measure_from": arguments["measure_from"],
    }
    if variant in ("ideal", "newer"):
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)
        options = ideal_dqn.NEWER_RUNTIME if variant == "newer" else ideal_dqn.compiler_options()
        result = ideal_dqn.run(arguments["steps"], options=options, **common)
    else:
        replay = "reverb" if variant.startswith("reverb") else "local"
        result = run_library(arguments["steps"], overlap=variant.endswith("overlap"), replay=replay, **common)
    return result | {"peak_megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}


def measure_alone(arguments: dict[str, Any]) -> dict[str, Any]:
    """Runs one measurement in a fresh process."""
    command = [sys.executable, __file__, json.dumps(arguments)]
    result = subprocess.run(command, capture_output=True, text=True, check=False, timeout=600)
    if result.returncode:
        raise RuntimeError(result.stderr)
    return json.loads(result.stdout.splitlines()[-1])


def main(benchmark: Benchmark) -> None:
    if benchmark.cores:
        os.sched_setaffinity(0, benchmark.cores)
    import jax

    print(
        f"{platform.platform()}, cores {sorted(os.sched_getaffinity(0))}, Python {platform.python_version()}, ", end=""
    )
    print(f"JAX {jax.__version__}; medians of {benchmark.repeats}, environment steps per second (lowest to highest)")
    for workload in benchmark.workloads:
        steps = benchmark.steps * (2 if workload == "A4" else 1)
        variants = VARIANTS + REVERB_VARIANTS * benchmark.reverb
        results: dict[tuple[str, int], list[dict]] = {variant: [] for variant in variants}
        for _ in range(benchmark.repeats):
            for variant, num_updates in variants:
                arguments = {"workload": workload, "variant": variant, "num_updates": num_updates, "steps": steps}
                arguments["measure_from"] = benchmark.warm_up_steps
                results[variant, num_updates].append(measure_alone(arguments))
        report(workload, results)


def report(workload: str, results: dict[tuple[str, int], list[dict]]) -> None:
    rates = {variant: [one["steps_per_second"] for one in ones] for variant, ones in results.items()}
    medians = {variant: statistics.median(values) for variant, values in rates.items()}
    for (variant, num_updates), values in rates.items():
        ratio = medians[variant, num_updates] / medians["ideal", num_updates]
        peak = max(one["peak_megabytes"] for one in results[variant, num_updates])
        print(
            f"{workload} K={num_updates} {variant:14} {medians[variant, num_updates]:8,.0f} "
            f"({min(values):,.0f} to {max(values):,.0f})  {ratio:.2f} x ideal, peak {peak:.0f} MB"
        )
        if "split" in results[variant, num_updates][-1]:
            split = results[variant, num_updates][-1]["split"]
            shares = ", ".join(f"{name} {share:.0%}" for name, share in split.items())
            print(f"     time split: {shares}, rest {1 - sum(split.values()):.0%}")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    else:
        main(tyro.cli(Benchmark, description=__doc__))
