"""What builders of agents that learn from replayed n-step transitions share, as functions of their config."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import jax

from acme_lite import adders, checks, counting, learning, loggers, replay, specs, types

_TABLE = "replay"


class TransitionReplayConfig(Protocol):
    """The settings that the functions of this module use."""

    @property
    def discount(self) -> float:
        """Discount factor per step, in [0, 1]."""

    @property
    def n_step(self) -> int:
        """Steps that a transition spans."""

    @property
    def batch_size(self) -> int:
        """Transitions in a batch."""

    @property
    def samples_per_insert(self) -> float:
        """Transitions sampled per transition inserted."""

    @property
    def max_replay_size(self) -> int:
        """Most transitions kept."""

    @property
    def min_replay_size(self) -> int:
        """Transitions before the first learner step."""

    @property
    def num_steps_per_call(self) -> int:
        """Learner steps in one compiled call."""

    @property
    def overlap(self) -> bool:
        """Whether learning runs in a thread of its own beside acting."""


def check_config(config: TransitionReplayConfig) -> None:
    """Checks the settings.

    Raises:
        ValueError: one is out of range; names it, its value and what is allowed.
    """
    checks.in_range(config, 0, 1, "discount")
    checks.positive(config, "samples_per_insert")
    checks.at_least(config, 1, "n_step", "batch_size", "min_replay_size", "num_steps_per_call")
    checks.at_least(config, config.min_replay_size, "max_replay_size")


def make_tables(
    config: TransitionReplayConfig,
    spec: specs.EnvironmentSpec,
    extras_spec: types.SpecTree,
    *,
    priority_exponent: float = 0.0,
) -> Sequence[replay.Table]:
    """Returns the table of transitions, limited to `samples_per_insert`.

    Args:
        config: the settings.
        spec: of the environment.
        extras_spec: spec tree of what the policy gives beside the action.
        priority_exponent: of the priorities; 0 samples uniformly.
    """
    limiter = replay.rate_limiters.from_samples_per_insert(
        config.samples_per_insert,
        min_size=config.min_replay_size,
        items_per_call=config.batch_size * config.num_steps_per_call,
    )
    sampler = replay.Prioritized(priority_exponent) if priority_exponent else replay.Uniform()
    signature = adders.transition_signature(spec, extras_spec)
    items = replay.Transitions(config.n_step)
    return [replay.Table(_TABLE, config.max_replay_size, signature, items, sampler, limiter)]


def make_adder(config: TransitionReplayConfig, writer: replay.Writer) -> adders.Adder:
    """Returns the adder that writes the transitions."""
    return adders.NStepTransitionAdder(writer, n_step=config.n_step, discount=config.discount)


def make_dataset(config: TransitionReplayConfig, source: replay.Replay, *, seed: int) -> replay.Dataset:
    """Returns the batches of the table, as many at once as one compiled call takes."""
    num_batches = None if config.num_steps_per_call == 1 else config.num_steps_per_call
    return source.dataset(_TABLE, config.batch_size, num_batches=num_batches, seed=seed)


def make_learner(
    config: TransitionReplayConfig,
    core: learning.LearnerCore,
    dataset: replay.Dataset,
    *,
    key: jax.Array,
    counter: counting.Counter,
    logger: loggers.Logger,
) -> learning.SGDLearner:
    """Returns the learner that runs the core over the batches."""
    return learning.SGDLearner(
        core,
        dataset,
        key=key,
        counter=counter,
        logger=logger,
        num_steps_per_call=config.num_steps_per_call,
        overlap=config.overlap,
    )
