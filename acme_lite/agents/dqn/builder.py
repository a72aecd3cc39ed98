"""DQN's config, and the builder that makes its parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax

from acme_lite import acting, checks, core, learning, networks, specs, types
from acme_lite import networks as networks_lib
from acme_lite.agents import builders
from acme_lite.agents.dqn import learning as dqn_learning
from acme_lite.agents.dqn import networks as dqn_networks


@dataclasses.dataclass(frozen=True)
class DQNConfig:
    """Settings of DQN. The defaults solve CartPole-v1 (see docs/results.md); for Atari take those of the papers."""

    discount: float = 0.99
    """Discount factor per step, in [0, 1]."""
    n_step: int = 3
    """Steps that a transition spans."""
    double_q: bool = True
    """Whether the trained network chooses the action that the target network values (van Hasselt et al., 2016)."""
    huber_delta: float | None = 1.0
    """Difference up to which the loss is quadratic (Mnih et al., 2015); None for squared (quantiles: absolute) loss."""
    hidden_sizes: tuple[int, ...] = (64, 64)
    """Layers of the perceptron that takes vector observations."""
    duelling: bool = False
    """Whether values and advantages have layers of their own (Wang et al., 2016)."""
    distribution: Literal["categorical", "quantile"] | None = None
    """How returns are modelled: C51 (Bellemare et al., 2017), QR-DQN (Dabney et al., 2018), or by their mean alone."""
    num_atoms: int = 51
    """Atoms of a categorical distribution (51 in Bellemare et al., 2017) or quantiles (200 in Dabney et al., 2018)."""
    v_min: float = -10.0
    """Least return that a categorical distribution knows (Bellemare et al., 2017)."""
    v_max: float = 10.0
    """Greatest return that a categorical distribution knows (Bellemare et al., 2017)."""
    munchausen: bool = False
    """Whether rewards get the scaled log-policy, and targets are soft (Vieillard et al., 2020)."""
    munchausen_scale: float = 0.9
    """Part of the log-policy that is added to the reward: alpha in Vieillard et al. (2020); 0 leaves soft DQN."""
    munchausen_temperature: float = 0.03
    """Temperature of the policy and its entropy: tau in Vieillard et al. (2020)."""
    munchausen_clip: float = -1.0
    """Least value of tau times the log-policy: l_0 in Vieillard et al. (2020)."""
    learning_rate: float | learning.LinearSchedule = learning.LinearSchedule(1e-3, 1e-4, 20_000)
    """Adam's step size: a number or a schedule over learner steps."""
    adam_epsilon: float = 1e-8
    """Adam's epsilon; greater ones make steps with small gradients smaller (1.5e-4 in Hessel et al., 2018, table 1)."""
    max_gradient_norm: float | None = 10.0
    """Gradients longer than this are scaled down to it (Wang et al., 2016); None for no limit."""
    target_update_period: int = 100
    """Learner steps from one update of the target network to the next."""
    target_update_rate: float = 1.0
    """Part of the way that the target network goes to the trained one at an update: 1 copies it (Mnih et al., 2015)."""
    batch_size: int = 128
    """Transitions in a batch."""
    samples_per_insert: float = 32.0
    """Transitions sampled per transition inserted; divided by the batch size, learner steps per environment step."""
    max_replay_size: int = 100_000
    """Most transitions kept."""
    min_replay_size: int = 1_000
    """Transitions before the first learner step."""
    epsilon: float | learning.LinearSchedule | tuple[float, ...] = learning.LinearSchedule(1.0, 0.05, 2_500)
    """Probability of a random action in training: a number, a schedule over learner steps, or a value per actor."""
    evaluation_epsilon: float = 0.0
    """Probability of a random action in evaluation."""
    priority_exponent: float = 0.0
    """Exponent of the priorities, 0.6 in Schaul et al. (2016); 0 samples uniformly."""
    importance_exponent: float | learning.LinearSchedule = 0.4
    """Exponent of the importance weights of prioritised sampling (Schaul et al., 2016, section 3.4)."""
    num_steps_per_call: int = 8
    """Learner steps in one compiled call."""
    overlap: bool = True
    """Whether learning runs in a thread of its own beside acting, with variables one call late."""

    def __post_init__(self):
        builders.check_transitions(self)
        checks.booleans(self, "double_q", "duelling", "munchausen")
        checks.in_range(self, 0, 1, "epsilon", schedules=True, tuples=True)
        checks.in_range(self, 0, 1, "importance_exponent", schedules=True)
        checks.in_range(self, 0, 1, "evaluation_epsilon", "priority_exponent")
        checks.in_range(self, 1e-6, 1, "target_update_rate")
        checks.in_range(self, 0, math.inf, "learning_rate", schedules=True)
        checks.positive(self, "adam_epsilon", "munchausen_temperature")
        checks.positive_or_none(self, "huber_delta", "max_gradient_norm")
        checks.at_least(self, 1, "target_update_period")
        checks.sizes(self, "hidden_sizes")
        checks.at_least(self, 2, "num_atoms")
        checks.one_of(self, (None, "categorical", "quantile"), "distribution")
        checks.increasing(self, "v_min", "v_max")
        checks.in_range(self, 0, 1, "munchausen_scale")
        checks.in_range(self, -math.inf, 0, "munchausen_clip")
        self._check_combination()

    def _check_combination(self) -> None:
        """Refuses settings that do not go together, and those that nothing would use."""
        if self.munchausen:
            checks.must_be(self, "with munchausen, whose soft target is one of mean values", distribution=None)
            checks.must_be(self, "with munchausen, whose soft target chooses no action", double_q=False)
            checks.must_be(self, "with munchausen, where every reward needs a log-policy of its own", n_step=1)
        else:
            names = ("munchausen_scale", "munchausen_temperature", "munchausen_clip")
            checks.left_at_default(self, "without munchausen", *names)
        if self.distribution is None:
            checks.left_at_default(self, "without a distribution", "num_atoms")
        if self.distribution == "categorical":
            checks.left_at_default(self, "with a categorical distribution, whose loss has no use for it", "huber_delta")
        else:
            checks.left_at_default(self, "without a categorical distribution", "v_min", "v_max")
        if not self.priority_exponent:
            checks.left_at_default(self, "without a priority_exponent", "importance_exponent")


