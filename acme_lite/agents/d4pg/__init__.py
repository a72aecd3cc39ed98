"""D4PG: deterministic policy gradients with a distributional critic (Barth-Maron et al., 2018), and DDPG."""

from acme_lite.agents.d4pg.builder import VARIANTS, D4PGBuilder, D4PGConfig
from acme_lite.agents.d4pg.learning import TrainingState, critic_loss, make_core, policy_loss
from acme_lite.agents.d4pg.networks import make_networks

__all__ = [
    "VARIANTS",
    "D4PGBuilder",
    "D4PGConfig",
    "TrainingState",
    "critic_loss",
    "make_core",
    "make_networks",
    "policy_loss",
]
