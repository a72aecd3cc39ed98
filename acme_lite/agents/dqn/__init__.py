"""DQN: Q-learning with a deep network (Mnih et al., 2015) and its usual extensions as settings."""

from acme_lite.agents.dqn.builder import DQNBuilder, DQNConfig
from acme_lite.agents.dqn.learning import TrainingState, importance_weights, make_core, q_learning_loss
from acme_lite.agents.dqn.networks import make_networks

__all__ = [
    "DQNBuilder",
    "DQNConfig",
    "TrainingState",
    "importance_weights",
    "make_core",
    "make_networks",
    "q_learning_loss",
]
