"""How much slower is the library than the ideal loop, which has no library between environment and gradient?

| workload | agent and task | networks, batch | SGD steps |
|---|---|---|---|
| A1, A4 | DQN on CartPole-v1 | MLP 64-64, 128 | one per environment step, one per four |
| B | SAC on Pendulum-v1 | MLP 256-256, 256 | one per environment step |
| D4PG | D4PG on the control suite's cartpole:swingup | LayerNorm MLP 256-256-256 and 512-512-256, 256 | one per eight |

K is the number of SGD steps in one compiled call. Each measurement is a process of its own with nothing beside it;
ideal loop and library alternate, at the same CPU affinity and XLA settings, and medians are compared. For DQN both also
run on the newer of XLA's two CPU runtimes, which JAX 0.6 takes unless told otherwise, and the library does not.

After each measurement the compiled update is called in a tight loop, always on the same state and batch: this is the
SGD step alone, without environment, acting and replay. The least time of all measurements counts. The library's has the
metrics that go to the logs; that a learner packs the state between two calls, and what it does in Python, is not in it.

    uv run benchmarks/loop_overhead.py
    uv run benchmarks/loop_overhead.py --workloads B D4PG
"""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, Literal

import ideal_d4pg
import ideal_dqn
import ideal_loop
import ideal_sac
import processes
import tyro


def make_dqn(task: ideal_loop.Task, **settings: Any) -> Any:
    from acme_lite.agents import dqn

    config = dqn.DQNConfig(
        n_step=task.n_step,
        learning_rate=ideal_dqn.LEARNING_RATE,
        max_gradient_norm=ideal_dqn.MAX_NORM,
        double_q=False,
        epsilon=ideal_dqn.EPSILON,
        target_update_period=ideal_dqn.TARGET_STEPS // task.steps_per_update,
        **settings,
    )
    return dqn.DQNBuilder(config)


def make_sac(task: ideal_loop.Task, **settings: Any) -> Any:
    from acme_lite.agents import sac

    config = sac.SACConfig(
        n_step=task.n_step,
        hidden_sizes=ideal_sac.HIDDEN_SIZES,
        target_entropy=ideal_sac.TARGET_ENTROPY,
        learning_rate=ideal_sac.LEARNING_RATE,
        target_update_rate=ideal_sac.TARGET_RATE,
        **settings,
    )
    return sac.SACBuilder(config)


def make_d4pg(task: ideal_loop.Task, **settings: Any) -> Any:
    from acme_lite.agents import d4pg

    config = d4pg.D4PGConfig(
        n_step=task.n_step,
        num_atoms=ideal_d4pg.NUM_ATOMS,
        v_min=-ideal_d4pg.V_MAX,
        v_max=ideal_d4pg.V_MAX,
        noise_std=ideal_d4pg.NOISE_STD,
        policy_learning_rate=ideal_d4pg.LEARNING_RATE,
        critic_learning_rate=ideal_d4pg.LEARNING_RATE,
        max_gradient_norm=ideal_d4pg.MAX_NORM,
        max_action_gradient_norm=ideal_d4pg.MAX_ACTION_NORM,
        target_update_period=ideal_d4pg.TARGET_PERIOD,
        policy_hidden_sizes=ideal_d4pg.POLICY_SIZES,
        critic_hidden_sizes=ideal_d4pg.CRITIC_SIZES,
        **settings,
    )
    return d4pg.D4PGBuilder(config)


@dataclasses.dataclass(frozen=True)
class Workload:
    """What is measured.

    Attributes:
        ideal: the ideal loop's.
        environment: the library's name of the environment.
        make_agent: `(ideal, **settings) -> builder`, the library's agent with the settings of the ideal loop.
        variants: name, and SGD steps per call; "newer" is on the newer of XLA's two CPU runtimes.
        length: environment steps of a measurement, as a multiple of `Benchmark.steps`.
    """

    ideal: ideal_loop.Task
    environment: str
    make_agent: Callable[..., Any]
    variants: tuple[tuple[str, int], ...]
    length: float

    def make_builder(self, num_updates: int, *, overlap: bool = False) -> Any:
        """Returns the builder of the library's agent."""
        return self.make_agent(
            self.ideal,
            discount=ideal_loop.DISCOUNT,
            batch_size=self.ideal.batch,
            max_replay_size=self.ideal.capacity,
            min_replay_size=ideal_loop.MIN_SIZE,
            samples_per_insert=self.ideal.batch / self.ideal.steps_per_update,
            num_steps_per_call=num_updates,
            overlap=overlap,
        )


