"""What builders of agents share: a builder derives from one of these classes and says only what is its own.

`CoreBuilder` makes the learner and the actor, `ReplayBuilder` draws from a table that many batches are drawn from, and
`TransitionBuilder` fills it with n-step transitions. `NormalizedBuilder` stands around any of them, and its agent sees
normalised observations. The interface of every builder is `core.Builder`.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import jax

from acme_lite import _runtime, acting, adders, checks, core, counting, learning, loggers, replay, specs, types


class CoreBuilder(abc.ABC):
    """Makes the learner and the actor of an agent whose algorithm is a `LearnerCore`, out of what `make_core` returns.

    What is left to a builder that derives from it: `make_networks`, `make_core`, `make_policy`, `make_tables`,
    `make_adder` and `make_dataset`.
    """

    @property
    def learner_settings(self) -> Mapping[str, Any]:
        """Further arguments of `learning.SGDLearner`, such as `overlap`; none unless a builder says otherwise."""
        return {}

    @abc.abstractmethod
    def make_core(self, networks: Any, spec: specs.EnvironmentSpec) -> learning.LearnerCore:
        """Returns the algorithm as pure functions."""

    def init_variables(
        self, networks: Any, spec: specs.EnvironmentSpec, key: jax.Array
    ) -> Mapping[str, types.ArrayTree]:
        learner_core = self.make_core(networks, spec)
        return learner_core.variables(learner_core.init(key))

    def make_learner(
        self,
        networks: Any,
        spec: specs.EnvironmentSpec,
        dataset: replay.Dataset,
        *,
        key: jax.Array,
        counter: counting.Counter,
        logger: loggers.Logger,
    ) -> core.Learner:
        learner_core = self.make_core(networks, spec)
        return learning.SGDLearner(
            learner_core, dataset, key=key, counter=counter, logger=logger, **self.learner_settings
        )

    def make_actor(
        self,
        policy: acting.ActorCore,
        variables: core.VariableSource,
        adder: adders.Adder | None,
        *,
        key: jax.Array,
        num_envs: int,
    ) -> core.Actor:
        device = _runtime.acting_device()
        return acting.PolicyActor(policy, variables, adder, key=key, num_envs=num_envs, device=device)


@dataclasses.dataclass(frozen=True)
class NormalizedBuilder(CoreBuilder):
    """Makes the parts of another builder's agent, whose observations get mean 0 and variance 1.

    The running statistics are in the learner's state, are saved with it, and reach actors in the variable `"policy"`:
    see `learning.normalize_observations`. Replay holds the observations as they are.

    Attributes:
        builder: the agent's own; must derive from `CoreBuilder`, and leave `make_learner` and `init_variables` to it.
    """

    builder: core.Builder

    def __post_init__(self):
        if not isinstance(self.builder, CoreBuilder):
            raise ValueError(f"NormalizedBuilder.builder must derive from CoreBuilder, got {self.builder!r}.")
        if getattr(getattr(self.builder, "config", None), "normalize_observations", False):
            raise ValueError(
                "NormalizedBuilder.builder must not normalise observations itself, got one with "
                "normalize_observations=True: one of the two is enough."
            )
        for name in ("make_learner", "init_variables"):
            # They are about the agent's own core, and the learner here is one of the core that normalises.
            if getattr(type(self.builder), name) is not getattr(CoreBuilder, name):
                raise ValueError(
                    f"NormalizedBuilder.builder must have the {name} of CoreBuilder, got {self.builder!r}, which has "
                    "its own: let make_core or learner_settings say what is different."
                )

    @property
    def learner_settings(self) -> Mapping[str, Any]:
        assert isinstance(self.builder, CoreBuilder)
        return self.builder.learner_settings

    def make_networks(self, spec: specs.EnvironmentSpec) -> Any:
        return self.builder.make_networks(spec)

    def make_core(self, networks: Any, spec: specs.EnvironmentSpec) -> learning.LearnerCore:
        assert isinstance(self.builder, CoreBuilder)
        return learning.normalize_observations(self.builder.make_core(networks, spec), spec.observation)

    def make_policy(
        self,
        networks: Any,
        spec: specs.EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: core.ActorId = core.ActorId(),
    ) -> acting.ActorCore:
        policy = self.builder.make_policy(networks, spec, evaluation=evaluation, actor=actor)
        return acting.normalize_observations(policy)

    def make_actor(
        self,
        policy: acting.ActorCore,
        variables: core.VariableSource,
        adder: adders.Adder | None,
        *,
        key: jax.Array,
        num_envs: int,
    ) -> core.Actor:
        return self.builder.make_actor(policy, variables, adder, key=key, num_envs=num_envs)

    def make_tables(self, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree) -> Sequence[replay.Table]:
        return self.builder.make_tables(spec, extras_spec)

    def make_adder(
        self, writer: replay.Writer, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree
    ) -> adders.Adder:
        return self.builder.make_adder(writer, spec, extras_spec)

    def make_dataset(self, replay: replay.Replay, *, seed: int) -> replay.Dataset:
        return self.builder.make_dataset(replay, seed=seed)


class ReplayConfig(Protocol):
    """The settings that `ReplayBuilder` uses."""

    @property
    def batch_size(self) -> int:
        """Items in a batch."""

    @property
    def samples_per_insert(self) -> float:
        """Items sampled per item inserted."""

    @property
    def max_replay_size(self) -> int:
        """Most items kept."""

    @property
    def min_replay_size(self) -> int:
        """Items before the first learner step."""

    @property
    def num_steps_per_call(self) -> int:
        """Learner steps in one compiled call."""

    @property
    def overlap(self) -> bool:
        """Whether learning runs in a thread of its own beside acting."""


class ReplayBuilder(CoreBuilder):
    """Makes the parts around one table of items that are sampled many times, limited to `samples_per_insert`."""

    config: ReplayConfig

    @property
    def learner_settings(self) -> Mapping[str, Any]:
        return {"num_steps_per_call": self.config.num_steps_per_call, "overlap": self.config.overlap}

    @property
    def priority_exponent(self) -> float:
        """Exponent of the priorities; 0, as here, samples uniformly."""
        return 0.0

    @property
    def table_name(self) -> str:
        """Name of the table, for whoever writes to it and draws from it."""
        return replay.DEFAULT_TABLE

    def make_table(self, signature: replay.Signature, items: replay.Transitions | replay.Sequences) -> replay.Table:
        """Returns the table of these items."""
        config = self.config
        limiter = replay.rate_limiters.from_samples_per_insert(
            config.samples_per_insert,
            min_size=config.min_replay_size,
            items_per_call=config.batch_size * config.num_steps_per_call,
        )
        sampler = replay.Prioritized(self.priority_exponent) if self.priority_exponent else replay.Uniform()
        return replay.Table(self.table_name, config.max_replay_size, signature, items, sampler, limiter)

    def make_dataset(self, replay: replay.Replay, *, seed: int) -> replay.Dataset:
        """Returns the batches of the table, as many at once as one compiled call takes."""
        config = self.config
        num_batches = None if config.num_steps_per_call == 1 else config.num_steps_per_call
        return replay.dataset(self.table_name, config.batch_size, num_batches=num_batches, seed=seed)


def check_replay(config: ReplayConfig) -> None:
    """Checks the settings.

    Raises:
        ValueError: one is out of range; names it, its value and what is allowed.
    """
    checks.booleans(config, "overlap")
    checks.positive(config, "samples_per_insert")
    checks.at_least(config, 1, "batch_size", "min_replay_size", "num_steps_per_call")
    checks.at_least(config, config.min_replay_size, "max_replay_size")


class TransitionConfig(ReplayConfig, Protocol):
    """The settings that `TransitionBuilder` uses."""

    @property
    def discount(self) -> float:
        """Discount factor per step, in [0, 1]."""

    @property
    def n_step(self) -> int:
        """Steps that a transition spans."""


class TransitionBuilder(ReplayBuilder):
    """Makes the parts around a table of n-step transitions."""

    config: TransitionConfig

    def make_tables(self, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree) -> Sequence[replay.Table]:
        signature = adders.transition_signature(spec, extras_spec)
        return [self.make_table(signature, replay.Transitions(self.config.n_step))]

    def make_adder(
        self, writer: replay.Writer, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree
    ) -> adders.Adder:
        config = self.config
        return adders.NStepTransitionAdder(
            writer, n_step=config.n_step, discount=config.discount, table=self.table_name
        )


def check_transitions(config: TransitionConfig) -> None:
    """Checks the settings.

    Raises:
        ValueError: one is out of range; names it, its value and what is allowed.
    """
    check_replay(config)
    checks.in_range(config, 0, 1, "discount")
    checks.at_least(config, 1, "n_step")
