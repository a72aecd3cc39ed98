"""An experiment in one process: acting, learning and evaluation in turn."""

from __future__ import annotations

import contextlib
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from acme_lite import checkpointing, loggers, packing, specs
from acme_lite.experiments import checkpoints, config, identity, interrupts, outputs, run_directory
from acme_lite.experiments import parts as parts_lib

_UNINTERRUPTED_STEPS = 10  # of an evaluation, from one look for signals to the next


class Deadlock(RuntimeError):
    """Neither acting nor learning can go on."""


def run_experiment(
    experiment: config.ExperimentConfig, *, replay: str = "local", quiet: bool = False
) -> config.ExperimentResult:
    """Acts, learns and evaluates in one process.

    One thread decides, at fixed step counts: learn if the limiter gives a batch and samples lag behind the ratio, else
    act if it takes the inserts of one step. So samples stay in the middle of the limiter's window, and the same seed
    gives the same run, bit for bit, on one machine and core count. The first Ctrl-C ends the run after this step with a
    checkpoint and what it has, the second at once; after an error the variables and the curve are written, too.

    A run that did not come to its end, started again, goes on from its last checkpoint (`docs/resume.md`).

    Args:
        experiment: what to run.
        replay: "local" for a `LocalReplay`, "reverb" for a Reverb server in this process (which draws with a generator
            of its own: no two runs are the same).
        quiet: whether to print nothing.

    Raises:
        CheckpointError: the run was started before, and none of its checkpoints can be read.
        Deadlock: the limiter lets neither side go on; holds its counts.
        NonFiniteMetricError: learning went wrong, or an evaluation's return is not finite; names the metric and when.
        DiskFullError: logs or a checkpoint could not be written.
        RuntimeError: the same run is under way in another process.
        SystemExit: after SIGTERM or SIGHUP, which end the run as Ctrl-C does, with code 143 or 129.
        ValueError: the directory that was named belongs to another run, or there is no such replay.
    """
    if replay not in parts_lib.REPLAYS:
        raise ValueError(f"replay must be one of {', '.join(parts_lib.REPLAYS)}, got {replay!r}.")
    seeds = parts_lib.make_seeds(experiment.seed)
    with _explained_full_disk(experiment), contextlib.ExitStack() as stack:
        environment = parts_lib.make_environment(experiment, experiment.num_envs, seeds.environment)
        stack.callback(environment.close)
        spec = specs.make_environment_spec(environment)
        # Before the directory: an agent that cannot act in this environment must not claim it.
        plan = parts_lib.make_plan(experiment, spec)
        name = environment.name
        description = identity.describe(experiment, identity.describe_environment(environment), replay=replay)
        directory = identity.open_directory(experiment, description)
        stack.callback(directory.close)
        logs = outputs.Logs(experiment.logger_factory or loggers.make_logger_factory(directory.path))
        stack.callback(logs.close)
        evaluation_environment = None
        if experiment.evaluation is not None:
            evaluation_environment = parts_lib.make_environment(
                experiment, 1, seeds.evaluation, others=environment.environments
            )
            stack.callback(evaluation_environment.close)
        parts = parts_lib.make_parts(
            plan,
            environment,
            evaluation_environment,
            seeds,
            logs.make,
            make_replay=lambda tables: stack.enter_context(parts_lib.open_replay(replay, tables, directory.path)),
        )
        schedule = None
        if experiment.checkpointing is not None:
            config_hash = run_directory.config_hash(description)
            opened = checkpoints.open_checkpoints(experiment.checkpointing, config_hash, directory.path)
            schedule = checkpoints.Schedule(experiment.checkpointing, opened, config_hash)
        run = _Run(experiment, parts, logs, schedule)
        title = f"{identity.agent_name(experiment)} {name}"
        beginning = run.resume() if directory.resumed else run.check()
        if not quiet:
            megabytes = parts.replay.info().num_bytes / 1e6
            loggers.say(f"{title}: writes to {directory.path}; the replay takes {megabytes:,.1f} MB when it is full.")
            if beginning:
                loggers.say(f"{title}: {beginning}")
        steps, most = parts.training.loop.steps, experiment.max_num_actor_steps
        with loggers.Progress(most, title, start_steps=steps, quiet=quiet) as progress:
            try:
                finished = run.go(progress, quiet=quiet)
            except Exception:
                with contextlib.suppress(Exception):  # the first error is the one to hear of
                    parts.learner.close()
                    outputs.write_curve(run.result(directory.path, finished=False), run.training, title)
                raise
        result = run.result(directory.path, finished=finished)
        curve = outputs.write_curve(result, run.training, f"{title}, seed {experiment.seed}")
        outputs.write_result(result, parts_lib.make_evaluation_policy(plan), plan.spec)
        if finished and schedule is not None:
            schedule.clear()
    if not quiet:
        loggers.say(outputs.summary(result, curve))
    interrupts.exit_after(run.signal)
    return result


