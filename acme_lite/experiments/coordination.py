"""What has been done in a program, who may do more, and how nodes tell."""

from __future__ import annotations

import array
import concurrent.futures
import dataclasses
import pathlib
import threading
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from acme_lite import counting
from acme_lite.experiments.step_budget import StepBudget

_FLUSH_SECONDS = 0.25
_POLL_SECONDS = 0.2
_DESCRIPTION_SECONDS = 5.0  # whoever waits may wait for the coordinator


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


@dataclasses.dataclass(frozen=True)
class ReplayRecord:
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


class Coordinator:
    """The node `counter`: what has been done, and who may do more.

    Actors wait until the learner has called `start`; whoever counts, leases or saves before that knows of a run whose
    counts a counter before this one has lost, and gets an error. When all steps are made the learner ends learning,
    calls `ask_for_last_evaluation`, and `finish` once it has been made. Until then the evaluator stays.
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
        self._replay: ReplayRecord | None = None
        self._training = array.array("q"), array.array("d")  # steps and returns: there may be millions
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
                steps, returns = state["training"]
                self._training = array.array("q", steps.tolist()), array.array("d", returns.tolist())
                self._evaluations = [(steps, tuple(returns.tolist())) for steps, returns in state["evaluations"]]
            self._counter.increment(actor_steps=0)  # for rows that others write before an actor has told of its steps
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
        with self._lock:
            self._check_started()
        return self._budget.lease(actor, num_steps)

    def renew(self, actor: int) -> None:
        """Takes note that an actor is there, so that its lease goes on."""
        self._budget.renew(actor, 0)

    def report(
        self, counts: dict[str, int], episodes: Sequence[tuple[int, float]] = (), *, actor: int | None = None
    ) -> Progress:
        """Takes what a node has done since its last report, and returns what all have done.

        Args:
            counts: what to add to the counts.
            episodes: training episodes that have ended: steps counted by then, and return.
            actor: whose lease goes on; None if the node is no actor.

        Raises:
            RuntimeError: the run has not been started, or its counts are lost.
        """
        with self._lock:
            self._check_started()
            total = self._counter.increment(**counts)
            self._training[0].extend(steps for steps, _ in episodes)
            self._training[1].extend(value for _, value in episodes)
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

    def _check_started(self) -> None:
        # Nodes come here only once the run has been started.
        if self._phase == "starting":
            raise RuntimeError(
                "the counter was started again and has lost its counts: start the program again, and it goes on from "
                "its last checkpoint, if it has one"
            )

    def _advance(self) -> str:
        if self._phase == "acting" and self.get_counts().get("actor_steps", 0) >= self._max_num_actor_steps:
            self._phase = "learning"
        return self._phase

    def ask_for_last_evaluation(self) -> None:
        """Asks the evaluator to evaluate the final policy, unless it has: a learner may die after that."""
        with self._lock:
            self._check_started()
            if self._phase not in ("evaluated", "done"):
                self._phase = "evaluating"

    def finish(self) -> None:
        """Ends the run."""
        with self._lock:
            self._phase = "done"

    def add_evaluation(self, steps: int, returns: tuple[float, ...], *, last: bool = False) -> None:
        """Takes the returns of one evaluation; the last one is that which was asked for."""
        with self._lock:
            self._check_started()
            self._evaluations.append((steps, returns))
            if last:
                self._phase = "evaluated"

    def evaluated_steps(self) -> int:
        """Returns after how many actor steps the newest evaluation was made; 0 before the first."""
        with self._lock:
            return self._evaluations[-1][0] if self._evaluations else 0

    def keep_replay(self, record: ReplayRecord) -> None:
        """Keeps what the replay's node would need if it died now."""
        with self._lock:
            self._replay = record

    def get_replay(self) -> ReplayRecord | None:
        """Returns what was kept last; None before the learner has opened the replay."""
        with self._lock:
            return self._replay

    def describe(self) -> str:
        """Returns in words how far the program has come, with the counts of all limiters of a moment ago."""
        counts = ", ".join(f"{name} {count}" for name, count in self.get_counts().items()) or "nothing yet"
        record = self.get_replay()
        return f"Done: {counts}. Replay: {'not opened yet' if record is None else record.limiters}."

    def save(self) -> dict[str, Any]:
        """Returns all counts, episodes (steps and returns) and evaluations, and how often nodes have been started."""
        with self._lock:
            self._check_started()
            return {
                "counts": self._counter.save(),
                "incarnations": dict(self._incarnations),
                "training": tuple(np.array(column) for column in self._training),
                "evaluations": [(steps, np.array(returns)) for steps, returns in self._evaluations],
            }


def describe(coordinator: Any) -> str:
    """Returns what the coordinator says of the program.

    Raises:
        concurrent.futures.TimeoutError: it does not say so soon.
    """
    future = coordinator.futures.describe()
    try:
        return future.result(_DESCRIPTION_SECONDS)
    finally:
        future.cancel()


class Heartbeat:
    """Tells the coordinator that an actor is there, however long it waits in a step; called now and then, never waits.

    Otherwise others would make the steps of an actor that a limiter holds up, and it would make them later.
    """

    def __init__(self, coordinator: Any, actor: int):
        self._coordinator, self._actor = coordinator, actor
        self._sent: concurrent.futures.Future[None] | None = None

    def __call__(self) -> None:
        if self._sent is None or self._sent.done():  # one is enough where the coordinator is away
            self._sent = self._coordinator.futures.renew(self._actor)


class Counts:
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


def register(coordinator: Any, name: str, stop: threading.Event) -> Registration | None:
    """Waits until the learner has started the run; None if the program stops before."""
    while not stop.is_set():
        registered: Registration | None = coordinator.register(name)
        if registered is not None:
            return registered
        stop.wait(_POLL_SECONDS)
    return None
