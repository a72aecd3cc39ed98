"""PPO: proximal policy optimisation with a clipped objective (Schulman et al., 2017)."""

from acme_lite.agents.ppo.builder import VARIANTS, PPOBuilder, PPOConfig
from acme_lite.agents.ppo.learning import (
    Rows,
    TrainingState,
    explained_variance,
    generalized_advantages,
    make_core,
    make_rows,
    normalize_rows,
    ppo_loss,
)
from acme_lite.agents.ppo.networks import make_networks

__all__ = [
    "VARIANTS",
    "PPOBuilder",
    "PPOConfig",
    "Rows",
    "TrainingState",
    "explained_variance",
    "generalized_advantages",
    "make_core",
    "make_networks",
    "make_rows",
    "normalize_rows",
    "ppo_loss",
]
