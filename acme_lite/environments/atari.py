"""Atari games of the Arcade Learning Environment.

Reference: Machado et al., Revisiting the Arcade Learning Environment (2018), sections 5 and 6.
"""

from __future__ import annotations

from typing import Any

import ale_py
import dm_env
import gymnasium
import numpy as np

from acme_lite.environments import gymnasium_environments, wrappers

_REPEAT_PROBABILITY = 0.25  # that of the environments called v5


def games() -> list[str]:
    """Returns the names of the games, such as `Pong`."""
    gymnasium.register_envs(ale_py)
    return [name[4:-3] for name in gymnasium.registry if name.startswith("ALE/") and name.endswith("-v5")]


def make_atari(
    game: str, *, sticky_actions: bool = True, clip_rewards: bool = False, num_frames: int = 4, **kwargs: Any
) -> dm_env.Environment:
    """Returns a game, with a stack of frames as its observation (`specs.FrameStack`, `[4, 84, 84]` uint8).

    Args:
        game: one of `games()`.
        sticky_actions: each frame repeats the action of the frame before with probability 0.25.
        clip_rewards: rewards are clipped to [-1, 1].
        num_frames: frames in a stack, at least 1.
        **kwargs: those of Gymnasium's `AtariPreprocessing`; frame skip 4, 84 x 84, grey and up to 30 no-ops at an
            episode's start unless given.
    """
    gymnasium.register_envs(ale_py)
    environment = gymnasium.make(f"ALE/{game}-v5", frameskip=1, repeat_action_probability=0.0, disable_env_checker=True)
    environment = StickyActions(environment, _REPEAT_PROBABILITY if sticky_actions else 0.0)
    environment = gymnasium.wrappers.AtariPreprocessing(environment, **kwargs)
    if clip_rewards:
        environment = gymnasium.wrappers.ClipReward(environment, -1.0, 1.0)
    return wrappers.FrameStack(gymnasium_environments.GymnasiumEnvironment(environment), num_frames)


class StickyActions(gymnasium.Wrapper):
    """Repeats the frame's last action at random, drawing from the environment's `np_random`.

    The emulator can do this itself, but takes a new seed only by loading the game again, which costs as much as a
    hundred steps. Without randomness of its own it never needs one, so a reset's seed goes to `np_random` alone.
    """

    def __init__(self, environment: gymnasium.Env, probability: float):
        super().__init__(environment)
        self._probability = probability
        self._last_action: Any = 0

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Any, dict[str, Any]]:
        if seed is not None:
            self.unwrapped.np_random = np.random.default_rng(seed)
        self._last_action = 0  # the no-op
        return self.env.reset(options=options)

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        if self.unwrapped.np_random.random() >= self._probability:
            self._last_action = action
        return self.env.step(self._last_action)
