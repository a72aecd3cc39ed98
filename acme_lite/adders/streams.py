"""The rows of N streams, and where their episodes begin and end: what all adders share."""

from __future__ import annotations

from typing import Any

import dm_env
import jax
import numpy as np

from acme_lite import core, types
from acme_lite.replay import interface

_FIRST = int(dm_env.StepType.FIRST)
_MID = int(dm_env.StepType.MID)
_LAST = int(dm_env.StepType.LAST)


class Streams:
    """Writes one row per vector step, and keeps what an adder needs to know to choose its items.

    Attributes:
        num_streams: N.
        row: number of the open row; -1 before there is one.
        first: `[N]` int64, the row with which each stream's episode began.
        ended: `[N]` bool, True where the open row is the last of its episode.
    """

    def __init__(self, writer: interface.Writer):
        self.num_streams = writer.num_streams
        self.row = -1
        self.first = np.zeros(self.num_streams, np.int64)
        self.ended = np.ones(self.num_streams, bool)
        self._writer = writer
        self._started = False
        self._checked = False
        self._inside = False  # no open row is the last of its episode, and the shapes were checked
        self._mid_steps = b""

    def begin(self, timestep: dm_env.TimeStep) -> None:
        """Opens the first row of an episode in every stream; episodes that have not ended are dropped.

        Raises:
            ValueError: a step is not FIRST, or a field has no leading axis of N.
        """
        step_type = self._step_type(timestep)
        if np.count_nonzero(step_type != _FIRST):
            raise ValueError(f"timestep.step_type must be FIRST ({_FIRST}) in every stream, got {step_type.tolist()}.")
        self._check_streams(timestep.observation, "timestep.observation")
        self.drop()
        self.row = self._writer.append(timestep.observation)
        self.first = np.full(self.num_streams, self.row, np.int64)
        self.ended = np.zeros(self.num_streams, bool)
        self._started = True
        # Comparing bytes costs a tenth of comparing arrays.
        self._mid_steps = np.full(self.num_streams, _MID, step_type.dtype).tobytes()

    def drop(self) -> types.BoolArray:
        """Ends all streams' rows without a last step; returns `[N]` bool, True where an episode was cut off."""
        unfinished = ~self.ended
        if np.count_nonzero(unfinished):
            self._writer.end_episode(unfinished)
        self.ended = np.ones(self.num_streams, bool)
        self._started = self._checked = self._inside = False
        return unfinished

    def step(self, fields: dict[str, types.ArrayTree], next_timestep: dm_env.TimeStep) -> bool:
        """Completes the open rows and opens the next ones.

        Args:
            fields: `[N, ...]` fields of the open rows; zeros are written where a row is the last of its episode.
            next_timestep: the steps that the actions led to.

        Returns:
            Whether all streams stayed inside their episodes, so that `first` and `ended` are as they were.

        Raises:
            ValueError: there was no `begin`, a field has no leading axis of N, or a step does not fit the one before.
        """
        if self._inside and next_timestep.step_type.tobytes() == self._mid_steps:
            self.row = self._writer.append(next_timestep.observation, fields)
            return True
        self._check(fields, next_timestep)
        self._step_across_episodes(fields, next_timestep)
        return False

    def save(self) -> dict[str, Any] | None:
        """Returns where the streams are, and the writer's state; None where the writer has none."""
        writer = core.save(self._writer)
        if writer is None:
            return None
        return {
            "writer": writer,
            "row": self.row,
            "first": self.first.copy(),
            "ended": self.ended.copy(),
            "started": self._started,
            "mid_steps": np.frombuffer(self._mid_steps, np.uint8),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._writer.restore(state["writer"])  # type: ignore[attr-defined]  # it has saved a state
        self.row = state["row"]
        self.first = np.array(state["first"])
        self.ended = np.array(state["ended"])
        self._started = state["started"]
        self._mid_steps = state["mid_steps"].tobytes()
        self._checked = self._inside = False  # the next step looks

    def _step_across_episodes(self, fields: dict[str, types.ArrayTree], next_timestep: dm_env.TimeStep) -> None:
        begun = self.ended
        num_begun = np.count_nonzero(begun)
        # Where all have ended, the writer has zeroed the open row already.
        completed = None
        if num_begun < self.num_streams:
            completed = _zero_where(begun, fields) if num_begun else fields
        self.row = self._writer.append(next_timestep.observation, completed)
        if num_begun:
            self.first = np.where(begun, self.row, self.first)
        self.ended = next_timestep.step_type == _LAST
        self._inside = not np.count_nonzero(self.ended)
        if not self._inside:
            self._writer.end_episode(self.ended)

    def _check(self, fields: dict[str, types.ArrayTree], next_timestep: dm_env.TimeStep) -> None:
        if not self._started:
            raise ValueError("add_first must be called before add (and again after reset).")
        step_type = self._step_type(next_timestep)
        if (step_type == _FIRST).tobytes() != self.ended.tobytes():
            wrong = np.flatnonzero((step_type == _FIRST) != self.ended)[0]
            raise ValueError(
                f"next_timestep.step_type must be FIRST ({_FIRST}) exactly where the step before was LAST, got "
                f"{step_type[wrong]} in stream {wrong}, whose step before was "
                f"{'LAST' if self.ended[wrong] else 'not LAST'}."
            )
        if not self._checked:
            self._check_streams(fields, "the fields of add")
            self._check_streams(next_timestep.observation, "next_timestep.observation")
            for name in ("reward", "discount"):
                shape = np.shape(getattr(next_timestep, name))
                if shape != (self.num_streams,):
                    raise ValueError(
                        f"next_timestep.{name} must have shape ({self.num_streams},), as the writer has "
                        f"{self.num_streams} streams, got {shape}."
                    )
            self._checked = True

    def _step_type(self, timestep: dm_env.TimeStep) -> np.ndarray:
        step_type = np.asarray(timestep.step_type)
        if step_type.shape != (self.num_streams,):
            raise ValueError(
                f"step_type must have shape ({self.num_streams},), as the writer has {self.num_streams} streams, got "
                f"{step_type.shape}."
            )
        return step_type

    def _check_streams(self, tree: types.ArrayTree, name: str) -> None:
        for leaf in jax.tree.leaves(tree):
            if np.shape(leaf)[:1] != (self.num_streams,):
                raise ValueError(
                    f"Every array of {name} must have a leading axis of {self.num_streams}, as the writer has "
                    f"{self.num_streams} streams, got shape {np.shape(leaf)}."
                )


def _zero_where(mask: types.BoolArray, tree: types.ArrayTree) -> types.ArrayTree:
    def zero(leaf: np.ndarray) -> np.ndarray:
        copy = np.array(leaf)
        copy[mask] = 0
        return copy

    return jax.tree.map(zero, tree)
