"""TD3's config, and the builder that makes its parts."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from acme_lite import acting, checks, core, learning, networks, specs, types
from acme_lite import networks as networks_lib
from acme_lite.agents import builders
from acme_lite.agents.td3 import learning as td3_learning
from acme_lite.agents.td3 import networks as td3_networks


@dataclasses.dataclass(frozen=True)
class TD3Config:
    """Settings of TD3. Unless a field says otherwise, the defaults are those of the code of Fujimoto et al. (2018)."""

    discount: float = 0.99
    """Discount factor per step, in [0, 1]."""
    n_step: int = 1
    """Steps that a transition spans."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Layers of the perceptrons of the policy and of each critic."""
    exploration_noise: float = 0.1
    """Standard deviation of the noise on actions in training; 1 is half the distance of an action's bounds."""
    target_noise: float = 0.2
    """Standard deviation of the noise on the target policy's actions, in the same unit."""
    target_noise_clip: float = 0.5
    """Greatest absolute value of that noise, in the same unit."""
    policy_update_period: int = 2
    """Learner steps from one update of the policy and the targets to the next: the delay, d in the paper."""
    target_update_rate: float = 0.005
    """Part of the way that the targets go to the trained networks at each of these updates: tau in the paper."""
    learning_rate: float | learning.LinearSchedule = 3e-4
    """Adam's step size: a number or a schedule over learner steps (1e-3 in the paper's text)."""
    max_gradient_norm: float | None = None
    """Gradients longer than this are scaled down to it; None for no limit."""
    batch_size: int = 256
    """Transitions in a batch."""
    samples_per_insert: float = 256.0
    """Transitions sampled per transition inserted; divided by the batch size, learner steps per environment step."""
    max_replay_size: int = 300_000
    """Most transitions kept; 1,000,000 in the paper, which takes more memory."""
    min_replay_size: int = 1_000
    """Transitions before the first learner step, all of random actions; 1,000 or 10,000 in the paper."""
    num_steps_per_call: int = 1
    """Learner steps in one compiled call."""
    overlap: bool = True
    """Whether learning runs in a thread of its own beside acting, with variables one call late."""

    def __post_init__(self):
        builders.check_transitions(self)
        checks.in_range(self, 0, math.inf, "exploration_noise", "target_noise", "target_noise_clip", "learning_rate")
        checks.positive_or_none(self, "max_gradient_norm")
        checks.in_range(self, 1e-6, 1, "target_update_rate")
        checks.at_least(self, 1, "policy_update_period", "hidden_sizes")


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
