"""SAC's config, and the builder that makes its parts."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax

from acme_lite import acting, checks, core, learning, networks, specs, types
from acme_lite import networks as networks_lib
from acme_lite.agents import builders
from acme_lite.agents.sac import learning as sac_learning
from acme_lite.agents.sac import networks as sac_networks


@dataclasses.dataclass(frozen=True)
class SACConfig:
    """Settings of SAC. The defaults are those of Haarnoja et al. (2018, arXiv 1812.05905)."""

    discount: float = 0.99
    """Discount factor per step, in [0, 1] (Haarnoja et al., 2018, table 1)."""
    n_step: int = 1
    """Steps that a transition spans (1 in Haarnoja et al., 2018); entropies on the way are left out of the return."""
    hidden_sizes: tuple[int, ...] = (256, 256)
    """Layers of the perceptrons of the policy and of each critic (Haarnoja et al., 2018, table 1)."""
    temperature: float | None = None
    """Weight of the entropy, greater than 0; None to learn it, so that the entropy gets near its target (Haarnoja et
    al., 2018, section 5)."""
    initial_temperature: float = 1.0
    """Weight of the entropy at the start, where it is learned (1 in the code of Haarnoja et al., 2018)."""
    target_entropy: float | None = None
    """Entropy of the policy in nats, in coordinates where actions are in [-1, 1]; None for minus their dimensions
    (Haarnoja et al., 2018, table 1)."""
    learning_rate: float | learning.LinearSchedule = 3e-4
    """Adam's step size for policy, critics and temperature: a number or a schedule over learner steps (3e-4 in
    Haarnoja et al., 2018, table 1)."""
    max_gradient_norm: float | None = None
    """Gradients longer than this are scaled down to it; None for no limit (none in Haarnoja et al., 2018)."""
    target_update_rate: float = 0.005
    """Part of the way that the target critics go to the trained ones at each learner step (tau in Haarnoja et al.,
    2018, table 1)."""
    batch_size: int = 256
    """Transitions in a batch (Haarnoja et al., 2018, table 1)."""
    samples_per_insert: float = 256.0
    """Transitions sampled per transition inserted; divided by the batch size, learner steps per environment step (1 in
    Haarnoja et al., 2018, table 1)."""
    max_replay_size: int = 1_000_000
    """Most transitions kept (Haarnoja et al., 2018, table 1); their memory is taken as they come."""
    min_replay_size: int = 1_000
    """Transitions before the first learner step (1,000 in the code of Haarnoja et al., 2018)."""
    num_steps_per_call: int = 1
    """Learner steps in one compiled call (1 as in Haarnoja et al., 2018, who act after each)."""
    overlap: bool = True
    """Whether learning runs in a thread of its own beside acting, with variables one call late (not in the paper;
    for speed)."""

    def __post_init__(self):
        builders.check_transitions(self)
        checks.positive(self, "initial_temperature")
        checks.positive_or_none(self, "temperature", "max_gradient_norm")
        if self.target_entropy is not None:
            checks.in_range(self, -math.inf, math.inf, "target_entropy")
        checks.in_range(self, 0, math.inf, "learning_rate", schedules=True)
        checks.in_range(self, 1e-6, 1, "target_update_rate")
        checks.sizes(self, "hidden_sizes")
        if self.temperature is not None:
            checks.left_at_default(self, "with a fixed temperature", "initial_temperature", "target_entropy")


VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "acme": dict(n_step=2, hidden_sizes=(256, 256, 256), min_replay_size=10_000),
}
"""`acme` has the settings of Acme (Hoffman et al., 2020), of its class `SACConfig` and its example `run_sac.py`; the
example normalises observations, too, as `agents.builders.NormalizedBuilder` does."""


@dataclasses.dataclass(frozen=True)
class SACBuilder(builders.TransitionBuilder):
    """Makes the parts of a SAC agent.

    Attributes:
        config: the settings.
    """

    config: SACConfig = dataclasses.field(default_factory=SACConfig)

    def make_networks(self, spec: specs.EnvironmentSpec) -> networks.ActorCriticNetworks:
        return sac_networks.make_networks(spec, hidden_sizes=self.config.hidden_sizes)

    def make_core(self, networks: networks.ActorCriticNetworks, spec: specs.EnvironmentSpec) -> learning.LearnerCore:
        return sac_learning.make_core(self.config, networks, spec)

    def make_policy(
        self,
        networks: networks.ActorCriticNetworks,
        spec: specs.EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: core.ActorId = core.ActorId(),
    ) -> acting.ActorCore:
        scaling = networks_lib.make_action_scaling(spec.action, agent="SAC")

        def select_action(params: types.Params, observation: types.ArrayTree, key: jax.Array) -> jax.Array:
            distribution = networks.policy.apply(params, observation)
            if evaluation:
                return scaling.to_action(networks_lib.squashed_mode(distribution))
            return scaling.to_action(networks_lib.squashed_sample(distribution, key)[0])

        return acting.feed_forward(select_action)
