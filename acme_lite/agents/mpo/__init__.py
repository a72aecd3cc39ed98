"""MPO: maximum a posteriori policy optimisation (Abdolmaleki et al., 2018), and DMPO with a distributional critic."""

from acme_lite.agents.mpo.builder import VARIANTS, MPOBuilder, MPOConfig
from acme_lite.agents.mpo.learning import (
    Duals,
    TrainingState,
    action_weights,
    critic_loss,
    dual_loss,
    make_core,
    out_of_bounds,
    policy_loss,
    sample_actions,
    temperature_loss,
)
from acme_lite.agents.mpo.networks import make_networks

__all__ = [
    "VARIANTS",
    "Duals",
    "MPOBuilder",
    "MPOConfig",
    "TrainingState",
    "action_weights",
    "critic_loss",
    "dual_loss",
    "make_core",
    "make_networks",
    "out_of_bounds",
    "policy_loss",
    "sample_actions",
    "temperature_loss",
]
