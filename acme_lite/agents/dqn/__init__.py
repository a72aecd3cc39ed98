"""DQN: Q-learning with a deep network (Mnih et al., 2015) and its usual extensions as settings."""

from acme_lite.agents.dqn.builder import VARIANTS, DQNBuilder, DQNConfig, variant_config
from acme_lite.agents.dqn.learning import (
    Loss,
    TrainingState,
    categorical_loss,
    loss_for,
    make_core,
    munchausen_loss,
    q_learning_loss,
    quantile_loss,
)
from acme_lite.agents.dqn.networks import make_networks, mean_values

__all__ = [
    "VARIANTS",
    "DQNBuilder",
    "DQNConfig",
    "Loss",
    "TrainingState",
    "categorical_loss",
    "loss_for",
    "make_core",
    "make_networks",
    "mean_values",
    "munchausen_loss",
    "q_learning_loss",
    "quantile_loss",
    "variant_config",
]
