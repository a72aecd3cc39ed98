"""R2D2's config, and the builder that makes its parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from acme_lite import acting, adders, checks, core, learning, networks, replay, specs, types
from acme_lite import networks as networks_lib
from acme_lite.agents import builders
from acme_lite.agents.r2d2 import learning as r2d2_learning
from acme_lite.agents.r2d2 import networks as r2d2_networks

_CORE_STATE = ("core_state",)


@dataclasses.dataclass(frozen=True)
class R2D2Config:
    """Settings of R2D2. The defaults are for small tasks (see docs/agents/r2d2.md, also for those of the paper)."""

    discount: float = 0.99
    """Discount factor per step, in [0, 1]; 0.997 in Kapturowski et al. (2019)."""
    n_step: int = 5
    """Steps to the bootstrap; fewer where an episode or a sequence ends before (5 in the paper)."""
    rescaling_epsilon: float | None = 1e-3
    """Epsilon of the rescaling of values (1e-3 in the paper); None to learn values in the scale of the rewards."""
    burn_in_length: int = 0
    """Steps from which a sequence takes its recurrent state alone. The first so many of each episode are never trained,
    and an episode no longer than this leaves nothing (40 in the paper)."""
    trace_length: int = 20
    """Steps of a sequence that are trained (80 in the paper); gradients reach no farther back."""
    period: int = 10
    """Steps from the start of one sequence to that of the next (40 in the paper)."""
    hidden_sizes: tuple[int, ...] = (64,)
    """Layers of the perceptron that takes vector observations."""
    core: str = "lstm"
    """What remembers: lstm, gru, or none for a feed-forward network."""
    core_size: int = 64
    """Units of the core (512 in the paper)."""
    duelling: bool = True
    """Whether values and advantages have heads of their own (Wang et al., 2016)."""
    learning_rate: float | learning.LinearSchedule = 1e-3
    """Adam's step size: a number or a schedule over learner steps (1e-4 in the paper)."""
    adam_epsilon: float = 1e-8
    """Adam's epsilon (1e-3 in the paper)."""
    max_gradient_norm: float | None = 40.0
    """Gradients longer than this are scaled down to it; None for no limit."""
    target_update_period: int = 100
    """Learner steps from one copy of the network to the target network to the next (2,500 in the paper)."""
    batch_size: int = 32
    """Sequences in a batch (64 in the paper)."""
    samples_per_insert: float = 16.0
    """Sequences sampled per sequence inserted."""
    max_replay_size: int = 10_000
    """Most sequences kept."""
    min_replay_size: int = 100
    """Sequences before the first learner step."""
    epsilon: float | learning.LinearSchedule = learning.LinearSchedule(1.0, 0.4, 1_000)
    """Base of the probabilities of a random action in training: a number, or a schedule over learner steps."""
    epsilon_alpha: float = 7.0
    """Environment i of N, over all actors, takes a random action with probability epsilon^(1 + alpha i / (N - 1))
    (Horgan et al., 2018); one alone with that of the middle. 0 gives all of them epsilon itself."""
    evaluation_epsilon: float = 0.0
    """Probability of a random action in evaluation."""
    priority_exponent: float = 0.9
    """Exponent of the priorities (0.9 in the paper); 0 samples uniformly."""
    max_priority_weight: float = 0.9
    """Weight of a sequence's greatest temporal difference in its priority; the mean has the rest (0.9 in the paper)."""
    importance_exponent: float | learning.LinearSchedule = 0.6
    """Exponent of the importance weights of prioritised sampling (Schaul et al., 2016, section 3.4); 0 for none."""
    num_steps_per_call: int = 1
    """Learner steps in one compiled call."""
    overlap: bool = True
    """Whether learning runs in a thread of its own beside acting, with variables one call late."""

    def __post_init__(self):
        builders.check_replay(self)
        checks.booleans(self, "duelling")
        checks.in_range(self, 0, 1, "discount", "evaluation_epsilon", "max_priority_weight", "priority_exponent")
        checks.in_range(self, 0, 1, "epsilon", "importance_exponent", schedules=True)
        checks.in_range(self, 0, math.inf, "epsilon_alpha")
        checks.in_range(self, 0, math.inf, "learning_rate", schedules=True)
        checks.positive(self, "adam_epsilon")
        checks.positive_or_none(self, "max_gradient_norm", "rescaling_epsilon")
        checks.at_least(self, 0, "burn_in_length")
        checks.at_least(self, 1, "n_step", "trace_length", "period", "target_update_period", "core_size")
        checks.sizes(self, "hidden_sizes")
        checks.in_range(self, 1, self.trace_length, "period")  # steps between two traces would never be trained
        checks.one_of(self, networks.CORES, "core")
        if not self.priority_exponent:
            checks.left_at_default(self, "without a priority_exponent", "max_priority_weight", "importance_exponent")

    @property
    def sequence_length(self) -> int:
        """How many rows a sequence has, with burn-in, trace, and the observation behind it, which only bootstraps."""
        return self.burn_in_length + self.trace_length + 1


