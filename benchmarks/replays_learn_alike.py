"""Does DQN learn the same around a Reverb server as with the local replay?

Greedy returns of DQN with its default settings, both replays in turn, each run in a process of its own.

    uv run benchmarks/replays_learn_alike.py
"""

from __future__ import annotations

import dataclasses
import json
import sys
import tempfile

import processes
import tyro

REPLAYS = ("local", "reverb")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What to run."""

    environments: tuple[str, ...] = ("gym:CartPole-v1", "bsuite:catch/0")
    """Names of `environments.make`."""
    steps: tuple[int, ...] = (30_000, 10_000)
    """Environment steps on each."""
    seeds: int = 3
    """Runs of each replay."""
    evaluations: int = 4
    """Evaluations of each run."""


def run(environment: str, seed: int, steps: int, every_steps: int, replay: str) -> dict:
    """Runs in this process; returns the mean greedy returns."""
    from acme_lite import environments, experiments
    from acme_lite.agents import dqn

    with tempfile.TemporaryDirectory() as directory:
        experiment = experiments.ExperimentConfig(
            dqn.DQNBuilder(dqn.DQNConfig()),
            lambda seed: environments.make(environment, seed=seed),
            max_num_actor_steps=steps,
            seed=seed,
            evaluation=experiments.EvaluationConfig(every_steps=every_steps, num_episodes=10),
            checkpointing=None,
            directory=directory,
        )
        result = experiments.run_experiment(experiment, quiet=True, replay=replay)
    return {
        "returns": [(one.actor_steps, one.mean_return) for one in result.evaluations],
        "learner_steps": result.counts["learner_steps"],
        "seconds": result.seconds["total"] - result.seconds["evaluating"],
    }


def main(comparison: Comparison) -> None:
    print(f"{processes.machine()}, {comparison}", flush=True)
    for environment, steps in zip(comparison.environments, comparison.steps, strict=True):
        for seed in range(comparison.seeds):
            for replay in REPLAYS:
                arguments = [environment, seed, steps, steps // comparison.evaluations, replay]
                found = processes.measure_alone(__file__, arguments)
                curve = ", ".join(f"{mean:.1f} at {step:,}" for step, mean in found["returns"])
                print(
                    f"{environment:16} seed {seed} {replay:6} {curve}; {found['learner_steps']:,} learner steps, "
                    f"{found['seconds']:.0f} s",
                    flush=True,
                )


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("["):
        print(json.dumps(run(*json.loads(sys.argv[1]))))
    else:
        main(tyro.cli(Comparison, description=__doc__))
