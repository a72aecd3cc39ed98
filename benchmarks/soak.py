"""Do throughput and resident memory stay flat in a long run with a full replay?

DQN on CartPole-v1 with a replay that is full after the first minute; one line per interval. Where other work shares the
cores, steps per second of this process's CPU time (Reverb's server included) say what steps per second do not.

    uv run benchmarks/soak.py --minutes 30
"""

from __future__ import annotations

import dataclasses
import os
import tempfile
import time
from typing import Any

import processes
import tyro


@dataclasses.dataclass(frozen=True)
class Soak:
    """What to run."""

    minutes: float = 30.0
    """How long, after the replay is full."""
    interval_seconds: float = 60.0
    """From line to line."""
    replay: str = "local"
    """Which replay: local or reverb."""
    max_replay_size: int = 50_000
    """Transitions in the replay."""
    steps_per_update: int = 4
    """Environment steps per SGD step."""
    overlap: bool = False
    """Whether learning runs in a thread beside acting."""


class Ended(Exception):
    """The time is over."""


def resident_megabytes() -> float:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


class Watch:
    """An observer that prints a line per interval once the replay is full, and ends the run when the time is over."""

    def __init__(self, soak: Soak):
        self._soak = soak
        self._steps = 0
        self._start = 0.0
        self._line_time = 0.0
        self._line_cpu = 0.0
        self._line_steps = 0
        self.lines: list[tuple[float, float, float]] = []  # (steps per second, per CPU second, megabytes)

    def observe_first(self, timestep: Any) -> None:
        pass

    def observe(self, action: Any, next_timestep: Any) -> None:
        self._steps += 1
        if self._steps < self._soak.max_replay_size:
            return
        now, cpu = time.monotonic(), time.process_time()
        if not self._start:
            self._start = now
            self._line_time, self._line_cpu, self._line_steps = now, cpu, self._steps
            print(f"the replay is full after {self._steps:,} steps, {resident_megabytes():.1f} MB", flush=True)
        if now - self._line_time < self._soak.interval_seconds:
            return
        steps = self._steps - self._line_steps
        rate, cpu_rate = steps / (now - self._line_time), steps / (cpu - self._line_cpu)
        self.lines.append((rate, cpu_rate, resident_megabytes()))
        self._line_time, self._line_cpu, self._line_steps = now, cpu, self._steps
        print(
            f"{(now - self._start) / 60:5.1f} min {rate:8,.0f} steps/s {cpu_rate:8,.0f} steps per CPU second "
            f"{self.lines[-1][2]:8.1f} MB",
            flush=True,
        )
        if now - self._start >= 60 * self._soak.minutes:
            raise Ended

    def get_metrics(self, member: int) -> dict[str, Any]:
        return {}


def main(soak: Soak) -> None:
    from acme_lite import environments, experiments
    from acme_lite.agents import dqn

    print(f"{processes.machine()}, {soak}", flush=True)
    watch = Watch(soak)
    config = dqn.DQNConfig(
        samples_per_insert=128 / soak.steps_per_update, max_replay_size=soak.max_replay_size, overlap=soak.overlap
    )
    with tempfile.TemporaryDirectory() as directory:
        experiment = experiments.ExperimentConfig(
            builder=dqn.DQNBuilder(config),
            environment_factory=lambda seed: environments.make("gym:CartPole-v1", seed=seed),
            max_num_actor_steps=10**9,
            evaluation=None,
            directory=directory,
            observers=(watch,),
        )
        try:
            experiments.run_experiment(experiment, quiet=True, replay=soak.replay)
        except Ended:
            for name, values in zip(
                ("steps/s", "steps per CPU second", "MB"), zip(*watch.lines, strict=True), strict=True
            ):
                print(
                    f"{name}: first {values[0]:,.1f}, last {values[-1]:,.1f}, lowest {min(values):,.1f}, "
                    f"highest {max(values):,.1f}"
                )


if __name__ == "__main__":
    main(tyro.cli(Soak, description=__doc__))
