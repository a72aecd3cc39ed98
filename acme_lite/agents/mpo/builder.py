"""MPO's config, and the builder that makes its parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax

from acme_lite import acting, checks, core, learning, networks, specs, types
from acme_lite import networks as networks_lib
from acme_lite.agents import builders
from acme_lite.agents.mpo import learning as mpo_learning
from acme_lite.agents.mpo import networks as mpo_networks
from acme_lite.networks import return_models


@dataclasses.dataclass(frozen=True)
class MPOConfig:
    """Settings of MPO. The defaults are those of Abdolmaleki et al. (2018), table 2, for the control suite.

    What it does not tell is as in Acme (Hoffman et al., 2020), where each field says so. All of Acme's settings but
    `initial_std`, with which the published curves were made that ours are compared with, are in `VARIANTS["acme"]`;
    the networks of those have no activation in the last layer before a head.
    """

    critic: Literal["distributional", "scalar"] = "scalar"
    """Whether the critic models returns by a distribution (DMPO in Acme) or by their mean."""
    num_atoms: int = 51
    """Atoms of the distribution, if there is one (Acme)."""
    v_min: float = -150.0
    """Least return that the distribution knows (Acme; its rewards are in [0, 1] and its discount is 0.99)."""
    v_max: float = 150.0
    """Greatest return that the distribution knows (Acme)."""
    discount: float = 0.99
    """Discount factor per step, in [0, 1] (Abdolmaleki et al., 2018)."""
    n_step: int = 5
    """Steps that a transition spans (Acme; Abdolmaleki et al., 2018, have Retrace)."""
    num_samples: int = 20
    """Actions sampled for each observation (Acme)."""
    epsilon: float = 0.1
    """Bound on the divergence of the weights of sampled actions from equal ones, in nats (Abdolmaleki et al., 2018)."""
    epsilon_mean: float = 0.1
    """Bound on the policy's divergence from its target in the mean, in nats (Abdolmaleki et al., 2018; 0.0025 in
    Acme)."""
    epsilon_std: float = 1e-4
    """Bound on the policy's divergence from its target in the deviation, in nats (Abdolmaleki et al., 2018; 1e-6 in
    Acme)."""
    per_dimension: bool = False
    """Whether these two bounds hold for each dimension of an action alone (Acme), or for their sum (Abdolmaleki et
    al., 2018)."""
    action_penalty: bool = False
    """Whether samples out of bounds lose weight (as one more objective, Abdolmaleki et al., 2020; Acme)."""
    epsilon_penalty: float = 0.001
    """Bound on the divergence of the weights that do so, in nats (Acme)."""
    initial_log_temperature: float = 10.0
    """Parameter of both temperatures at the start; they are softplus of it (Acme)."""
    initial_log_alpha_mean: float = 10.0
    """Parameter of the multiplier of `epsilon_mean` at the start (Acme)."""
    initial_log_alpha_std: float = 1_000.0
    """Parameter of the multiplier of `epsilon_std` at the start (Acme)."""
    initial_std: float = 0.7
    """Standard deviation of the first policy, where the bounds are -1 and 1 (Acme in JAX; 0.3 in TensorFlow)."""
    dual_learning_rate: float | learning.LinearSchedule = 1e-2
    """Adam's step size for the multipliers (Acme): a number or a schedule over learner steps."""
    policy_learning_rate: float | learning.LinearSchedule = 5e-4
    """Adam's step size for the policy (Abdolmaleki et al., 2018; 1e-4 in Acme): a number or a schedule over learner
    steps."""
    critic_learning_rate: float | learning.LinearSchedule = 5e-4
    """Adam's step size for the critic (Abdolmaleki et al., 2018; 1e-4 in Acme): a number or a schedule over learner
    steps."""
    max_gradient_norm: float | None = None
    """Gradients of policy and critic longer than this, each alone, are scaled down to it (40 in Acme); None for no
    limit."""
    target_update_period: int = 100
    """Learner steps from one copy to the target networks to the next (Acme; Abdolmaleki et al., 2018, copy after each
    1,000, with far more learner steps per environment step than here)."""
    policy_hidden_sizes: tuple[int, ...] = (100, 100)
    """Layers of the policy (Abdolmaleki et al., 2018; (256, 256, 256) in Acme); the first is normalised (Acme)."""
    critic_hidden_sizes: tuple[int, ...] = (200, 200)
    """Layers of the critic (Abdolmaleki et al., 2018; (512, 512, 256) in Acme); the first is normalised (Acme)."""
    batch_size: int = 256
    """Transitions in a batch (Acme)."""
    samples_per_insert: float = 32.0
    """Transitions sampled per transition inserted; divided by the batch size, learner steps per actor step (Acme)."""
    max_replay_size: int = 1_000_000
    """Most transitions kept (Acme); their memory is taken as they come."""
    min_replay_size: int = 1_000
    """Transitions before the first learner step (Acme)."""
    num_steps_per_call: int = 1
    """Learner steps in one compiled call; a step with these networks takes so long that one is enough."""
    overlap: bool = True
    """Whether learning runs in a thread of its own beside acting, with variables one call late."""

    def __post_init__(self):
        builders.check_transitions(self)
        checks.booleans(self, "per_dimension", "action_penalty")
        return_models.check(self)
        checks.at_least(self, 2, "num_samples")
        checks.positive(self, "epsilon", "epsilon_mean", "epsilon_std", "epsilon_penalty", "initial_std")
        checks.in_range(self, -18, 1e6, "initial_log_temperature", "initial_log_alpha_mean", "initial_log_alpha_std")
        rates = ("dual_learning_rate", "policy_learning_rate", "critic_learning_rate")
        checks.in_range(self, 0, math.inf, *rates, schedules=True)
        checks.positive_or_none(self, "max_gradient_norm")
        checks.at_least(self, 1, "target_update_period")
        checks.sizes(self, "policy_hidden_sizes", "critic_hidden_sizes")
        if not self.action_penalty:
            checks.left_at_default(self, "without action_penalty", "epsilon_penalty")


