"""The parts of an experiment, put together, and saved and restored together."""

from __future__ import annotations

import contextlib
import functools
import pathlib
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import dm_env
import jax
import numpy as np

from acme_lite import acting, adders, core, counting, environments, loggers, replay, specs, types
from acme_lite.environment_loop import EnvironmentLoop
from acme_lite.experiments import config, timing

REPLAYS = ("local", "reverb")
"""Where experience can be: in this process's memory, or in a Reverb server."""

_REVERB_FOLDER = "reverb"
_ADAPTERS = f"{environments.__name__}.gymnasium_environments"  # by name: Gymnasium may not be imported yet


class Seeds(NamedTuple):
    """Independent seeds for the parts of a run."""

    environment: int
    evaluation: int
    replay: int
    learner: jax.Array
    actor: jax.Array
    evaluator: jax.Array


def make_seeds(seed: int) -> Seeds:
    """Returns the seeds that derive from the seed of an experiment."""
    environment, evaluation, dataset = (np.random.SeedSequence(seed).generate_state(3) // 2).tolist()
    return Seeds(environment, evaluation, dataset, *jax.random.split(jax.random.key(seed), 3))


class Plan(NamedTuple):
    """What all parts of a run agree on, in whichever process they are.

    Attributes:
        experiment: what is planned.
        spec: of the environment.
        networks: the agent's.
        variable_names: of the learner's variables.
        extras_spec: of what the policy gives beside an action.
        tables: of the replay.
    """

    experiment: config.ExperimentConfig
    spec: specs.EnvironmentSpec
    networks: Any
    variable_names: list[str]
    extras_spec: types.SpecTree
    tables: list[replay.Table]


def make_plan(experiment: config.ExperimentConfig, spec: specs.EnvironmentSpec, *, num_actors: int = 1) -> Plan:
    """Returns the plan of an experiment in environments of this spec, with so many actors.

    Raises:
        ValueError: the agent cannot act there, or its tables do not work.
    """
    builder = experiment.builder
    networks = (experiment.network_factory or builder.make_networks)(spec)
    shapes = jax.eval_shape(functools.partial(builder.init_variables, networks, spec), jax.random.key(0))
    policy = builder.make_policy(networks, spec, actor=core.ActorId(0, num_actors))
    extras_spec = acting.extras_spec(policy, shapes["policy"], spec.observation)
    tables = [table.widened(experiment.num_envs) for table in builder.make_tables(spec, extras_spec)]
    return Plan(experiment, spec, networks, sorted(shapes), extras_spec, tables)


class Acting(NamedTuple):
    """An actor in its environment; `adder` is None where it records nothing."""

    environment: environments.VectorEnvironment
    actor: core.Actor
    adder: adders.Adder | None
    loop: EnvironmentLoop

    def save(self) -> dict[str, Any]:
        """Returns the state between two steps."""
        return {
            "environment": core.save(self.environment),
            "actor": core.save(self.actor),
            "adder": core.save(self.adder),
            "loop": self.loop.save(),
        }

    def restore(self, state: dict[str, Any], *, rows_are_there: bool = True) -> None:
        """Goes on where every part can; otherwise all episodes begin anew, with the counts as they were."""
        can_go_on = [core.restore(self.environment, state["environment"]), core.restore(self.actor, state["actor"])]
        if self.adder is not None:
            can_go_on.append(rows_are_there and core.restore(self.adder, state["adder"]))
        self.loop.restore(state["loop"], go_on=all(can_go_on))


class Parts(NamedTuple):
    """The parts of a run.

    Attributes:
        plan: what they agree on.
        replay: what adder and dataset share.
        dataset: what the learner draws from.
        learner: updates the parameters.
        training: acts and records.
        evaluation: acts in evaluations; None where there are none.
        counter: what has been done.
    """

    plan: Plan
    replay: replay.Replay
    dataset: timing.TimedDataset
    learner: core.Learner
    training: Acting
    evaluation: Acting | None
    counter: counting.Counter

    def save(self, *, include_replay: bool) -> dict[str, Any]:
        """Returns the state of all parts between two steps; whatever is under way stays so."""
        return {
            "learner": self.learner.save(),
            "counter": self.counter.save(),
            "dataset": self.dataset.state(),
            "replay": self.replay.save() if include_replay else None,
            "training": self.training.save(),
            "evaluation": None if self.evaluation is None else self.evaluation.save(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Puts back what `save` returned, into parts that have done nothing yet; a replay left out begins empty."""
        rows_are_there = state["replay"] is not None
        if rows_are_there:
            self.replay.restore(state["replay"])
        else:
            self.dataset.forget_samples()
        self.dataset.restore(state["dataset"])
        self.learner.restore(state["learner"])
        self.counter.restore(state["counter"])
        self.training.restore(state["training"], rows_are_there=rows_are_there)
        if self.evaluation is not None:
            self.evaluation.restore(state["evaluation"])


def make_learner(
    plan: Plan, dataset: replay.Dataset, *, key: jax.Array, counter: counting.Counter, logger: loggers.Logger
) -> core.Learner:
    """Returns the learner of a run, which draws from a dataset."""
    make = plan.experiment.builder.make_learner
    return make(plan.networks, plan.spec, dataset, key=key, counter=counter, logger=logger)


def make_training(
    plan: Plan,
    environment: environments.VectorEnvironment,
    variables: core.VariableSource,
    writer: replay.Writer,
    *,
    key: jax.Array,
    counter: counting.Counter,
    logger: loggers.Logger,
    actor_id: core.ActorId = core.ActorId(0, 1),
) -> Acting:
    """Returns an actor in its environment, which takes the policy from `variables` and records with a writer."""
    experiment, builder = plan.experiment, plan.experiment.builder
    policy = builder.make_policy(plan.networks, plan.spec, actor=actor_id)
    adder = builder.make_adder(writer, plan.spec, plan.extras_spec)
    actor = builder.make_actor(policy, variables, adder, key=key, num_envs=experiment.num_envs)
    loop = EnvironmentLoop(environment, actor, counter=counter, logger=logger, observers=experiment.observers)
    return Acting(environment, actor, adder, loop)


def make_evaluation(
    plan: Plan,
    environment: environments.VectorEnvironment,
    variables: core.VariableSource,
    *,
    key: jax.Array,
    counter: counting.Counter,
    logger: loggers.Logger,
) -> Acting:
    """Returns the evaluator in its environment, which takes the policy from `variables` and records nothing."""
    policy = make_evaluation_policy(plan)
    actor = plan.experiment.builder.make_actor(policy, variables, None, key=key, num_envs=1)
    loop = EnvironmentLoop(environment, actor, counter=counter, logger=logger, label="evaluator")
    return Acting(environment, actor, None, loop)


def make_evaluation_policy(plan: Plan) -> acting.ActorCore:
    """Returns what acts in evaluations."""
    return plan.experiment.builder.make_policy(plan.networks, plan.spec, evaluation=True)


def make_parts(
    plan: Plan,
    environment: environments.VectorEnvironment,
    evaluation_environment: environments.VectorEnvironment | None,
    seeds: Seeds,
    make_logger: loggers.LoggerFactory,
    *,
    make_replay: Callable[[Sequence[replay.Table]], replay.Replay],
) -> Parts:
    """Returns the parts of an experiment in one process.

    Args:
        plan: of the experiment.
        environment: where it acts and learns.
        evaluation_environment: where it is evaluated; None for no evaluation.
        seeds: of all parts.
        make_logger: makes the loggers `learner`, `actor` and `evaluator`.
        make_replay: makes a replay of tables.
    """
    experiment, counter = plan.experiment, counting.Counter()
    made_replay = make_replay(plan.tables)
    writer = made_replay.writer(experiment.num_envs)
    dataset = timing.TimedDataset(experiment.builder.make_dataset(made_replay, seed=seeds.replay))
    learner = make_learner(plan, dataset, key=seeds.learner, counter=counter, logger=make_logger("learner"))
    training = make_training(
        plan, environment, learner, writer, key=seeds.actor, counter=counter, logger=make_logger("actor")
    )
    evaluation = None
    if evaluation_environment is not None:
        logger = make_logger("evaluator")
        evaluation = make_evaluation(
            plan, evaluation_environment, learner, key=seeds.evaluator, counter=counter, logger=logger
        )
    return Parts(
        plan=plan,
        replay=made_replay,
        dataset=dataset,
        learner=learner,
        training=training,
        evaluation=evaluation,
        counter=counter,
    )


def make_replay(
    name: str,
    tables: Sequence[replay.Table],
    directory: pathlib.Path,
    *,
    port: int | None = None,
    prefetch: bool | None = None,
) -> replay.Replay:
    """Returns the replay of this name (one of `REPLAYS`).

    A Reverb server listens at the port, draws ahead as `prefetch` says (see `ReverbReplay`), and keeps its newest
    checkpoint in the run's directory, from which it also starts.
    """
    if name == "local":
        return replay.LocalReplay(tables)
    return replay.ReverbReplay(
        tables,
        port=port,
        checkpoint_directory=directory / _REVERB_FOLDER,
        prefetch=prefetch,
        # Whoever learns in the thread that writes cannot wait there: it asks the limiter before each step.
        max_in_flight_items=sys.maxsize,
    )


@contextlib.contextmanager
def open_replay(name: str, tables: Sequence[replay.Table], directory: pathlib.Path) -> Iterator[replay.Replay]:
    """Makes the replay of this name, empty, for a run in this process, and closes it at the end."""
    remove_server_files(directory)
    try:
        with contextlib.closing(make_replay(name, tables, directory)) as made:
            yield made
    finally:
        remove_server_files(directory)


def remove_server_files(directory: pathlib.Path) -> None:
    """Removes what Reverb servers have left in a run's directory, so that no server loads it and it fills no disk.

    The run's checkpoints hold what they need of it. A run that began anew has moved that of the one before aside.
    """
    for folder in (directory / _REVERB_FOLDER, *directory.glob(f"interrupted-*/{_REVERB_FOLDER}")):
        if folder.exists():
            shutil.rmtree(folder)


def make_environment(
    experiment: config.ExperimentConfig, num_envs: int, seed: int, *, others: Sequence[dm_env.Environment] = ()
) -> environments.SyncVectorEnvironment:
    """Returns environments of an experiment, put together.

    Args:
        experiment: whose factory makes them.
        num_envs: how many.
        seed: of the first one.
        others: environments that the factory has made before.

    Raises:
        ValueError: the factory makes something else, or returns what it has returned before.
    """
    members = [experiment.environment_factory(seed + index) for index in range(num_envs)]
    for member in members:
        if not hasattr(member, "observation_spec") or hasattr(member, "num_envs"):
            raise ValueError(
                "ExperimentConfig.environment_factory must return one dm_env.Environment (num_envs of them are put "
                f"together; environments.GymnasiumEnvironment adapts a gymnasium.Env), got {type(member).__name__}."
            )
    layers = [id(layer) for environment in (*others, *members) for layer in _layers(environment)]
    if len(set(layers)) < len(layers):
        raise ValueError(
            "ExperimentConfig.environment_factory must make a new environment each time, got one that is stepped for "
            f"another purpose already, {members[0]}: members, training and evaluation each need their own."
        )
    return environments.SyncVectorEnvironment(members, seed=seed)


def _layers(environment: Any) -> Iterator[Any]:
    """Yields an environment and what the library's wrappers and adapters hold within it."""
    yield environment
    while isinstance(environment, environments.Wrapper) or type(environment).__module__.startswith(_ADAPTERS):
        environment = environment.environment
        yield environment