_PRIORITISED = dict(priority_exponent=0.5, importance_exponent=0.5)
_RAINBOW = dict(distribution="categorical", n_step=3, double_q=False, **_PRIORITISED)
_ATARI: dict[str, Any] = dict(batch_size=32, samples_per_insert=8.0, min_replay_size=20_000, max_replay_size=1_000_000)
_ATARI |= dict(learning_rate=6.25e-5, adam_epsilon=1.5e-4, max_gradient_norm=None, target_update_period=2_000)
_ATARI |= dict(epsilon=learning.LinearSchedule(1.0, 0.01, 62_500), evaluation_epsilon=0.001)

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "munchausen": dict(munchausen=True, n_step=1, double_q=False),
    "rainbow": _RAINBOW,
    "rainbow_atari": {**_RAINBOW, **_ATARI},
}
"""Variants that differ from the defaults in several settings that belong together, by name.

`rainbow` is what Castro et al., Dopamine (2018) keep of Hessel et al. (2018): a categorical distribution, three-step
returns and prioritised replay. `rainbow_atari` has Dopamine's settings for Atari, too, with its periods in actor steps
divided by four, since it takes one learner step per four of them.
"""


def variant_config(name: str, **settings: Any) -> DQNConfig:
    """Returns the config of a variant, with further settings in place of its own.

    Args:
        name: a key of `VARIANTS`.
        **settings: fields of the config.

    Raises:
        ValueError: there is no such variant, or the settings do not go together.
    """
    if name not in VARIANTS:
        raise ValueError(f"name must be one of {', '.join(map(repr, VARIANTS))}, got {name!r}.")
    return DQNConfig(**{**VARIANTS[name], **settings})


@dataclasses.dataclass(frozen=True)
class DQNBuilder(builders.TransitionBuilder):
    """Makes the parts of a DQN agent.

    Attributes:
        config: the settings.
        loss_fn: a loss of one's own in place of the config's, see `learning.Loss`.
    """

    config: DQNConfig = dataclasses.field(default_factory=DQNConfig)
    loss_fn: dqn_learning.Loss | None = None

    def make_networks(self, spec: specs.EnvironmentSpec) -> networks.FeedForwardNetwork:
        config = self.config
        num_atoms = None if config.distribution is None else config.num_atoms
        return dqn_networks.make_networks(
            spec, hidden_sizes=config.hidden_sizes, duelling=config.duelling, num_atoms=num_atoms
        )

    def make_core(self, networks: networks.FeedForwardNetwork, spec: specs.EnvironmentSpec) -> learning.LearnerCore:
        return dqn_learning.make_core(self.config, networks, spec, loss_fn=self.loss_fn)

    def make_policy(
        self,
        networks: networks.FeedForwardNetwork,
        spec: specs.EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: core.ActorId = core.ActorId(),
    ) -> acting.ActorCore:
        action_spec = networks_lib.check_discrete(spec, agent="DQN")
        dtype = jax.dtypes.canonicalize_dtype(action_spec.dtype)
        config = self.config
        if evaluation:
            fixed_epsilon: float | None = config.evaluation_epsilon
        elif isinstance(config.epsilon, tuple):
            if len(config.epsilon) != actor.count:
                raise ValueError(
                    f"DQNConfig.epsilon must hold a value for each of the {actor.count} actors, got {config.epsilon}."
                )
            fixed_epsilon = config.epsilon[actor.index]
        else:
            fixed_epsilon = None

        def select_action(params: types.Params, observation: types.ArrayTree, key: jax.Array) -> jax.Array:
            epsilon = params["epsilon"] if fixed_epsilon is None else fixed_epsilon
            _, action_mask = networks_lib.split_action_mask(observation)
            values = dqn_networks.mean_values(networks.apply(params["params"], observation), config)
            networks_lib.check_output(values, (None, action_spec.num_values), agent="DQN", what="action values")
            return acting.epsilon_greedy(key, values, epsilon, action_mask=action_mask).astype(dtype)

        return acting.feed_forward(select_action)

    @property
    def priority_exponent(self) -> float:
        return self.config.priority_exponent
