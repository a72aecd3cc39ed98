"""The nodes of a distributed program, but for the one that counts: replay, learner, actors and evaluator."""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from acme_lite import _runtime, acting, checkpointing, core, loggers, replay, specs
from acme_lite.environment_loop import EnvironmentLoop, Episode
from acme_lite.experiments import (
    checkpoints,
    config,
    coordination,
    identity,
    outputs,
    parts,
    run_directory,
    stopping,
    timing,
)
from acme_lite.experiments.watchdog import Watchdog

_runtime.load_python_library()
lp = _runtime.import_extra("launchpad", "distributed", "A distributed program")

from acme_lite import launching  # noqa: E402 - imports Launchpad, which needs Python's library
from acme_lite.launching import calls  # noqa: E402 - likewise

PATIENCE_SECONDS = 86_400.0
"""How long to wait for a limiter, a server or a node that is away; meanwhile the watchdog says so."""
WATCHDOG_SECONDS = 60.0
"""How long nothing gets done before a node says what it waits for."""
_LEASE_VECTOR_STEPS = 200
_IN_FLIGHT_ITEMS = 64
_FLUSH_SECONDS = 0.25
_POLL_SECONDS = 0.2
_SETTLE_SECONDS = 1.0
_IDLE_SECONDS = 60.0
_NAP_SECONDS = 0.001
_LAST_CALL_SECONDS = 5.0  # of the 15 in which a node must stop
_FIRST_WAIT = "the learner to begin the run"
_MAKING = "its environment to be made"


