"""TD3's config, and the builder that makes its parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from acme_lite import acting, checks, core, learning, networks, specs, types
from acme_lite import networks as networks_lib
from acme_lite.agents import builders
from acme_lite.agents.td3 import learning as td3_learning
from acme_lite.agents.td3 import networks as td3_networks


@dataclasses.dataclass(frozen=True)
class TD3Config:
    """Settings of TD3. The defaults are those of the later code of Fujimoto et al. (2018)."""

    discount: float = 0.99
    """Discount factor per step, in [0, 1] (Fujimoto et al., 2018, and their code)."""
    n_step: int = 1
    """Steps that a transition spans (1 in Fujimoto et al., 2018)."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Layers of the perceptrons of the policy and of each critic (code of Fujimoto et al., 2018; 400 and 300 in the
    paper)."""
    exploration_noise: float = 0.1
    """Standard deviation of the noise on actions in training; 1 is half the distance of an action's bounds (Fujimoto
    et al., 2018, and their code)."""
    target_noise: float = 0.2
    """Standard deviation of the noise on the target policy's actions, in the same unit (Fujimoto et al., 2018, and
    their code)."""
    target_noise_clip: float = 0.5
    """Greatest absolute value of that noise, in the same unit (Fujimoto et al., 2018, and their code)."""
    policy_update_period: int = 2
    """Learner steps from one update of the policy and the targets to the next (the delay d in Fujimoto et al., 2018,
    and their code)."""
    target_update_rate: float = 0.005
    """Part of the way that the targets go to the trained networks at each of these updates (tau in Fujimoto et al.,
    2018, and their code)."""
    learning_rate: float | learning.LinearSchedule = 3e-4
    """Adam's step size: a number or a schedule over learner steps (3e-4 in the code of Fujimoto et al., 2018; 1e-3 in
    the paper)."""
    max_gradient_norm: float | None = None
    """Gradients longer than this are scaled down to it; None for no limit (none in Fujimoto et al., 2018)."""
    batch_size: int = 256
    """Transitions in a batch (code of Fujimoto et al., 2018; 100 in the paper)."""
    samples_per_insert: float = 256.0
    """Transitions sampled per transition inserted; divided by the batch size, learner steps per environment step (1 in
    Fujimoto et al., 2018)."""
    max_replay_size: int = 1_000_000
    """Most transitions kept (code of Fujimoto et al., 2018); their memory is taken as they come."""
    min_replay_size: int = 1_000
    """Transitions before the first learner step, all of random actions (1,000, in two tasks 10,000, in Fujimoto et al.,
    2018; 25,000 in their later code)."""
    num_steps_per_call: int = 1
    """Learner steps in one compiled call (1 as in Fujimoto et al., 2018, who act after each)."""
    overlap: bool = True
    """Whether learning runs in a thread of its own beside acting, with variables one call late (not in the paper;
    for speed)."""

    def __post_init__(self):
        builders.check_transitions(self)
        checks.in_range(self, 0, math.inf, "exploration_noise", "target_noise", "target_noise_clip")
        checks.in_range(self, 0, math.inf, "learning_rate", schedules=True)
        checks.positive_or_none(self, "max_gradient_norm")
        checks.in_range(self, 1e-6, 1, "target_update_rate")
        checks.at_least(self, 1, "policy_update_period")
        if not self.target_noise:
            checks.left_at_default(self, "without a target_noise", "target_noise_clip")
        checks.sizes(self, "hidden_sizes")


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "acme": dict(hidden_sizes=(256, 256, 256)),
    "paper": dict(hidden_sizes=(400, 300), learning_rate=1e-3, batch_size=100, samples_per_insert=100.0),
}
"""`acme` has the settings of Acme (Hoffman et al., 2020), of its class `TD3Config` and its example `run_td3.py`; its
networks are normalised perceptrons, which these are not. `paper` has those of the text of Fujimoto et al. (2018)."""


@dataclasses.dataclass(frozen=True)
class TD3Builder(builders.TransitionBuilder):
    """Makes the parts of a TD3 agent.

    Attributes:
        config: the settings.
    """

    config: TD3Config = dataclasses.field(default_factory=TD3Config)

    def make_networks(self, spec: specs.EnvironmentSpec) -> networks.ActorCriticNetworks:
        return td3_networks.make_networks(spec, hidden_sizes=self.config.hidden_sizes)

    def make_core(self, networks: networks.ActorCriticNetworks, spec: specs.EnvironmentSpec) -> learning.LearnerCore:
        return td3_learning.make_core(self.config, networks, spec)

    def make_policy(
        self,
        networks: networks.ActorCriticNetworks,
        spec: specs.EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: core.ActorId = core.ActorId(),
    ) -> acting.ActorCore:
        scaling = networks_lib.make_action_scaling(spec.action, agent="TD3")

        def select_action(params: types.Params, observation: types.ArrayTree, key: jax.Array) -> jax.Array:
            action = networks.policy.apply(params["params"], observation)
            if evaluation:
                return scaling.to_action(action)
            key_noise, key_random = jax.random.split(key)
            noisy = action + self.config.exploration_noise * jax.random.normal(key_noise, action.shape)
            random = jax.random.uniform(key_random, action.shape, minval=-1, maxval=1)
            return scaling.to_action(jnp.where(params["steps"] == 0, random, noisy))

        return acting.feed_forward(select_action)
