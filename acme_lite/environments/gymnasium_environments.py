"""Gymnasium environments, single and vectorised, as `dm_env.Environment` and `VectorEnvironment`.

Observations and rewards have 32 bits. What Gymnasium calls termination is a discount of 0, truncation one of 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import dm_env
import gymnasium
import jax
import numpy as np
from dm_env import specs as dm_specs
from gymnasium import vector as gymnasium_vector

from acme_lite import types
from acme_lite.environments import seeding, spaces

_MID, _LAST = dm_env.StepType.MID, dm_env.StepType.LAST  # access to a member of an enumeration runs Python code
_ZERO = np.float32(0)
_ONE = np.float32(1)
_REWARD_SPEC = dm_specs.Array((), np.float32, "reward")
_DISCOUNT_SPEC = dm_specs.BoundedArray((), np.float32, 0.0, 1.0, "discount")


class GymnasiumEnvironment(dm_env.Environment):
    """A Gymnasium environment.

    The step that terminates is `LAST` with discount 0 (also where it truncates as well), the step that truncates
    `LAST` with discount 1. The infos are dropped.

    Attributes:
        environment: the Gymnasium environment.
        name: its id, or what its class is called.

    Raises:
        ValueError: it has a space that no spec describes.
    """

    def __init__(self, environment: gymnasium.Env):
        self.environment = environment
        self.name = type(environment.unwrapped).__name__ if environment.spec is None else environment.spec.id
        self._observation_spec = spaces.make_observation_spec(environment.observation_space)
        self._action_spec = spaces.make_action_spec(environment.action_space)
        self._decode = spaces.make_decoder(environment.observation_space)
        self._encode = spaces.make_encoder(environment.action_space)
        self._seed: int | None = None
        self._reset_next_step = True

    @staticmethod
    def alone(environment: GymnasiumEnvironment) -> Callable[[types.ArrayTree], tuple] | None:
        """Returns what steps this one in less time than its `step`; None where it has a `step` of its own."""
        is_plain = type(environment).step is GymnasiumEnvironment.step and "step" not in vars(environment)
        return environment.step_plainly if is_plain else None

    @staticmethod
    def together(environments: Sequence[dm_env.Environment]) -> GymnasiumMembers | None:
        """Returns what steps these in less time than one by one; None where there is no such thing."""
        members = [one for one in environments if type(one) is GymnasiumEnvironment]  # subclasses may step otherwise
        spaces_of = [(one.environment.observation_space, one.environment.action_space) for one in members]
        nested = (gymnasium.spaces.Dict, gymnasium.spaces.Tuple)
        if (
            len(members) < len(environments)
            or any(of_one != spaces_of[0] for of_one in spaces_of)
            or any(isinstance(space, nested) for space in spaces_of[0])
        ):
            return None
        return GymnasiumMembers(members)

    def reseed(self, seed: int) -> None:
        """Sets the seed, in [0, 2^32), from which the next reset is drawn."""
        self._seed = seeding.check_seed(seed, 32)

    def reset(self) -> dm_env.TimeStep:
        observation, _ = self.environment.reset(seed=self._seed)
        self._seed = None
        self._reset_next_step = False
        return dm_env.TimeStep(dm_env.StepType.FIRST, None, None, self._decode(observation))

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        step_type, reward, discount, observation = self.step_plainly(action)
        return dm_env.TimeStep(step_type, None if reward is None else np.float32(reward), discount, observation)

    def step_plainly(self, action: types.ArrayTree) -> tuple[dm_env.StepType, Any, np.float32 | None, types.ArrayTree]:
        """As `step`, and returns the fields alone; the reward's dtype is the environment's."""
        if self._reset_next_step:
            return self.reset()
        observation, reward, terminated, truncated, _ = self.environment.step(self._encode(action))
        observation = self._decode(observation)
        if terminated or truncated:
            self._reset_next_step = True
            return _LAST, reward, _ZERO if terminated else _ONE, observation
        return _MID, reward, _ONE, observation

    def observation_spec(self) -> types.SpecTree:
        return self._observation_spec

    def action_spec(self) -> types.SpecTree:
        return self._action_spec

    def reward_spec(self) -> dm_specs.Array:
        return _REWARD_SPEC

    def discount_spec(self) -> dm_specs.BoundedArray:
        return _DISCOUNT_SPEC

    def close(self) -> None:
        self.environment.close()


class GymnasiumMembers:
    """Steps `GymnasiumEnvironment`s in the middle of their episodes together, without a time step for each of them.

    A `SyncVectorEnvironment` has one for the calls in which every member steps: it does what these would come to, in
    less time. Nothing is checked. Made by `GymnasiumEnvironment.together`.

    Args:
        members: environments with the same spaces, whose observations and actions are one array each.
    """

    def __init__(self, members: Sequence[GymnasiumEnvironment]):
        first = members[0]
        self._members = members
        self._encode = spaces.make_encoder(first.environment.action_space, batched=True)
        is_float = first.observation_spec().dtype.kind == "f"  # to stack such arrays casts them, too
        self._decode = None if is_float else spaces.make_decoder(first.environment.observation_space)

    def step(self, action: np.ndarray) -> tuple[Sequence[np.ndarray], Sequence[Any], Sequence[bool], Sequence[bool]]:
        """Returns observations, rewards, and whether episodes terminated and were truncated, one each of N members.

        Args:
            action: `[N, ...]` of the spec's dtype.
        """
        rows = self._encode(action)
        results = [member.environment.step(row) for member, row in zip(self._members, rows, strict=True)]
        observations, rewards, terminated, truncated, _ = zip(*results, strict=True)
        if any(terminated) or any(truncated):
            for member, *ends in zip(self._members, terminated, truncated, strict=True):
                member._reset_next_step = any(ends)  # as after its own `step`
        if self._decode is not None:
            observations = tuple(map(self._decode, observations))
        return observations, rewards, terminated, truncated


class GymnasiumVectorEnvironment:
    """A Gymnasium vector environment in any of its autoreset modes, as a `VectorEnvironment`.

    Two things differ from `SyncVectorEnvironment`. Gymnasium cannot seed single episodes: a seed counts from the next
    `reset` of all members on, and episodes draw one after the other from the generators that it started. And outside of
    its next-step mode Gymnasium has no way to let one member wait while the others step. The member that shows its
    `FIRST` step is then stepped with the ignored action, and reset (again) after it; that costs one hidden step and one
    or two resets per episode, and no step of an episode that is seen is lost.

    Args:
        environment: any in the modes next-step and disabled (it must take `reset_mask`, as that mode asks); in the mode
            same-step a `SyncVectorEnv` or `AsyncVectorEnv`, since these alone reset single members there. In that mode
            members must not give all their observations in the same array: Gymnasium resets them before their last
            one is seen (a `SyncVectorEnv` of such members is refused at the first end of an episode).
        seed: in [0, 2^63).

    Raises:
        ValueError: the mode is not declared or cannot be converted, or a space has no spec.
    """

    def __init__(self, environment: gymnasium_vector.VectorEnv, seed: int = 0):
        self.environment = environment
        self.num_envs = environment.num_envs
        self._mode = _checked_mode(environment)
        self._observation_spec = spaces.make_observation_spec(environment.single_observation_space)
        self._action_spec = spaces.make_action_spec(environment.single_action_space)
        self._decode = spaces.make_decoder(environment.single_observation_space, copy=True)
        self._decode_final = spaces.make_decoder(environment.single_observation_space)
        self._encode = spaces.make_encoder(environment.single_action_space, batched=True)
        self._ended = np.ones(self.num_envs, bool)
        self._started = False
        self.reseed(seed)

    def reseed(self, seed: int, episodes: types.IntArray | None = None) -> None:
        """Sets the seed that the next reset of all members derives its own from, together with the episode counts."""
        self._seed: int | None = seeding.check_seed(seed, 63)
        self._episodes = seeding.check_episodes(episodes, self.num_envs)

    @property
    def episodes(self) -> types.IntArray:
        """`[N]` number of episodes that each member has started since it was seeded."""
        return self._episodes.copy()

    def reset(self) -> dm_env.TimeStep:
        seed = self._seed
        if seed is not None:
            for member, episode in enumerate(self._episodes):
                seed = seeding.episode_seed(seed, member, int(episode))
        observation, _ = self.environment.reset(seed=seed)
        self._seed = None
        self._started = True
        self._ended = np.zeros(self.num_envs, bool)
        self._episodes += 1
        return dm_env.TimeStep(
            step_type=np.full(self.num_envs, dm_env.StepType.FIRST, np.int32),
            reward=np.zeros(self.num_envs, np.float32),
            discount=np.ones(self.num_envs, np.float32),
            observation=self._decode(observation),
        )

    def step(self, action: types.ArrayTree) -> dm_env.TimeStep:
        if not self._started:
            return self.reset()
        first = self._ended
        if self._mode is gymnasium_vector.AutoresetMode.DISABLED and first.any():
            self._reset_members(first)
        observation, reward, terminated, truncated, infos = self.environment.step(self._encode(action))
        observation = self._decode(observation)
        terminated = np.asarray(terminated, bool) & ~first
        last = (np.asarray(truncated, bool) & ~first) | terminated
        if self._mode is gymnasium_vector.AutoresetMode.SAME_STEP:
            for member in np.flatnonzero(last):
                final = infos["final_obs"][member]
                self._check_final(member, final)
                _set_member(observation, member, self._decode_final(final))
        if self._mode is not gymnasium_vector.AutoresetMode.NEXT_STEP and first.any():
            fresh = self._reset_members(first)
            observation = jax.tree.map(lambda new, old: _where(first, new, old), fresh, observation)
        self._ended = last
        self._episodes += first
        step_type = np.full(self.num_envs, dm_env.StepType.MID, np.int32)
        step_type[first] = dm_env.StepType.FIRST
        step_type[last] = dm_env.StepType.LAST
        return dm_env.TimeStep(
            step_type=step_type,
            reward=np.where(first, _ZERO, np.asarray(reward, np.float32)),
            discount=np.where(terminated, _ZERO, _ONE),
            observation=observation,
        )

    def _check_final(self, member: int, final: Any) -> None:
        """Raises ValueError if the member's reset has overwritten its last observation."""
        newest = getattr(self.environment.unwrapped, "_env_obs", None)  # of a SyncVectorEnv
        if newest is None:
            return
        for one, other in zip(jax.tree.leaves(final), jax.tree.leaves(newest[member]), strict=True):
            if isinstance(one, np.ndarray) and isinstance(other, np.ndarray) and np.may_share_memory(one, other):
                raise ValueError(
                    f"GymnasiumVectorEnvironment.environment gives every observation of member {member} in the same "
                    f"array, so that the last one is lost in autoreset mode {self._mode.value!r}: use mode "
                    f"{gymnasium_vector.AutoresetMode.NEXT_STEP.value!r}, or have the members return copies."
                )

    def _reset_members(self, mask: types.BoolArray) -> types.ArrayTree:
        observation, _ = self.environment.reset(options={"reset_mask": mask.copy()})
        return self._decode(observation)

    def observation_spec(self) -> types.SpecTree:
        return self._observation_spec

    def action_spec(self) -> types.SpecTree:
        return self._action_spec

    def reward_spec(self) -> dm_specs.Array:
        return _REWARD_SPEC

    def discount_spec(self) -> dm_specs.BoundedArray:
        return _DISCOUNT_SPEC

    def close(self) -> None:
        self.environment.close()


