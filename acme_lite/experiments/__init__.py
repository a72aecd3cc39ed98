"""Experiments: an agent, an environment, and how long they meet."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from acme_lite.experiments.config import (
    CheckpointConfig,
    Evaluation,
    EvaluationConfig,
    ExperimentConfig,
    ExperimentResult,
)
from acme_lite.experiments.policies import Policy, load_policy
from acme_lite.experiments.run import Deadlock, run_experiment

if TYPE_CHECKING:
    from acme_lite.experiments.distributed import make_distributed_experiment

__all__ = [
    "CheckpointConfig",
    "Deadlock",
    "Evaluation",
    "EvaluationConfig",
    "ExperimentConfig",
    "ExperimentResult",
    "Policy",
    "load_policy",
    "make_distributed_experiment",
    "run_experiment",
]


def __getattr__(name: str) -> Any:
    # Launchpad brings TensorFlow: it is imported when it is asked for.
    if name == "make_distributed_experiment":
        from acme_lite.experiments.distributed import make_distributed_experiment

        return make_distributed_experiment
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
