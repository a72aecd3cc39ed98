"""D4PG's config, and the builder that makes its parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from acme_lite import acting, checks, core, learning, networks, specs, types
from acme_lite import networks as networks_lib
from acme_lite.agents import builders
from acme_lite.agents.d4pg import learning as d4pg_learning
from acme_lite.agents.d4pg import networks as d4pg_networks
from acme_lite.networks import return_models


@dataclasses.dataclass(frozen=True)
class D4PGConfig:
    """Settings of D4PG. The defaults are those of Tassa et al., DeepMind Control Suite (2018).

    That report tried the agent of Barth-Maron et al. (2018) on the control suite; its "Algorithm and Architecture
    Details" have the settings. What it does not say is as in Acme, where each field says so. All of Acme's
    (Hoffman et al., 2020), with which the published curves were made that ours are compared with, are in
    `VARIANTS["acme"]`.
    """

    critic: Literal["distributional", "scalar"] = "distributional"
    """Whether the critic models returns by a distribution (Barth-Maron et al., 2018) or by their mean (DDPG)."""
    num_atoms: int = 101
    """Atoms of the distribution, if there is one (Tassa et al., 2018; 51 in Acme)."""
    v_min: float = -150.0
    """Least return that the distribution knows (Tassa et al., 2018, whose rewards are in [0, 1])."""
    v_max: float = 150.0
    """Greatest return that the distribution knows (Tassa et al., 2018)."""
    discount: float = 0.99
    """Discount factor per step, in [0, 1] (Tassa et al., 2018)."""
    n_step: int = 5
    """Steps that a transition spans (Tassa et al., 2018)."""
    noise_std: float = 0.3
    """Standard deviation of the noise on actions in training, where the bounds are -1 and 1 (Acme; 1/32 to 1 over the
    actors of Tassa et al., 2018)."""
    policy_learning_rate: float | learning.LinearSchedule = 1e-4
    """Adam's step size for the policy (Tassa et al., 2018): a number or a schedule over learner steps."""
    critic_learning_rate: float | learning.LinearSchedule = 1e-4
    """Adam's step size for the critic (Tassa et al., 2018): a number or a schedule over learner steps."""
    max_gradient_norm: float | None = None
    """Gradients of policy and critic longer than this, each alone, are scaled down to it (40 in Acme); None for no
    limit."""
    max_action_gradient_norm: float | None = 1.0
    """Gradients of the value by the action longer than this are scaled down to it (Acme; Tassa et al., 2018, clip
    what the policy gets to [-1, 1]); None for no limit."""
    target_update_period: int = 100
    """Learner steps from one update of the target networks to the next (Tassa et al., 2018)."""
    target_update_rate: float = 1.0
    """Part of the way that target networks go at an update: 1 copies; 0.001 each step in Lillicrap et al. (2016)."""
    policy_hidden_sizes: tuple[int, ...] = (300, 200)
    """Layers of the policy (Tassa et al., 2018; (256, 256, 256) in Acme); the first is normalised (Acme)."""
    critic_hidden_sizes: tuple[int, ...] = (400, 300)
    """Layers of the critic (Tassa et al., 2018; (512, 512, 256) in Acme); the first is normalised (Acme)."""
    batch_size: int = 256
    """Transitions in a batch (Tassa et al., 2018)."""
    samples_per_insert: float = 32.0
    """Transitions sampled per transition inserted; divided by the batch size, learner steps per actor step (Acme)."""
    max_replay_size: int = 1_000_000
    """Most transitions kept (Tassa et al., 2018); their memory is taken as they come."""
    min_replay_size: int = 1_000
    """Transitions before the first learner step (Acme)."""
    num_steps_per_call: int = 1
    """Learner steps in one compiled call; a step with these networks takes so long that one is enough."""
    overlap: bool = True
    """Whether learning runs in a thread of its own beside acting, with variables one call late."""

    def __post_init__(self):
        builders.check_transitions(self)
        return_models.check(self)
        checks.in_range(self, 1e-6, 1, "target_update_rate")
        checks.in_range(self, 0, math.inf, "noise_std")
        checks.in_range(self, 0, math.inf, "policy_learning_rate", "critic_learning_rate", schedules=True)
        checks.positive_or_none(self, "max_gradient_norm", "max_action_gradient_norm")
        checks.at_least(self, 1, "target_update_period")
        checks.sizes(self, "policy_hidden_sizes", "critic_hidden_sizes")


_ACME: dict[str, Any] = dict(
    num_atoms=51,
    max_gradient_norm=40.0,
    policy_hidden_sizes=(256, 256, 256),
    critic_hidden_sizes=(512, 512, 256),
)
_LILLICRAP: dict[str, Any] = dict(critic="scalar", n_step=1, noise_std=0.2, critic_learning_rate=1e-3)
_LILLICRAP |= dict(max_action_gradient_norm=None, batch_size=64, samples_per_insert=64.0)
_LILLICRAP |= dict(target_update_period=1, target_update_rate=0.001)
_LILLICRAP |= dict(policy_hidden_sizes=(400, 300), critic_hidden_sizes=(400, 300))

VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "acme": _ACME,
    "ddpg": dict(critic="scalar", **_ACME),
    "lillicrap": _LILLICRAP,
}
"""`acme` has the settings of D4PG on the control suite in Acme (Hoffman et al., 2020). `ddpg` is what Acme measured as
DDPG: the same with a critic of mean returns (Lillicrap et al., 2016) and n-step transitions. `lillicrap` has the
settings of Lillicrap et al. (2016), section 7."""


@dataclasses.dataclass(frozen=True)
class D4PGBuilder(builders.TransitionBuilder):
    """Makes the parts of a D4PG agent.

    Attributes:
        config: the settings.
    """

    config: D4PGConfig = dataclasses.field(default_factory=D4PGConfig)

    def make_networks(self, spec: specs.EnvironmentSpec) -> networks.ActorCriticNetworks:
        return d4pg_networks.make_networks(
            spec,
            return_models.from_config(self.config),
            policy_hidden_sizes=self.config.policy_hidden_sizes,
            critic_hidden_sizes=self.config.critic_hidden_sizes,
        )

    def make_core(self, networks: networks.ActorCriticNetworks, spec: specs.EnvironmentSpec) -> learning.LearnerCore:
        return d4pg_learning.make_core(self.config, networks, spec)

    def make_policy(
        self,
        networks: networks.ActorCriticNetworks,
        spec: specs.EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: core.ActorId = core.ActorId(),
    ) -> acting.ActorCore:
        scaling = networks_lib.make_action_scaling(spec.action, agent=d4pg_networks.AGENT)
        noise_std = 0.0 if evaluation else self.config.noise_std

        def select_action(params: types.Params, observation: types.ArrayTree, key: jax.Array) -> jax.Array:
            action = networks.policy.apply(params, observation)
            if noise_std:
                noise = noise_std * jax.random.normal(key, action.shape)
                action = jnp.clip(action + noise, -1, 1)
            return scaling.to_action(action)

        return acting.feed_forward(select_action)
