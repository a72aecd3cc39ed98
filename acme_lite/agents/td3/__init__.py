"""TD3: a deterministic actor-critic with two critics and delayed updates (Fujimoto et al., 2018)."""

from acme_lite.agents.td3.builder import VARIANTS, TD3Builder, TD3Config
from acme_lite.agents.td3.learning import (
    TrainingState,
    Weights,
    clipped_targets,
    critic_loss,
    make_core,
    policy_loss,
    smoothed_action,
)
from acme_lite.agents.td3.networks import make_networks

__all__ = [
    "VARIANTS",
    "TD3Builder",
    "TD3Config",
    "TrainingState",
    "Weights",
    "clipped_targets",
    "critic_loss",
    "make_core",
    "make_networks",
    "policy_loss",
    "smoothed_action",
]
