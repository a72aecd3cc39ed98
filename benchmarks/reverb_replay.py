"""How fast are inserts into and samples from `ReverbReplay`, in the server's process and in another?

Transitions of 4 floats and an integer action go in through `NStepTransitionAdder`; batches of 256 come out, beside the
other ways that Reverb has to sample the same table (`ways`). Images of 4 stacked 84x84 frames are written once frame by
frame (`specs.FrameStack`) and once as whole stacks (a plain array). The machine's speed is shown by a NumPy gather of
the same batch, measured between the others.

    uv run benchmarks/reverb_replay.py
"""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import dm_env
import numpy as np
import rich
import rich.table
import tyro

from acme_lite import adders, replay, specs

BATCH = 256


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """What to measure."""

    inserts: int = 20_000
    """Transitions per measurement."""
    batches: int = 200
    """Batches per measurement."""
    images: int = 2_000
    """Transitions of images."""
    repeats: int = 3
    """Measurements of each row; the best counts, since other processes only slow them down."""
    address: str = ""
    """For the process that the benchmark starts: the server to write to and sample from."""


def make_table(observation: specs.Array, size: int = 50_000) -> replay.Table:
    signature = replay.Signature(observation, {"action": specs.DiscreteArray(6, np.int32)})
    return replay.Table("replay", size, signature, replay.Transitions())


FLOATS = make_table(specs.Array((4,), np.float32))


def make_adder(made: Any, observation: np.ndarray) -> Callable[[], None]:
    """Returns a function that takes a step inside an endless episode."""
    adder = adders.NStepTransitionAdder(made.writer(1), n_step=1, discount=0.99)
    one = np.ones(1, np.float32)
    adder.add_first(dm_env.TimeStep(np.zeros(1, int), 0 * one, one, observation))
    step = dm_env.TimeStep(np.ones(1, int), one, one, observation)
    action = np.zeros(1, np.int32)
    return lambda: adder.add(action, step)


def insert_rate(made: Any, observation: np.ndarray, inserts: int) -> float:
    add = make_adder(made, observation)
    add()
    started = time.perf_counter()
    for _ in range(inserts):
        add()
    while made.info().tables["replay"].num_pending:
        time.sleep(0.001)
    return inserts / (time.perf_counter() - started)


def bare_insert_rate(made: Any, inserts: int) -> float:
    """Returns the rate of an empty loop around Reverb's writer."""
    import reverb

    num_bytes = made._link.layout.transition.itemsize
    options = reverb.pybind.ConstantChunkerOptions(1, 1)
    writer = reverb.pybind.Client(made.address).NewTrajectoryWriter(options, False)
    data, in_flight = np.ones(num_bytes, np.uint8), 0
    started = time.perf_counter()
    for _ in range(inserts):
        writer.CreateItem("replay", 1.0, [writer.Append([data])], [True])
        in_flight += 1
        if in_flight == 64:
            writer.Flush(32, 60_000)
            in_flight = 32
    writer.Flush(0, 60_000)
    rate = inserts / (time.perf_counter() - started)
    writer.Close()
    return rate


def sample_rate(draw: Callable[[], object], batches: int, batch: int = BATCH) -> float:
    for _ in range(3):
        draw()
    started = time.perf_counter()
    for _ in range(batches):
        draw()
    return batches * batch / (time.perf_counter() - started)


def gather() -> Callable[[], object]:
    columns = [np.ones((50_000, *shape), np.float32) for shape in ((4,), (4,), (), (), ())]
    rng = np.random.default_rng(0)

    def draw() -> list[np.ndarray]:
        rows = rng.integers(0, 50_000, BATCH)
        return [column.take(rows, axis=0) for column in columns]

    return draw


