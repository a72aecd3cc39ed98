"""SAC: a soft actor-critic with two critics (Haarnoja et al., 2018)."""

from acme_lite.agents.sac.builder import VARIANTS, SACBuilder, SACConfig
from acme_lite.agents.sac.learning import (
    TrainingState,
    critic_loss,
    make_core,
    policy_loss,
    soft_targets,
    temperature_loss,
)
from acme_lite.agents.sac.networks import make_networks

__all__ = [
    "VARIANTS",
    "SACBuilder",
    "SACConfig",
    "TrainingState",
    "critic_loss",
    "make_core",
    "make_networks",
    "policy_loss",
    "soft_targets",
    "temperature_loss",
]
