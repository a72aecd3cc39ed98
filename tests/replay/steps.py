"""Steps whose contents tell which they are, and tables for them."""

from __future__ import annotations

import numpy as np

from acme_lite import replay, specs

OBSERVATION = specs.Array((2,), np.float32)
ACTION = specs.DiscreteArray(1000, np.int32)


def transition_signature():
    return replay.Signature(OBSERVATION, {"action": ACTION})


def sequence_signature():
    scalar = specs.Array((), np.float32)
    return replay.Signature(
        OBSERVATION,
        {"action": ACTION, "reward": scalar, "discount": scalar, "mask": specs.Array((), np.bool_)},
    )


def transition_table(max_size=100, *, n_step=1, **kwargs):
    return replay.Table("replay", max_size, transition_signature(), replay.Transitions(n_step), **kwargs)


def sequence_table(max_size=100, *, length=4, period=2, **kwargs):
    return replay.Table("replay", max_size, sequence_signature(), replay.Sequences(length, period), **kwargs)


class Steps:
    """Writes rows (stream's name, row's number) whose action is the number modulo 1000 + 1, and transitions of them.

    Streams are named first_stream, first_stream + 1, ...; the reward of an item is its number, from `first_item` on.
    """

    def __init__(self, writer, *, first_stream=0, table="replay"):
        self.writer = writer
        self.table = table
        self.names = np.arange(first_stream, first_stream + writer.num_streams)
        self.num_items = 0
        self.row = self.append()

    def append(self, fields=None):
        number = getattr(self, "row", -1) + 1
        observation = np.stack([self.names, np.full_like(self.names, number)], axis=1).astype(np.float32)
        self.row = self.writer.append(observation, fields)
        assert self.row == number
        return number

    def fields(self):
        num = len(self.names)
        action = np.full(num, self.row % 1000 + 1, np.int32)
        if self.table_has_rewards:
            reward = np.full(num, self.row, np.float32)
            return {"action": action, "reward": reward, "discount": reward + 1, "mask": np.ones(num, np.bool_)}
        return {"action": action}

    table_has_rewards = False

    def step(self):
        if self.row % 2:  # both ways
            self.writer.complete(self.fields())
            self.append()
        else:
            self.append(self.fields())

    def transitions(self, count=1, *, priorities=None):
        """Takes steps; after each, creates the transition of one step in every stream."""
        num = len(self.names)
        for _ in range(count):
            self.step()
            rewards = np.arange(self.num_items, self.num_items + num, dtype=np.float32)
            self.num_items += num
            self.writer.create_items(
                self.table,
                np.arange(num),
                np.full(num, self.row - 1),
                np.ones(num, np.int64),
                priorities=None if priorities is None else np.full(num, priorities),
                values=(rewards, rewards + 0.5),
            )


def numbers(sample):
    """Returns which transitions a sample holds, in the order in which one writer of one stream created them."""
    return np.asarray(sample.data.reward).astype(int).tolist()
