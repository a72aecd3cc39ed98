"""N `dm_env` environments stepped one after the other as one vector environment."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import dm_env
import jax
import numpy as np
from dm_env import specs as dm_specs

from acme_lite import specs, types
from acme_lite.environments import seeding

_FIRST = dm_env.StepType.FIRST
_MID = dm_env.StepType.MID
_LAST = dm_env.StepType.LAST


@dataclasses.dataclass(frozen=True)
class _Leaf:
    """Stacks what N members give for one leaf of their specs.

    Attributes:
        spec: of one member's value.
        dtype: of the stack.
        shape: `[N, ...]`, of the stack.
        ndim: length of the shape.
    """

    spec: dm_specs.Array
    dtype: np.dtype
    shape: tuple[int, ...]
    ndim: int

    @classmethod
    def make(cls, spec: dm_specs.Array, num_envs: int) -> _Leaf:
        return cls(spec, spec.dtype, (num_envs, *spec.shape), 1 + len(spec.shape))

    def stack(self, values: Sequence[Any]) -> np.ndarray:
        if len(values) == 1:
            return self.stack_one(values[0])
        try:
            stacked = np.array(values, self.dtype)
            if stacked.shape == self.shape:
                return stacked
            problem = None
        except ValueError as error:
            problem = error
        raise self._misfit(values) from problem

    def stack_one(self, value: Any) -> np.ndarray:
        """As `stack`, for the value of one member, in a third of the time."""
        try:
            stacked = np.array(value, self.dtype, ndmin=self.ndim)
            if stacked.shape == self.shape:
                return stacked
            problem = None
        except ValueError as error:
            problem = error
        raise self._misfit([value]) from problem

    def _misfit(self, values: Sequence[Any]) -> ValueError:
        described = specs.describe(self.spec)
        for member, value in enumerate(values):
            if np.shape(value) != self.spec.shape:
                return ValueError(
                    f"environments[{member}] gave an array of shape {np.shape(value)} where its spec is {described}."
                )
        return ValueError(
            f"The environments gave the values {values} that are no numbers where their spec is {described}."
        )

    def stack_scalars(self, values: Sequence[Any], first: float) -> np.ndarray:
        """Stacks rewards or discounts; a `FIRST` step of `dm_env` has None, which becomes `first`."""
        values = [first if value is None else value for value in values]
        if self.spec.shape:
            return self.stack(values)
        stacked = np.array(values)
        if specs.would_round(stacked, self.dtype):
            described = specs.describe(self.spec)
            raise ValueError(f"The environments gave the values {stacked} where their spec is {described}.")
        return stacked.astype(self.dtype)


class SyncVectorEnvironment:
    """Steps N `dm_env` environments, as a `VectorEnvironment`.

    Before each of a member's episodes its `reseed` gets a seed that is derived from (seed, member, episode) alone. A
    member without `reseed` draws from its own generator.

    Members get actions of their spec's dtype, which they may change in place: those that are stored stay as they were.
    Each member's first steps of the kinds FIRST, MID and LAST are checked against its specs, and sizes at every step.

    Attributes:
        num_envs: N.
        environments: the members.
        name: that of the first member, or what its class is called.

    Args:
        environments: N different objects with equal specs, at least 1.
        seed: in [0, 2^63); None leaves members to their own generators until `reseed` is called.

    Raises:
        ValueError: there are no members, one is there twice, or their specs differ.
    """

    def __init__(self, environments: Sequence[dm_env.Environment], seed: int | None = 0):
        self.environments = tuple(environments)
        self._specs = _common_spec(self.environments)
        self.num_envs = len(self.environments)
        self.name = getattr(self.environments[0], "name", type(self.environments[0]).__name__)
        self._structure: Any = jax.tree.structure(self._specs.observation)
        self._observation_leaves = [
            _Leaf.make(spec, self.num_envs) for spec in jax.tree.leaves(self._specs.observation)
        ]
        self._reward_leaf = _Leaf.make(self._specs.reward, self.num_envs)
        self._discount_leaf = _Leaf.make(self._specs.discount, self.num_envs)
        self._action_structure: Any = jax.tree.structure(self._specs.action)
        self._action_leaves = [
            (leaf.dtype, isinstance(leaf, dm_specs.DiscreteArray)) for leaf in jax.tree.leaves(self._specs.action)
        ]
        # JAX takes microseconds to flatten even a single array, once per member.
        self._one_observation = isinstance(self._specs.observation, dm_specs.Array)
        self._one_action = isinstance(self._specs.action, dm_specs.Array)
        is_choice = isinstance(self._specs.action, dm_specs.DiscreteArray)
        self._passed_dtype = self._specs.action.dtype if is_choice else None  # of actions that pass as they are
        self._reseeds = [getattr(environment, "reseed", None) for environment in self.environments]
        self._ended = [True] * self.num_envs
        # (member, kind of step) that no step was checked of.
        self._unchecked = {(member, int(kind)) for member in range(self.num_envs) for kind in dm_env.StepType}
        is_plain = self._one_observation and self._one_action and _has_float_scalars(self._specs)
        self._is_fast = self.num_envs == 1 and is_plain
        # Classes may know how to step several, or one, in less time, once nothing is left to check.
        first = self.environments[0]
        together = getattr(type(first), "together", None) if self.num_envs > 1 else None
        self._together: Any = None if together is None else together(self.environments)
        alone = getattr(type(first), "alone", None)
        self._step_alone: Any = None if alone is None else alone(first)
        # These are shared between steps: nobody may write to what a step returned.
        self._step_types = {step_type: self._constant(step_type, np.int32) for step_type in dm_env.StepType}
        self._first, self._mid = self._step_types[_FIRST], self._step_types[_MID]
        self._reward_zero = self._constant(0, self._specs.reward.dtype)
        self._discount_one = self._constant(1, self._specs.discount.dtype)
        self._are_scalars = _has_float_scalars(self._specs)
        self._seed: int | None = None
        self._episodes = seeding.check_episodes(None, self.num_envs)
        if seed is not None:
            self.reseed(seed)

    def reseed(self, seed: int, episodes: types.IntArray | None = None) -> None:
        """Sets the seed from which the episodes from the next reset on derive.

        `episodes` `[N]` is how many episodes each member has had already; none unless given.
        """
        self._seed = seeding.check_seed(seed, 63)
        self._episodes = seeding.check_episodes(episodes, self.num_envs)

    @property
    def episodes(self) -> types.IntArray:
        """`[N]` number of episodes that each member has started since it was seeded."""
        return self._episodes.copy()

    def save(self) -> types.IntArray:
        """Returns what the next episodes follow from: how many each member has started."""
        return self.episodes

    def restore(self, state: types.IntArray) -> None:
        """Puts back what `save` returned; episodes that are not over are dropped."""
        self._episodes = seeding.check_episodes(state, self.num_envs)
        self._ended = [True] * self.num_envs

    def reset(self) -> dm_env.TimeStep:
        return self._stack([self._start(member) for member in range(self.num_envs)])

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        if (self._is_fast or self._together is not None) and True not in self._ended:
            rows = np.asarray(action)
            if rows.dtype is not self._passed_dtype:
                rows = _rows(rows, *self._action_leaves[0])
            if self._is_fast:
                return self._step_only_member(rows)
            if not self._unchecked and rows.dtype == self._action_leaves[0][0]:
                return self._step_together(rows)
        actions = self._split(action)
        timesteps, unchecked = [], self._unchecked
        for member, environment in enumerate(self.environments):
            if self._ended[member]:
                timesteps.append(self._start(member))
            else:
                timestep = environment.step(actions[member])
                if unchecked:
                    self._check(member, timestep)
                if timestep.step_type is not _MID:
                    self._ended[member] = self._is_last(member, timestep.step_type)
                timesteps.append(timestep)
        return self._stack(timesteps)

    def _step_together(self, actions: np.ndarray) -> dm_env.TimeStep:
        """As `step`, in the middle of all episodes, by what the members' class has for it."""
        if actions.shape[:1] != (self.num_envs,):
            raise self._wrong_action(actions)
        observations, rewards, terminated, truncated = self._together.step(actions)
        step_types, discounts = self._mid, self._discount_one
        if any(terminated) or any(truncated):
            self._ended = [any(ends) for ends in zip(terminated, truncated, strict=True)]
            step_types = np.where(self._ended, _LAST, _MID).astype(np.int32)
            discounts = np.array([not one for one in terminated], self._specs.discount.dtype)
        observation = self._observation_leaves[0].stack(observations)
        return dm_env.TimeStep(step_types, self._reward_leaf.stack(rewards), discounts, observation)

    def _step_only_member(self, action: np.ndarray) -> dm_env.TimeStep:
        """As `step`, for one member in the middle of an episode whose observation and action are single arrays."""
        if action.shape[:1] != (1,):
            raise self._wrong_action(action)
        if self._unchecked:
            timestep = self.environments[0].step(action[0])
            self._check(0, timestep)
            step_type, reward, discount, observation = timestep
        else:
            step = self._step_alone or self.environments[0].step
            step_type, reward, discount, observation = step(action[0])
        if step_type is _MID:  # comparing enumerations, or hashing them, runs Python code
            step_types = self._mid
        else:
            step_types = self._step_types[step_type]
            self._ended[0] = self._is_last(0, step_type)
        return dm_env.TimeStep(
            step_types,
            self._reward_leaf.stack_one(reward),
            # Comparing a NumPy scalar with a Python number takes microseconds.
            self._discount_one if float(discount) == 1.0 else self._discount_leaf.stack_one(discount),
            self._observation_leaves[0].stack_one(observation),
        )

    def _start(self, member: int) -> dm_env.TimeStep:
        """Starts the member's next episode, from its own seed where it takes one."""
        reseed = self._reseeds[member]
        if reseed is not None and self._seed is not None:
            reseed(seeding.episode_seed(self._seed, member, int(self._episodes[member])))
        timestep = self.environments[member].reset()
        if self._unchecked:
            self._check(member, timestep)
        self._episodes[member] += 1
        self._ended[member] = False
        return timestep

    def _check(self, member: int, timestep: dm_env.TimeStep) -> None:
        """Checks a step against the specs if it is the member's first one of its kind."""
        kind = int(timestep.step_type)
        if (member, kind) not in self._unchecked:
            return
        values: list[tuple[str, dm_specs.Array, Any]] = [
            ("an observation", leaf.spec, value)
            for leaf, value in zip(
                self._observation_leaves, self._structure.flatten_up_to(timestep.observation), strict=True
            )
        ]
        if kind != _FIRST:
            values.append(("a reward", self._specs.reward, timestep.reward))
            values.append(("a discount", self._specs.discount, timestep.discount))
        for what, spec, value in values:
            problem = specs.misfit(value, spec)
            if problem is not None:
                raise ValueError(
                    f"environments[{member}] gave {what} {problem} where its spec is {specs.describe(spec)}."
                )
        if kind != _FIRST and not np.all((np.asarray(timestep.discount) >= 0) & (np.asarray(timestep.discount) <= 1)):
            raise ValueError(
                f"environments[{member}] gave the discount {timestep.discount}, and discounts are in [0, 1]."
            )
        self._unchecked.remove((member, kind))

    def _is_last(self, member: int, step_type: dm_env.StepType) -> bool:
        if step_type == _FIRST:
            raise ValueError(
                f"environments[{member}] gave a FIRST step in the middle of an episode: an episode must end with a "
                "LAST step, and nobody else may reset the environment."
            )
        return step_type == _LAST

    def _split(self, action: types.ArrayTree) -> Sequence[types.ArrayTree] | np.ndarray:
        if self._one_action:
            rows = _rows(action, *self._action_leaves[0])
            if rows.shape[:1] != (self.num_envs,):
                raise self._wrong_action(action)
            return rows
        parts = zip(self._action_structure.flatten_up_to(action), self._action_leaves, strict=True)
        leaves = [_rows(leaf, *properties) for leaf, properties in parts]
        if any(leaf.shape[:1] != (self.num_envs,) for leaf in leaves):
            raise self._wrong_action(action)
        unflatten = self._action_structure.unflatten
        return [unflatten([leaf[member] for leaf in leaves]) for member in range(self.num_envs)]

    def _stack(self, timesteps: Sequence[dm_env.TimeStep]) -> dm_env.TimeStep:
        step_types, rewards, discounts, observations = zip(*timesteps, strict=True)
        all_first = self._are_scalars and step_types.count(_FIRST) == self.num_envs
        if all_first and rewards.count(None) == discounts.count(None) == self.num_envs:
            return dm_env.TimeStep(
                self._first, self._reward_zero, self._discount_one, self._stack_observations(observations)
            )
        if self._are_scalars and step_types.count(_MID) == self.num_envs:
            return dm_env.TimeStep(
                self._mid,
                np.array(rewards, self._specs.reward.dtype),
                self._stack_discounts(discounts),
                self._stack_observations(observations),
            )
        return dm_env.TimeStep(
            step_type=np.array(step_types, np.int32),
            reward=self._reward_leaf.stack_scalars(rewards, 0),
            discount=self._discount_leaf.stack_scalars(discounts, 1),
            observation=self._stack_observations(observations),
        )

    def _stack_discounts(self, discounts: Sequence[Any]) -> np.ndarray:
        """Stacks scalars, none of which is None; as a rule, all of them are one."""
        if float(discounts[0]) == 1.0 and discounts.count(discounts[0]) == self.num_envs:
            return self._discount_one
        return np.array(discounts, self._specs.discount.dtype)

    def _stack_observations(self, observations: Sequence[types.ArrayTree]) -> types.ArrayTree:
        if self._one_observation:
            return self._observation_leaves[0].stack(observations)
        flat = [self._structure.flatten_up_to(observation) for observation in observations]
        leaves = [leaf.stack([member[index] for member in flat]) for index, leaf in enumerate(self._observation_leaves)]
        return self._structure.unflatten(leaves)

    def _constant(self, value: Any, dtype: Any) -> np.ndarray:
        array = np.full(self.num_envs, value, dtype)
        array.setflags(write=False)
        return array

    def _wrong_action(self, action: types.ArrayTree) -> ValueError:
        shapes = jax.tree.map(np.shape, action)
        return ValueError(f"action must have {self.num_envs} rows, one per member, got the shapes {shapes}.")

    def observation_spec(self) -> types.SpecTree:
        return self._specs.observation

    def action_spec(self) -> types.SpecTree:
        return self._specs.action

    def reward_spec(self) -> dm_specs.Array:
        return self._specs.reward

    def discount_spec(self) -> dm_specs.BoundedArray:
        return self._specs.discount

    def close(self) -> None:
        for environment in self.environments:
            environment.close()


