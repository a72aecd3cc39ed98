"""Learning: algorithms as pure functions, and the shell that runs them."""

from acme_lite.learning.learner_core import OPTIMIZERS, LearnerCore, LearnerOutput, gradient_step, make_optimizer
from acme_lite.learning.schedules import LinearSchedule, value_at
from acme_lite.learning.sgd_learner import NonFiniteMetricError, SGDLearner

__all__ = [
    "OPTIMIZERS",
    "LearnerCore",
    "LearnerOutput",
    "LinearSchedule",
    "NonFiniteMetricError",
    "SGDLearner",
    "gradient_step",
    "make_optimizer",
    "value_at",
]
