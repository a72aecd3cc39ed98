"""Writes whole episodes."""

from __future__ import annotations

from typing import Any

import dm_env
import numpy as np

from acme_lite import types
from acme_lite.adders import signatures, streams
from acme_lite.replay import interface, tables


class EpisodeAdder:
    """Writes one item per episode of N streams: all its rows, the last observation's included.

    That row has zero action, reward and discount, and mask False. An episode that does not fit is an error: splitting
    it would give items that begin in its middle. New items have priority 1.
    """

    def __init__(self, writer: interface.Writer, *, max_length: int, table: str = tables.DEFAULT_TABLE):
        """Makes an adder.

        Args:
            writer: writes N streams of rows with `sequence_signature`.
            max_length: most rows of an episode, at least 2; an episode of T steps has T + 1 rows.
            table: name of a table of `Sequences` of this length.

        Raises:
            ValueError: `max_length` is less than 2.
        """
        if max_length < 2:
            raise ValueError(f"max_length must be at least 2, got {max_length}.")
        self._writer = writer
        self._max_length = max_length
        self._table = table
        self._streams = streams.Streams(writer)
        self._all_real = np.ones(writer.num_streams, bool)
        self._limit = max_length  # no episode has a row too many before this row

    def add_first(self, timestep: dm_env.TimeStep) -> None:
        """Takes the first step of every stream's episode; episodes that have not ended are dropped."""
        self._streams.begin(timestep)

    def add(self, action: types.ArrayTree, next_timestep: dm_env.TimeStep, extras: types.ArrayTree = ()) -> None:
        """Takes the actions, the steps that they led to, and what the policy gave beside the actions.

        Raises:
            ValueError: `add_first` was not called before, or an episode has more than `max_length` rows. Nothing of
                this call was written then.
        """
        if self._streams.row + 1 >= self._limit:
            self._check_lengths()
        fields = signatures.sequence_fields(
            action, next_timestep.reward, next_timestep.discount, self._all_real, extras
        )
        if self._streams.step(fields, next_timestep):
            return
        row, first, ended = self._streams.row, self._streams.first, self._streams.ended
        self._limit = min(first.tolist()) + self._max_length
        (stream,) = ended.nonzero()
        if stream.size:
            starts = first[stream]
            self._writer.create_items(self._table, stream, starts, row + 1 - starts)

    def reset(self) -> None:
        self._streams.drop()

    def save(self) -> dict[str, Any] | None:
        streams = self._streams.save()
        return streams and {"streams": streams, "limit": self._limit}

    def restore(self, state: dict[str, Any]) -> None:
        self._streams.restore(state["streams"])
        self._limit = state["limit"]

    def _check_lengths(self) -> None:
        lengths = self._streams.row + 2 - self._streams.first
        (too_long,) = np.nonzero((lengths > self._max_length) & ~self._streams.ended)
        if too_long.size:
            raise ValueError(
                f"The episode of stream {too_long[0]} has more rows than max_length={self._max_length}. Set max_length "
                "to the longest episode's steps plus 1, limit the environment's episodes, or write windows with a "
                "SequenceAdder."
            )
