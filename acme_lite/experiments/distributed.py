"""An experiment as a program of many processes: the parts of `run_experiment`, one to a node.

    counter     counts what is done, shares out the steps, and collects episodes and evaluations
    replay      the Reverb server, where it is not in the learner's process
    learner     updates the parameters, serves them, writes checkpoints and, at the end, the results
    actor       one or more, each with `num_envs` environments
    evaluator   evaluates the newest policy

The learner's node owns the run's directory. A program that was stopped or killed and is started again goes on from its
last checkpoint: learner, counts and replay continue, episodes begin anew. Actors, evaluator and replay may die and come
back at any time, the replay with what its last checkpoint holds; so may the learner, which goes on from its last
checkpoint while the others wait for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from acme_lite import _runtime, acting, core, counting, loggers, replay, specs
from acme_lite.environment_loop import EnvironmentLoop, Episode
from acme_lite.experiments import checkpoints, config, identity, outputs, parts, run_directory
from acme_lite.experiments.step_budget import StepBudget
from acme_lite.experiments.watchdog import Watchdog

_runtime.load_python_library()
lp = _runtime.import_extra("launchpad", "distributed", "A distributed program")

from acme_lite import launching  # noqa: E402 - imports Launchpad, which needs Python's library

_REVERB = ("reverb",)  # with TensorFlow, that takes 6 s of CPU to import, and 390 MB
_LEASE_VECTOR_STEPS = 200
_IN_FLIGHT_ITEMS = 64
_FLUSH_SECONDS = 0.25
_POLL_SECONDS = 0.2
_SETTLE_SECONDS = 1.0
_NAP_SECONDS = 0.001
_WATCHDOG_SECONDS = 60.0
_DESCRIPTION_SECONDS = 5.0  # whoever waits may wait for the coordinator
_FIRST_WAIT = "the learner to begin the run"
_PATIENCE_SECONDS = 86_400.0  # for a limiter, a server or a node that is away; meanwhile the watchdog says so
_TIME_SPLIT_SECONDS = 5.0


@dataclasses.dataclass(frozen=True)
class _Program:
    """What every node gets: the experiment, its environments' spec and description, and how many actors there are."""

    experiment: config.ExperimentConfig
    spec: specs.EnvironmentSpec
    environment: dict[str, Any]
    num_actors: int
    variable_update_period_seconds: float
    watchdog_seconds: float

    def plan(self) -> parts.Plan:
        return parts.make_plan(self.experiment, self.spec, num_actors=self.num_actors)

    def connect(self, address: Any) -> replay.Replay:
        return replay.ReverbReplay(
            self.plan().tables,
            address=address.resolve(),
            max_in_flight_items=_IN_FLIGHT_ITEMS,
            timeout_seconds=_PATIENCE_SECONDS,
        )

    def seed(self, *what: int) -> int:
        """Returns a seed that derives from the experiment's and from what it is for."""
        return int(np.random.SeedSequence((self.experiment.seed, *what)).generate_state(1)[0] // 2)

    def watch(self, name: str, coordinator: Any, waits_for: str) -> Watchdog:
        """Returns a watchdog of this thread."""
        return Watchdog(
            name,
            waits_for,
            seconds=self.watchdog_seconds,
            say=launching.say,
            describe=lambda: _describe(coordinator),
        )


def make_distributed_experiment(
    experiment: config.ExperimentConfig,
    num_actors: int = 1,
    *,
    variable_update_period_seconds: float = 0.5,
    replay_in_learner: bool = True,
) -> Any:
    """Returns the `launchpad.Program` of an experiment, for `launching.launch` or `launchpad.launch`.

    Its groups are `counter`, `learner`, `actor` and, where the experiment evaluates, `evaluator`, and `replay` where
    that is not in the learner's process; a script may add nodes of its own. All actors together make
    `max_num_actor_steps` (with N environments in each, at most N - 1 more per actor).

    Args:
        experiment: what to run. Its functions are pickled (by value where they stand in a script).
        num_actors: processes that act, at least 1.
        variable_update_period_seconds: from one fetch of the policy to the next, in each acting process.
        replay_in_learner: whether the Reverb server runs in the learner's process, or in a node of its own.

    Raises:
        ValueError: an argument is out of its range, or the agent cannot act in the environment.
    """
    if num_actors < 1:
        raise ValueError(f"num_actors must be at least 1, got {num_actors}.")
    if not variable_update_period_seconds >= 0:
        raise ValueError(f"variable_update_period_seconds must be at least 0, got {variable_update_period_seconds}.")
    environment = parts.make_environment(experiment, 1, experiment.seed)
    try:
        spec, described = specs.make_environment_spec(environment), identity.describe_environment(environment)
    finally:
        environment.close()
    program = _Program(experiment, spec, described, num_actors, variable_update_period_seconds, _WATCHDOG_SECONDS)
    program.plan()  # an agent that cannot act there fails here, and not in five processes
    made = lp.Program(f"{identity.agent_name(experiment)}-{described['name'].replace('/', '-')}")
    with made.group("counter"):
        counter = made.add_node(_make_node(Coordinator, experiment.max_num_actor_steps))
    reverb_address = lp.Address("reverb")
    server = None
    if not replay_in_learner:
        with made.group("replay"):
            node = _make_node(_ReplayService, program, reverb_address, counter, imports=_REVERB)
            node.allocate_address(reverb_address)
            server = made.add_node(node)
    with made.group("learner"):
        node = _make_node(_Learner, program, reverb_address, server, counter, imports=_REVERB)
        if replay_in_learner:
            node.allocate_address(reverb_address)
        learner = made.add_node(node)
    with made.group("actor"):
        for index in range(num_actors):
            made.add_node(_make_node(_Actor, program, index, reverb_address, learner, counter, imports=_REVERB))
    if experiment.evaluation is not None:
        with made.group("evaluator"):
            made.add_node(_make_node(_Evaluator, program, experiment.evaluation, learner, counter))
    return made


class Progress(NamedTuple):
    """How far the program has come.

    Attributes:
        phase: `starting`, `acting`, `learning` (all steps are made), `evaluating` (for the last time), `evaluated` or
            `done`.
        counts: of all nodes.
    """

    phase: str
    counts: dict[str, int]


class Registration(NamedTuple):
    """What a node is told when it joins the run.

    Attributes:
        directory: of the run.
        incarnation: how often a node of its name was started before, over all starts of the program.
        log_end: after which actor step the rows of its logs are dropped, since the program has gone back to a
            checkpoint; None to keep all.
    """

    directory: str
    incarnation: int
    log_end: int | None


class Coordinator:
    """The node `counter`: what has been done, and who may do more.

    Actors wait until the learner has called `start`. When all steps are made the learner ends learning, calls
    `ask_for_last_evaluation`, and `finish` once it has been made. Until then the evaluator stays.
    """

    def __init__(self, max_num_actor_steps: int):
        self._counter = counting.Counter()
        self._budget = StepBudget(max_num_actor_steps, self._counter)
        self._max_num_actor_steps = max_num_actor_steps
        self._phase = "starting"
        self._directory = ""
        self._incarnations: dict[str, int] = {}
        self._log_end: int | None = None
        self._with_logs: set[str] = set()  # nodes whose logs have been brought to their end
        self._replay: _ReplayRecord | None = None
        self._training: list[tuple[int, float]] = []
        self._evaluations: list[tuple[int, tuple[float, ...]]] = []
        self._lock = threading.Lock()

    def start(self, directory: str, state: dict[str, Any] | None) -> bool:
        """Lets the actors begin; returns whether they had begun before, so that the state was not put back."""
        with self._lock:
            self._directory = directory
            if self._phase != "starting":
                return True
            if state is not None:
                self._counter.restore(state["counts"])
                self._log_end = state["counts"].get("actor_steps", 0)
                self._incarnations = dict(state["incarnations"])
                self._training = [tuple(row) for row in state["training"]]
                self._evaluations = [(steps, tuple(returns)) for steps, returns in state["evaluations"]]
            self._phase = "acting"
            return False

    def directory(self) -> str:
        """Returns the run's directory; "" before `start`."""
        with self._lock:
            return self._directory

    def register(self, name: str) -> Registration | None:
        """Lets a node of this name join the run; None before `start`."""
        with self._lock:
            if self._phase == "starting":
                return None
            self._incarnations[name] = self._incarnations.get(name, -1) + 1
            log_end = None if name in self._with_logs else self._log_end
            self._with_logs.add(name)
            return Registration(self._directory, self._incarnations[name], log_end)

    def lease(self, actor: int, num_steps: int) -> int | None:
        """See `StepBudget.lease`."""
        return self._budget.lease(actor, num_steps)

    def report(
        self, counts: dict[str, int], episodes: Sequence[tuple[int, float]] = (), *, actor: int | None = None
    ) -> Progress:
        """Takes what a node has done since its last report, and returns what all have done.

        Args:
            counts: what to add to the counts.
            episodes: training episodes that have ended: steps counted by then, and return.
            actor: whose lease goes on; None if the node is no actor.
        """
        with self._lock:
            total = self._counter.increment(**counts)
            self._training += episodes
            if actor is not None:
                self._budget.renew(actor, counts.get("actor_steps", 0))
            return Progress(self._advance(), total)

    def get_counts(self) -> dict[str, int]:
        """See `counting.Counter.get_counts`."""
        return self._counter.get_counts()

    def phase(self) -> str:
        """Returns the phase, see `Progress`."""
        with self._lock:
            return self._advance()

    def _advance(self) -> str:
        if self._phase == "acting" and self.get_counts().get("actor_steps", 0) >= self._max_num_actor_steps:
            self._phase = "learning"
        return self._phase

    def ask_for_last_evaluation(self) -> None:
        """Asks the evaluator to evaluate the final policy, unless it has: a learner may die after that."""
        with self._lock:
            if self._phase != "evaluated":
                self._phase = "evaluating"

    def finish(self) -> None:
        """Ends the run."""
        with self._lock:
            self._phase = "done"

    def add_evaluation(self, steps: int, returns: tuple[float, ...], *, last: bool = False) -> None:
        """Takes the returns of one evaluation; the last one is that which was asked for."""
        with self._lock:
            self._evaluations.append((steps, returns))
            if last:
                self._phase = "evaluated"

    def evaluated_steps(self) -> int:
        """Returns after how many actor steps the newest evaluation was made; 0 before the first."""
        with self._lock:
            return self._evaluations[-1][0] if self._evaluations else 0

    def keep_replay(self, record: _ReplayRecord) -> None:
        """Keeps what the replay's node would need if it died now."""
        with self._lock:
            self._replay = record

    def get_replay(self) -> _ReplayRecord | None:
        """Returns what was kept last; None before the learner has opened the replay."""
        with self._lock:
            return self._replay

    def describe(self) -> str:
        """Returns in words how far the program has come, with the counts of all limiters of a moment ago."""
        counts = ", ".join(f"{name} {count}" for name, count in self.get_counts().items()) or "nothing yet"
        record = self.get_replay()
        return f"Done: {counts}. Replay: {'not opened yet' if record is None else record.limiters}."

    def save(self) -> dict[str, Any]:
        """Returns all counts, training episodes and evaluations, and how often nodes have been started."""
        with self._lock:
            return {
                "counts": self._counter.save(),
                "incarnations": dict(self._incarnations),
                "training": list(self._training),
                "evaluations": list(self._evaluations),
            }


def _describe(coordinator: Any) -> str:
    """Returns what the coordinator says of the program.

    Raises:
        concurrent.futures.TimeoutError: it does not say so soon.
    """
    future = coordinator.futures.describe()
    try:
        return future.result(_DESCRIPTION_SECONDS)
    finally:
        future.cancel()


class _Counts:
    """This process's counter, brought together with the coordinator's several times a second and not at every step.

    Attributes:
        counter: has the coordinator's counts of a moment ago, and all that this process has added since.
        episodes: of training, that the coordinator has not been told yet.

    Args:
        coordinator: whom to tell.
        actor: whose lease goes on with each report; None if this process is no actor.
    """

    def __init__(self, coordinator: Any, *, actor: int | None = None):
        self.counter = counting.Counter()
        self.episodes: list[tuple[int, float]] = []
        self._coordinator, self._actor = coordinator, actor
        self._seen: dict[str, int] = {}
        self.synchronise()

    @property
    def actor_steps(self) -> int:
        """Environment steps of all actors, of a moment ago."""
        return self.counter.get_counts().get("actor_steps", 0)

    def due(self) -> bool:
        """Whether the last report is a while ago."""
        return time.monotonic() - self._synchronised >= _FLUSH_SECONDS

    def synchronise(self) -> str:
        """Tells the coordinator what was added, and takes its counts; returns the phase of the program."""
        added = {name: count - self._seen.get(name, 0) for name, count in self.counter.get_counts().items()}
        phase, self._seen = self._coordinator.report(added, self.episodes, actor=self._actor)
        self.episodes = []
        self.counter.restore(self._seen)
        self._synchronised = time.monotonic()
        return phase


@dataclasses.dataclass(frozen=True)
class _ReplayRecord:
    """What a replay that died leaves to the one that takes its place.

    Attributes:
        directory: of the run.
        checkpoint: the newest one of the replay, where it is not gone since; None if there is none.
        num_inserts: how many items had been inserted, a moment ago.
        limiters: the state of all limiters in words, of a moment ago.
    """

    directory: str
    checkpoint: dict[str, pathlib.Path] | None
    num_inserts: int = 0
    limiters: str = "not opened yet"


def _make_node(*arguments: Any, imports: Sequence[str] = ()) -> Any:
    """Returns a node whose callers wait for it as long as for a limiter."""
    options = launching.CallOptions(timeout_seconds=_PATIENCE_SECONDS)
    return launching.CallNode(*arguments, call_options=options, imports=imports)


class _ReplayService:
    """The Reverb server, and its checkpoints.

    The learner opens it, once. Where it takes the place of one that died, it opens itself: from the newest checkpoint
    that the coordinator knows of or, where that is gone, from the newest that the server has left.
    """

    def __init__(self, program: _Program, address: Any, coordinator: Any):
        self._program, self._coordinator = program, coordinator
        self._port = int(address.resolve().rpartition(":")[2])
        self._replay: Any = None
        self._stop = lp.stop_event()
        self._lock = threading.Lock()
        self._record = left = coordinator.get_replay()
        if left is not None:
            gone = left.checkpoint is None or not left.checkpoint["checkpoint"].exists()
            self._start(dataclasses.replace(left, checkpoint=None if gone else left.checkpoint))
            self.keep_record()
            lost = left.num_inserts - self._record.num_inserts
            source = "from its last checkpoint" if self._record.num_inserts else "empty, since there is no checkpoint"
            launching.say(f"The replay was started again {source}; at least {max(lost, 0):,} inserted items are lost.")

    @property
    def local(self) -> replay.Replay:
        """The replay itself, for those in its process."""
        return self._replay

    def open(self, directory: str, checkpoint: dict[str, pathlib.Path] | None) -> None:
        """Starts the server, with the contents of a checkpoint if one is given; does nothing where it runs."""
        with self._lock:
            if self._replay is not None:
                return
            parts.remove_server_files(pathlib.Path(directory))
            record = _ReplayRecord(directory, checkpoint)
            self._coordinator.keep_replay(record)
            self._start(record)
        self.keep_record()

    def _start(self, record: _ReplayRecord) -> None:
        tables, directory = self._program.plan().tables, pathlib.Path(record.directory)
        started = parts.make_replay("reverb", tables, directory, port=self._port, prefetch=True)
        if record.checkpoint is not None:
            started.restore(record.checkpoint)
        self._record, self._replay = record, started

    def save(self) -> dict[str, pathlib.Path] | None:
        """Writes a checkpoint; returns where, or None if the experiment's checkpoints leave the replay out."""
        if not checkpoints.include_replay(self._program.experiment.checkpointing, self._replay):
            return None
        checkpoint = self._replay.save()
        self.keep_record(checkpoint=checkpoint)
        return checkpoint

    def can_sample(self) -> bool:
        """Whether the limiters would give something now."""
        return all(self._replay.can_sample(name, 1) for name in self.tables())

    def tables(self) -> dict[str, replay.TableInfo]:
        """Returns the state of each table."""
        return self._replay.info().tables

    def run(self) -> None:
        with _quiet_end(self._stop):
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


class _Idleness:
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
        if idle > _WATCHDOG_SECONDS:
            launching.say(f"The learner ends although the limiter would give samples: none have come for {idle:.0f} s.")
        return idle > _WATCHDOG_SECONDS


class _Learner:
    """The node `learner`."""

    def __init__(self, program: _Program, address: Any, server: Any, coordinator: Any):
        self._program, self._address, self._coordinator = program, address, coordinator
        self._has_server = server is None
        self._server: Any = _ReplayService(program, address, coordinator) if server is None else server
        self._experiment = program.experiment
        self._stop = lp.stop_event()
        self._ready = threading.Event()
        self._start = time.perf_counter()
        self._first: tuple[float, int] | None = None  # when actors began, and after how many steps

    def get_variables(self, names: list[str]) -> list[Any]:
        """Returns variables as NumPy arrays; waits until the learner has been put together."""
        while not self._ready.wait(_POLL_SECONDS):
            if self._stop.is_set():
                raise RuntimeError("The program stops.")
        return jax.device_get(self._learner.get_variables(names))

    def tables(self) -> dict[str, replay.TableInfo]:
        """Returns the state of the replay's tables."""
        return self._server.tables()

    def run(self) -> None:
        experiment, program = self._experiment, self._program
        description = identity.describe(experiment, program.environment, replay="reverb", num_actors=program.num_actors)
        with contextlib.ExitStack() as stack:
            self._watchdog = stack.enter_context(
                program.watch("The learner", self._coordinator, "its directory and checkpoint")
            )
            directory = self._open_directory(description)
            stack.callback(directory.close)
            schedule, state = _open_schedule(experiment, directory, description)
            self._watchdog.done("the replay to open")
            self._server.open(str(directory.path), None if state is None else state["replay"])
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
            stack.enter_context(_closing_on_stop(dataset, self._stop))
            self._counts = _Counts(self._coordinator)
            self._learner = parts.make_learner(
                plan, dataset, key=jax.random.key(program.seed(1)), counter=self._counts.counter, logger=logger
            )
            if state is not None:
                self._learner.restore(state["learner"])
            self._ready.set()  # actors and evaluator wait for the variables
            self._watchdog.done("the first samples")
            self._learn(dataset, schedule)
            if not self._stop.is_set():
                self._finish(plan, directory.path, schedule)
            elif schedule is not None:
                self._write_checkpoint(schedule, self._counts.actor_steps)
                launching.say("The learner has written a checkpoint: started again, the program goes on from here.")
        lp.stop()  # Launchpad's own launchers do not end when a node has finished

    def _open_directory(self, description: dict[str, Any]) -> run_directory.RunDirectory:
        """Opens the run's directory; that of the run under way where this learner takes the place of one that died."""
        under_way = self._coordinator.directory()
        if under_way:
            return run_directory.open_run_directory(under_way, description, can_resume=lambda path: True)
        return identity.open_directory(self._experiment, description)

    def _learn(self, dataset: replay.Dataset, schedule: checkpoints.Schedule | None) -> None:
        """Learns until all steps are made and samples have caught up, or the program stops."""
        looked = time.monotonic()
        phase = self._counts.synchronise()
        idleness = _Idleness(self._server.can_sample)
        while not self._stop.is_set() and phase != "evaluated":
            ready = dataset.ready()
            if ready:
                self._learner.step()
                self._watchdog.done("samples")
            if ready or phase == "acting":
                idleness.begin()
            if time.monotonic() - looked > _POLL_SECONDS:
                looked = time.monotonic()
                phase, steps = self._counts.synchronise(), self._counts.actor_steps
                self._report(steps)
                if self._has_server:
                    self._server.keep_record()
                if schedule is not None and schedule.due(steps):
                    self._write_checkpoint(schedule, steps)
                if idleness.ends():
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

    def _write_checkpoint(self, schedule: checkpoints.Schedule, steps: int) -> None:
        self._counts.synchronise()
        schedule.write(
            steps,
            lambda: {
                "learner": self._learner.save(),
                "coordinator": self._coordinator.save(),
                "replay": self._save_replay(),
            },
        )

    def _save_replay(self) -> dict[str, str] | None:
        if self._has_server:
            return self._server.save()
        # A plain call would be given up a second after the program is asked to stop.
        return self._server.futures.save().result()

    def _finish(self, plan: parts.Plan, directory: pathlib.Path, schedule: checkpoints.Schedule | None) -> None:
        """Waits for the last evaluation, and writes the results."""
        self._learner.close()
        self._counts.synchronise()
        if self._experiment.evaluation is not None:
            if schedule is not None:  # an evaluation may take long
                self._write_checkpoint(schedule, self._counts.actor_steps)
            self._watchdog.done("the last evaluation")
            self._coordinator.ask_for_last_evaluation()
            while self._counts.synchronise() == "evaluating" and not self._stop.wait(_POLL_SECONDS):
                pass
        self._watchdog.done("the results to be written")
        state = self._coordinator.save()
        counts = dict(state["counts"])
        for name, table in self._server.tables().items():
            counts |= {f"{name}_inserts": table.num_inserts, f"{name}_samples": table.num_samples}
        result = config.ExperimentResult(
            directory=directory,
            evaluations=tuple(config.Evaluation(*one) for one in state["evaluations"]),
            counts=counts,
            variables=dict(
                zip(plan.variable_names, jax.device_get(self._learner.get_variables(plan.variable_names)), strict=True)
            ),
            finished=not self._stop.is_set(),
            seconds={"total": time.perf_counter() - self._start},
        )
        training = sorted(state["training"])
        title = f"{identity.agent_name(self._experiment)} {self._program.environment['name']}"
        curve = outputs.write_curve(
            result,
            ([steps for steps, _ in training], [value for _, value in training]),
            f"{title}, {self._program.num_actors} actors, seed {self._experiment.seed}",
        )
        outputs.write_result(result, parts.make_evaluation_policy(plan), plan.spec)
        if result.finished:
            if schedule is not None:
                schedule.clear()
            parts.remove_server_files(directory)
            self._coordinator.finish()
        launching.say(outputs.summary(result, curve))


def _open_schedule(
    experiment: config.ExperimentConfig, directory: run_directory.RunDirectory, description: dict[str, Any]
) -> tuple[checkpoints.Schedule | None, Any]:
    """Returns when to write checkpoints, and what the newest one holds if the run goes on from it."""
    if experiment.checkpointing is None:
        return None, None
    opened = checkpoints.open_checkpoints(experiment.checkpointing, directory.path)
    schedule = checkpoints.Schedule(experiment.checkpointing, opened, run_directory.config_hash(description))
    if not checkpoints.can_resume(experiment.checkpointing, directory.path):
        return schedule, None
    state, path = schedule.load()
    launching.say(f"The run goes on from {path}; what came after it is lost.")
    return schedule, state


class _Actor:
    """A node of the group `actor`."""

    def __init__(self, program: _Program, index: int, address: Any, learner: Any, coordinator: Any):
        self._program, self._index, self._address = program, index, address
        self._learner, self._coordinator = learner, coordinator
        self._stop = lp.stop_event()

    def run(self) -> None:
        program, experiment, index = self._program, self._program.experiment, self._index
        with contextlib.ExitStack() as stack:
            self._watchdog = stack.enter_context(program.watch(f"Actor {index}", self._coordinator, _FIRST_WAIT))
            registered = _register(self._coordinator, f"actor_{index}", self._stop)
            if registered is None:
                return
            seed = program.seed(2, index, registered.incarnation)
            plan = program.plan()
            environment = parts.make_environment(experiment, experiment.num_envs, seed)
            stack.callback(environment.close)
            connected = program.connect(self._address)
            stack.enter_context(_closing_on_stop(connected, self._stop))
            writer = connected.writer(experiment.num_envs)
            variables = acting.VariableClient(
                self._learner, ("policy",), update_period_seconds=program.variable_update_period_seconds
            )
            stack.callback(variables.close)
            logger = _make_logger(experiment, registered, f"actor_{index}")
            stack.callback(logger.close)
            time_logger = _make_logger(experiment, registered, f"time_split_{index}")
            stack.callback(time_logger.close)
            counts = _Counts(self._coordinator, actor=index)
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
            flush = (lambda: _flush(writer, self._stop)) if is_queue else None
            time_split = _TimeSplit(loop, counts, time_logger)
            with _quiet_end(self._stop):
                self._act(loop, counts, flush, time_split)
                time_split.log()

    def _act(
        self, loop: EnvironmentLoop, counts: _Counts, flush: Callable[[], None] | None, time_split: _TimeSplit
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
                # By time: an episode may take hours, and whoever counts nothing loses its lease.
                if counts.due():
                    self._report(loop, counts, time_split)
            self._report(loop, counts, time_split)

    def _report(self, loop: EnvironmentLoop, counts: _Counts, time_split: _TimeSplit) -> None:
        last_return = counts.episodes[-1][1] if counts.episodes else None
        launching.report_status(steps=loop.steps, episode_return=last_return)
        loop.report_steps()
        counts.synchronise()
        time_split.log(at_once=False)


class _TimeSplit:
    """Where an actor's time goes, logged every few seconds."""

    def __init__(self, loop: EnvironmentLoop, counts: _Counts, logger: loggers.Logger):
        self._loop, self._counts, self._logger = loop, counts, logger
        self._start = self._logged = time.perf_counter()
        self._waiting_seconds = 0.0

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Counts the time in which the actor waits for its items to be taken."""
        begun = time.perf_counter()
        try:
            yield
        finally:
            self._waiting_seconds += time.perf_counter() - begun

    def log(self, *, at_once: bool = True) -> None:
        """Writes a row; unless `at_once`, only if the last one is a while ago."""
        now, loop = time.perf_counter(), self._loop
        if not at_once and now - self._logged < _TIME_SPLIT_SECONDS:
            return
        self._logged = now
        self._logger.write(
            {
                "actor_steps": self._counts.actor_steps,
                "own_steps": loop.steps,
                "environment_seconds": loop.environment_seconds,
                "acting_seconds": loop.acting_seconds,
                "adding_seconds": loop.adding_seconds,
                "waiting_seconds": self._waiting_seconds,
                "total_seconds": now - self._start,
            }
        )


def _flush(writer: replay.Writer, stop: threading.Event) -> None:
    """Waits until the limiter has let in all items, or the program stops."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            return writer.flush(_POLL_SECONDS)


class _Evaluator:
    """The node `evaluator`: evaluates every so many actor steps, and the final policy."""

    def __init__(self, program: _Program, settings: config.EvaluationConfig, learner: Any, coordinator: Any):
        self._program, self._settings = program, settings
        self._learner, self._coordinator = learner, coordinator
        self._stop = lp.stop_event()

    def run(self) -> None:
        program, experiment = self._program, self._program.experiment
        with contextlib.ExitStack() as stack:
            self._watchdog = stack.enter_context(program.watch("The evaluator", self._coordinator, _FIRST_WAIT))
            registered = _register(self._coordinator, "evaluator", self._stop)
            if registered is None:
                return
            seed = program.seed(3, registered.incarnation)
            # It fetches before each evaluation alone, so that all episodes of one are those of one policy.
            variables = acting.VariableClient(self._learner, ("policy",), update_period_seconds=threading.TIMEOUT_MAX)
            environment = parts.make_environment(experiment, 1, seed)
            stack.callback(environment.close)
            stack.callback(variables.close)
            logger = _make_logger(experiment, registered, "evaluator")
            stack.callback(logger.close)
            counts = _Counts(self._coordinator)
            loop = parts.make_evaluation(
                program.plan(),
                environment,
                variables,
                key=jax.random.key(seed),
                counter=counts.counter,
                logger=logger,
            ).loop
            with _quiet_end(self._stop):
                self._evaluate_by_and_by(loop, variables, counts)

    def _evaluate_by_and_by(self, loop: EnvironmentLoop, variables: acting.VariableClient, counts: _Counts) -> None:
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


def _register(coordinator: Any, name: str, stop: threading.Event) -> Registration | None:
    """Waits until the learner has started the run; None if the program stops before."""
    while not stop.is_set():
        registered: Registration | None = coordinator.register(name)
        if registered is not None:
            return registered
        stop.wait(_POLL_SECONDS)
    return None


def _make_logger(experiment: config.ExperimentConfig, registered: Registration, label: str) -> loggers.Logger:
    default = loggers.make_logger_factory(registered.directory, drop_after_step=registered.log_end)
    return (experiment.logger_factory or default)(label)


@contextlib.contextmanager
def _closing_on_stop(waited_for: replay.Replay | replay.Dataset, stop: threading.Event) -> Iterator[None]:
    """Closes a replay or a dataset when the program stops: whoever waits for it in this process gets an error."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if stop.wait(_POLL_SECONDS):
                waited_for.close()
                return

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        waited_for.close()


@contextlib.contextmanager
def _quiet_end(stop: threading.Event) -> Iterator[None]:
    """Drops errors that come of the program's stopping."""
    try:
        yield
    except Exception:
        if not stop.is_set():
            raise