_ONE_AND_EIGHT = (("ideal", 1), ("library", 1), ("ideal", 8), ("library", 8), ("overlap", 8))
_WITH_NEWER = _ONE_AND_EIGHT + tuple((f"{name} newer", k) for name, k in _ONE_AND_EIGHT)
_ONE = (("ideal", 1), ("library", 1), ("overlap", 1))

WORKLOADS = {
    "A1": Workload(ideal_dqn.make_task(1), "gym:CartPole-v1", make_dqn, _WITH_NEWER, 1),
    "A4": Workload(ideal_dqn.make_task(4), "gym:CartPole-v1", make_dqn, _WITH_NEWER, 2),
    "B": Workload(ideal_sac.TASK, "gym:Pendulum-v1", make_sac, _ONE_AND_EIGHT, 1 / 4),
    "D4PG": Workload(ideal_d4pg.TASK, "dm_control:cartpole:swingup", make_d4pg, _ONE, 1 / 2),
}
REVERB_VARIANTS = {"library": "reverb", "overlap": "reverb overlap"}
"""The library's with a Reverb server in the same process as its replay."""


@dataclasses.dataclass(frozen=True)
class Benchmark:
    """How to measure."""

    repeats: int = 5
    """Measurements of each variant."""
    steps: int = 20_000
    """Environment steps of a measurement of A1; A4 takes twice as many, D4PG half, and B a quarter."""
    warm_up_steps: int = 3_000
    """Environment steps before the clock starts."""
    workloads: tuple[Literal["A1", "A4", "B", "D4PG"], ...] = ("A1", "A4")
    """Which workloads to run."""
    reverb: bool = False
    """Whether to measure the library around a Reverb server, too."""
    cores: tuple[int, ...] = ()
    """Cores to run on; all that this process may use unless given."""

    def __post_init__(self):
        for name in self.workloads:
            steps = self.steps * WORKLOADS[name].length
            if steps <= self.warm_up_steps:
                raise ValueError(
                    f"steps must be such that {name} takes more than the {self.warm_up_steps} of the warm-up, got "
                    f"{self.steps}, of which it takes {steps:.0f}."
                )


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
    workload: Workload, num_steps: int, *, num_updates: int, measure_from: int, overlap: bool, replay: str
) -> dict:
    """Runs the library and returns environment steps per second from step `measure_from` on, and the time split."""
    from acme_lite import environments, experiments

    clock = Clock(measure_from)
    with tempfile.TemporaryDirectory() as directory:
        experiment = experiments.ExperimentConfig(
            builder=workload.make_builder(num_updates, overlap=overlap),
            environment_factory=lambda seed: environments.make(workload.environment, seed=seed),
            max_num_actor_steps=num_steps,
            evaluation=None,
            checkpointing=None,
            directory=directory,
            observers=(clock,),
        )
        result = experiments.run_experiment(experiment, quiet=True, replay=replay)
    split = {name: value / result.seconds["total"] for name, value in result.seconds.items() if name != "total"}
    rate = (num_steps - measure_from) / (clock.now - clock.started)
    return {"steps_per_second": rate, "split": split, "learner_steps": result.counts["learner_steps"]}


def make_core(workload: Workload) -> tuple[Any, Any]:
    """Returns the library's algorithm, a `LearnerCore` whose metrics are one array, and the environment's specs."""
    import jax.numpy as jnp

    from acme_lite import environments, specs

    builder = workload.make_builder(1)
    spec = specs.make_environment_spec(environments.make(workload.environment))
    core = builder.make_core(builder.make_networks(spec), spec)

    def update(state, sample):
        state, output = core.update(state, sample)
        return state, jnp.stack(list(output.metrics.values()))  # as the library's learner has it compiled

    return core._replace(update=update), spec


def make_sample(data: Any) -> Any:
    """Returns the sample of transitions, as the library's learner passes it to an update."""
    import numpy as np

    from acme_lite import replay

    shape = data.reward.shape
    info: Any = (), np.ones(shape, np.float32), np.zeros(shape[:-1], np.int32)  # the keys stay on the host
    return replay.Sample(data, replay.SampleInfo(*info))


