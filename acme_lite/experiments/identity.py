"""Which run an experiment is: its name, everything it follows from, and its directory."""

from __future__ import annotations

import functools
from typing import Any

from acme_lite import core
from acme_lite.agents import builders
from acme_lite.experiments import checkpoints, config, run_directory


def agent_name(experiment: config.ExperimentConfig) -> str:
    """Returns the name of the agent, such as "dqn"; "dqn_normalized" if its observations are."""
    builder = experiment.builder
    if isinstance(builder, builders.NormalizedBuilder):
        return f"{_builder_name(builder.builder)}_normalized"
    return _builder_name(builder)


def _builder_name(builder: core.Builder) -> str:
    return type(builder).__name__.removesuffix("Builder").lower()


def describe(experiment: config.ExperimentConfig, environment_name: str, **topology: Any) -> dict[str, Any]:
    """Returns everything that a run follows from; `topology` says where its parts are."""
    return {
        "agent": experiment.builder,
        "environment": environment_name,
        "num_envs": experiment.num_envs,
        "max_num_actor_steps": experiment.max_num_actor_steps,
        "seed": experiment.seed,
        "network_factory": experiment.network_factory,
        "evaluation": experiment.evaluation,
        **topology,
    }


def open_directory(
    experiment: config.ExperimentConfig, environment_name: str, description: dict[str, Any]
) -> run_directory.RunDirectory:
    """Opens the run's directory, see `run_directory.open_run_directory`."""
    can_resume = functools.partial(checkpoints.can_resume, experiment.checkpointing)
    if experiment.directory is not None:
        return run_directory.open_run_directory(experiment.directory, description, can_resume=can_resume)
    names = (agent_name(experiment), environment_name, f"seed{experiment.seed}")
    return run_directory.make_run_directory("runs", names, description, can_resume=can_resume)
