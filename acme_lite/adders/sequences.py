"""Writes windows of steps."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Any

import dm_env
import jax
import numpy as np

from acme_lite import types
from acme_lite.adders import signatures, streams
from acme_lite.replay import interface, tables


class EndOfEpisode(enum.Enum):
    """What becomes of the rows at an episode's end that no regular window holds.

    Attributes:
        WRITE: the last `length` rows of the episode are written too, a full window whose start is off the grid. An
            episode of fewer rows leaves nothing.
        TRUNCATE: the window that has begun is written as far as the episode goes, a shorter one.
        ZERO_PAD: that window is written with zeros (mask False) up to `length`. This library's replay pads every
            shorter item when it is sampled, so TRUNCATE and ZERO_PAD write the same item and sample the same batch.
        CONTINUE: the windows run on into the next episode, on one grid for all of a stream's rows.
    """

    WRITE = "write"
    TRUNCATE = "truncate"
    ZERO_PAD = "zero_pad"
    CONTINUE = "continue"


class SequenceAdder:
    """Writes windows of `length` rows of N streams, one every `period` rows from each episode's first row on.

    The last row of an episode is its last observation with zero action, reward and discount, and mask False; every
    other row has mask True. At an episode's end `end_of_episode` decides. No window is written twice, and none that
    has fewer than `min_length` rows. New items have priority 1.

    Extras may be stored for the first row of each window alone, which is what a recurrent state needs:

        rest, start = adders.split_extras(extras_spec, ("core_state",))
        table = replay.Table(..., adders.sequence_signature(spec, rest), replay.Sequences(length, period, start))
        adder = adders.SequenceAdder(..., start_extras=("core_state",))
    """

    def __init__(
        self,
        writer: interface.Writer,
        *,
        length: int,
        period: int,
        end_of_episode: EndOfEpisode = EndOfEpisode.ZERO_PAD,
        min_length: int = 2,
        table: str = tables.DEFAULT_TABLE,
        start_extras: Sequence[str] = (),
    ):
        """Makes an adder.

        Args:
            writer: writes N streams of rows with `sequence_signature`.
            length: rows of a window, at least 1.
            period: rows from the start of one window to the start of the next, in [1, length].
            end_of_episode: what becomes of an episode's last rows.
            min_length: least rows of a window at an episode's end, in [2, max(2, length)]; 2 leave out those that hold
                nothing but a last observation, from which there is nothing to learn. Greater where burn-in needs the
                first rows.
            table: name of a table of `Sequences` of this length and period.
            start_extras: names of the extras that a window holds of its first row alone, as `types.Sequence.start`.
                Where that row is an episode's last observation, they mean nothing.

        Raises:
            ValueError: `length`, `period` or `min_length` is out of its range.
        """
        if length < 1:
            raise ValueError(f"length must be at least 1, got {length}.")
        if not 1 <= period <= length:
            raise ValueError(f"period must be in [1, length={length}], got {period}.")
        if min_length < 2:
            raise ValueError(f"min_length must be at least 2, got {min_length}.")
        if min_length > max(2, length):
            raise ValueError(f"min_length must be at most length={length}, got {min_length}.")
        self._writer = writer
        self._length = length
        self._min_length = min_length
        self._period = period
        self._end_of_episode = EndOfEpisode(end_of_episode)
        self._table = table
        self._streams = streams.Streams(writer)
        self._start_extras = tuple(start_extras)
        # Leaves [length, N, ...], at row modulo length: the start extras of all rows with which a window may begin.
        self._recent: types.ArrayTree = ()
        self._all_real = np.ones(writer.num_streams, bool)
        self._start = np.zeros(writer.num_streams, np.int64)  # where each stream's next window begins
        self._next_row = 0  # no regular window is due before this row

    def add_first(self, timestep: dm_env.TimeStep) -> None:
        """Takes the first step of every stream's episode; episodes that have not ended are dropped."""
        self.reset()
        self._streams.begin(timestep)

    def add(self, action: types.ArrayTree, next_timestep: dm_env.TimeStep, extras: types.ArrayTree = ()) -> None:
        if self._start_extras:
            extras, start = signatures.split_extras(extras, self._start_extras)
            self._remember(start)
        fields = signatures.sequence_fields(
            action, next_timestep.reward, next_timestep.discount, self._all_real, extras
        )
        inside = self._streams.step(fields, next_timestep)
        if inside and self._streams.row < self._next_row:
            return
        if self._end_of_episode is not EndOfEpisode.CONTINUE:
            self._start = np.maximum(self._start, self._streams.first)
        self._create_due_windows()
        if not inside and np.count_nonzero(self._streams.ended):
            self._create_last_windows()
        self._next_row = min(self._start.tolist()) + self._length

    def reset(self) -> None:
        dropped = self._streams.drop()
        self._start = np.where(dropped, self._streams.row + 1, self._start)

    def save(self) -> dict[str, Any] | None:
        streams = self._streams.save()
        return streams and {
            "streams": streams,
            "start": self._start.copy(),
            "next_row": self._next_row,
            "recent": jax.tree.map(np.copy, self._recent),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._streams.restore(state["streams"])
        self._start = np.array(state["start"])
        self._next_row = state["next_row"]
        self._recent = jax.tree.map(np.array, state["recent"])

    def _remember(self, start: types.ArrayTree) -> None:
        if not self._recent:
            self._recent = jax.tree.map(lambda leaf: np.zeros((self._length, *np.shape(leaf)), leaf.dtype), start)
        row = self._streams.row % self._length
        jax.tree.map(lambda recent, leaf: recent.__setitem__(row, leaf), self._recent, start)

    def _create_due_windows(self) -> None:
        """Creates the windows whose last row has just been completed."""
        row = self._streams.row
        due = self._start + self._length == row
        self._create_items(due, self._start, row)
        self._start = self._start + self._period * due

    def _create_last_windows(self) -> None:
        """Creates the windows that end with the last row of an episode, which is the open row."""
        end = self._streams.row + 1
        full = self._streams.ended & (self._start + self._length == end)
        starts, chosen = self._start, self._streams.ended
        if self._end_of_episode is EndOfEpisode.CONTINUE:
            chosen = full
        elif self._end_of_episode is EndOfEpisode.WRITE:
            starts = np.full(self._streams.num_streams, end - self._length)
            chosen = chosen & (starts >= self._streams.first)
        self._create_items(chosen & (end - starts >= self._min_length), starts, end)
        self._start = self._start + self._period * full

    def _create_items(self, chosen: types.BoolArray, starts: types.IntArray, end: int) -> None:
        (stream,) = chosen.nonzero()
        if stream.size:
            starts = starts[stream]
            values = jax.tree.map(lambda recent: recent[starts % self._length, stream], self._recent)
            self._writer.create_items(self._table, stream, starts, end - starts, values=values)
