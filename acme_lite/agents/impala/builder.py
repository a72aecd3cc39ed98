"""IMPALA's config, and the builder that makes its parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import jax

from acme_lite import acting, adders, checks, core, learning, networks, replay, specs, types
from acme_lite import networks as networks_lib
from acme_lite.agents import builders
from acme_lite.agents.impala import learning as impala_learning
from acme_lite.agents.impala import networks as impala_networks

_TABLE = "queue"
_CORE_STATE = ("core_state",)


@dataclasses.dataclass(frozen=True)
class IMPALAConfig:
    """Settings of IMPALA. The defaults are for small tasks; docs/agents/impala.md has those of the paper."""

    discount: float = 0.99
    """Discount factor per step, in [0, 1]."""
    sequence_length: int = 20
    """Steps of a window that are learned from (20 in Espeholt et al., 2018, for Atari); one more bootstraps."""
    batch_size: int = 16
    """Windows in a batch."""
    queue_size: int = 32
    """Windows that may wait for the learner, and as many more as the other environments of one vector step write;
    then actors wait."""
    core: Literal["none", "gru", "lstm"] = "none"
    """Recurrent core between torso and heads."""
    core_size: int = 64
    """Size of the core's state; 256 in Espeholt et al. (2018, figure 3)."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Layers of the perceptron that takes vector observations."""
    image_torso: Literal["residual", "convolutional"] = "residual"
    """What takes images: the deep network of Espeholt et al. (2018), or the smaller one of Mnih et al. (2015)."""
    trace_lambda: float = 1.0
    """λ of V-trace: 1 gives n-step returns, 0 one-step ones."""
    max_ratio: float = 1.0
    """Greatest importance ratio in the value's targets, ρ̄ (Espeholt et al., 2018, section 4.1)."""
    max_policy_ratio: float = 1.0
    """Greatest importance ratio in the policy's gradient."""
    value_cost: float = 0.5
    """Weight of the value's loss (Espeholt et al., 2018, for Atari)."""
    entropy_cost: float = 0.01
    """Weight of the policy's entropy (Espeholt et al., 2018, for Atari)."""
    max_abs_reward: float | None = None
    """Rewards are clipped to this size, 1 in the paper's Atari; None for no limit."""
    optimizer: Literal["adam", "rmsprop"] = "adam"
    """RMSProp (decay 0.99, no momentum) is the paper's."""
    learning_rate: float | learning.LinearSchedule = 2e-3
    """Step size: a number or a schedule over learner steps."""
    optimizer_epsilon: float = 1e-8
    """The optimiser's epsilon."""
    max_gradient_norm: float | None = 1.0
    """Gradients longer than this are scaled down to it; None for no limit."""
    overlap: bool = True
    """Whether learning runs in a thread of its own beside acting, with variables one call late."""

    def __post_init__(self):
        checks.in_range(self, 0, 1, "discount", "trace_lambda")
        checks.booleans(self, "overlap")
        checks.in_range(self, 0, math.inf, "value_cost", "entropy_cost")
        checks.in_range(self, 0, math.inf, "learning_rate", schedules=True)
        checks.positive(self, "max_ratio", "max_policy_ratio", "optimizer_epsilon")
        checks.positive_or_none(self, "max_abs_reward", "max_gradient_norm")
        checks.at_least(self, 1, "sequence_length", "batch_size", "core_size")
        checks.sizes(self, "hidden_sizes")
        checks.at_least(self, self.batch_size, "queue_size")
        checks.one_of(self, networks.CORES, "core")
        checks.one_of(self, impala_networks.IMAGE_TORSOS, "image_torso")
        checks.one_of(self, learning.OPTIMIZERS, "optimizer")


@dataclasses.dataclass(frozen=True)
class IMPALABuilder(builders.CoreBuilder):
    """Makes the parts of an IMPALA agent.

    Attributes:
        config: the settings.
    """

    config: IMPALAConfig = dataclasses.field(default_factory=IMPALAConfig)

    def make_networks(self, spec: specs.EnvironmentSpec) -> networks.RecurrentNetwork:
        config = self.config
        return impala_networks.make_networks(
            spec,
            core=config.core,
            core_size=config.core_size,
            hidden_sizes=config.hidden_sizes,
            image_torso=config.image_torso,
        )

    def make_core(self, networks: networks.RecurrentNetwork, spec: specs.EnvironmentSpec) -> learning.LearnerCore:
        return impala_learning.make_core(self.config, networks, spec)

    def make_policy(
        self,
        networks: networks.RecurrentNetwork,
        spec: specs.EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: core.ActorId = core.ActorId(),
    ) -> acting.ActorCore:
        """Returns the policy: it samples in training, and takes the most likely action in evaluation."""
        distribution = impala_networks.make_distribution(spec)

        def select_action(
            params: types.Params, observation: types.ArrayTree, state: types.ArrayTree, key: jax.Array
        ) -> tuple[types.ArrayTree, types.ArrayTree, types.ArrayTree]:
            output, next_state = networks.apply(params, observation, state)
            _, action_mask = networks_lib.split_action_mask(observation)
            logits = networks_lib.mask_illegal(output.logits, action_mask)
            if evaluation:
                return distribution.mode(logits), (), next_state
            action = distribution.sample(logits, key)
            extras = {"log_prob": distribution.log_prob(logits, action), "core_state": state}
            return action, extras, next_state

        return acting.ActorCore(networks.initial_state, select_action)

    def make_tables(self, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree) -> Sequence[replay.Table]:
        config = self.config
        row_extras, start = adders.split_extras(extras_spec, _CORE_STATE)
        return [
            replay.Table(
                _TABLE,
                config.queue_size,
                adders.sequence_signature(spec, row_extras),
                replay.Sequences(config.sequence_length + 1, config.sequence_length, start),
                replay.Fifo(),
                replay.Queue(config.queue_size),
                max_times_sampled=1,
            )
        ]

    def make_adder(
        self, writer: replay.Writer, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree
    ) -> adders.Adder:
        return adders.SequenceAdder(
            writer,
            length=self.config.sequence_length + 1,
            period=self.config.sequence_length,
            end_of_episode=adders.EndOfEpisode.CONTINUE,
            table=_TABLE,
            start_extras=_CORE_STATE,
        )

    def make_dataset(self, replay: replay.Replay, *, seed: int) -> replay.Dataset:
        return replay.dataset(_TABLE, self.config.batch_size, seed=seed)

    @property
    def learner_settings(self) -> Mapping[str, Any]:
        return {"overlap": self.config.overlap}
