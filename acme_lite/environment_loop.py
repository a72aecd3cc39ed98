"""The loop in which an actor acts in an environment."""

from __future__ import annotations

import operator
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import dm_env
import jax

from acme_lite import core, counting, types
from acme_lite.environments import vector

if TYPE_CHECKING:
    from acme_lite import loggers

_LAST = int(dm_env.StepType.LAST)
_REPORT_PERIOD_STEPS = 100
_clock = time.perf_counter


class Episode(NamedTuple):
    """An episode that has ended.

    Attributes:
        member: the member of the environment that it was played in, in [0, N).
        episode_return: undiscounted sum of its rewards.
        length: its steps; the first one, which only resets, is not counted.
        steps: environment steps of the loop when it ended, over all members.
    """

    member: int
    episode_return: float
    length: int
    steps: int


class RunResult(NamedTuple):
    """What a run of the loop has done.

    Attributes:
        steps: environment steps counted.
        episodes: the episodes that ended, in the order of their ends.
    """

    steps: int
    episodes: list[Episode]


class EnvironmentLoopObserver(Protocol):
    """Watches the steps, and has metrics of each episode at its end. It sees what the actor sees.

    It begins anew, with `observe_first`, when a run is resumed.
    """

    def observe_first(self, timestep: dm_env.TimeStep) -> None:
        """Takes the first step of every member, with fields `[N, ...]`."""

    def observe(self, action: types.ArrayTree, next_timestep: dm_env.TimeStep) -> None:
        """Takes the `[N, ...]` actions and the steps that they led to.

        A member whose step before was `LAST` gets `FIRST`: its action was ignored, and an episode begins.
        """

    def get_metrics(self, member: int) -> Mapping[str, Any]:
        """Returns scalars about the episode that this member has just ended; called once for each episode."""


