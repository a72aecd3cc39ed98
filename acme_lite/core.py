"""The interfaces of the parts: actors, learners, sources of variables and the builders that make them.

Data flows one way, and back come only variables:

    environment <-> Actor -- steps --> Adder -- items --> Replay -- samples --> Learner
                      ^                                                            |
                      +-------------------------- variables -----------------------+

Everything is vectorised: an actor acts for the N members of a vector environment at once, and a single environment is
N = 1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import dm_env

from acme_lite import types

if TYPE_CHECKING:
    import jax

    from acme_lite import acting, adders, counting, loggers, replay, specs


@runtime_checkable
class Saveable(Protocol):
    """What a part has beside its own interface if it carries something that a resumed run needs.

    Actors, adders, writers, loops, vector environments, observers and loggers may have it. A part without it begins
    anew when a run is resumed; `docs/resume.md` says what is lost then.
    """

    def save(self) -> Any:
        """Returns the state between two steps: a tree of what a checkpoint holds, see `checkpointing.trees`.

        None where it cannot be saved: then the part begins anew. Nothing changes by it.
        """

    def restore(self, state: Any) -> None:
        """Puts back what `save` returned into a part that was made alike."""


def save(part: Any) -> Any:
    """Returns the state of a part; None where it has none that can be saved."""
    return part.save() if isinstance(part, Saveable) else None


def restore(part: Any, state: Any) -> bool:
    """Puts a state back that `save` returned; returns False where the part begins anew instead."""
    if state is None or not isinstance(part, Saveable):
        return False
    part.restore(state)
    return True


class Actor(Protocol):
    """Acts in the N members of a vector environment and records what happens; may be `Saveable`."""

    def select_action(self, observation: types.ArrayTree) -> types.ArrayTree:
        """Returns `[N, ...]` actions for `[N, ...]` observations."""

    def observe_first(self, timestep: dm_env.TimeStep) -> None:
        """Takes the first step of every member, with fields `[N, ...]`."""

    def observe(self, action: types.ArrayTree, next_timestep: dm_env.TimeStep) -> None:
        """Takes the `[N, ...]` actions and the steps that they led to.

        For a member whose previous step was `LAST`, the action was ignored and `next_timestep` is the `FIRST` step of
        its next episode.
        """

    def update(self, wait: bool = False) -> None:
        """Fetches new variables if there are any; with `wait`, returns only once the newest ones are in use."""


class VariableSource(Protocol):
    """Serves named variables."""

    def get_variables(self, names: Sequence[str]) -> list[types.ArrayTree]:
        """Returns the variables in the order of the names.

        Raises:
            KeyError: a name is unknown; says which names there are.
        """


class Learner(VariableSource, Protocol):
    """Updates parameters from samples."""

    def step(self) -> None:
        """Performs one call of the update (one or more SGD steps)."""

    def run(self, num_steps: int | None = None) -> None:
        """Calls `step` so many times; for ever if None."""

    def save(self) -> Any:
        """Returns the learner's whole state, a pytree that `restore` takes back."""

    def restore(self, state: Any) -> None:
        """Puts back a state that `save` returned."""

    def close(self) -> None:
        """Finishes what is under way, so that `get_variables` gives the final ones, and frees threads; once or more."""


@dataclasses.dataclass(frozen=True)
class ActorId:
    """Which actor of how many a policy is made for.

    Attributes:
        index: in [0, count).
        count: number of actors, at least 1.
    """

    index: int = 0
    count: int = 1


class OfflineBuilder(Protocol):
    """Makes the parts of an agent that learns from a fixed dataset."""

    def make_networks(self, spec: specs.EnvironmentSpec) -> Any:
        """Returns the agent's networks for an environment.

        Raises:
            ValueError: the agent cannot act in such an environment; says why and what can.
        """

    def init_variables(
        self, networks: Any, spec: specs.EnvironmentSpec, key: jax.Array
    ) -> Mapping[str, types.ArrayTree]:
        """Returns the variables of a fresh learner, `"policy"` among them; pure, so that shapes come by `eval_shape`.

        The key is consumed.
        """

    def make_policy(
        self, networks: Any, spec: specs.EnvironmentSpec, *, evaluation: bool = False, actor: ActorId = ActorId()
    ) -> acting.ActorCore:
        """Returns the policy as pure functions."""

    def make_learner(
        self,
        networks: Any,
        spec: specs.EnvironmentSpec,
        dataset: replay.Dataset,
        *,
        key: jax.Array,
        counter: counting.Counter,
        logger: loggers.Logger,
    ) -> Learner:
        """Returns a learner that draws from the dataset; the key is consumed."""


class Builder(OfflineBuilder, Protocol):
    """Makes all parts of an agent that learns from its own experience."""

    def make_tables(self, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree) -> Sequence[replay.Table]:
        """Returns the declarations of the replay tables."""

    def make_adder(
        self, writer: replay.Writer, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree
    ) -> adders.Adder:
        """Returns the adder that turns steps into items."""

    def make_dataset(self, replay: replay.Replay, *, seed: int) -> replay.Dataset:
        """Returns the iterator of samples that the learner draws from."""

    def make_actor(
        self,
        policy: acting.ActorCore,
        variables: VariableSource,
        adder: adders.Adder | None,
        *,
        key: jax.Array,
        num_envs: int,
    ) -> Actor:
        """Returns an actor for `num_envs` members; without an adder it records nothing. The key is consumed."""