def _common_spec(environments: Sequence[dm_env.Environment]) -> specs.EnvironmentSpec:
    if not environments:
        raise ValueError("environments must have at least one member, got none.")
    if len({id(environment) for environment in environments}) < len(environments):
        raise ValueError("environments must be different objects, got one of them twice.")
    first, *others = [specs.make_environment_spec(environment) for environment in environments]
    for index, other in enumerate(others, start=1):
        structures: list[Any] = [jax.tree.structure(first), jax.tree.structure(other)]
        if structures[0] != structures[1] or any(
            type(one) is not type(two) or one != two
            for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(other), strict=True)
        ):
            one, two = specs.describe(first), specs.describe(other)
            hidden = ", which differ in the bounds of elements" if one == two else ""
            raise ValueError(
                f"environments must have equal specs, got {one} (member 0) and {two} (member {index}){hidden}."
            )
    return first


def _has_float_scalars(spec: specs.EnvironmentSpec) -> bool:
    """Returns whether rewards and discounts are scalars, and rewards floats, which no cast rounds."""
    return spec.reward.shape == spec.discount.shape == () and spec.reward.dtype.kind == "f"


def _rows(action: Any, dtype: np.dtype, is_discrete: bool) -> np.ndarray:
    """Returns actions `[N, ...]` of the spec's dtype (agents give 32 bits); members may write to what is no scalar."""
    rows = np.asarray(action)
    if rows.dtype != dtype and np.can_cast(rows.dtype, dtype, "same_kind"):
        return rows.astype(dtype)
    return rows if is_discrete else rows.copy()
