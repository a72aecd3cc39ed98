"""Which run an experiment is: its name, everything it follows from, and its directory."""

from __future__ import annotations

import functools
from typing import Any

from acme_lite import core, environments, specs
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


def describe_environment(environment: environments.SyncVectorEnvironment) -> dict[str, Any]:
    """Returns what tells one member from other environments: its name, layers (outermost first) and specs."""
    layers: list[dict[str, Any]] = []
    layer: Any = environment.environments[0]
    seen: set[int] = set()  # a simulator may refer to the environment around it
    while layer is not None and id(layer) not in seen:
        seen.add(id(layer))
        # Only a layer's own fields: its unknown attributes may be those of the environment that it wraps.
        fields = getattr(layer, "__dict__", {})
        layers.append({"class": type(layer), "settings": fields.get("settings", {})})
        layer = fields.get("environment", fields.get("env"))  # Gymnasium's word is `env`
    spec = specs.tree_map_specs(_describe_spec, specs.make_environment_spec(environment))
    return run_directory.describe({"name": environment.name, "layers": layers, "specs": spec._asdict()})


def _describe_spec(spec: specs.Array) -> dict[str, Any]:
    described = {"class": type(spec), "shape": spec.shape, "dtype": spec.dtype}
    if isinstance(spec, specs.BoundedArray):
        for name, bound in (("minimum", spec.minimum), ("maximum", spec.maximum)):
            # Images have the same bound everywhere.
            described[name] = bound.flat[0] if bound.size and (bound == bound.flat[0]).all() else bound
    return described


def describe(experiment: config.ExperimentConfig, environment: dict[str, Any], **topology: Any) -> dict[str, Any]:
    """Returns everything that a run follows from.

    Args:
        experiment: what is run.
        environment: what `describe_environment` returned for it.
        **topology: where the parts of the run are.
    """
    return {
        "agent": experiment.builder,
        "environment_factory": experiment.environment_factory,
        "environment": environment,
        "num_envs": experiment.num_envs,
        "max_num_actor_steps": experiment.max_num_actor_steps,
        "seed": experiment.seed,
        "network_factory": experiment.network_factory,
        "evaluation": experiment.evaluation,
        **topology,
    }


def open_directory(experiment: config.ExperimentConfig, description: dict[str, Any]) -> run_directory.RunDirectory:
    """Opens the directory of the run that is described so, see `run_directory.open_run_directory`."""
    config_hash = run_directory.config_hash(description)
    can_resume = functools.partial(checkpoints.can_resume, experiment.checkpointing, config_hash)
    if experiment.directory is not None:
        return run_directory.open_run_directory(experiment.directory, description, can_resume=can_resume)
    names = (agent_name(experiment), description["environment"]["name"], f"seed{experiment.seed}")
    return run_directory.make_run_directory("runs", names, description, can_resume=can_resume)
