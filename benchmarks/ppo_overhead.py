"""How much slower is PPO in the library than the ideal loop, and how soon does it reach a return of 475?

Workload C: CartPole-v1, 8 environments x 128 steps, 10 epochs of minibatches of 256, MLP 64-64. Each measurement is a
process of its own with nothing beside it; ideal loop and library alternate, at the same CPU affinity and XLA settings,
and medians are compared. The time to a mean of 475 over the last 20 training episodes counts from the start of the
process.

    uv run benchmarks/ppo_overhead.py
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import ideal_ppo
import processes
import tyro

_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """How to measure."""

    repeats: int = 5
    """Measurements of each side."""
    steps: int = 60_000
    """Environment steps of a measurement."""
    warm_up_steps: int = 10_000
    """Environment steps before the clock starts."""
    cores: tuple[int, ...] = ()
    """Cores to run on; all that this process may use unless given."""


class Watch:
    """An observer that costs next to nothing: it counts the calls, and reads the clock where an episode ends.

    Rewards are 1, so that an episode's return is its length.

    Attributes:
        begun: (environment steps, clock) at the first end of an episode from environment step `start` on.
        ended: the same at the last one.
        solved: (environment steps, seconds since the start of the process) when the mean return of the last 20
            episodes first was 475; None if it never was.
    """

    def __init__(self, start: int):
        self.begun: tuple[int, float] | None = None
        self.ended = (0, 0.0)
        self.solved: tuple[int, float] | None = None
        self._start = start
        self._calls = 0
        self._starts = [0] * ideal_ppo.NUM_ENVS
        self._num_ended = self._num_ended_before = 0
        self._newest_call = 0
        self._returns: collections.deque[int] = collections.deque(maxlen=20)

    def observe_first(self, timestep: Any) -> None:
        pass

    def observe(self, action: Any, next_timestep: Any) -> None:
        self._calls += 1

    def get_metrics(self, member: int) -> dict[str, Any]:
        if self._calls != self._newest_call:
            self._newest_call, self._num_ended_before = self._calls, self._num_ended
        self._num_ended += 1
        # The call after the last step of an episode resets its member.
        steps = ideal_ppo.NUM_ENVS * self._calls - self._num_ended_before
        self._returns.append(self._calls - self._starts[member])
        self._starts[member] = self._calls + 1
        self.ended = (steps, time.perf_counter())
        if self.begun is None and steps >= self._start:
            self.begun = self.ended
        if self.solved is None and len(self._returns) == 20 and statistics.mean(self._returns) >= 475:
            self.solved = (steps, seconds_since_process_start())
        return {}


def seconds_since_process_start() -> float:
    """Returns the age of this process, imports and all (Linux)."""
    started = int(pathlib.Path("/proc/self/stat").read_text().rsplit(")", 1)[1].split()[19]) / _CLOCK_TICKS
    return float(pathlib.Path("/proc/uptime").read_text().split()[0]) - started


def run_library(num_steps: int, *, measure_from: int, seed: int) -> dict[str, Any]:
    """Runs the library; returns environment steps per second after about step `measure_from`, and the time split."""
    from acme_lite import environments, experiments
    from acme_lite.agents import ppo

    config = ppo.PPOConfig(
        discount=ideal_ppo.DISCOUNT,
        gae_lambda=ideal_ppo.LAMBDA,
        unroll_length=ideal_ppo.NUM_STEPS,
        batch_size=ideal_ppo.NUM_ENVS,
        num_epochs=ideal_ppo.NUM_EPOCHS,
        minibatch_size=ideal_ppo.MINIBATCH,
        clip_epsilon=ideal_ppo.CLIP,
        learning_rate=ideal_ppo.LEARNING_RATE,
        max_gradient_norm=ideal_ppo.MAX_NORM,
    )
    watch = Watch(measure_from)
    with tempfile.TemporaryDirectory() as directory:
        experiment = experiments.ExperimentConfig(
            builder=ppo.PPOBuilder(config),
            environment_factory=lambda seed: environments.make("gym:CartPole-v1", seed=seed),
            num_envs=ideal_ppo.NUM_ENVS,
            max_num_actor_steps=num_steps,
            seed=seed,
            evaluation=None,
            checkpointing=None,
            directory=directory,
            observers=(watch,),
        )
        result = experiments.run_experiment(experiment, quiet=True)
    split = {name: value / result.seconds["total"] for name, value in result.seconds.items() if name != "total"}
    assert watch.begun is not None, "no episode ended after the warm-up"
    rate = (watch.ended[0] - watch.begun[0]) / (watch.ended[1] - watch.begun[1])
    return {"steps_per_second": rate, "split": split, "solved": watch.solved}


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """Runs one measurement in this process."""
    steps, settings = arguments["steps"], {"measure_from": arguments["measure_from"], "seed": arguments["seed"]}
    if arguments["variant"] == "library":
        return run_library(steps, **settings)
    import jax

    jax.config.update("jax_cpu_enable_async_dispatch", False)
    return {"steps_per_second": ideal_ppo.run(steps, **settings)["steps_per_second"]}


def main(benchmark: Benchmark) -> None:
    if benchmark.cores:
        os.sched_setaffinity(0, benchmark.cores)
    print(processes.machine())
    print(f"medians of {benchmark.repeats}, environment steps per second (lowest to highest)")
    results: dict[str, list[dict[str, Any]]] = {"ideal": [], "library": []}
    for seed in range(benchmark.repeats):
        for variant, measured in results.items():
            arguments = {"variant": variant, "steps": benchmark.steps, "measure_from": benchmark.warm_up_steps}
            arguments["seed"] = seed
            measured.append(processes.measure_alone(__file__, arguments, timeout_seconds=600))
    medians = {}
    for variant, measured in results.items():
        rates = [one["steps_per_second"] for one in measured]
        medians[variant] = statistics.median(rates)
        ratio = medians[variant] / medians["ideal"]
        print(f"{variant:8} {medians[variant]:8,.0f} ({min(rates):,.0f} to {max(rates):,.0f})  {ratio:.2f} x ideal")
    split = results["library"][-1]["split"]
    shares = ", ".join(f"{name} {share:.0%}" for name, share in split.items())
    print(f"time split: {shares}, rest {1 - sum(split.values()):.0%}")
    for seed, one in enumerate(results["library"]):
        reached = "not reached" if one["solved"] is None else "{:,} steps, {:.1f} s".format(*one["solved"])
        print(f"475 with seed {seed}: {reached}")


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    else:
        main(tyro.cli(Benchmark, description=__doc__))
