"""Experiments: an agent, an environment, and how long they meet."""

from acme_lite.experiments.config import (
    CheckpointConfig,
    Evaluation,
    EvaluationConfig,
    ExperimentConfig,
    ExperimentResult,
)
from acme_lite.experiments.policies import Policy, load_policy
from acme_lite.experiments.run import Deadlock, run_experiment

__all__ = [
    "CheckpointConfig",
    "Deadlock",
    "Evaluation",
    "EvaluationConfig",
    "ExperimentConfig",
    "ExperimentResult",
    "Policy",
    "load_policy",
    "run_experiment",
]
