"""How fast are inserts into and samples from `LocalReplay`, beside plain NumPy columns?

Transitions of 4 floats and an integer action go in through `NStepTransitionAdder`, one stream or 64 at a time; batches
of 256 come out. The floor is a ring buffer of NumPy columns that does nothing else: it stores both observations of
each transition, and has no limiter, keys, probabilities, threads or trees. Of stacks of 84x84 frames it stores each
frame once, and gathers stacks. Floor and library alternate, and medians are compared.

    uv run benchmarks/replay.py
"""

from __future__ import annotations

import dataclasses
import functools
import os
import platform
import statistics
import time
from collections.abc import Callable

import dm_env
import numpy as np
import rich
import rich.table
import tyro

from acme_lite import adders, replay, specs

BATCH = 256
FRAME_BATCH = 32


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """How to measure."""

    repeats: int = 15
    """Measurements of each row, alternating with its floor."""
    inserts: int = 4_096
    """Transitions per measurement of inserts."""
    batches: int = 100
    """Batches per measurement of samples and priorities."""
    large: int = 1_000_000
    """Size of the large table."""
    frames: int = 20_000
    """Size of the tables of frames."""


class Ring:
    """The floor: one column per field, written in a circle."""

    def __init__(self, size: int):
        self.size = size
        self.position = 0
        self.columns = (
            np.ones((size, 4), np.float32),
            np.ones(size, np.int32),
            np.ones(size, np.float32),
            np.ones(size, np.float32),
            np.ones((size, 4), np.float32),
        )
        self.rng = np.random.default_rng(0)

    def insert(self, num: int, *values: np.ndarray) -> None:
        start = self.position
        if start + num > self.size:
            start = 0
        for column, value in zip(self.columns, values, strict=True):
            column[start : start + num] = value
        self.position = start + num

    def sample(self) -> list[np.ndarray]:
        rows = self.rng.integers(0, self.size, BATCH)
        return [column.take(rows, axis=0) for column in self.columns]


def seconds_per_call(function: Callable[[], object], calls: int) -> float:
    """Returns the mean time of a call, without what other processes took."""
    started = time.thread_time()
    for _ in range(calls):
        function()
    return (time.thread_time() - started) / calls


def compare(ours: Callable[[], object], floor: Callable[[], object], calls: int, repeats: int) -> tuple[float, float]:
    """Returns the median seconds per call of both."""
    pairs = [(seconds_per_call(ours, calls), seconds_per_call(floor, calls)) for _ in range(repeats + 1)][1:]
    return statistics.median(first for first, _ in pairs), statistics.median(second for _, second in pairs)


def make_table(size: int, sampler: replay.Uniform | replay.Prioritized, n_step: int) -> replay.Table:
    signature = replay.Signature(specs.Array((4,), np.float32), {"action": specs.DiscreteArray(2, np.int32)})
    return replay.Table("replay", size, signature, replay.Transitions(n_step), sampler=sampler)


def make_inserter(made: replay.LocalReplay, n_step: int, observation: np.ndarray) -> Callable[[], None]:
    """Returns a function that takes a step to this observation in every stream, inside endless episodes."""
    num_streams = len(observation)
    adder = adders.NStepTransitionAdder(made.writer(num_streams), n_step=n_step, discount=0.99)
    ones = np.ones(num_streams, np.float32)
    step_type = np.ones(num_streams, np.int64)
    action = np.zeros(num_streams, np.int32)
    adder.add_first(dm_env.TimeStep(0 * step_type, 0 * ones, ones, observation))
    step = dm_env.TimeStep(step_type, ones, ones, observation)
    return lambda: adder.add(action, step)


def measure_inserts(config: Benchmark, rows: list[tuple]) -> None:
    for num_streams in (1, 64):
        for n_step in (1, 5):
            for sampler in (replay.Uniform(), replay.Prioritized(0.6)):
                made = replay.LocalReplay([make_table(50_000, sampler, n_step)])
                ring = Ring(50_000)
                observation, ones = np.ones((num_streams, 4), np.float32), np.ones(num_streams, np.float32)
                values = (observation, np.zeros(num_streams, np.int32), ones, ones, observation)
                insert = functools.partial(ring.insert, num_streams, *values)
                calls = config.inserts // num_streams
                ours, floor = compare(make_inserter(made, n_step, observation), insert, calls, config.repeats)
                name = f"insert, {num_streams} streams, n = {n_step}, {type(sampler).__name__.lower()}"
                rows.append((name, num_streams / ours, num_streams / floor))
                made.close()