class EnvironmentLoop:
    """Lets an actor act in the N members of an environment, and counts and logs what happens.

    When an episode ends, the counter is told and a row is logged: `episode_return`, `episode_length`,
    `steps_per_second` (environment steps of all members per second of wall time since the rows before), all counts of
    the counter, and the observers' metrics.

    Attributes:
        num_envs: N.
        steps: environment steps counted so far, always exact. A call that resets a member is no step of that member.
        num_episodes: episodes ended so far.
        finished: the episodes that ended in the last call of `step`.
        environment_seconds: time spent in the environment.
        acting_seconds: time spent in choosing actions and fetching variables.
        adding_seconds: time spent in the actor's `observe_first` and `observe`.

    Args:
        environment: a vector environment, or a single one, which is vectorised and goes on with its own generator.
        actor: chooses the actions.
        counter: told `<label>_steps` and `<label>_episodes`, at the end of each episode and of each
            `run`, and every 100 steps; a new one unless given.
        logger: gets a row for each episode.
        observers: watch every step.
        label: what the counts are called after.

    Raises:
        ValueError: the environment is neither of these, or its reward is not a scalar.
    """

    def __init__(
        self,
        environment: dm_env.Environment | vector.VectorEnvironment,
        actor: core.Actor,
        *,
        counter: counting.Counter | None = None,
        logger: loggers.Logger | None = None,
        observers: Sequence[EnvironmentLoopObserver] = (),
        label: str = "actor",
    ):
        self._environment = _vectorise(environment)
        reward_spec = self._environment.reward_spec()
        if reward_spec.shape:
            raise ValueError(f"environment must have scalar rewards, got rewards of shape {reward_spec.shape}.")
        self.num_envs = self._environment.num_envs
        self._actor = actor
        self._counter = counting.Counter() if counter is None else counter
        self._logger = logger
        self._observers = tuple(observers)
        self._label = label
        self._timestep: dm_env.TimeStep | None = None
        self._num_to_reset = 0
        self._resumed = False  # the next step begins the episodes that follow those of a saved loop
        self._returns = [0.0] * self.num_envs
        self._vector_steps = 0
        self._episode_starts = [0] * self.num_envs  # in vector steps; the call that resets a member comes before
        self._steps_reported = 0
        self._row_steps = 0
        self._row_time = 0.0
        self.steps = 0
        self.num_episodes = 0
        self.finished: list[Episode] = []
        self.environment_seconds = 0.0
        self.acting_seconds = 0.0
        self.adding_seconds = 0.0

    def step(self) -> int:
        """Performs one step of all members together; the first call resets them before.

        Returns:
            How many environment steps were counted, in [0, N]; a member whose episode had ended was only reset.
        """
        timestep = self._reset() if self._timestep is None else self._timestep
        begun = _clock()
        action = self._actor.select_action(timestep.observation)
        chosen = _clock()
        timestep = self._environment.step(action)
        stepped = _clock()
        self._actor.observe(action, timestep)
        observed = _clock()
        self._actor.update()
        updated = _clock()
        self.environment_seconds += stepped - chosen
        self.adding_seconds += observed - stepped
        self.acting_seconds += chosen - begun + updated - observed
        if self._resumed:
            self._begin_observers(timestep)
        else:
            for observer in self._observers:
                observer.observe(action, timestep)

        self._timestep = timestep
        counted = self.num_envs - self._num_to_reset
        self.steps += counted
        self._vector_steps += 1
        # In lists: up to some dozens of members they cost a fraction of NumPy's calls.
        self._returns = [*map(operator.add, self._returns, timestep.reward.tolist())]
        step_types = timestep.step_type.tolist()
        self._num_to_reset = step_types.count(_LAST)
        if self.finished:
            self.finished = []
        if self.steps - self._steps_reported >= _REPORT_PERIOD_STEPS:
            self.report_steps()
        if self._num_to_reset:
            self._end_episodes([member for member, step_type in enumerate(step_types) if step_type == _LAST])
        return counted

    def run(self, num_steps: int | None = None, num_episodes: int | None = None) -> RunResult:
        """Steps until so many environment steps were counted, or so many episodes have ended, whichever comes first.

        With one member both are exact; with N, up to N - 1 more are done, since all members step together. (Episodes
        that end first are short ones more often than not: with N > 1 their mean is not that of the policy.) An episode
        that is not over goes on in the next run.

        Raises:
            ValueError: neither limit is given, or one is negative.
        """
        if num_steps is None and num_episodes is None:
            raise ValueError("run needs num_steps or num_episodes, got None for both.")
        for name, limit in (("num_steps", num_steps), ("num_episodes", num_episodes)):
            if limit is not None and limit < 0:
                raise ValueError(f"{name} must be at least 0, got {limit}.")
        start = self.steps
        episodes: list[Episode] = []
        while (num_steps is None or self.steps - start < num_steps) and (
            num_episodes is None or len(episodes) < num_episodes
        ):
            self.step()
            episodes += self.finished
        self.report_steps()
        return RunResult(steps=self.steps - start, episodes=episodes)

    def report_steps(self) -> None:
        """Tells the counter the steps that it has not been told yet: those since the last end of an episode."""
        self._counter.increment(**{f"{self._label}_steps": self.steps - self._steps_reported})
        self._steps_reported = self.steps

    def save(self) -> dict[str, Any]:
        """Returns the counts and, where every episode has just ended, the last steps.

        Environment, actor and adder are saved by whoever made them.
        """
        last = None
        if self._timestep is not None and self._num_to_reset == self.num_envs:
            # The environment knows the structure of observations, which may be of classes that no checkpoint knows.
            last = tuple(self._timestep._replace(observation=jax.tree.leaves(self._timestep.observation)))
        return {
            "steps": self.steps,
            "num_episodes": self.num_episodes,
            "vector_steps": self._vector_steps,
            "steps_reported": self._steps_reported,
            "row_steps": self._row_steps,
            "row_seconds": _clock() - self._row_time,
            "seconds": (self.environment_seconds, self.acting_seconds, self.adding_seconds),
            "last_timestep": last,
        }

    def restore(self, state: dict[str, Any], *, go_on: bool = True) -> None:
        """Puts back what `save` returned.

        Where every episode had just ended, the next step is the one that followed. Otherwise, episodes that were not
        over are dropped: the next step resets all members.

        Args:
            state: what `save` returned.
            go_on: whether environment and actor were restored, too; else all members are reset.
        """
        self.steps = state["steps"]
        self.num_episodes = state["num_episodes"]
        self._vector_steps = state["vector_steps"]
        self._steps_reported = state["steps_reported"]
        self._row_steps = state["row_steps"]
        self._row_time = _clock() - state["row_seconds"]
        self.environment_seconds, self.acting_seconds, self.adding_seconds = state["seconds"]
        self.finished = []
        self._returns = [0.0] * self.num_envs
        self._resumed = go_on and state["last_timestep"] is not None
        self._timestep = None
        if self._resumed:
            *fields, leaves = state["last_timestep"]
            structure = jax.tree.structure(self._environment.observation_spec())
            self._timestep = dm_env.TimeStep(*fields, jax.tree.unflatten(structure, leaves))
        self._num_to_reset = self.num_envs if self._resumed else 0
        # The step that begins an episode counts as a vector step where it follows another one.
        self._episode_starts = [self._vector_steps + self._resumed] * self.num_envs

    def _begin_observers(self, timestep: dm_env.TimeStep) -> None:
        self._resumed = False
        for observer in self._observers:
            observer.observe_first(timestep)

    def _reset(self) -> dm_env.TimeStep:
        begun = _clock()
        timestep = self._environment.reset()
        reset = _clock()
        self._actor.observe_first(timestep)
        self.environment_seconds += reset - begun
        self.adding_seconds += _clock() - reset
        for observer in self._observers:
            observer.observe_first(timestep)
        if not self._vector_steps:
            self._row_time = begun
        return timestep

    def _end_episodes(self, members: list[int]) -> None:
        """Counts and logs the episodes that these members have ended."""
        now = _clock()
        rate = (self.steps - self._row_steps) / (now - self._row_time)
        self._row_steps, self._row_time = self.steps, now
        self.report_steps()
        for member in members:
            episode = Episode(
                member=member,
                episode_return=self._returns[member],
                length=self._vector_steps - self._episode_starts[member],
                steps=self.steps,
            )
            self._returns[member] = 0.0
            self._episode_starts[member] = self._vector_steps + 1
            self.num_episodes += 1
            self.finished.append(episode)
            self._report_episode(episode, rate)

    def _report_episode(self, episode: Episode, steps_per_second: float) -> None:
        counts = self._counter.increment(**{f"{self._label}_episodes": 1})
        metrics = [observer.get_metrics(episode.member) for observer in self._observers]
        if self._logger is None:
            return
        row = {
            **counts,
            "episode_return": episode.episode_return,
            "episode_length": episode.length,
            "steps_per_second": steps_per_second,
        }
        for part in metrics:
            row.update(part)
        self._logger.write(row)


def _vectorise(environment: Any) -> vector.VectorEnvironment:
    if not hasattr(environment, "reward_spec"):
        raise ValueError(
            "environment must be a dm_env.Environment or a VectorEnvironment (environments.GymnasiumEnvironment and "
            f"GymnasiumVectorEnvironment adapt those of Gymnasium), got {type(environment).__name__}."
        )
    if hasattr(environment, "num_envs"):
        return environment
    from acme_lite import environments

    return environments.SyncVectorEnvironment([environment], seed=None)
