"""An experiment in one process: acting, learning and evaluation in turn."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import pathlib
import time
from typing import Any, NamedTuple

import jax
import numpy as np

from acme_lite import acting, core, counting, environments, loggers, replay, specs
from acme_lite.environment_loop import EnvironmentLoop
from acme_lite.experiments import config, policies, run_directory, timing

_REPLAYS = {"local": "LocalReplay", "reverb": "ReverbReplay"}


class Deadlock(RuntimeError):
    """Neither acting nor learning can go on."""


def run_experiment(
    experiment: config.ExperimentConfig, *, replay: str = "local", quiet: bool = False
) -> config.ExperimentResult:
    """Acts, learns and evaluates in one process.

    One thread decides, at fixed step counts: learn if the limiter gives a batch and samples lag behind the ratio, else
    act if it takes the inserts of one step. So samples stay in the middle of the limiter's window, and the same seed
    gives the same run, bit for bit, on one machine and core count. The first Ctrl-C ends the run with what it has;
    after an error the variables and the curve are written, too.

    Args:
        experiment: what to run.
        replay: "local" for a `LocalReplay`, "reverb" for a Reverb server in this process (which draws with a generator
            of its own: no two runs are the same).
        quiet: whether to print nothing.

    Raises:
        Deadlock: the limiter lets neither side go on; holds its counts.
        NonFiniteMetricError: learning went wrong; names the learner step and the metric.
        ValueError: the directory that was named belongs to another run, or there is no such replay.
    """
    if replay not in _REPLAYS:
        raise ValueError(f"replay must be one of {sorted(_REPLAYS)}, got {replay!r}.")
    seeds = _make_seeds(experiment.seed)
    with contextlib.ExitStack() as stack:
        environment = _make_environment(experiment, experiment.num_envs, seeds.environment)
        stack.callback(environment.close)
        spec = specs.make_environment_spec(environment)
        # Before the directory: an agent that cannot act in this environment must not claim it.
        networks = (experiment.network_factory or experiment.builder.make_networks)(spec)
        name = environment.name
        directory = _make_directory(experiment, name)
        make_logger = experiment.logger_factory or loggers.make_logger_factory(directory)

        def make_closed_logger(label: str) -> loggers.Logger:
            logger = make_logger(label)
            stack.callback(logger.close)
            return logger

        evaluation_environment = None
        if experiment.evaluation is not None:
            evaluation_environment = _make_environment(experiment, 1, seeds.evaluation)
            stack.callback(evaluation_environment.close)
        parts = _make_parts(
            experiment, networks, environment, evaluation_environment, seeds, make_closed_logger, replay
        )
        stack.callback(parts.replay.close)
        title = f"{_agent_name(experiment)} {name}"
        if not quiet:
            megabytes = parts.replay.info().num_bytes / 1e6
            print(f"{title}: writes to {directory}; the replay takes {megabytes:,.1f} MB when it is full.")
        with loggers.Progress(experiment.max_num_actor_steps, title, quiet=quiet) as progress:
            run = _Run(experiment, parts, progress, make_closed_logger("time_split"))
            try:
                finished = run.go()
            except Exception:
                with contextlib.suppress(Exception):  # the first error is the one to hear of
                    parts.learner.close()
                    _write_curve(run.result(directory, finished=False), run.training, title)
                raise
        result = run.result(directory, finished=finished)
        curve = _write_curve(result, run.training, f"{title}, seed {experiment.seed}")
        _write_policy(result, parts)
    if not quiet:
        print(_summary(result, curve))
    return result


class _Seeds(NamedTuple):
    """Independent seeds for the parts of a run."""

    environment: int
    evaluation: int
    replay: int
    learner: jax.Array
    actor: jax.Array
    evaluator: jax.Array


def _make_seeds(seed: int) -> _Seeds:
    environment, evaluation, dataset = (np.random.SeedSequence(seed).generate_state(3) // 2).tolist()
    return _Seeds(environment, evaluation, dataset, *jax.random.split(jax.random.key(seed), 3))


class _Parts(NamedTuple):
    """The parts of a run, put together."""

    spec: specs.EnvironmentSpec
    evaluation_policy: acting.ActorCore
    variable_names: list[str]
    replay: replay.Replay
    dataset: timing.TimedDataset
    learner: core.Learner
    loop: EnvironmentLoop
    evaluator: EnvironmentLoop | None
    counter: counting.Counter


def _make_parts(
    experiment: config.ExperimentConfig,
    networks: Any,
    environment: environments.VectorEnvironment,
    evaluation_environment: environments.VectorEnvironment | None,
    seeds: _Seeds,
    make_logger: loggers.LoggerFactory,
    replay_name: str,
) -> _Parts:
    builder = experiment.builder
    spec = specs.make_environment_spec(environment)
    policy = builder.make_policy(networks, spec)
    evaluation_policy = builder.make_policy(networks, spec, evaluation=True)
    shapes = jax.eval_shape(functools.partial(builder.init_variables, networks, spec), jax.random.key(0))
    extras_spec = acting.extras_spec(policy, shapes["policy"], spec.observation)
    tables = builder.make_tables(spec, extras_spec)
    local = getattr(replay, _REPLAYS[replay_name])([table.widened(experiment.num_envs) for table in tables])
    adder = builder.make_adder(local.writer(experiment.num_envs), spec, extras_spec)
    dataset = timing.TimedDataset(builder.make_dataset(local, seed=seeds.replay))
    counter = counting.Counter()
    learner = builder.make_learner(
        networks, spec, dataset, key=seeds.learner, counter=counter, logger=make_logger("learner")
    )
    actor = builder.make_actor(policy, learner, adder, key=seeds.actor, num_envs=experiment.num_envs)
    loop = EnvironmentLoop(
        environment, actor, counter=counter, logger=make_logger("actor"), observers=experiment.observers
    )
    evaluator = None
    if evaluation_environment is not None:
        evaluator = EnvironmentLoop(
            evaluation_environment,
            builder.make_actor(evaluation_policy, learner, None, key=seeds.evaluator, num_envs=1),
            counter=counter,
            logger=make_logger("evaluator"),
            label="evaluator",
        )
    return _Parts(spec, evaluation_policy, sorted(shapes), local, dataset, learner, loop, evaluator, counter)


class _Run:
    """The loop of a run, and what it has seen so far.

    Attributes:
        evaluations: made so far.
        training: actor steps at which training episodes ended, and their returns.
    """

    def __init__(
        self,
        experiment: config.ExperimentConfig,
        parts: _Parts,
        progress: loggers.Progress,
        time_logger: loggers.Logger,
    ):
        self.evaluations: list[config.Evaluation] = []
        self.training: tuple[list[int], list[float]] = ([], [])
        self._experiment = experiment
        self._parts = parts
        self._progress = progress
        self._time_logger = time_logger
        self._learning_seconds = 0.0
        self._evaluating_seconds = 0.0
        self._start = time.perf_counter()

    def go(self) -> bool:
        """Runs to the end; returns False if Ctrl-C ended it before."""
        finished = False
        with contextlib.suppress(KeyboardInterrupt):
            self._act_and_learn()
            self._parts.learner.close()
            if not self.evaluations or self.evaluations[-1].actor_steps != self._parts.loop.steps:
                self._evaluate()
            finished = True
        self._parts.learner.close()
        self._parts.loop.report_steps()
        self._log_time_split()
        return finished

    def result(self, directory: pathlib.Path, *, finished: bool) -> config.ExperimentResult:
        """Returns what the run has given so far."""
        parts = self._parts
        variables = parts.learner.get_variables(parts.variable_names)
        return config.ExperimentResult(
            directory=directory,
            evaluations=tuple(self.evaluations),
            counts=parts.counter.get_counts(),
            variables=jax.device_get(dict(zip(parts.variable_names, variables, strict=True))),
            finished=finished,
            seconds=self.seconds(),
        )

    def _act_and_learn(self) -> None:
        parts, num_envs = self._parts, self._experiment.num_envs
        evaluation, max_steps = self._experiment.evaluation, self._experiment.max_num_actor_steps
        period = max_steps if evaluation is None else evaluation.every_steps
        next_evaluation = period
        while parts.loop.steps < max_steps:
            if parts.dataset.due():
                self._learn()
            elif parts.replay.can_insert(num_envs):
                self._act()
                if next_evaluation <= parts.loop.steps < max_steps:
                    next_evaluation += period
                    self._evaluate()
                    self._log_time_split()
            elif parts.dataset.ready():
                self._learn()
            else:
                raise Deadlock(f"Neither acting nor learning can go on: {parts.replay.info().tables}.")

    def _learn(self) -> None:
        start = time.perf_counter()
        self._parts.learner.step()
        # Large updates run on after the call has returned, and the next action would wait for them: that is learning.
        jax.block_until_ready(self._parts.learner.get_variables(("policy",)))
        self._learning_seconds += time.perf_counter() - start

    def _act(self) -> None:
        loop = self._parts.loop
        self._progress.advance(loop.step())
        if loop.finished:
            for episode in loop.finished:
                self.training[0].append(episode.steps)
                self.training[1].append(episode.episode_return)
            self._progress.report(training_return=loop.finished[-1].episode_return)

    def _evaluate(self) -> None:
        evaluator, evaluation = self._parts.evaluator, self._experiment.evaluation
        if evaluator is None or evaluation is None:
            return
        start = time.perf_counter()
        self._parts.loop.report_steps()
        episodes = evaluator.run(num_episodes=evaluation.num_episodes).episodes
        returns = tuple(episode.episode_return for episode in episodes)
        self.evaluations.append(config.Evaluation(self._parts.loop.steps, returns))
        self._progress.report(evaluation_return=self.evaluations[-1].mean_return)
        self._evaluating_seconds += time.perf_counter() - start

    def seconds(self) -> dict[str, float]:
        """Returns where the time has gone so far, in seconds."""
        loop, sampling = self._parts.loop, self._parts.dataset.seconds
        return {
            "environment": loop.environment_seconds,
            "acting": loop.acting_seconds,
            "adding": loop.adding_seconds,
            "sampling": sampling,
            "learning": self._learning_seconds - sampling,
            "evaluating": self._evaluating_seconds,
            "total": time.perf_counter() - self._start,
        }

    def _log_time_split(self) -> None:
        counts = {"actor_steps": self._parts.loop.steps}
        self._time_logger.write(counts | {f"{name}_seconds": value for name, value in self.seconds().items()})


def _make_environment(
    experiment: config.ExperimentConfig, num_envs: int, seed: int
) -> environments.SyncVectorEnvironment:
    members = [experiment.environment_factory(seed + index) for index in range(num_envs)]
    for member in members:
        if not hasattr(member, "observation_spec") or hasattr(member, "num_envs"):
            raise ValueError(
                "ExperimentConfig.environment_factory must return one dm_env.Environment (num_envs of them are put "
                f"together; environments.GymnasiumEnvironment adapts a gymnasium.Env), got {type(member).__name__}."
            )
    return environments.SyncVectorEnvironment(members, seed=seed)


def _agent_name(experiment: config.ExperimentConfig) -> str:
    return type(experiment.builder).__name__.removesuffix("Builder").lower()


def _make_directory(experiment: config.ExperimentConfig, environment_name: str) -> pathlib.Path:
    described = {
        "agent": experiment.builder,
        "environment": environment_name,
        "num_envs": experiment.num_envs,
        "max_num_actor_steps": experiment.max_num_actor_steps,
        "seed": experiment.seed,
        "network_factory": experiment.network_factory,
        "evaluation": experiment.evaluation,
    }
    if experiment.directory is not None:
        return run_directory.open_run_directory(experiment.directory, described)
    parts = (_agent_name(experiment), environment_name, f"seed{experiment.seed}")
    return run_directory.make_run_directory("runs", parts, described)


def _write_curve(result: config.ExperimentResult, training: tuple[list[int], list[float]], title: str) -> pathlib.Path:
    """Writes the variables and the learning curve; returns the curve's path."""
    policies.save_variables(result.directory, result.variables)
    curve = result.directory / "learning_curve.png"
    evaluations = [(one.actor_steps, one.mean_return, one.returns) for one in result.evaluations]
    loggers.plot_learning_curve(evaluations, training, curve, title=title)
    return curve


def _write_policy(result: config.ExperimentResult, parts: _Parts) -> None:
    """Writes the policy and, last, what marks the run as finished."""
    policies.save_policy(result.directory, parts.evaluation_policy, result.variables["policy"], parts.spec)
    if result.finished:
        description = {
            "counts": result.counts,
            "evaluations": [dataclasses.asdict(one) for one in result.evaluations],
            "seconds": result.seconds,
        }
        run_directory.write_json(result.directory / run_directory.RESULT_FILE, description)


def _summary(result: config.ExperimentResult, curve: pathlib.Path) -> str:
    steps, total = result.counts["actor_steps"], result.seconds["total"]
    ending = "Finished" if result.finished else "Interrupted"
    lines = [f"{ending} after {steps:,} environment steps in {total:.1f} s."]
    shares = [f"{name} {value / total:.0%}" for name, value in result.seconds.items() if name != "total"]
    lines.append(f"Time: {', '.join(shares)}.")
    if result.evaluations:
        last = result.evaluations[-1]
        lines.append(
            f"Last evaluation, at step {last.actor_steps:,}: mean return {last.mean_return:.1f} over "
            f"{len(last.returns)} episodes."
        )
    return "\n".join([*lines, f"Learning curve: {curve}"])