def measure_samples(config: Benchmark, rows: list[tuple]) -> None:
    for size in (50_000, config.large):
        ring = Ring(size)
        for sampler in (replay.Uniform(), replay.Prioritized(0.6)):
            made = replay.LocalReplay([make_table(size, sampler, 1)])
            insert = make_inserter(made, 1, np.ones((1_000, 4), np.float32))
            for _ in range(size // 1_000):
                insert()
            dataset = made.dataset("replay", BATCH)
            name = f"{type(sampler).__name__.lower()}, {size:,} items"
            ours, floor = compare(dataset.__next__, ring.sample, config.batches, config.repeats)
            rows.append((f"sample {BATCH}, {name}", BATCH / ours, BATCH / floor))
            if isinstance(sampler, replay.Prioritized):
                info = next(dataset).info
                priorities = np.random.default_rng(0).random(BATCH)
                update = functools.partial(dataset.update_priorities, info, priorities)
                ours = statistics.median(seconds_per_call(update, config.batches) for _ in range(config.repeats))
                rows.append((f"update priorities of {BATCH}, {size:,} items", BATCH / ours, None))
            made.close()


class FrameRing:
    """The floor of images: every frame once, in a circle."""

    def __init__(self, size: int):
        self.frames = np.ones((size, 84, 84), np.uint8)
        self.position = 0
        self.rng = np.random.default_rng(0)

    def insert(self, frames: np.ndarray) -> None:
        start = self.position if self.position + len(frames) <= len(self.frames) else 0
        self.position = start + len(frames)
        self.frames[start : self.position] = frames

    def sample(self) -> tuple[np.ndarray, np.ndarray]:
        newest = self.rng.integers(4, len(self.frames), FRAME_BATCH)[:, None] + np.arange(-4, 0)
        return self.frames.take(newest, axis=0), self.frames.take(newest + 1, axis=0, mode="clip")


def measure_frames(config: Benchmark, rows: list[tuple]) -> None:
    signature = replay.Signature(
        specs.FrameStack((4, 84, 84), np.uint8, 0, 255), {"action": specs.DiscreteArray(6, np.int32)}
    )
    ring = FrameRing(config.frames)
    for sampler in (replay.Uniform(), replay.Prioritized(0.6)):
        kind = type(sampler).__name__.lower()
        table = replay.Table("replay", config.frames, signature, replay.Transitions(), sampler=sampler)
        for num_streams in (1, 8):
            made = replay.LocalReplay([table])
            observation = np.random.default_rng(0).integers(0, 256, (num_streams, 4, 84, 84), np.uint8)
            insert = make_inserter(made, 1, observation)
            floor_insert = functools.partial(ring.insert, observation[:, -1])
            for _ in range(config.frames // num_streams):  # so that both write where they have written before
                insert()
                floor_insert()
            calls = config.inserts // num_streams
            ours, floor = compare(insert, floor_insert, calls, config.repeats)
            name = f"insert 84x84 frames, {num_streams} streams, {kind}"
            rows.append((name, num_streams / ours, num_streams / floor))
            if num_streams == 1:
                dataset = made.dataset("replay", FRAME_BATCH)
                ours, floor = compare(dataset.__next__, ring.sample, max(config.batches // 10, 1), config.repeats)
                name = f"sample {FRAME_BATCH} pairs of stacks of 4 84x84 frames, {kind}"
                rows.append((name, FRAME_BATCH / ours, FRAME_BATCH / floor))
            made.close()


def main(config: Benchmark) -> None:
    rows: list[tuple] = []
    measure_inserts(config, rows)
    measure_samples(config, rows)
    measure_frames(config, rows)
    table = rich.table.Table("thousand per second of CPU time", "LocalReplay", "NumPy", "ratio")
    for name, ours, floor in rows:
        ratio = ("", "") if floor is None else (f"{floor / 1e3:,.0f}", f"{ours / floor:.2f}")
        table.add_row(name, f"{ours / 1e3:,.0f}", *ratio)
    rich.print(table)
    rich.print(
        f"Medians of {config.repeats} alternated measurements; {platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, NumPy {np.__version__}."
    )


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
