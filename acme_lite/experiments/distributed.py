"""An experiment as a program of many processes: the parts of `run_experiment`, one to a node.

    counter     counts what is done, shares out the steps, and collects episodes and evaluations
    replay      the Reverb server
    learner     updates the parameters, serves them, writes checkpoints and, at the end, the results
    actor       one or more, each with `num_envs` environments
    evaluator   evaluates the newest policy

The learner's node owns the run's directory. A program that was stopped or killed and is started again goes on from its
last checkpoint: learner, counts and replay continue, episodes begin anew. Actors and evaluator may die and come back at
any time; so may the learner, which goes on from its last checkpoint while the others wait for it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import pathlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from acme_lite import _runtime, acting, core, counting, loggers, replay, specs
from acme_lite.environment_loop import EnvironmentLoop, Episode
from acme_lite.experiments import checkpoints, config, identity, outputs, parts, run_directory
from acme_lite.experiments.step_budget import StepBudget

_runtime.load_python_library()
lp = _runtime.import_extra("launchpad", "distributed", "A distributed program")

from acme_lite import launching  # noqa: E402 - imports Launchpad, which needs Python's library

_LOGGER = logging.getLogger(__name__)
_LEASE_VECTOR_STEPS = 200
_IN_FLIGHT_ITEMS = 64
_FLUSH_SECONDS = 0.25
_POLL_SECONDS = 0.2
_NAP_SECONDS = 0.001
_WATCHDOG_SECONDS = 60.0


@dataclasses.dataclass(frozen=True)
class _Program:
    """What every node gets: the experiment, its environments' spec, and how many actors there are."""

    experiment: config.ExperimentConfig
    spec: specs.EnvironmentSpec
    environment_name: str
    num_actors: int
    variable_update_period_seconds: float

    def plan(self) -> parts.Plan:
        return parts.make_plan(self.experiment, self.spec)

    def connect(self, address: Any) -> replay.Replay:
        return replay.ReverbReplay(
            self.plan().tables, address=address.resolve(), max_in_flight_items=_IN_FLIGHT_ITEMS, timeout_seconds=300.0
        )

    def seed(self, *what: int) -> int:
        """Returns a seed that derives from the experiment's and from what it is for."""
        return int(np.random.SeedSequence((self.experiment.seed, *what)).generate_state(1)[0] // 2)


def make_distributed_experiment(
    experiment: config.ExperimentConfig, num_actors: int = 1, *, variable_update_period_seconds: float = 0.5
) -> Any:
    """Returns the `launchpad.Program` of an experiment, for `launching.launch` or `launchpad.launch`.

    Its groups are `counter`, `replay`, `learner`, `actor` and, where the experiment evaluates, `evaluator`; a script
    may add nodes of its own. All actors together make `max_num_actor_steps` (with N environments in each, at most N - 1
    more per actor).

    Args:
        experiment: what to run. Its functions are pickled (by value where they stand in a script).
        num_actors: processes that act, at least 1.
        variable_update_period_seconds: from one fetch of the policy to the next, in each acting process.

    Raises:
        ValueError: an argument is out of its range, or the agent cannot act in the environment.
    """
    if num_actors < 1:
        raise ValueError(f"num_actors must be at least 1, got {num_actors}.")
    if not variable_update_period_seconds >= 0:
        raise ValueError(f"variable_update_period_seconds must be at least 0, got {variable_update_period_seconds}.")
    environment = parts.make_environment(experiment, 1, experiment.seed)
    try:
        spec, name = specs.make_environment_spec(environment), environment.name
    finally:
        environment.close()
    program = _Program(experiment, spec, name, num_actors, variable_update_period_seconds)
    program.plan()  # an agent that cannot act there fails here, and not in five processes
    made = lp.Program(f"{identity.agent_name(experiment)}-{name.replace('/', '-')}")
    with made.group("counter"):
        counter = made.add_node(launching.CallNode(Coordinator, experiment.max_num_actor_steps))
    with made.group("replay"):
        node = _ReplayNode(program)
        server = made.add_node(node)
    with made.group("learner"):
        learner = made.add_node(launching.CallNode(_Learner, program, node.reverb_address, server, counter))
    with made.group("actor"):
        for index in range(num_actors):
            made.add_node(launching.CallNode(_Actor, program, index, node.reverb_address, learner, counter))
    if experiment.evaluation is not None:
        with made.group("evaluator"):
            made.add_node(launching.CallNode(_Evaluator, program, learner, counter))
    return made


class Coordinator:
    """The node `counter`: what has been done, and who may do more.

    Actors wait until the learner has called `start`. When all steps are made the learner finishes, calls
    `ask_for_last_evaluation`, and `finish` once it has been made.
    """

    def __init__(self, max_num_actor_steps: int):
        self._counter = counting.Counter()
        self._budget = StepBudget(max_num_actor_steps, self._counter)
        self._max_num_actor_steps = max_num_actor_steps
        self._phase = "starting"
        self._directory = ""
        self._incarnations: dict[str, int] = {}
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
                self._training = [tuple(row) for row in state["training"]]
                self._evaluations = [(steps, tuple(returns)) for steps, returns in state["evaluations"]]
            self._phase = "acting"
            return False

    def directory(self) -> str:
        """Returns the run's directory; "" before `start`."""
        with self._lock:
            return self._directory

    def register(self, name: str) -> tuple[str, int] | None:
        """Returns the run's directory, and how often a node of this name has been started; None before `start`."""
        with self._lock:
            if self._phase == "starting":
                return None
            self._incarnations[name] = self._incarnations.get(name, -1) + 1
            return self._directory, self._incarnations[name]

    def lease(self, actor: int, num_steps: int) -> int | None:
        """See `StepBudget.lease`."""
        return self._budget.lease(actor, num_steps)

    def increment(self, **counts: int) -> dict[str, int]:
        """See `counting.Counter.increment`."""
        return self._counter.increment(**counts)

    def get_counts(self) -> dict[str, int]:
        """See `counting.Counter.get_counts`."""
        return self._counter.get_counts()

    def phase(self) -> str:
        """Returns `starting`, `acting`, `learning` (all steps are made), `evaluating` (for the last time) or `done`."""
        with self._lock:
            if self._phase == "acting" and self.get_counts().get("actor_steps", 0) >= self._max_num_actor_steps:
                self._phase = "learning"
            return self._phase

    def ask_for_last_evaluation(self) -> None:
        """Asks the evaluator to evaluate the final policy."""
        with self._lock:
            self._phase = "evaluating"

    def finish(self) -> None:
        """Ends the run."""
        with self._lock:
            self._phase = "done"

    def add_episodes(self, episodes: list[tuple[int, float]]) -> None:
        """Takes (steps counted, return) of training episodes."""
        with self._lock:
            self._training += episodes

    def add_evaluation(self, steps: int, returns: tuple[float, ...]) -> None:
        """Takes the returns of one evaluation."""
        with self._lock:
            self._evaluations.append((steps, returns))

    def save(self) -> dict[str, Any]:
        """Returns all counts, training episodes and evaluations."""
        with self._lock:
            return {
                "counts": self._counter.save(),
                "training": list(self._training),
                "evaluations": list(self._evaluations),
            }


class _Counts:
    """This process's counter, brought together with the coordinator's several times a second and not at every step.

    Attributes:
        counter: has the coordinator's counts of a moment ago, and all that this process has added since.
    """

    def __init__(self, coordinator: Any):
        self.counter = counting.Counter()
        self._coordinator = coordinator
        self._seen: dict[str, int] = coordinator.get_counts()
        self.counter.restore(self._seen)
        self._synchronised = time.monotonic()

    def synchronise(self, *, at_once: bool = True) -> None:
        """Tells the coordinator what was added, and takes its counts; unless `at_once`, only if it is a while ago."""
        if not at_once and time.monotonic() - self._synchronised < _FLUSH_SECONDS:
            return
        counts = self.counter.get_counts()
        self._seen = self._coordinator.increment(
            **{name: count - self._seen.get(name, 0) for name, count in counts.items()}
        )
        self.counter.restore(self._seen)
        self._synchronised = time.monotonic()


class _ReplayNode(launching.CallNode):
    """The node `replay`, which has a second address: that of the Reverb server."""

    def __init__(self, program: _Program):
        self.reverb_address = lp.Address("reverb")
        super().__init__(_ReplayService, program, self.reverb_address)
        self.allocate_address(self.reverb_address)


class _ReplayService:
    """The Reverb server, and its checkpoints."""

    def __init__(self, program: _Program, address: Any):
        self._program = program
        self._port = int(address.resolve().rpartition(":")[2])
        self._replay: Any = None
        self._stop = lp.stop_event()

    def open(self, directory: str, checkpoint: dict[str, str] | None) -> None:
        """Starts the server, with the contents of a checkpoint if one is given; once."""
        if self._replay is None:
            self._replay = parts.make_replay(
                "reverb",
                self._program.plan().tables,
                pathlib.Path(directory),
                self._program.experiment,
                port=self._port,
            )
            if checkpoint is not None:
                self._replay.restore(checkpoint)

    def save(self) -> dict[str, str]:
        """Writes a checkpoint; returns where."""
        return self._replay.save()

    def describe(self) -> str:
        """Returns the counts of all limiters in words."""
        return "; ".join(table.limiter for table in self._replay.info().tables.values())

    def run(self) -> None:
        self._stop.wait()
        if self._replay is not None:
            self._replay.close()


class _Learner:
    """The node `learner`."""

    def __init__(self, program: _Program, address: Any, server: Any, coordinator: Any):
        self._program, self._address, self._server, self._coordinator = program, address, server, coordinator
        self._experiment = program.experiment
        self._stop = lp.stop_event()
        self._ready = threading.Event()
        self._start = time.perf_counter()

    def get_variables(self, names: list[str]) -> list[Any]:
        """Returns variables as NumPy arrays; waits until the learner has been put together."""
        while not self._ready.wait(_POLL_SECONDS):
            if self._stop.is_set():
                raise RuntimeError("The program stops.")
        return jax.device_get(self._learner.get_variables(names))

    def run(self) -> None:
        experiment, program = self._experiment, self._program
        description = identity.describe(
            experiment, program.environment_name, replay="reverb", num_actors=program.num_actors
        )
        with contextlib.ExitStack() as stack:
            directory = self._open_directory(description)
            stack.callback(directory.close)
            schedule, state = _open_schedule(experiment, directory, description)
            self._server.open(str(directory.path), None if state is None else state["replay"])
            logs = outputs.Logs(experiment.logger_factory or loggers.make_logger_factory(directory.path))
            stack.callback(logs.close)
            plan = program.plan()
            connected = program.connect(self._address)
            stack.enter_context(_closing_on_stop(connected, self._stop))
            dataset = experiment.builder.make_dataset(connected, seed=program.seed(0))
            self._counts = _Counts(self._coordinator)
            self._learner = experiment.builder.make_learner(
                plan.networks,
                plan.spec,
                dataset,
                key=jax.random.key(program.seed(1)),
                counter=self._counts.counter,
                logger=logs.make("learner"),
            )
            if state is not None:
                self._learner.restore(state["learner"])
            self._ready.set()
            self._coordinator.start(str(directory.path), None if state is None else state["coordinator"])
            self._learn(dataset, schedule)
            if not self._stop.is_set():
                self._finish(plan, directory.path, schedule)
        lp.stop()  # Launchpad's own launchers do not end when a node has finished

    def _open_directory(self, description: dict[str, Any]) -> run_directory.RunDirectory:
        """Opens the run's directory; that of the run under way where this learner takes the place of one that died."""
        under_way = self._coordinator.directory()
        if under_way:
            return run_directory.open_run_directory(under_way, description, can_resume=lambda path: True)
        return identity.open_directory(self._experiment, self._program.environment_name, description)

    def _learn(self, dataset: replay.Dataset, schedule: checkpoints.Schedule | None) -> None:
        """Learns until all steps are made and samples have caught up, or the program stops."""
        looked = worked = time.monotonic()
        phase, steps = "acting", 0
        while not self._stop.is_set():
            ready = dataset.ready()
            if ready:
                self._learner.step()
                worked = time.monotonic()
            now = time.monotonic()
            if now - looked > _POLL_SECONDS or not ready:
                if now - looked > _POLL_SECONDS:
                    looked = now
                    phase, steps = self._coordinator.phase(), self._coordinator.get_counts().get("actor_steps", 0)
                    self._counts.synchronise()
                    self._report(steps)
                    if schedule is not None and schedule.due(steps):
                        self._write_checkpoint(schedule, steps)
                if phase == "learning" and not ready and now - worked > 5 * _POLL_SECONDS:
                    return
                if now - worked > _WATCHDOG_SECONDS:
                    worked = now
                    _LOGGER.warning("The learner waits for samples: %s.", self._server.describe())
            if not ready:
                self._stop.wait(_NAP_SECONDS)

    def _report(self, steps: int) -> None:
        elapsed = time.perf_counter() - self._start
        left = self._experiment.max_num_actor_steps - steps
        learner_steps = self._counts.counter.get_counts().get("learner_steps", 0)
        launching.report_status(steps=learner_steps, seconds_left=elapsed * left / steps if steps else None)

    def _write_checkpoint(self, schedule: checkpoints.Schedule, steps: int) -> None:
        self._counts.synchronise()
        schedule.write(
            steps,
            lambda: {
                "learner": self._learner.save(),
                "coordinator": self._coordinator.save(),
                "replay": self._server.save(),
            },
        )

    def _finish(self, plan: parts.Plan, directory: pathlib.Path, schedule: checkpoints.Schedule | None) -> None:
        """Waits for the last evaluation, and writes the results."""
        self._learner.close()
        self._counts.synchronise()
        if self._experiment.evaluation is not None:
            self._coordinator.ask_for_last_evaluation()
            while self._coordinator.phase() == "evaluating" and not self._stop.wait(_POLL_SECONDS):
                pass
        state = self._coordinator.save()
        result = config.ExperimentResult(
            directory=directory,
            evaluations=tuple(config.Evaluation(*one) for one in state["evaluations"]),
            counts=state["counts"],
            variables=dict(
                zip(plan.variable_names, jax.device_get(self._learner.get_variables(plan.variable_names)), strict=True)
            ),
            finished=not self._stop.is_set(),
            seconds={"total": time.perf_counter() - self._start},
        )
        training = sorted(state["training"])
        title = f"{identity.agent_name(self._experiment)} {self._program.environment_name}"
        curve = outputs.write_curve(
            result,
            ([steps for steps, _ in training], [value for _, value in training]),
            f"{title}, {self._program.num_actors} actors, seed {self._experiment.seed}",
        )
        policy = self._experiment.builder.make_policy(plan.networks, plan.spec, evaluation=True)
        outputs.write_result(result, policy, plan.spec)
        if result.finished:
            if schedule is not None:
                schedule.clear()
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
        registered = _register(self._coordinator, f"actor_{index}", self._stop)
        if registered is None:
            return
        directory, incarnation = registered
        seed = program.seed(2, index, incarnation)
        plan = program.plan()
        policy = experiment.builder.make_policy(plan.networks, plan.spec, actor=core.ActorId(index, program.num_actors))
        with contextlib.ExitStack() as stack:
            environment = parts.make_environment(experiment, experiment.num_envs, seed)
            stack.callback(environment.close)
            connected = program.connect(self._address)
            stack.enter_context(_closing_on_stop(connected, self._stop))
            writer = connected.writer(experiment.num_envs)
            adder = experiment.builder.make_adder(writer, plan.spec, plan.extras_spec)
            variables = acting.VariableClient(
                self._learner, ("policy",), update_period_seconds=program.variable_update_period_seconds
            )
            stack.callback(variables.close)
            logger = _make_logger(experiment, directory, f"actor_{index}")
            stack.callback(logger.close)
            counts = _Counts(self._coordinator)
            actor = experiment.builder.make_actor(
                policy, variables, adder, key=jax.random.key(seed), num_envs=experiment.num_envs
            )
            loop = EnvironmentLoop(
                environment, actor, counter=counts.counter, logger=logger, observers=experiment.observers
            )
            is_queue = any(isinstance(table.limiter, replay.Queue) for table in plan.tables)
            flush = (lambda: _flush(writer, self._stop)) if is_queue else None
            with _quiet_end(self._stop):
                self._act(loop, counts, flush)

    def _act(self, loop: EnvironmentLoop, counts: _Counts, flush: Callable[[], None] | None) -> None:
        episodes: list[tuple[int, float]] = []
        while not self._stop.is_set():
            steps = self._coordinator.lease(self._index, _LEASE_VECTOR_STEPS * loop.num_envs)
            if steps is None:
                return
            if not steps:
                self._stop.wait(_POLL_SECONDS)
            end = loop.steps + steps
            while loop.steps < end and not self._stop.is_set():
                loop.step()
                if flush is not None:
                    flush()  # with a queue, whoever acts on without its items being taken acts by an old policy
                if loop.finished:
                    counts.synchronise(at_once=False)
                    now = counts.counter.get_counts().get("actor_steps", 0)
                    episodes += [(now, one.episode_return) for one in loop.finished]
                    launching.report_status(steps=loop.steps, episode_return=episodes[-1][1])
            loop.report_steps()
            counts.synchronise()
            self._coordinator.add_episodes(episodes)
            episodes = []


def _flush(writer: replay.Writer, stop: threading.Event) -> None:
    """Waits until the limiter has let in all items, or the program stops."""
    begun = time.monotonic()
    while not stop.is_set():
        try:
            writer.flush(_POLL_SECONDS)
            return
        except TimeoutError as error:
            if time.monotonic() - begun > _WATCHDOG_SECONDS:
                begun = time.monotonic()
                _LOGGER.warning("An actor waits: %s", error)


class _Evaluator:
    """The node `evaluator`: evaluates every so many actor steps, and the final policy."""

    def __init__(self, program: _Program, learner: Any, coordinator: Any):
        self._program, self._learner, self._coordinator = program, learner, coordinator
        self._stop = lp.stop_event()

    def run(self) -> None:
        program, experiment = self._program, self._program.experiment
        assert experiment.evaluation is not None
        registered = _register(self._coordinator, "evaluator", self._stop)
        if registered is None:
            return
        directory, incarnation = registered
        seed = program.seed(3, incarnation)
        plan = program.plan()
        policy = experiment.builder.make_policy(plan.networks, plan.spec, evaluation=True)
        # It fetches before each evaluation alone, so that all episodes of one are those of one policy.
        variables = acting.VariableClient(self._learner, ("policy",), update_period_seconds=threading.TIMEOUT_MAX)
        with contextlib.ExitStack() as stack:
            environment = parts.make_environment(experiment, 1, seed)
            stack.callback(environment.close)
            stack.callback(variables.close)
            logger = _make_logger(experiment, directory, "evaluator")
            stack.callback(logger.close)
            counts = _Counts(self._coordinator)
            actor = experiment.builder.make_actor(policy, variables, None, key=jax.random.key(seed), num_envs=1)
            loop = EnvironmentLoop(environment, actor, counter=counts.counter, logger=logger, label="evaluator")
            period = experiment.evaluation.every_steps
            with _quiet_end(self._stop):
                following = (self._coordinator.get_counts().get("actor_steps", 0) // period + 1) * period
                while not self._stop.is_set():
                    phase = self._coordinator.phase()
                    steps = self._coordinator.get_counts().get("actor_steps", 0)
                    if phase == "done":
                        return
                    if phase == "evaluating" or following <= steps < experiment.max_num_actor_steps:
                        following = (steps // period + 1) * period
                        variables.fetch()
                        returns = self._evaluate(loop, experiment.evaluation.num_episodes)
                        if returns is not None:
                            counts.synchronise()
                            self._coordinator.add_evaluation(steps, returns)
                            if phase == "evaluating":
                                self._coordinator.finish()
                                return
                    else:
                        self._stop.wait(_POLL_SECONDS)

    def _evaluate(self, loop: EnvironmentLoop, num_episodes: int) -> tuple[float, ...] | None:
        episodes: list[Episode] = []
        while len(episodes) < num_episodes:
            if self._stop.is_set():
                return None
            loop.step()
            episodes += loop.finished
            if loop.finished:
                launching.report_status(steps=loop.steps, episode_return=episodes[-1].episode_return)
        loop.report_steps()
        return tuple(one.episode_return for one in episodes)


def _register(coordinator: Any, name: str, stop: threading.Event) -> tuple[pathlib.Path, int] | None:
    """Waits until the learner has started the run; None if the program stops before."""
    while not stop.is_set():
        registered = coordinator.register(name)
        if registered is not None:
            return pathlib.Path(registered[0]), registered[1]
        stop.wait(_POLL_SECONDS)
    return None


def _make_logger(experiment: config.ExperimentConfig, directory: pathlib.Path, label: str) -> loggers.Logger:
    return (experiment.logger_factory or loggers.make_logger_factory(directory))(label)


@contextlib.contextmanager
def _closing_on_stop(connected: replay.Replay, stop: threading.Event) -> Iterator[None]:
    """Closes a replay when the program stops, so that whoever waits for its limiter in this process gets an error."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if stop.wait(_POLL_SECONDS):
                connected.close()
                return

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        connected.close()


@contextlib.contextmanager
def _quiet_end(stop: threading.Event) -> Iterator[None]:
    """Drops errors that come of the program's stopping."""
    try:
        yield
    except Exception:
        if not stop.is_set():
            raise