def _checked_mode(environment: gymnasium_vector.VectorEnv) -> gymnasium_vector.AutoresetMode:
    modes = [mode.value for mode in gymnasium_vector.AutoresetMode]
    declared = environment.metadata.get("autoreset_mode")
    try:
        mode = gymnasium_vector.AutoresetMode(declared)
    except ValueError:
        raise ValueError(
            f"GymnasiumVectorEnvironment.environment must declare metadata['autoreset_mode'], one of {modes}, got "
            f"{declared!r}."
        ) from None
    resets_members = (gymnasium_vector.SyncVectorEnv, gymnasium_vector.AsyncVectorEnv)
    if mode is gymnasium_vector.AutoresetMode.SAME_STEP and not isinstance(environment.unwrapped, resets_members):
        raise ValueError(
            "GymnasiumVectorEnvironment.environment must be a SyncVectorEnv or AsyncVectorEnv, or use autoreset mode "
            f"{modes[0]!r}: from {environment} in mode {mode.value!r} every episode's first step would be lost."
        )
    return mode


def _set_member(tree: types.ArrayTree, member: int, values: types.ArrayTree) -> None:
    for leaf, value in zip(jax.tree.leaves(tree), jax.tree.leaves(values), strict=True):
        leaf[member] = value


def _where(mask: types.BoolArray, new: np.ndarray, old: np.ndarray) -> Any:
    return np.where(mask.reshape(-1, *[1] * (old.ndim - 1)), new, old)
