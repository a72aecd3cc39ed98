"""An agent's parts, put together for checks: without a run, and with samples that stay the same."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dm_env
import jax

from acme_lite import (
    acting,
    core,
    counting,
    environment_loop,
    environments,
    loggers,
    specs,
    types,
)
from acme_lite import replay as replay_lib

EnvironmentFactory = Callable[[int], dm_env.Environment]
"""`(seed) -> environment`, one environment; checks need several."""

_MAX_ACTOR_STEPS = 20_000
_NUM_SAMPLES = 11


class FixedVariables:
    """A source of variables that never change.

    Args:
        variables: name -> tree.
    """

    def __init__(self, variables: dict[str, types.ArrayTree]):
        self._variables = variables

    def get_variables(self, names: Sequence[str]) -> list[types.ArrayTree]:
        return [self._variables[name] for name in names]


class RecordedDataset:
    """A dataset that gives samples drawn before, and keeps the priorities that come back.

    Attributes:
        priorities: `(info, priorities)` of every call of `update_priorities`.

    Args:
        samples: given one by one; then it ends with StopIteration.
    """

    def __init__(self, samples: Sequence[replay_lib.Sample]):
        self._samples = list(samples)
        self.priorities: list[tuple[Any, Any]] = []

    def __iter__(self) -> Iterator[replay_lib.Sample]:
        return self

    def __next__(self) -> replay_lib.Sample:
        if not self._samples:
            raise StopIteration
        return self._samples.pop(0)

    def ready(self) -> bool:
        return bool(self._samples)

    def due(self) -> bool:
        return bool(self._samples)

    def update_priorities(self, info: Any, priorities: Any) -> None:
        self.priorities.append((info, priorities))

    def state(self) -> Any:
        return {"num_samples": len(self._samples)}

    def restore(self, state: Any) -> None:
        del self._samples[: len(self._samples) - state["num_samples"]]

    def close(self) -> None:
        self._samples = []


@dataclasses.dataclass(frozen=True, eq=False)
class Agent:
    """A builder with what it has made for an environment; each equals itself alone.

    Attributes:
        builder: the builder.
        environment_factory: `(seed) -> environment`.
        spec: of one environment.
        networks: the builder's.
        variables: name -> tree, of a fresh learner.
        extras_spec: of the training policy.
        tables: the builder's.
    """

    builder: core.Builder
    environment_factory: EnvironmentFactory
    spec: specs.EnvironmentSpec
    networks: Any
    variables: dict[str, types.ArrayTree]
    extras_spec: types.SpecTree
    tables: Sequence[replay_lib.Table]

    @functools.cached_property
    def samples(self) -> Sequence[replay_lib.Sample]:
        """Samples that the fresh policy has gathered, in the order in which a learner would have drawn them."""
        return self.draw_samples(_NUM_SAMPLES, seed=0)

    def draw_samples(self, num_samples: int, *, seed: int) -> list[replay_lib.Sample]:
        """Lets the fresh policy act in two environments, and draws whenever the limiter lets it.

        Args:
            num_samples: how many samples.
            seed: of the dataset; all other seeds are always the same.

        Raises:
            AssertionError: neither acting nor drawing can go on, or 20,000 environment steps were not enough.
        """
        environment = self.make_vector_environment(2)
        local = replay_lib.LocalReplay([table.widened(environment.num_envs) for table in self.tables])
        dataset = self.builder.make_dataset(local, seed=seed)
        adder = self.builder.make_adder(local.writer(environment.num_envs), self.spec, self.extras_spec)
        policy = self.builder.make_policy(self.networks, self.spec)
        loop = environment_loop.EnvironmentLoop(environment, self.make_actor(policy, adder=adder, num_envs=2))
        samples: list[replay_lib.Sample] = []
        while len(samples) < num_samples:
            if dataset.ready():
                samples.append(next(dataset))
                continue
            assert local.can_insert(loop.num_envs), (
                f"The limiter lets in no items and the dataset gives no samples: {local.info().tables}."
            )
            assert loop.steps < _MAX_ACTOR_STEPS, (
                f"The dataset gave {len(samples)} samples within {loop.steps} environment steps: {local.info().tables}."
            )
            loop.step()
        environment.close()
        return samples

    def make_vector_environment(self, num_envs: int) -> environments.SyncVectorEnvironment:
        """Returns N environments, reseeded, that are stepped together."""
        return environments.SyncVectorEnvironment([self.environment_factory(seed) for seed in range(num_envs)], seed=0)

    def make_actor(
        self,
        policy: acting.ActorCore,
        *,
        num_envs: int,
        seed: int = 0,
        adder: Any = None,
    ) -> core.Actor:
        """Returns the builder's actor with the fresh variables."""
        return self.builder.make_actor(
            policy, FixedVariables(self.variables), adder, key=jax.random.key(seed), num_envs=num_envs
        )

    def make_learner(self, samples: Sequence[replay_lib.Sample], seed: int = 0) -> tuple[Any, RecordedDataset]:
        """Returns a learner that will draw these samples, and the dataset that gives them."""
        dataset = RecordedDataset(samples)
        learner = self.builder.make_learner(
            self.networks,
            self.spec,
            dataset,
            key=jax.random.key(seed),
            counter=counting.Counter(),
            logger=loggers.InMemoryLogger(),
        )
        return learner, dataset


def check_factory(environment_factory: EnvironmentFactory) -> None:
    """Checks that this is a function, and not the environment that it should make.

    Raises:
        ValueError: it is not.
    """
    if not callable(environment_factory):
        raise ValueError(
            "environment_factory must be a function (seed) -> dm_env.Environment, got "
            f"{type(environment_factory).__name__}: the checks need several environments."
        )


def make_agent(builder: core.Builder, environment_factory: EnvironmentFactory) -> Agent:
    """Returns an agent's parts, made for the environments of a factory.

    Raises:
        ValueError: `environment_factory` is an environment instead of a function that makes one.
    """
    check_factory(environment_factory)
    environment = environment_factory(0)
    spec = specs.make_environment_spec(environment)
    environment.close()
    networks = builder.make_networks(spec)
    variables = dict(jax.jit(functools.partial(builder.init_variables, networks, spec))(jax.random.key(0)))
    assert "policy" in variables, f"init_variables must give the variable 'policy', got {sorted(variables)}."
    extras_spec = acting.extras_spec(builder.make_policy(networks, spec), variables["policy"], spec.observation)
    tables = builder.make_tables(spec, extras_spec)
    return Agent(builder, environment_factory, spec, networks, variables, extras_spec, tables)
