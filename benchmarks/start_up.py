"""How long from process start to the first SGD step, with an empty compilation cache, and how much memory at the peak?

Each measurement is `examples/train.py dqn --env gym:CartPole-v1` in a fresh process.

    uv run benchmarks/start_up.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

import processes
import tyro

_CHILD = """
import json, resource, sys, time
begun = float(sys.argv[1])
from acme_lite import environments, experiments, learning
from acme_lite.agents import dqn
imported = time.time() - begun
first = []
step = learning.SGDLearner.step
def timed_step(self):
    step(self)
    if not first:
        first.append(time.time() - begun)
learning.SGDLearner.step = timed_step
experiments.run_experiment(experiments.ExperimentConfig(
    builder=dqn.DQNBuilder(),
    environment_factory=lambda seed: environments.make("gym:CartPole-v1", seed=seed),
    max_num_actor_steps=int(sys.argv[3]),
    directory=sys.argv[2],
), quiet=True)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({"imports": imported, "first_step": first[0], "peak_megabytes": peak}))
"""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """How to measure."""

    repeats: int = 5
    """Processes to start."""
    steps: int = 5_000
    """Environment steps of each."""


def main(benchmark: Benchmark) -> None:

    results = []
    for _ in range(benchmark.repeats):
        with tempfile.TemporaryDirectory() as directory:
            command = [sys.executable, "-c", _CHILD, str(time.time()), directory, str(benchmark.steps)]
            environment = {name: value for name, value in os.environ.items() if "COMPILATION_CACHE" not in name}
            output = subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout
        results.append(json.loads(output.splitlines()[-1]))
    print(f"{processes.machine()}; medians of {benchmark.repeats} (lowest to highest)")
    for name, unit in (("imports", "s"), ("first_step", "s"), ("peak_megabytes", "MB")):
        values = [result[name] for result in results]
        print(f"{name:16} {statistics.median(values):7.1f} {unit} ({min(values):.1f} to {max(values):.1f})")


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