def other_ways(address: str) -> dict[str, Callable[[], object]]:
    """Returns Reverb's own ways to a batch of bytes; nothing is unpacked."""
    import reverb

    client = reverb.Client(address)

    def dataset(workers: int, max_samples: int = -1) -> Any:
        source = reverb.TrajectoryDataset.from_table_signature(
            address, "replay", BATCH // max(workers, 1), num_workers_per_iterator=workers, max_samples=max_samples
        )
        return (source if max_samples < 0 else source.repeat()).batch(BATCH).as_numpy_iterator()

    def binding() -> list:
        sampler = client._client.NewSampler("replay", BATCH, BATCH)
        items = [sampler.GetNextTrajectory() for _ in range(BATCH)]
        return [np.stack(column) for column in zip(*items, strict=True)]

    return {
        "Client.sample": lambda: list(client.sample("replay", BATCH, emit_timesteps=False)),
        "NewSampler per batch": binding,
        "TrajectoryDataset batched, 1 worker": dataset(1).__next__,
        "TrajectoryDataset batched, 4 workers": dataset(4).__next__,
        "TrajectoryDataset batched, workers chosen by Reverb": dataset(-1).__next__,
        "TrajectoryDataset anew for each batch": dataset(1, BATCH).__next__,
    }


def measure_floats(config: Benchmark, made: replay.ReverbReplay, where: str, rows: dict[str, float]) -> None:
    observation = np.ones((1, 4), np.float32)
    note = rows.__setitem__
    for _ in range(config.repeats):
        name = f"insert, {where}"
        note(name, max(rows.get(name, 0.0), insert_rate(made, observation, config.inserts)))
        name = f"insert, {where}, Reverb's writer alone"
        note(name, max(rows.get(name, 0.0), bare_insert_rate(made, config.inserts)))
        ways = other_ways(made.address) | {"NumPy gather": gather()}
        ways["dataset"] = made.dataset("replay", BATCH, timeout_seconds=60.0).__next__
        for way, draw in ways.items():
            batches = config.batches // 10 if way in ("Client.sample", "NewSampler per batch") else config.batches
            name = f"sample {BATCH}, {where}, {way}"
            note(name, max(rows.get(name, 0.0), sample_rate(draw, batches)))


def measure_images(config: Benchmark, rows: dict[str, float]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (1, 4, 84, 84), np.uint8)
    frames[:, :, 20:] = 0  # most of an Atari frame is one colour
    for name, spec in (
        ("frames", specs.FrameStack((4, 84, 84), np.uint8, 0, 255)),
        ("whole stacks", specs.Array((4, 84, 84), np.uint8)),
    ):
        for prefetch in (False, True):
            made = replay.ReverbReplay([make_table(spec, config.images)], prefetch=prefetch)
            megabytes = made.info().num_bytes / 1e6
            rate = insert_rate(made, frames, config.images)
            rows[f"insert images, {name} ({megabytes:.0f} MB before compression), prefetch {prefetch}"] = rate
            dataset = made.dataset("replay", 32, timeout_seconds=60.0)
            rows[f"sample 32 images, {name}, prefetch {prefetch}"] = sample_rate(dataset.__next__, 30, 32)
            made.close()


def main(config: Benchmark) -> None:
    rows: dict[str, float] = {}
    if config.address:
        made = replay.ReverbReplay([FLOATS], address=config.address)
        measure_floats(config, made, "another process", rows)
        print(json.dumps(rows), flush=True)
        os._exit(0)  # threads of other ways to sample are still at work
    for prefetch in (False, True):
        made = replay.ReverbReplay([FLOATS], prefetch=prefetch)
        measure_floats(config, made, f"same process, prefetch {prefetch}", rows)
        made.close()
    made = replay.ReverbReplay([FLOATS])
    insert_rate(made, np.ones((1, 4), np.float32), 1_000)
    command = [sys.executable, __file__, "--address", made.address, "--inserts", str(config.inserts)]
    command += ["--batches", str(config.batches), "--repeats", str(config.repeats)]
    output = subprocess.run(command, capture_output=True, text=True, timeout=600, check=True).stdout
    rows.update(json.loads(output.splitlines()[-1]))
    made.close()
    measure_images(config, rows)
    table = rich.table.Table("thousand per second", "")
    for name, rate in rows.items():
        table.add_row(name, f"{rate / 1e3:,.1f}")
    rich.print(table)
    rich.print(
        f"Best of {config.repeats} (images: one); {platform.machine()}, {os.cpu_count()} cores, load "
        f"{os.getloadavg()[0]:.1f}, Python {platform.python_version()}, NumPy {np.__version__}."
    )
    os._exit(0)


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
