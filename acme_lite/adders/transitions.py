"""Writes n-step transitions."""

from __future__ import annotations

import collections
from typing import Any

import dm_env
import numpy as np

from acme_lite import types
from acme_lite.adders import signatures, streams
from acme_lite.replay import interface, tables


class NStepTransitionAdder:
    """Writes the transitions (o_t, a_t, R, D, o_{t+k}) of N streams.

    With the discount factor γ and k = `n_step`:

        R = sum_{i<k} γ^i (prod_{j<i} d_{t+j}) r_{t+i}
        D = γ^{k-1} prod_{i<k} d_{t+i}

    D is one γ short: the learner applies the last. An episode starts with items of k = 1, 2, ... steps, all from its
    first observation, and ends with items of k = n_step, ..., 2, 1 steps, all to its last observation. D is 0 in those
    if the episode terminated; if it was truncated, its last discount is 1 and they bootstrap. No item reaches into
    another episode. New items have priority 1.
    """

    def __init__(self, writer: interface.Writer, *, n_step: int, discount: float, table: str = tables.DEFAULT_TABLE):
        """Makes an adder.

        Args:
            writer: writes N streams of rows with `transition_signature`.
            n_step: most steps that an item spans, at least 1.
            discount: the discount factor γ in [0, 1].
            table: name of a table of `Transitions` of at least `n_step` steps.

        Raises:
            ValueError: `n_step` or `discount` is out of its range.
        """
        if n_step < 1:
            raise ValueError(f"n_step must be at least 1, got {n_step}.")
        if not 0 <= discount <= 1:
            raise ValueError(f"discount must be in [0, 1], got {discount}.")
        self._writer = writer
        self._n_step = n_step
        self._discount = discount
        self._table = table
        self._streams = streams.Streams(writer)
        self._single = writer.num_streams == 1
        # (r_t, γ d_t) of the steps before the newest one, newest first.
        self._history: collections.deque[tuple[Any, Any]] = collections.deque(maxlen=n_step - 1)
        # Python's own floats: for one stream they cost a tenth of arrays.
        self._in_floats = n_step > 1 and self._single
        self._newest_first = 0  # the row with which the newest episode of any stream began

    def add_first(self, timestep: dm_env.TimeStep) -> None:
        """Takes the first step of every stream's episode; episodes that have not ended are dropped."""
        self._streams.begin(timestep)

    def add(self, action: types.ArrayTree, next_timestep: dm_env.TimeStep, extras: types.ArrayTree = ()) -> None:
        streams = self._streams
        inside = streams.step(signatures.transition_fields(action, extras), next_timestep)
        if self._n_step == 1 and inside:
            values = (next_timestep.reward, next_timestep.discount)
            self._writer.create_item_in_each(self._table, streams.row - 1, 1, values=values)
            return
        if not inside:
            self._newest_first = max(streams.first.tolist())
        rewards, discounts = self._returns(next_timestep.reward, next_timestep.discount)
        steps = min(streams.row - self._newest_first, self._n_step)
        # Where an episode of one step ends, its item is the only one, too.
        if (inside and steps == self._n_step) or (self._single and (inside or steps == 1)):
            reward, discount = rewards[steps - 1], discounts[steps - 1]
            values = (np.array([reward]), np.array([discount])) if self._in_floats else (reward, discount)
            self._writer.create_item_in_each(self._table, streams.row - steps, steps, values=values)
        elif steps or not self._single:
            self._create_items(rewards, discounts)

    def reset(self) -> None:
        self._streams.drop()

    def save(self) -> dict[str, Any] | None:
        streams = self._streams.save()
        if streams is None:
            return None
        return {"streams": streams, "history": list(self._history), "newest_first": self._newest_first}

    def restore(self, state: dict[str, Any]) -> None:
        self._streams.restore(state["streams"])
        self._history.clear()
        self._history.extend(state["history"])
        self._newest_first = state["newest_first"]

    def _returns(self, reward: np.ndarray, discount: np.ndarray) -> tuple[list[Any], list[Any]]:
        """Returns [R of the last k steps] and [D of the last k steps] for k = 1, 2, ..., each a float or `[N]`.

        R_{k+1} = r + γ d R_k and D_{k+1} = γ d D_k, where r and d come from one step earlier.
        """
        if self._n_step == 1:
            return [reward], [discount]
        if self._in_floats:
            reward, discount = reward.item(), discount.item()
        else:
            reward, discount = np.asarray(reward, np.float64), np.asarray(discount, np.float64)
        newest = (reward, self._discount * discount)
        rewards, discounts = [reward], [discount]
        for earlier_reward, factor in self._history:
            reward = earlier_reward + factor * reward
            discount = factor * discount
            rewards.append(reward)
            discounts.append(discount)
        self._history.appendleft(newest)
        return rewards, discounts

    def _create_items(self, rewards: list[Any], discounts: list[Any]) -> None:
        """Creates the items of a step at which some streams are near the ends of their episodes."""
        row, first, ended = self._streams.row, self._streams.first, self._streams.ended
        longest = np.minimum(row - first, self._n_step)  # 0 where an episode has just begun
        most = len(rewards)
        steps = np.arange(most, 0, -1)[:, None]
        which, stream = ((steps == longest) | (ended & (steps < longest))).nonzero()
        if not which.size:
            return
        lengths = most - which
        by_step = (most, self._streams.num_streams)
        values = tuple(np.reshape(value, by_step)[lengths - 1, stream] for value in (rewards, discounts))
        self._writer.create_items(self._table, stream, row - lengths, lengths, values=values)
