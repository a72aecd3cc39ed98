"""R2D2: Q-learning with a recurrent network from replayed sequences (Kapturowski et al., 2019)."""

from acme_lite.agents.r2d2.builder import R2D2Builder, R2D2Config
from acme_lite.agents.r2d2.learning import (
    LossOutput,
    TrainingState,
    make_core,
    n_step_returns,
    r2d2_loss,
    sequence_priority,
    td_errors,
)
from acme_lite.agents.r2d2.networks import make_networks

__all__ = [
    "LossOutput",
    "R2D2Builder",
    "R2D2Config",
    "TrainingState",
    "make_core",
    "make_networks",
    "n_step_returns",
    "r2d2_loss",
    "sequence_priority",
    "td_errors",
]
