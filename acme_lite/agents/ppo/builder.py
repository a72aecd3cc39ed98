"""PPO's config, and the builder that makes its parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from acme_lite import acting, adders, checks, core, learning, networks, replay, specs, types
from acme_lite import networks as networks_lib
from acme_lite.agents import builders
from acme_lite.agents.ppo import learning as ppo_learning
from acme_lite.agents.ppo import networks as ppo_networks

_TABLE = replay.DEFAULT_TABLE


@dataclasses.dataclass(frozen=True)
class PPOConfig:
    """Settings of PPO. The defaults solve CartPole-v1 with 8 environments; docs/agents/ppo.md has more."""

    discount: float = 0.99
    """Discount factor per step, in [0, 1]."""
    gae_lambda: float = 0.95
    """Weight of longer returns in the advantages, in [0, 1] (Schulman et al., 2016)."""
    unroll_length: int = 128
    """Steps of one environment that a window of the batch holds."""
    batch_size: int = 8
    """Windows in the batch of one learner step; with as many environments, a batch is what one policy has done."""
    num_epochs: int = 10
    """Times that a learner step goes over its batch."""
    minibatch_size: int = 256
    """Steps in a minibatch; must divide batch_size times unroll_length."""
    clip_epsilon: float | learning.LinearSchedule = 0.2
    """How far the ratio of probabilities counts away from 1 (Schulman et al., 2017): a number or a schedule."""
    value_clip: float | None = None
    """How far a value counts away from the one before the learner step, in the network's unit; None for no limit."""
    value_cost: float = 1.0
    """Weight of the value loss, half the mean squared error."""
    entropy_cost: float | learning.LinearSchedule = 0.0
    """Weight of the entropy bonus: a number or a schedule over learner steps."""
    normalize_advantages: bool = True
    """Whether advantages get mean 0 and variance 1 in each minibatch."""
    normalize_observations: bool = False
    """Whether observations get mean 0 and variance 1, by their running statistics."""
    normalize_values: bool = False
    """Whether values are learned in standard deviations of the returns so far, from their mean."""
    learning_rate: float | learning.LinearSchedule = 1e-3
    """Adam's step size: a number or a schedule over learner steps."""
    adam_epsilon: float = 1e-5
    """Adam's epsilon, 1e-5 in the code of Schulman et al. (2017)."""
    max_gradient_norm: float | None = 0.5
    """Gradients longer than this are scaled down to it; None for no limit."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Layers of the perceptrons that take vector observations."""
    initial_log_std: float = 0.0
    """Logarithm of the standard deviation of continuous actions at the start; the bounds are -1 and 1."""

    def __post_init__(self):
        checks.in_range(self, 0, 1, "discount", "gae_lambda")
        checks.booleans(self, "normalize_advantages", "normalize_observations", "normalize_values")
        checks.in_range(self, 0, math.inf, "value_cost")
        checks.in_range(self, 0, math.inf, "learning_rate", "entropy_cost", schedules=True)
        checks.in_range(self, -20, 2, "initial_log_std")
        checks.positive(self, "adam_epsilon")
        checks.positive(self, "clip_epsilon", schedules=True)
        checks.positive_or_none(self, "value_clip", "max_gradient_norm")
        checks.at_least(self, 1, "unroll_length", "batch_size", "num_epochs", "minibatch_size")
        checks.sizes(self, "hidden_sizes")
        if self.normalize_advantages and self.minibatch_size == 1:
            raise ValueError(
                "PPOConfig.minibatch_size must be at least 2 with normalize_advantages, since the normalised advantage "
                "of a single step is 0, got 1."
            )
        if self.batch_size * self.unroll_length % self.minibatch_size:
            raise ValueError(
                f"PPOConfig.minibatch_size must divide batch_size * unroll_length = "
                f"{self.batch_size * self.unroll_length}, got {self.minibatch_size}."
            )


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "control": dict(
        discount=0.995,
        unroll_length=1_024,
        minibatch_size=64,
        entropy_cost=0.01,
        normalize_observations=True,
        normalize_values=True,
        learning_rate=learning.LinearSchedule(3e-4, 3e-5, 48),
    )
}
"""Variants that differ from the defaults in several settings that belong together, by name.

`control` is for tasks of the DeepMind control suite with 8 environments: rewards of up to 1 a step, episodes of 1,000
steps, of which each batch holds all (they begin together, and batches of their later parts alone would let the policy
forget how they begin), and a step size that falls over the first 400,000 environment steps.
"""


@dataclasses.dataclass(frozen=True)
class PPOBuilder(builders.CoreBuilder):
    """Makes the parts of a PPO agent.

    Attributes:
        config: the settings.
        loss_fn: the loss on a minibatch, see `learning.Loss`.
    """

    config: PPOConfig = dataclasses.field(default_factory=PPOConfig)
    loss_fn: ppo_learning.Loss = ppo_learning.ppo_loss

    def make_networks(self, spec: specs.EnvironmentSpec) -> networks.FeedForwardNetwork:
        config = self.config
        return ppo_networks.make_networks(
            spec, hidden_sizes=config.hidden_sizes, initial_log_std=config.initial_log_std
        )

    def make_core(self, networks: networks.FeedForwardNetwork, spec: specs.EnvironmentSpec) -> learning.LearnerCore:
        learner_core = ppo_learning.make_core(self.config, networks, spec, loss_fn=self.loss_fn)
        if self.config.normalize_observations:
            return learning.normalize_observations(learner_core, spec.observation)
        return learner_core

    def make_policy(
        self,
        networks: networks.FeedForwardNetwork,
        spec: specs.EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: core.ActorId = core.ActorId(),
    ) -> acting.ActorCore:
        distribution = networks_lib.make_action_distribution(spec.action)

        def select_action(params, observation, state, key):
            policy = networks.apply(params, observation).policy
            policy = networks_lib.mask_illegal_parameters(policy, observation)
            if evaluation:
                return distribution.to_action(distribution.mode(policy)), (), state
            sample = distribution.sample(policy, key)
            extras = {"log_prob": distribution.log_prob(policy, sample)}
            if not distribution.is_discrete:
                extras["sample"] = sample
            return distribution.to_action(sample), extras, state

        policy = acting.ActorCore(lambda: (), select_action)
        return acting.normalize_observations(policy) if self.config.normalize_observations else policy

    def make_tables(self, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree) -> Sequence[replay.Table]:
        config = self.config
        return [
            replay.Table(
                _TABLE,
                config.batch_size,
                adders.sequence_signature(spec, extras_spec),
                replay.Sequences(config.unroll_length + 1, config.unroll_length),
                replay.Fifo(),
                replay.Queue(config.batch_size),
                max_times_sampled=1,
            )
        ]

    def make_adder(
        self, writer: replay.Writer, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree
    ) -> adders.Adder:
        # One row more than steps: it bootstraps, and is the first step of the next window.
        length = self.config.unroll_length
        continued = adders.EndOfEpisode.CONTINUE
        return adders.SequenceAdder(writer, length=length + 1, period=length, end_of_episode=continued, table=_TABLE)

    def make_dataset(self, replay: replay.Replay, *, seed: int) -> replay.Dataset:
        return replay.dataset(_TABLE, self.config.batch_size, seed=seed)

    @property
    def learner_settings(self) -> Mapping[str, Any]:
        return {"log_every_steps": 1}
