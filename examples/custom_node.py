"""Trains DQN in a program of many processes, with a node of one's own that watches the others.

The program is an ordinary Launchpad program: whoever adds a node may ask the other nodes through their handles.

    uv run examples/custom_node.py
"""

import csv
import pathlib
import time

import jax
import launchpad as lp
import numpy as np
import tyro

from acme_lite import environments, experiments, launching
from acme_lite.agents import dqn


class Watcher:
    """Writes, every so often, what has been counted and how large the policy's parameters are."""

    def __init__(self, counter, learner, period_seconds: float):
        # What were handles where the program was put together are clients here: their methods run in the other nodes.
        self._counter, self._learner, self._period_seconds = counter, learner, period_seconds

    def run(self) -> None:
        begun = time.monotonic()
        while not (directory := self._counter.directory()):  # until the learner has opened it
            if lp.wait_for_stop(0.1):
                return
        with pathlib.Path(directory, "watcher.csv").open("a", newline="") as file:
            rows = csv.writer(file)
            if not file.tell():  # else the run goes on, and so does the file
                rows.writerow(["seconds", "actor_steps", "learner_steps", "parameter_norm"])
            while not lp.wait_for_stop(self._period_seconds):  # who loops without asking for the stop is killed
                counts = self._counter.get_counts()
                (policy,) = self._learner.get_variables(["policy"])
                norm = np.sqrt(sum(np.sum(np.square(leaf)) for leaf in jax.tree.leaves(policy["params"])))
                steps = counts.get("actor_steps", 0), counts.get("learner_steps", 0)
                rows.writerow([f"{time.monotonic() - begun:.1f}", *steps, f"{norm:.3f}"])
                file.flush()


def main(
    steps: int = 50_000,
    num_actors: int = 2,
    seed: int = 0,
    directory: str | None = None,
    period_seconds: float = 1.0,
) -> None:
    """Trains on CartPole.

    Args:
        steps: environment steps of all actors together.
        num_actors: actors, each in a process of its own.
        seed: seed of everything random.
        directory: where the run's files go, watcher.csv among them; below runs/ unless given.
        period_seconds: from one row of the watcher to the next.
    """
    experiment = experiments.ExperimentConfig(
        builder=dqn.DQNBuilder(),
        environment_factory=lambda seed: environments.make("gym:CartPole-v1", seed=seed),
        max_num_actor_steps=steps,
        seed=seed,
        directory=directory,
    )
    if not period_seconds > 0:
        raise SystemExit(f"--period-seconds must be greater than 0, got {period_seconds}.")
    program = experiments.make_distributed_experiment(experiment, num_actors)
    counter, learner = (program.groups[label][0].create_handle() for label in ("counter", "learner"))
    with program.group("watcher"):
        program.add_node(launching.CallNode(Watcher, counter, learner, period_seconds))
    launching.launch(program)


if __name__ == "__main__":
    tyro.cli(main)