@contextlib.contextmanager
def _explained_full_disk(experiment: config.ExperimentConfig) -> Iterator[None]:
    """Says what to do where an error means that the disk is full, whoever was writing."""
    try:
        yield
    except Exception as error:
        directory = pathlib.Path(experiment.directory or "runs")
        advice = "Make room, and start the run again: it goes on from its last checkpoint, if it has one."
        explained = checkpointing.disk_full(error, directory, "The run's files", advice)
        if explained is None or explained is error:
            raise
        raise explained from error


class _Run:
    """The loop of a run, and what it has seen so far.

    Attributes:
        evaluations: made so far.
        training: actor steps at which training episodes ended, and their returns.
        signal: number of the signal that ended the run; None without one.
    """

    def __init__(
        self,
        experiment: config.ExperimentConfig,
        parts: parts_lib.Parts,
        logs: outputs.Logs,
        schedule: checkpoints.Schedule | None,
    ):
        self.evaluations: list[config.Evaluation] = []
        self.training: tuple[list[int], list[float]] = ([], [])
        self._experiment = experiment
        self._parts = parts
        self._loop = parts.training.loop
        self._logs = logs
        self._time_logger = logs.make("time_split")
        self._schedule = schedule
        evaluation = experiment.evaluation
        self._evaluation_period = experiment.max_num_actor_steps if evaluation is None else evaluation.every_steps
        self._next_evaluation = self._evaluation_period
        self._learning_seconds = 0.0
        self._evaluating_seconds = 0.0
        self._start = time.perf_counter()
        self.signal: int | None = None

    def check(self) -> str:
        """Fails now, and not at the first checkpoint, if a part's state cannot be saved; returns a line to print."""
        settings = self._experiment.checkpointing
        if settings is None:
            return ""
        checkpointing.check(self._parts.save(include_replay=False))
        reason = checkpoints.why_left_out(settings, self._parts.replay)
        return f"checkpoints leave the replay out, since {reason}." if reason else ""

    def resume(self) -> str:
        """Goes on from the newest checkpoint that is whole; returns a line to print."""
        assert self._schedule is not None
        state, path = self._schedule.load()
        self._parts.restore(state["parts"])
        self._logs.restore(state["logs"])
        self.evaluations = [
            config.Evaluation(steps, tuple(returns.tolist())) for steps, returns in state["evaluations"]
        ]
        steps, returns = state["training"]
        self.training = (steps.tolist(), returns.tolist())
        self._next_evaluation = state["next_evaluation"]
        seconds = state["seconds"]
        self._learning_seconds, self._evaluating_seconds = (
            seconds["learning"] + seconds["sampling"],
            seconds["evaluating"],
        )
        self._parts.dataset.seconds, self._schedule.seconds = seconds["sampling"], seconds["checkpointing"]
        self._start = time.perf_counter() - seconds["total"]
        replay = "; the replay begins empty" if state["parts"]["replay"] is None else ""
        return f"goes on after environment step {self._loop.steps:,}, from {path}{replay}."

    def save(self) -> dict[str, Any]:
        """Returns the state of the whole run between two steps, and changes nothing."""
        include_replay = not checkpoints.why_left_out(self._experiment.checkpointing, self._parts.replay)
        return {
            "parts": self._parts.save(include_replay=include_replay),
            "logs": self._logs.save(),
            "evaluations": [(one.actor_steps, np.array(one.returns)) for one in self.evaluations],
            "training": (np.array(self.training[0], np.int64), np.array(self.training[1], np.float64)),
            "next_evaluation": self._next_evaluation,
            "seconds": self.seconds(),
        }

    def go(self, progress: loggers.Progress, *, quiet: bool) -> bool:
        """Runs to the end; returns False if a signal ended it before."""
        self._progress = progress
        finished = False
        message = "" if quiet else "ends after this step. Ctrl-C from now on ends it at once, without a checkpoint."
        with interrupts.Interrupt(message) as interrupt, contextlib.suppress(KeyboardInterrupt):
            finished = self._act_and_learn(interrupt)
            if finished:
                finished = False
                self._parts.learner.close()
                evaluated = self.evaluations and self.evaluations[-1].actor_steps == self._loop.steps
                finished = bool(evaluated) or self._evaluate(interrupt)
                if not finished:
                    self._write_checkpoint()
        self.signal = interrupt.requested
        self._parts.learner.close()
        self._loop.report_steps()
        self._log_time_split()
        return finished

    def result(self, directory: pathlib.Path, *, finished: bool) -> config.ExperimentResult:
        """Returns what the run has given so far."""
        parts = self._parts
        names = parts.plan.variable_names
        variables = parts.learner.get_variables(names)
        return config.ExperimentResult(
            directory=directory,
            evaluations=tuple(self.evaluations),
            counts=parts.counter.get_counts(),
            variables=jax.device_get(dict(zip(names, variables, strict=True))),
            finished=finished,
            seconds=self.seconds(),
        )

    def _act_and_learn(self, interrupt: interrupts.Interrupt) -> bool:
        """Runs to the last step; returns False if a signal came before."""
        loop, dataset, replay = self._loop, self._parts.dataset, self._parts.replay
        num_envs, max_steps = self._experiment.num_envs, self._experiment.max_num_actor_steps
        while loop.steps < max_steps:
            if interrupt.requested is not None:
                self._write_checkpoint()
                return False
            if dataset.due():
                self._learn()
            elif replay.can_insert(num_envs):
                self._act()
                if self._next_evaluation <= loop.steps < max_steps:
                    if self._evaluate(interrupt):
                        self._next_evaluation += self._evaluation_period
                    self._log_time_split()
                # With several members, those whose episodes go on begin new ones when the run is resumed.
                if loop.finished and self._schedule is not None and self._schedule.due(loop.steps):
                    self._write_checkpoint()
            elif dataset.ready():
                self._learn()
            else:
                raise Deadlock(f"Neither acting nor learning can go on: {replay.info().tables}.")
        return True

    def _learn(self) -> None:
        start = time.perf_counter()
        learner = self._parts.learner
        learner.step()
        # Large updates run on after the call has returned, and the next action would wait for them: that is learning.
        packed = packing.packed_variable(learner, "policy")
        jax.block_until_ready(learner.get_variables(("policy",)) if packed is None else packed.arrays)
        self._learning_seconds += time.perf_counter() - start

    def _act(self) -> None:
        loop = self._loop
        self._progress.advance(loop.step())
        if loop.finished:
            for episode in loop.finished:
                self.training[0].append(episode.steps)
                self.training[1].append(episode.episode_return)
            self._progress.report(training_return=loop.finished[-1].episode_return)

    def _evaluate(self, interrupt: interrupts.Interrupt) -> bool:
        """Evaluates the policy; returns False if a signal came before the end, which an episode may not have."""
        acting, evaluation = self._parts.evaluation, self._experiment.evaluation
        if acting is None or evaluation is None:
            return True
        start = time.perf_counter()
        self._loop.report_steps()
        returns: list[float] = []
        while (left := evaluation.num_episodes - len(returns)) and interrupt.requested is None:
            self._progress.tell(f"evaluating: {len(returns)} of {evaluation.num_episodes} episodes")
            ended = acting.loop.run(num_steps=_UNINTERRUPTED_STEPS, num_episodes=left).episodes
            returns += [episode.episode_return for episode in ended]
        self._progress.tell("")
        self._evaluating_seconds += time.perf_counter() - start
        if left:
            return False
        self.evaluations.append(config.Evaluation(self._loop.steps, tuple(returns)))
        self._progress.report(evaluation_return=self.evaluations[-1].mean_return)
        return True

    def _write_checkpoint(self) -> None:
        if self._schedule is not None:
            self._schedule.write(self._loop.steps, self.save)

    def seconds(self) -> dict[str, float]:
        """Returns where the time has gone so far, in seconds."""
        loop, sampling = self._loop, self._parts.dataset.seconds
        return {
            "environment": loop.environment_seconds,
            "acting": loop.acting_seconds,
            "adding": loop.adding_seconds,
            "sampling": sampling,
            "learning": self._learning_seconds - sampling,
            "evaluating": self._evaluating_seconds,
            "checkpointing": 0.0 if self._schedule is None else self._schedule.seconds,
            "total": time.perf_counter() - self._start,
        }

    def _log_time_split(self) -> None:
        counts = {"actor_steps": self._loop.steps}
        self._time_logger.write(counts | {f"{name}_seconds": value for name, value in self.seconds().items()})