def time_library_update(workload: Workload, num_updates: int) -> float:
    """Returns the seconds of an SGD step alone, `num_updates` of them in one call."""
    import jax
    import numpy as np

    from acme_lite import specs, types

    core, spec = make_core(workload)
    rng, shape = np.random.default_rng(0), ideal_loop.batch_shape(workload.ideal, num_updates)
    fields = types.Transition(spec.observation, spec.action, spec.reward, spec.discount, spec.observation)
    data = specs.tree_map_specs(lambda leaf: rng.random((*shape, *leaf.shape)).astype(leaf.dtype), fields)
    state = ideal_loop.compiled(core.init)(jax.random.key(0))
    update = ideal_loop.compiled_update(core.update, state, num_updates)
    return ideal_loop.seconds_per_call(update, state, make_sample(data)) / num_updates


def measure(arguments: dict[str, Any]) -> dict[str, Any]:
    """Runs one measurement in this process."""
    workload, variant, num_updates = WORKLOADS[arguments["workload"]], arguments["variant"], arguments["num_updates"]
    common = {"num_updates": num_updates, "measure_from": arguments["measure_from"]}
    name, is_newer = variant.removesuffix(" newer"), variant.endswith(" newer")
    if name == "ideal":
        import jax

        jax.config.update("jax_cpu_enable_async_dispatch", False)
        options = ideal_loop.NEWER_RUNTIME if is_newer else None
        result = ideal_loop.run(workload.ideal, arguments["steps"], options=options, **common)
    else:
        if is_newer:
            from acme_lite import _runtime

            _runtime._LARGEST_FOR_OLDER_RUNTIME = -1
        replay = "reverb" if name.startswith("reverb") else "local"
        overlap = name.endswith("overlap")
        result = run_library(workload, arguments["steps"], overlap=overlap, replay=replay, **common)
    result["peak_megabytes"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if name == "ideal":
        result["update_seconds"] = ideal_loop.time_update(workload.ideal, num_updates, options)
    elif variant == "library":
        result["update_seconds"] = time_library_update(workload, num_updates)
    return result


def main(benchmark: Benchmark) -> None:
    if benchmark.cores:
        os.sched_setaffinity(0, benchmark.cores)
    print(processes.machine())
    print(f"medians of {benchmark.repeats}, environment steps per second (lowest to highest)")
    for name in benchmark.workloads:
        workload = WORKLOADS[name]
        variants = workload.variants
        if benchmark.reverb:
            variants += tuple((REVERB_VARIANTS[one], k) for one, k in variants if one in REVERB_VARIANTS)
        results: dict[tuple[str, int], list[dict]] = {variant: [] for variant in variants}
        for _ in range(benchmark.repeats):
            for variant, num_updates in variants:
                arguments = {"workload": name, "variant": variant, "num_updates": num_updates}
                arguments["steps"] = round(benchmark.steps * workload.length)
                arguments["measure_from"] = benchmark.warm_up_steps
                results[variant, num_updates].append(processes.measure_alone(__file__, arguments, timeout_seconds=600))
        report(name, results)


def report(workload: str, results: dict[tuple[str, int], list[dict]]) -> None:
    rates = {variant: [one["steps_per_second"] for one in ones] for variant, ones in results.items()}
    medians = {variant: statistics.median(values) for variant, values in rates.items()}
    for (variant, num_updates), values in rates.items():
        ideal = "ideal newer" if variant.endswith(" newer") else "ideal"
        ratio = medians[variant, num_updates] / medians[ideal, num_updates]
        peak = max(one["peak_megabytes"] for one in results[variant, num_updates])
        print(
            f"{workload} K={num_updates} {variant:14} {medians[variant, num_updates]:8,.0f} "
            f"({min(values):,.0f} to {max(values):,.0f})  {ratio:.2f} x {ideal}, peak {peak:.0f} MB"
        )
        if "split" in results[variant, num_updates][-1]:
            split = results[variant, num_updates][-1]["split"]
            shares = ", ".join(f"{name} {share:.0%}" for name, share in split.items())
            print(f"     time split: {shares}, rest {1 - sum(split.values()):.0%}")
    report_updates(workload, results)


def report_updates(workload: str, results: dict[tuple[str, int], list[dict]]) -> None:
    timed = {variant: ones for variant, ones in results.items() if "update_seconds" in ones[0]}
    seconds = {variant: min(one["update_seconds"] for one in ones) for variant, ones in timed.items()}
    for (variant, num_updates), value in seconds.items():
        ratio = value / seconds["ideal", num_updates]
        print(
            f"{workload} K={num_updates} {variant:14} SGD step alone {1e6 * value:8,.0f} us  {ratio:.2f} x ideal's time"
        )


if __name__ == "__main__":
    if len(sys.argv) == 2 and sys.argv[1].startswith("{"):
        print(json.dumps(measure(json.loads(sys.argv[1]))))
    else:
        main(tyro.cli(Benchmark, description=__doc__))