_ACME: dict[str, Any] = dict(
    epsilon_mean=0.0025,
    epsilon_std=1e-6,
    per_dimension=True,
    action_penalty=True,
    policy_learning_rate=1e-4,
    critic_learning_rate=1e-4,
    max_gradient_norm=40.0,
    policy_hidden_sizes=(256, 256, 256),
    critic_hidden_sizes=(512, 512, 256),
)

VARIANTS: Mapping[str, Mapping[str, Any]] = {"acme": _ACME, "dmpo": dict(critic="distributional", **_ACME)}
"""`acme` has the settings of MPO on the control suite in Acme (Hoffman et al., 2020), and `dmpo` those of its DMPO,
which has the critic of D4PG."""


@dataclasses.dataclass(frozen=True)
class MPOBuilder(builders.TransitionBuilder):
    """Makes the parts of an MPO agent.

    Attributes:
        config: the settings.
    """

    config: MPOConfig = dataclasses.field(default_factory=MPOConfig)

    def make_networks(self, spec: specs.EnvironmentSpec) -> networks.ActorCriticNetworks:
        return mpo_networks.make_networks(
            spec,
            return_models.from_config(self.config),
            policy_hidden_sizes=self.config.policy_hidden_sizes,
            critic_hidden_sizes=self.config.critic_hidden_sizes,
            initial_std=self.config.initial_std,
        )

    def make_core(self, networks: networks.ActorCriticNetworks, spec: specs.EnvironmentSpec) -> learning.LearnerCore:
        return mpo_learning.make_core(self.config, networks, spec)

    def make_policy(
        self,
        networks: networks.ActorCriticNetworks,
        spec: specs.EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: core.ActorId = core.ActorId(),
    ) -> acting.ActorCore:
        scaling = networks_lib.make_action_scaling(spec.action, agent=mpo_networks.AGENT)

        def select_action(params: types.Params, observation: types.ArrayTree, key: jax.Array) -> jax.Array:
            distribution = networks.policy.apply(params, observation)
            action = distribution.mean
            if not evaluation:
                action += distribution.std * jax.random.normal(key, action.shape)
            return scaling.to_action(action)

        return acting.feed_forward(select_action)
