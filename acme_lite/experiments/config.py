"""What an experiment is, and what it gives."""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import dm_env

from acme_lite import checks, core, learning, loggers, specs, types
from acme_lite.environment_loop import EnvironmentLoopObserver


@dataclasses.dataclass(frozen=True)
class EvaluationConfig:
    """When and how long to evaluate; evaluation has an environment of its own."""

    every_steps: int = 10_000
    """Environment steps from one evaluation to the next; there is one at the end, too."""
    num_episodes: int = 20
    """Episodes of one evaluation."""

    def __post_init__(self):
        checks.at_least(self, 1, "every_steps", "num_episodes")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When a run writes down where it is, so that it goes on after a crash; see `docs/resume.md`."""

    directory: str | pathlib.Path | None = None
    """Where the folder of this run's checkpoints lies; in the run's directory unless given. Runs may share it, unless
    two at once have the same config and their directories the same name."""
    every_steps: int = 50_000
    """Environment steps from one checkpoint to the next; written at the first end of an episode from then on."""
    include_replay: bool = True
    """Whether the replay is saved, too; otherwise a resumed run fills it anew before it goes on learning."""
    max_replay_bytes: int = 1_000_000_000
    """Bytes that a full replay may take to be saved; a greater one is left out."""
    keep: int = 2
    """Checkpoints kept while the run goes on. When it has finished, all are removed."""

    def __post_init__(self):
        checks.at_least(self, 1, "every_steps", "keep")
        checks.at_least(self, 0, "max_replay_bytes")


@dataclasses.dataclass(frozen=True)
class ExperimentConfig:
    """An agent, an environment, and how long they meet.

    Attributes:
        builder: makes the agent's parts.
        environment_factory: `(seed) -> dm_env.Environment`, one environment; the library puts several together.
        num_envs: members that the actor acts in at once.
        max_num_actor_steps: environment steps of the run; with N members it may end up to N - 1 later.
        seed: from which all randomness of the run derives, in [0, 2^32).
        network_factory: `(spec) -> networks`; the builder's own unless given.
        evaluation: when to evaluate; None never does.
        checkpointing: when to write what a run that is started again goes on from; None never does.
        directory: where the run's files go; derived from agent, environment, seed and config (below `runs/`) unless
            given.
        logger_factory: `(label) -> Logger`; CSV files and TensorBoard events in the run's directory unless given.
        observers: watch the training environment.
    """

    builder: core.Builder
    environment_factory: Callable[[int], dm_env.Environment]
    num_envs: int = 1
    max_num_actor_steps: int = 100_000
    seed: int = 0
    network_factory: Callable[[specs.EnvironmentSpec], Any] | None = None
    evaluation: EvaluationConfig | None = dataclasses.field(default_factory=EvaluationConfig)
    checkpointing: CheckpointConfig | None = dataclasses.field(default_factory=CheckpointConfig)
    directory: str | pathlib.Path | None = None
    logger_factory: Callable[[str], loggers.Logger] | None = None
    observers: Sequence[EnvironmentLoopObserver] = ()

    def __post_init__(self):
        checks.at_least(self, 1, "num_envs", "max_num_actor_steps")
        checks.seeds(self, "seed")
        if isinstance(self.builder, type) or not callable(getattr(self.builder, "make_networks", None)):
            raise ValueError(
                "ExperimentConfig.builder must be a builder, such as dqn.DQNBuilder(dqn.DQNConfig()), got "
                f"{self.builder!r}."
            )
        for name in ("environment_factory", "network_factory", "logger_factory"):
            value = getattr(self, name)
            if not (callable(value) or (value is None and name != "environment_factory")):
                raise ValueError(f"ExperimentConfig.{name} must be a function, got {value!r}.")


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """One evaluation.

    Attributes:
        actor_steps: environment steps that training had made.
        returns: undiscounted return of each episode.

    Raises:
        NonFiniteMetricError: a return is NaN or infinite; names the episode.
    """

    actor_steps: int
    returns: tuple[float, ...]

    def __post_init__(self):
        for episode, value in enumerate(self.returns):
            if not math.isfinite(value):
                raise learning.NonFiniteMetricError(
                    f"The metric 'episode_return' became {value} in episode {episode + 1} of the evaluation after "
                    f"environment step {self.actor_steps}: the environment gave such rewards."
                )

    @property
    def mean_return(self) -> float:
        """Mean return over the episodes."""
        return sum(self.returns) / len(self.returns)


@dataclasses.dataclass(frozen=True)
class ExperimentResult:
    """What a run gives.

    Attributes:
        directory: the run's directory.
        evaluations: in the order in which they were made.
        counts: the counters at the end: `actor_steps`, `actor_episodes`, `learner_steps`, ...; of a distributed
            program also each table's `<table>_inserts` and `<table>_samples`.
        variables: name -> tree, the learner's final variables, on the host.
        finished: False if the run was interrupted.
        seconds: name -> seconds of the run spent on it: `environment`, `acting`, `adding`, `sampling`, `learning`,
            `evaluating`, `checkpointing`, and `total`.
    """

    directory: pathlib.Path
    evaluations: tuple[Evaluation, ...]
    counts: dict[str, int]
    variables: dict[str, types.ArrayTree]
    finished: bool
    seconds: dict[str, float]