@dataclasses.dataclass(frozen=True)
class R2D2Builder(builders.ReplayBuilder):
    """Makes the parts of an R2D2 agent.

    Attributes:
        config: the settings.
        loss_fn: the loss on a batch, see `learning.Loss`.
    """

    config: R2D2Config = dataclasses.field(default_factory=R2D2Config)
    loss_fn: r2d2_learning.Loss = r2d2_learning.r2d2_loss

    def make_networks(self, spec: specs.EnvironmentSpec) -> networks.RecurrentNetwork:
        config = self.config
        return r2d2_networks.make_networks(
            spec,
            hidden_sizes=config.hidden_sizes,
            core=config.core,
            core_size=config.core_size,
            duelling=config.duelling,
        )

    def make_core(self, networks: networks.RecurrentNetwork, spec: specs.EnvironmentSpec) -> learning.LearnerCore:
        return r2d2_learning.make_core(self.config, networks, loss_fn=self.loss_fn)

    def make_policy(
        self,
        networks: networks.RecurrentNetwork,
        spec: specs.EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: core.ActorId = core.ActorId(),
    ) -> acting.ActorCore:
        action_spec = networks_lib.check_discrete(spec, agent="R2D2")
        dtype = jax.dtypes.canonicalize_dtype(action_spec.dtype)
        config = self.config

        def epsilon_of_each(base: jax.Array, num_envs: int) -> jax.Array:
            # All actors have equally many environments.
            index = actor.index * num_envs + jnp.arange(num_envs)
            return acting.epsilon_ladder(base, index, actor.count * num_envs, alpha=config.epsilon_alpha)

        def select_action(params, observation, state, key):
            _, action_mask = networks_lib.split_action_mask(observation)
            values, next_state = networks.apply(params["params"], observation, state)
            networks_lib.check_output(values, (None, action_spec.num_values), agent="R2D2", what="action values")
            epsilon = config.evaluation_epsilon if evaluation else epsilon_of_each(params["epsilon"], len(values))
            action = acting.epsilon_greedy(key, values, epsilon, action_mask=action_mask).astype(dtype)
            return action, {"core_state": state}, next_state

        return acting.ActorCore(networks.initial_state, select_action)

    @property
    def priority_exponent(self) -> float:
        return self.config.priority_exponent

    def make_tables(self, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree) -> Sequence[replay.Table]:
        row_extras, start = adders.split_extras(extras_spec, _CORE_STATE)
        signature = adders.sequence_signature(spec, row_extras)
        return [self.make_table(signature, replay.Sequences(self.config.sequence_length, self.config.period, start))]

    def make_adder(
        self, writer: replay.Writer, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree
    ) -> adders.Adder:
        config = self.config
        return adders.SequenceAdder(
            writer,
            length=config.sequence_length,
            period=config.period,
            end_of_episode=adders.EndOfEpisode.ZERO_PAD,
            min_length=config.burn_in_length + 2,  # a step to train, and the observation behind it
            table=self.table_name,
            start_extras=_CORE_STATE,
        )