@dataclasses.dataclass(frozen=True)
class ProgramSettings:
    """What every node gets: the experiment, its environments' spec and description, and how many actors there are."""

    experiment: config.ExperimentConfig
    spec: specs.EnvironmentSpec
    environment: dict[str, Any]
    num_actors: int
    variable_update_period_seconds: float
    watchdog_seconds: float

    def describe(self) -> dict[str, Any]:
        """Returns everything that the run follows from."""
        return identity.describe(self.experiment, self.environment, replay="reverb", num_actors=self.num_actors)

    def plan(self) -> parts.Plan:
        return parts.make_plan(self.experiment, self.spec, num_actors=self.num_actors)

    def connect(self, address: Any) -> replay.Replay:
        return replay.ReverbReplay(
            self.plan().tables,
            address=address.resolve(),
            max_in_flight_items=_IN_FLIGHT_ITEMS,
            timeout_seconds=PATIENCE_SECONDS,
        )

    def seed(self, *what: int) -> int:
        """Returns a seed that derives from the experiment's and from what it is for."""
        return int(np.random.SeedSequence((self.experiment.seed, *what)).generate_state(1)[0] // 2)

    def watch(
        self, name: str, coordinator: Any, waits_for: str, *, beat: Callable[[], None] = lambda: None
    ) -> Watchdog:
        """Returns a watchdog of this thread."""
        return Watchdog(
            name,
            waits_for,
            seconds=self.watchdog_seconds,
            say=launching.say,
            describe=lambda: coordination.describe(coordinator),
            beat=beat,
        )


class ReplayService:
    """The Reverb server, and its checkpoints.

    The learner opens it, once. Where it takes the place of one that died, it opens itself: from the newest checkpoint
    that the coordinator knows of or, where that is gone, from the newest that the server has left. Where what it finds
    is damaged, it takes the newest of the run's own checkpoints that is whole.
    """

    def __init__(self, program: ProgramSettings, address: Any, coordinator: Any):
        self._program, self._coordinator = program, coordinator
        self._port = int(address.resolve().rpartition(":")[2])
        self._replay: Any = None
        self._stop = lp.stop_event()
        self._lock, self._saving = threading.Lock(), threading.Lock()
        self._record = left = coordinator.get_replay()
        if left is not None:
            self._take_over(left)
            self.keep_record()
            lost = left.num_inserts - self._record.num_inserts
            if self._record.num_inserts:
                source = "from its last checkpoint"
            else:
                source = f"empty, since {self.why_left_out() or 'there is no checkpoint'}"
            launching.say(f"The replay was started again {source}; at least {max(lost, 0):,} inserted items are lost.")

    @property
    def local(self) -> replay.Replay:
        """The replay itself, for those in its process."""
        return self._replay

    def open(self, directory: str, checkpoint: dict[str, pathlib.Path] | None) -> bool:
        """Starts the server, with the contents of a checkpoint if one is given; does nothing where it runs.

        Returns:
            Whether it was started.
        """
        with self._lock:
            if self._replay is not None:
                return False
            parts.remove_server_files(pathlib.Path(directory))
            record = coordination.ReplayRecord(directory, checkpoint)
            self._coordinator.keep_replay(record)
            self._start(record)
        self.keep_record()
        return True

    def why_left_out(self) -> str:
        """Returns why checkpoints do not hold the replay, which has been opened; "" if they do."""
        return checkpoints.why_left_out(self._program.experiment.checkpointing, self._replay)

    def _take_over(self, left: coordination.ReplayRecord) -> None:
        gone = left.checkpoint is None or not left.checkpoint["checkpoint"].exists()
        try:
            self._start(dataclasses.replace(left, checkpoint=None if gone else left.checkpoint))
        except checkpointing.CheckpointError as error:
            launching.say(f"{error} The one before it is taken.")
            directory, settings = pathlib.Path(left.directory), self._program.experiment.checkpointing
            assert settings is not None, "there was a checkpoint"
            parts.remove_server_files(directory)
            config_hash = run_directory.config_hash(self._program.describe())
            loaded = checkpoints.open_checkpoints(settings, config_hash, directory).load_newest()
            self._start(dataclasses.replace(left, checkpoint=None if loaded is None else loaded[0]["replay"]))

    def _start(self, record: coordination.ReplayRecord) -> None:
        tables, directory = self._program.plan().tables, pathlib.Path(record.directory)
        with contextlib.ExitStack() as stack:
            started = parts.make_replay("reverb", tables, directory, port=self._port, prefetch=True)
            stack.callback(started.close)
            if record.checkpoint is not None:
                started.restore(record.checkpoint)
            stack.pop_all()
        self._record, self._replay = record, started

    def save(self) -> dict[str, pathlib.Path] | None:
        """Writes a checkpoint; returns where, or None if the experiment's checkpoints leave the replay out."""
        if self.why_left_out():
            return None
        with self._saving:  # whoever asked before may have given up since, and asks again
            checkpoint = self._replay.save()
            self.keep_record(checkpoint=checkpoint)
        return checkpoint

    def can_sample(self) -> bool:
        """Whether the limiters would give something now."""
        return all(self._replay.can_sample(name, 1) for name in self.tables())

    def tables(self) -> dict[str, replay.TableInfo]:
        """Returns the state of each table; there are none before the learner has opened the replay."""
        return {} if self._replay is None else self._replay.info().tables

    def run(self) -> None:
        with stopping.quiet_end(self._stop):
            while not self._stop.wait(_FLUSH_SECONDS):
                if self._replay is not None:
                    self.keep_record()
        if self._replay is not None:
            self._replay.close()

    def _describe(self) -> str:
        return "; ".join(table.limiter for table in self.tables().values())

    def keep_record(self, **changes: Any) -> None:
        """Tells the coordinator what a successor would need to know."""
        num_inserts = sum(table.num_inserts for table in self.tables().values())
        with self._lock:
            changes |= {"num_inserts": num_inserts, "limiters": self._describe()}
            self._record = dataclasses.replace(self._record, **changes)
            self._coordinator.keep_replay(self._record)


class Idleness:
    """Says when a learner without samples has had all of them.

    Args:
        can_sample: asks the replay whether its limiters would give something.
        clock: returns the time in seconds.
    """

    def __init__(self, can_sample: Callable[[], bool], clock: Callable[[], float] = time.monotonic):
        self._can_sample, self._clock = can_sample, clock
        self.begin()

    def begin(self) -> None:
        """Begins to count the time: there were samples until now, or more may come."""
        self._begun = self._clock()

    def ends(self) -> bool:
        """Whether nothing comes any more."""
        asked = self._clock()
        idle = asked - self._begun
        if idle <= _SETTLE_SECONDS:
            return False
        if not self._can_sample():
            return True
        if self._clock() - asked > _SETTLE_SECONDS:
            self.begin()  # the replay was away, and gives samples only some seconds after it is back
            return False
        if idle > _IDLE_SECONDS:
            launching.say(f"The learner ends although the limiter would give samples: none have come for {idle:.0f} s.")
        return idle > _IDLE_SECONDS


class Learner:
    """The node `learner`."""

    def __init__(self, program: ProgramSettings, address: Any, server: Any, coordinator: Any):
        # What the counter answers once the program stops stands in the last checkpoint and in the results.
        self._coordinator = calls.patient(coordinator, _LAST_CALL_SECONDS)
        self._program, self._address = program, address
        self._has_server = server is None
        self._server: Any = ReplayService(program, address, self._coordinator) if server is None else server
        self._experiment = program.experiment
        self._stop = lp.stop_event()
        self._ready = threading.Event()
        self._start = time.perf_counter()
        self._first: tuple[float, int] | None = None  # when actors began, and after how many steps

    def get_variables(self, names: list[str]) -> list[Any]:
        """Returns variables as NumPy arrays; waits until the learner has been put together."""
        while not self._ready.wait(_POLL_SECONDS):
            if self._stop.is_set():
                raise launching.ProgramStoppedError("the program stops before the learner has been put together")
        return jax.device_get(self._learner.get_variables(names))

    def tables(self) -> dict[str, replay.TableInfo]:
        """Returns the state of the replay's tables."""
        return self._server.tables()

    def run(self) -> None:
        under_way = self._coordinator.directory()
        if under_way and run_directory.is_finished(under_way):
            launching.say(f"The learner was started again after the run had finished in {under_way}.")
            self._clear_up(pathlib.Path(under_way))
        else:
            self._run()
        lp.stop()  # Launchpad's own launchers do not end when a node has finished

    def _run(self) -> None:
        experiment, program = self._experiment, self._program
        description = program.describe()
        with contextlib.ExitStack() as stack:
            self._watchdog = stack.enter_context(
                program.watch("The learner", self._coordinator, "its directory and checkpoint")
            )
            directory = self._open_directory(description)
            stack.callback(directory.close)
            schedule, state = _open_schedule(experiment, directory, description)
            self._watchdog.done("the replay to open")
            self._open_replay(directory.path, state)
            had_begun = self._coordinator.start(str(directory.path), None if state is None else state["coordinator"])
            if had_begun and state is None:
                launching.say("The learner was started again without a checkpoint: it begins anew.")
            logger = _make_logger(experiment, self._coordinator.register("learner"), "learner")
            stack.callback(logger.close)
            self._watchdog.done("its parts to be put together and restored")
            plan = program.plan()
            connected = self._server.local if self._has_server else program.connect(self._address)
            stack.callback(connected.close)  # not when the program stops: a checkpoint is written then
            dataset = experiment.builder.make_dataset(connected, seed=program.seed(0))
            stack.enter_context(stopping.closing_on_stop(dataset, self._stop))
            self._counts = coordination.Counts(self._coordinator)
            self._learner = parts.make_learner(
                plan, dataset, key=jax.random.key(program.seed(1)), counter=self._counts.counter, logger=logger
            )
            if state is not None:
                self._learner.restore(state["learner"])
            self._ready.set()  # actors and evaluator wait for the variables
            self._watchdog.done("the first samples")
            last: dict[str, Any] = {}
            with stopping.until_stop(self._stop):
                self._learn(dataset, schedule)
                if not self._stop.is_set():
                    last = self._end(schedule)
            if self._stop.is_set():
                self._leave_off(plan, directory.path, schedule)
            else:
                self._finish(plan, directory.path, last)

    def _open_directory(self, description: dict[str, Any]) -> run_directory.RunDirectory:
        """Opens the run's directory; that of the run under way where this learner takes the place of one that died."""
        under_way = self._coordinator.directory()
        if under_way:
            return run_directory.open_run_directory(under_way, description, can_resume=lambda path: True)
        return identity.open_directory(self._experiment, description)

    def _open_replay(self, directory: pathlib.Path, state: dict[str, Any] | None) -> None:
        """Opens the replay where it does not run yet, and says what of it is lost, and will be."""
        opened = self._server.open(str(directory), None if state is None else state["replay"])
        if opened and state is not None and state["replay"] is None:
            launching.say("The replay begins empty: the checkpoint leaves it out.")
        reason = "" if self._experiment.checkpointing is None else self._server.why_left_out()
        if reason:
            launching.say(f"Checkpoints leave the replay out, since {reason}.")

    def _learn(self, dataset: replay.Dataset, schedule: checkpoints.Schedule | None) -> None:
        """Learns until all steps are made and samples have caught up, or the program stops."""
        if schedule is not None:
            checkpointing.check(self._learner.save())  # fails now, and not at the first checkpoint
        looked = time.monotonic()
        phase = self._counts.synchronise()
        idleness = Idleness(self._server.can_sample)
        while not self._stop.is_set() and phase != "evaluated":
            ready = dataset.ready()
            if ready:
                self._learner.step()
                self._watchdog.done("samples")
            # Samples came, or may come. Looking around takes its time, checkpoints above all: nobody is idle meanwhile.
            busy = ready or phase == "acting"
            looks = time.monotonic() - looked > _POLL_SECONDS
            if looks:
                looked = time.monotonic()
                phase, steps = self._counts.synchronise(), self._counts.actor_steps
                self._report(steps)
                if self._has_server:
                    self._server.keep_record()
                if schedule is not None and schedule.due(steps):
                    self._write_checkpoint(schedule, self._save_coordinator(), self._server.save)
                    busy = True
            if busy:
                idleness.begin()
            elif looks and idleness.ends():
                return
            if not ready:
                self._stop.wait(_NAP_SECONDS)

    def _report(self, steps: int) -> None:
        now = time.perf_counter()
        if self._first is None or steps == self._first[1]:
            self._first = now, steps
        began, first = self._first
        left = self._experiment.max_num_actor_steps - steps
        learner_steps = self._counts.counter.get_counts().get("learner_steps", 0)
        launching.report_status(
            steps=learner_steps, seconds_left=(now - began) * left / (steps - first) if steps > first else None
        )

    def _save_coordinator(self) -> dict[str, Any]:
        """Returns the coordinator's state, with all counts of this node."""
        self._counts.synchronise()
        return self._coordinator.save()

    def _write_checkpoint(
        self, schedule: checkpoints.Schedule, coordinator: dict[str, Any], save_replay: Callable[[], Any]
    ) -> None:
        schedule.write(
            coordinator["counts"].get("actor_steps", 0),
            lambda: {"learner": self._learner.save(), "coordinator": coordinator, "replay": save_replay()},
        )

    def _end(self, schedule: checkpoints.Schedule | None) -> dict[str, Any]:
        """Waits for the last evaluation; returns the coordinator's last state, with the counts of the tables.

        What it returns once the program stops is of no use.
        """
        self._learner.close()
        self._counts.synchronise()
        if self._experiment.evaluation is not None:
            if schedule is not None:  # an evaluation may take long
                self._write_checkpoint(schedule, self._save_coordinator(), self._server.save)
            self._watchdog.done("the last evaluation")
            self._coordinator.ask_for_last_evaluation()
            while self._counts.synchronise() == "evaluating":
                if self._stop.wait(_POLL_SECONDS):
                    return {}
        self._watchdog.done("the results to be written")
        state = self._save_coordinator()
        for name, table in self._server.tables().items():
            state["counts"] |= {f"{name}_inserts": table.num_inserts, f"{name}_samples": table.num_samples}
        return state

    def _finish(self, plan: parts.Plan, directory: pathlib.Path, state: dict[str, Any]) -> None:
        """Writes the results, and ends the run if it has not been stopped meanwhile."""
        if self._write_results(plan, directory, state).finished:
            self._clear_up(directory)

    def _clear_up(self, directory: pathlib.Path) -> None:
        """Removes what the results take the place of, and ends the run."""
        settings = self._experiment.checkpointing
        if settings is not None:
            config_hash = run_directory.config_hash(self._program.describe())
            checkpoints.open_checkpoints(settings, config_hash, directory).clear()
        parts.remove_server_files(directory)
        self._coordinator.finish()

    def _leave_off(self, plan: parts.Plan, directory: pathlib.Path, schedule: checkpoints.Schedule | None) -> None:
        """Writes a checkpoint and the results so far, one of them also where the other cannot be written."""
        with _telling("its last checkpoint and the results"):
            state = self._save_coordinator()  # Launchpad's own launchers stop the coordinator at the same time
        saved = self._save_replay(schedule)
        writes = [
            lambda: self._write_results(plan, directory, state),
            lambda: self._write_last_checkpoint(schedule, state, saved),
        ]
        # A replay elsewhere saves while the results are written; it may take too long, or have died and never answer.
        if not saved.done():
            writes.reverse()
        with contextlib.ExitStack() as stack:
            for write in writes:  # the last one is called first
                stack.callback(write)
            self._learner.close()

    def _save_replay(self, schedule: checkpoints.Schedule | None) -> concurrent.futures.Future[Any]:
        """Begins to save the replay, if checkpoints are written; one in this process has been saved then."""
        if schedule is not None and not self._has_server:
            return self._server.futures.save()
        saved: concurrent.futures.Future[Any] = concurrent.futures.Future()
        try:
            saved.set_result(None if schedule is None else self._server.save())
        except Exception as error:
            saved.set_exception(error)
        return saved

    def _write_last_checkpoint(
        self, schedule: checkpoints.Schedule | None, state: dict[str, Any], saved: concurrent.futures.Future[Any]
    ) -> None:
        if schedule is None:
            return
        with _telling("its last checkpoint"):
            self._write_checkpoint(schedule, state, lambda: stopping.answer(saved, self._server))
        launching.say("The learner has written a checkpoint: started again, the program goes on from here.")

    def _write_results(
        self, plan: parts.Plan, directory: pathlib.Path, state: dict[str, Any]
    ) -> config.ExperimentResult:
        """Writes curve, variables and policy, and returns what the coordinator's state and the learner say so far."""
        variables = jax.device_get(self._learner.get_variables(plan.variable_names))
        result = config.ExperimentResult(
            directory=directory,
            evaluations=tuple(config.Evaluation(steps, tuple(r.tolist())) for steps, r in state["evaluations"]),
            counts=state["counts"],
            variables=dict(zip(plan.variable_names, variables, strict=True)),
            finished=not self._stop.is_set(),
            seconds={"total": time.perf_counter() - self._start},
        )
        steps, returns = state["training"]
        order = np.argsort(steps, kind="stable")
        title = f"{identity.agent_name(self._experiment)} {self._program.environment['name']}"
        curve = outputs.write_curve(
            result,
            (steps[order].tolist(), returns[order].tolist()),
            f"{title}, {self._program.num_actors} actors, seed {self._experiment.seed}",
        )
        outputs.write_result(result, parts.make_evaluation_policy(plan), plan.spec)
        launching.say(outputs.summary(result, curve))
        return result


@contextlib.contextmanager
def _telling(what: str) -> Iterator[None]:
    """Says what could not be written, and why: a learner that fails as the program stops may not be heard."""
    try:
        yield
    except Exception as error:
        launching.say(f"The learner could not write {what}: {type(error).__name__}: {error}")
        raise


def _open_schedule(
    experiment: config.ExperimentConfig, directory: run_directory.RunDirectory, description: dict[str, Any]
) -> tuple[checkpoints.Schedule | None, Any]:
    """Returns when to write checkpoints, and what the newest one holds if the run goes on from it."""
    if experiment.checkpointing is None:
        return None, None
    config_hash = run_directory.config_hash(description)
    opened = checkpoints.open_checkpoints(experiment.checkpointing, config_hash, directory.path)
    schedule = checkpoints.Schedule(experiment.checkpointing, opened, config_hash)
    if not opened.names():
        return schedule, None
    state, path = schedule.load()
    launching.say(f"The run goes on from {path}; what came after it is lost.")
    return schedule, state


class Actor:
    """A node of the group `actor`."""

    def __init__(self, program: ProgramSettings, index: int, address: Any, learner: Any, coordinator: Any):
        self._program, self._index, self._address = program, index, address
        self._learner, self._coordinator = learner, coordinator
        self._stop = lp.stop_event()

    def run(self) -> None:
        program, experiment, index = self._program, self._program.experiment, self._index
        with stopping.quiet_end(self._stop), contextlib.ExitStack() as stack:
            beat = coordination.Heartbeat(self._coordinator, index)
            self._watchdog = stack.enter_context(
                program.watch(f"Actor {index}", self._coordinator, _FIRST_WAIT, beat=beat)
            )
            registered = coordination.register(self._coordinator, f"actor_{index}", self._stop)
            if registered is None:
                return
            seed = program.seed(2, index, registered.incarnation)
            plan = program.plan()
            self._watchdog.done(_MAKING)
            environment = parts.make_environment(experiment, experiment.num_envs, seed)
            stack.callback(environment.close)
            self._watchdog.done("the replay, or the variables of the learner")
            connected = program.connect(self._address)
            stack.enter_context(stopping.closing_on_stop(connected, self._stop))
            writer = connected.writer(experiment.num_envs)
            variables = acting.VariableClient(
                self._learner, ("policy",), update_period_seconds=program.variable_update_period_seconds
            )
            stack.callback(variables.close)
            logger = _make_logger(experiment, registered, f"actor_{index}")
            stack.callback(logger.close)
            time_logger = _make_logger(experiment, registered, f"time_split_{index}")
            stack.callback(time_logger.close)
            counts = coordination.Counts(self._coordinator, actor=index)
            loop = parts.make_training(
                plan,
                environment,
                variables,
                writer,
                key=jax.random.key(seed),
                counter=counts.counter,
                logger=logger,
                actor_id=core.ActorId(index, program.num_actors),
            ).loop
            is_queue = any(isinstance(table.limiter, replay.Queue) for table in plan.tables)
            flush = (lambda: stopping.flush(writer, self._stop)) if is_queue else None
            time_split = timing.ActorTimeSplit(loop, counts, time_logger)
            try:
                self._act(loop, counts, flush, time_split)
            except replay.ClosedError:  # by the stop, in the middle of a step; those before it are to be counted
                if not self._stop.is_set():
                    raise
            self._report(loop, counts, time_split)
            time_split.log()

    def _act(
        self,
        loop: EnvironmentLoop,
        counts: coordination.Counts,
        flush: Callable[[], None] | None,
        time_split: timing.ActorTimeSplit,
    ) -> None:
        while not self._stop.is_set():
            steps = self._coordinator.lease(self._index, _LEASE_VECTOR_STEPS * loop.num_envs)
            if steps is None:
                return
            if not steps:
                self._watchdog.waiting("steps that other actors have leased and not counted")
                self._stop.wait(_POLL_SECONDS)
                continue
            end = loop.steps + steps
            while loop.steps < end and not self._stop.is_set():
                self._watchdog.done("the environment, the policy or the limiter")
                loop.step()
                if flush is not None:
                    # With a queue, whoever acts on without its items being taken acts by an old policy.
                    with time_split.waiting():
                        flush()
                if loop.finished:
                    counts.episodes += [(counts.actor_steps, one.episode_return) for one in loop.finished]
                # By time: an episode may take hours.
                if counts.due():
                    self._report(loop, counts, time_split)
            self._report(loop, counts, time_split)

    def _report(self, loop: EnvironmentLoop, counts: coordination.Counts, time_split: timing.ActorTimeSplit) -> None:
        last_return = counts.episodes[-1][1] if counts.episodes else None
        launching.report_status(steps=loop.steps, episode_return=last_return)
        loop.report_steps()
        counts.synchronise()
        time_split.log(at_once=False)


class Evaluator:
    """The node `evaluator`: evaluates every so many actor steps, and the final policy."""

    def __init__(self, program: ProgramSettings, settings: config.EvaluationConfig, learner: Any, coordinator: Any):
        self._program, self._settings = program, settings
        self._learner, self._coordinator = learner, coordinator
        self._stop = lp.stop_event()

    def run(self) -> None:
        program, experiment = self._program, self._program.experiment
        with stopping.quiet_end(self._stop), contextlib.ExitStack() as stack:
            self._watchdog = stack.enter_context(program.watch("The evaluator", self._coordinator, _FIRST_WAIT))
            registered = coordination.register(self._coordinator, "evaluator", self._stop)
            if registered is None:
                return
            seed = program.seed(3, registered.incarnation)
            # It fetches before each evaluation alone, so that all episodes of one are those of one policy.
            variables = acting.VariableClient(self._learner, ("policy",), update_period_seconds=threading.TIMEOUT_MAX)
            self._watchdog.done(_MAKING)
            environment = parts.make_environment(experiment, 1, seed)
            stack.callback(environment.close)
            self._watchdog.done("the variables of the learner")
            stack.callback(variables.close)
            logger = _make_logger(experiment, registered, "evaluator")
            stack.callback(logger.close)
            counts = coordination.Counts(self._coordinator)
            loop = parts.make_evaluation(
                program.plan(),
                environment,
                variables,
                key=jax.random.key(seed),
                counter=counts.counter,
                logger=logger,
            ).loop
            self._evaluate_by_and_by(loop, variables, counts)

    def _evaluate_by_and_by(
        self, loop: EnvironmentLoop, variables: acting.VariableClient, counts: coordination.Counts
    ) -> None:
        """Evaluates whenever it is time, until the run is done or the program stops."""
        max_num_actor_steps = self._program.experiment.max_num_actor_steps
        # An evaluation in which a predecessor died is made again.
        following = self._following(self._coordinator.evaluated_steps())
        while (phase := counts.synchronise()) != "done" and not self._stop.is_set():
            self._watchdog.done("the coordinator, or the variables of the learner")
            steps = counts.actor_steps
            if phase == "evaluating" or following <= steps < max_num_actor_steps:
                following = self._following(steps)
                variables.fetch()
                returns = self._evaluate(loop)
                if returns is not None:
                    counts.synchronise()
                    evaluation = config.Evaluation(steps, returns)  # refuses what is not a number
                    self._coordinator.add_evaluation(steps, evaluation.returns, last=phase == "evaluating")
            else:
                self._stop.wait(_POLL_SECONDS)

    def _following(self, steps: int) -> int:
        """Returns from which actor step on to evaluate next."""
        period = self._settings.every_steps
        return (steps // period + 1) * period

    def _evaluate(self, loop: EnvironmentLoop) -> tuple[float, ...] | None:
        """Returns the return of each episode; None if the program stops before the last."""
        episodes: list[Episode] = []
        while len(episodes) < self._settings.num_episodes:
            if self._stop.is_set():
                return None
            loop.step()
            self._watchdog.done("the environment or the policy")
            episodes += loop.finished
            last_return = episodes[-1].episode_return if episodes else None
            launching.report_status(steps=loop.steps, episode_return=last_return)
        loop.report_steps()
        return tuple(one.episode_return for one in episodes)


def _make_logger(
    experiment: config.ExperimentConfig, registered: coordination.Registration, label: str
) -> loggers.Logger:
    default = loggers.make_logger_factory(registered.directory, drop_after_step=registered.log_end)
    return (experiment.logger_factory or default)(label)
