"""Learning: algorithms as pure functions, and the shell that runs them."""

from acme_lite.learning.learner_core import (
    OPTIMIZERS,
    LearnerCore,
    LearnerOutput,
    gradient_step,
    key_words,
    make_optimizer,
)
from acme_lite.learning.masking import masked_mean
from acme_lite.learning.normalization import NormalizedState, normalize_observations
from acme_lite.learning.prioritization import importance_weights, sample_weights
from acme_lite.learning.schedules import LinearSchedule, value_at
from acme_lite.learning.sgd_learner import NonFiniteMetricError, SGDLearner
from acme_lite.learning.shuffling import random_orders

__all__ = [
    "OPTIMIZERS",
    "LearnerCore",
    "LearnerOutput",
    "LinearSchedule",
    "NonFiniteMetricError",
    "NormalizedState",
    "SGDLearner",
    "gradient_step",
    "importance_weights",
    "key_words",
    "make_optimizer",
    "masked_mean",
    "normalize_observations",
    "random_orders",
    "sample_weights",
    "value_at",
]
