"""How rows and items are packed for a Reverb server, whose costs are per column and per item.

A transition is one array of bytes: source observation, action, extras, reward, discount, next observation. A row of a
sequence is one array of bytes, and an item a run of them. The frames of `specs.FrameStack` leaves stand in a column of
their own, once per row, and an item refers to those that its stacks are made of. What a sequence holds of its first row
alone (`tables.Sequences.start`) is one array of bytes in the item's last column. A batch is unpacked at once.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from acme_lite import specs, types
from acme_lite.replay import tables
from acme_lite.replay.rows import Columns, tree_functions

_AGE, _NEXT_AGE = "age", "next_age"


class Layout:
    """The layout of all tables of a replay.

    Attributes:
        row: dtype of a row: the observation without stacks of frames, the fields, and, where there are stacks, its
            age: the rows since its episode's first, no more than the longest stack needs.
        frame: dtype of the newest frames of a row; no bytes where there are no stacks.
        stack: frames of the largest stack; 0 without any.
        window: rows of a stream that a writer keeps so that any item can be created.
        transition: dtype of a transition.

    Args:
        declarations: tables with equal signatures.
    """

    def __init__(self, declarations: Sequence[tables.Table]):
        signature = declarations[0].signature
        self._observation = signature.observation
        leaves: list[Any]
        leaves, self._treedef = jax.tree.flatten(signature.observation)
        self._stacks = {i: leaf.shape[0] for i, leaf in enumerate(leaves) if isinstance(leaf, specs.FrameStack)}
        self._num_leaves = len(leaves)
        self._flatten, _ = tree_functions(signature.observation)
        self.stack = max(self._stacks.values(), default=0)
        self.window = max(table.items.window for table in declarations)
        first = [name for name in ("action", "extras") if name in signature.fields]
        self._field_names = first + [name for name in signature.fields if name not in first]
        self._field_specs = dict(signature.fields)
        self._field_flattens = {name: tree_functions(spec)[0] for name, spec in signature.fields.items()}
        self._field_trees = {name: jax.tree.structure(spec) for name, spec in signature.fields.items()}
        columns = {
            name: [(f"{name}.{i}", leaf.dtype, leaf.shape) for i, leaf in enumerate(jax.tree.leaves(spec))]
            for name, spec in signature.fields.items()
        }
        plain = [(i, leaf.dtype, leaf.shape) for i, leaf in enumerate(leaves) if i not in self._stacks]
        observation: list[Any] = [(f"o{i}", dtype, shape) for i, dtype, shape in plain]
        head = observation + [column for name in first for column in columns[name]]
        rest = [column for name in self._field_names if name not in first for column in columns[name]]
        self.frame = np.dtype([(f"o{i}", leaves[i].dtype, leaves[i].shape[1:]) for i in self._stacks])
        self.row = np.dtype(head + rest + [(_AGE, np.int32, ())] * bool(self.stack))
        self.transition = np.dtype(
            head
            + [("reward", np.float32, ()), ("discount", np.float32, ())]
            + [(_AGE, np.int32, ()), (_NEXT_AGE, np.int32, ())] * bool(self.stack)
            + [(f"n{i}", dtype, shape) for i, dtype, shape in plain]
        )
        # A row begins with what a transition begins with, so that it is copied in one piece.
        self._head_bytes = np.dtype(head).itemsize
        self._observation_bytes = np.dtype(observation).itemsize

    def columns(self, items: tables.Transitions | tables.Sequences) -> list[tuple[int, ...]]:
        """Returns the shapes of the columns of bytes of one item."""
        columns: list[tuple[int, ...]]
        if isinstance(items, tables.Transitions):
            columns, num_frames = [(self.transition.itemsize,)], 2 * self.stack
        else:
            columns, num_frames = [(items.length, self.row.itemsize)], items.length + self.stack - 1
        if self.stack:
            columns.append((num_frames, self.frame.itemsize))
        start = start_dtype(items)
        return [*columns, (start.itemsize,)] if start.itemsize else columns

    def fingerprint(self, items: tables.Transitions | tables.Sequences) -> str:
        """Returns a short hash of the dtypes and shapes that an item's columns of bytes stand for."""
        rows = self.transition if isinstance(items, tables.Transitions) else self.row
        dtypes = [dtype.descr for dtype in (rows, self.frame, start_dtype(items)) if dtype.names]
        return f"{zlib.crc32(repr(dtypes).encode()):08x}"

    def item_bytes(self, items: tables.Transitions | tables.Sequences) -> int:
        """Returns the bytes that an item adds to a table of long episodes, before compression."""
        if isinstance(items, tables.Transitions):
            return self.transition.itemsize + self.frame.itemsize
        return items.period * (self.row.itemsize + self.frame.itemsize) + start_dtype(items).itemsize

    def check_observation(self, observation: types.ArrayTree, num_streams: int) -> None:
        """Raises ValueError unless an observation has the structure and the shapes `[N, ...]` of its spec."""
        Columns("observation", self._observation, 1, {s: np.zeros((1, s), int) for s in self._stacks.values()}).check(
            observation, num_streams
        )

    def check_fields(self, fields: types.ArrayTree, num_streams: int) -> None:
        """Raises ValueError unless the fields have the names, structures and shapes `[N, ...]` of their specs."""
        if set(fields) != set(self._field_specs):
            raise ValueError(f"fields must hold {sorted(self._field_specs)}, got {sorted(fields)}.")
        for name, spec in self._field_specs.items():
            Columns(name, spec, 1, {}).check(fields[name], num_streams)

    def observation_writer(self, rows: np.ndarray, frames: np.ndarray) -> Callable[[int, types.ArrayTree], None]:
        """Returns a function that writes `[N, ...]` observations into a row of records `[rows, N]`.

        The newest frames of stacks go into the records of frames.
        """
        plain = [(i, rows[f"o{i}"]) for i in range(self._num_leaves) if i not in self._stacks]
        newest = [(i, frames[f"o{i}"]) for i in self._stacks]

        def write(row: int, observation: types.ArrayTree) -> None:
            leaves = self._flatten(observation)
            for i, column in plain:
                column[row] = leaves[i]
            for i, column in newest:
                column[row] = leaves[i][:, -1]

        return write

    def fields_writer(self, rows: np.ndarray) -> Callable[[int, types.ArrayTree], None]:
        """Returns a function that writes `[N, ...]` fields into a row of records `[rows, N]`."""
        columns = [
            (name, flatten, [rows[column] for column in rows.dtype.names or () if column.startswith(f"{name}.")])
            for name, flatten in self._field_flattens.items()
        ]

        def write(row: int, fields: types.ArrayTree) -> None:
            for name, flatten, arrays in columns:
                for array, leaf in zip(arrays, flatten(fields[name]), strict=True):
                    array[row] = leaf

        return write

    def clear_fields(self, rows: np.ndarray, mask: np.ndarray) -> None:
        """Sets the fields of the records where `mask` `[N]` to zero."""
        for name in self.row.names or ():
            if "." in name:
                rows[name][mask] = 0

    def transition_writer(self, packed: np.ndarray) -> Callable[[slice, np.ndarray, np.ndarray, types.ArrayTree], None]:
        """Returns a function that writes N transitions into records `[M, bytes]`.

        It takes which of the records, the `[N, bytes]` rows between which the transitions lie, and their `[N]` rewards
        and discounts.
        """
        records = packed.view(self.transition)[:, 0]
        rewards, discounts = records["reward"], records["discount"]
        heads, tails = packed[:, : self._head_bytes], packed[:, packed.shape[1] - self._observation_bytes :]
        head, tail = slice(self._head_bytes), slice(self._observation_bytes)

        def write(where: slice, first: np.ndarray, last: np.ndarray, values: types.ArrayTree) -> None:
            heads[where] = first[:, head]
            tails[where] = last[:, tail]
            rewards[where], discounts[where] = values
            if self.stack:
                records[_AGE][where] = first.view(self.row)[:, 0][_AGE]
                records[_NEXT_AGE][where] = last.view(self.row)[:, 0][_AGE]

        return write

    def unpack(
        self, items: tables.Transitions | tables.Sequences, columns: Sequence[np.ndarray], shape: tuple[int, ...]
    ) -> types.Transition | types.Sequence:
        """Returns a batch `[*shape, ...]` from columns `[prod(shape), ...]` of bytes."""
        columns = [np.ascontiguousarray(column) for column in columns]
        frames = columns[1].view(self.frame)[..., 0] if self.stack else None
        if isinstance(items, tables.Transitions):
            return self._unpack_transitions(columns[0].view(self.transition)[..., 0], frames, shape)
        start = start_dtype(items)
        starts = columns[-1].view(start)[..., 0] if start.itemsize else None
        sequence = self._unpack_sequences(columns[0].view(self.row)[..., 0], frames, shape)
        leaves = [] if starts is None else [_owned(starts[name], shape) for name in start.names or ()]
        return sequence._replace(start=jax.tree.unflatten(jax.tree.structure(items.start), leaves))

    def _unpack_transitions(
        self, records: np.ndarray, frames: np.ndarray | None, shape: tuple[int, ...]
    ) -> types.Transition:
        def observation(prefix: str, age: str) -> types.ArrayTree:
            leaves = []
            for i in range(self._num_leaves):
                if i in self._stacks:
                    assert frames is not None
                    back = np.minimum(np.arange(self._stacks[i] - 1, -1, -1), records[age][:, None])
                    # The first stack's frames have the newest last, the second's have it first.
                    which = self.stack - 1 - back if age == _AGE else self.stack + back
                    leaf = frames[f"o{i}"][np.arange(len(records))[:, None], which]
                else:
                    leaf = records[f"{prefix}{i}"]
                leaves.append(_owned(leaf, shape))
            return jax.tree.unflatten(self._treedef, leaves)

        return types.Transition(
            observation=observation("o", _AGE),
            action=self._field("action", records, shape),
            reward=_owned(records["reward"], shape),
            discount=_owned(records["discount"], shape),
            next_observation=observation("n", _NEXT_AGE),
            extras=self._field("extras", records, shape) if "extras" in self._field_specs else (),
        )

    def _unpack_sequences(
        self, records: np.ndarray, frames: np.ndarray | None, shape: tuple[int, ...]
    ) -> types.Sequence:
        leaves = []
        for i in range(self._num_leaves):
            if i in self._stacks:
                assert frames is not None
                back = np.arange(self._stacks[i] - 1, -1, -1)
                steps = np.arange(records.shape[1])[:, None]
                # [B, T, stack] which of the item's frames: none from before the row's episode.
                which = self.stack - 1 + steps - np.minimum(back, records[_AGE][..., None])
                leaf = frames[f"o{i}"][np.arange(len(records))[:, None, None], which]
            else:
                leaf = records[f"o{i}"]
            leaves.append(_owned(leaf, shape))
        fields = {name: self._field(name, records, shape) for name in self._field_names}
        return types.Sequence(
            observation=jax.tree.unflatten(self._treedef, leaves),
            action=fields["action"],
            reward=fields["reward"],
            discount=fields["discount"],
            mask=fields["mask"],
            extras=fields.get("extras", ()),
        )

    def _field(self, name: str, records: np.ndarray, shape: tuple[int, ...]) -> types.ArrayTree:
        treedef: Any = self._field_trees[name]
        leaves = [_owned(records[f"{name}.{i}"], shape) for i in range(treedef.num_leaves)]
        return jax.tree.unflatten(treedef, leaves)


def start_dtype(items: tables.Transitions | tables.Sequences) -> np.dtype:
    """Returns the dtype of what an item holds of its first row alone; it has no bytes where there is nothing."""
    leaves = jax.tree.leaves(getattr(items, "start", ()))
    return np.dtype([(f"s{i}", leaf.dtype, leaf.shape) for i, leaf in enumerate(leaves)])


def pack_starts(items: tables.Sequences, leaves: Sequence[np.ndarray], num_items: int) -> np.ndarray:
    """Returns `[M, bytes]` of the leaves `[M, ...]` of what sequences hold of their first rows alone."""
    dtype = start_dtype(items)
    records = np.empty(num_items, dtype)
    for name, leaf in zip(dtype.names or (), leaves, strict=True):
        records[name] = leaf
    return records.view(np.uint8).reshape(num_items, -1) if dtype.itemsize else np.empty((num_items, 0), np.uint8)


def _owned(column: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Returns a contiguous copy `[*shape, ...]` of a column `[prod(shape), ...]`."""
    return np.array(column, order="C").reshape(*shape, *column.shape[1:])
