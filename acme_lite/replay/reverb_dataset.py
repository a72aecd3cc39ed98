"""The datasets of a `ReverbReplay`: one that draws when it is asked, one that draws ahead in a thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import ModuleType
from typing import Any

import numpy as np

from acme_lite import _runtime, types
from acme_lite.replay import interface, tables
from acme_lite.replay.reverb_link import Link

_RETRY_SECONDS = 0.5
_NAP_SECONDS = 0.05
_LOOK_AROUND_SECONDS = 0.5
_NUM_WORKERS = 4
_SIGNATURE_SECONDS = 5


class ReverbDataset:
    """An `interface.Dataset` that draws exactly when it is asked, from a server in this process.

    Made by `ReverbReplay.dataset`. Iterate from one thread at a time.

    Attributes:
        source: see `tables.Table.source`.
        batch_size: B.
    """

    def __init__(self, link: Link, table: tables.Table, shape: tuple[int, ...], timeout_seconds: float | None):
        self.source = table.source(link)
        self.batch_size = shape[-1]
        self._link = link
        self._table = table
        self._shape = shape
        self._num_items = int(np.prod(shape))
        self._timeout_seconds = timeout_seconds
        self._drawn: interface.Sample | None = None
        self._closed = False

    def __iter__(self) -> ReverbDataset:
        return self

    def __next__(self) -> interface.Sample:
        self._link.wait(self._draw, self._timeout_seconds, self._describe)
        sample, self._drawn = self._drawn, None
        assert sample is not None
        return sample

    def ready(self) -> bool:
        self._check_open()
        return _can_sample(self._link, self._table, self._num_items)

    def due(self) -> bool:
        self._check_open()
        return _is_due(self._link, self._table, self._num_items)

    def update_priorities(self, info: interface.SampleInfo, priorities: types.ArrayTree) -> None:
        update_priorities(self._link, self._table, info.keys, priorities)

    def state(self) -> dict[str, Any]:
        """Returns nothing: a Reverb server draws with a generator of its own, which cannot be saved."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        self._closed = True

    def _check_open(self) -> None:
        if self._closed:
            raise interface.ClosedError("The dataset was closed.")

    def _draw(self) -> bool:
        """Draws a batch if the limiter gives one now."""
        link, name = self._link, self._table.name
        # Between the look at the counts and the draws nobody else of this process may draw.
        with link.draw_lock:
            self._check_open()
            counts = link.settled_counts()[name]
            if not link.can_sample(self._table, counts, self._num_items):
                return False
            sampler = link.client.NewSampler(name, self._num_items, self._num_items)
            items = [sampler.GetNextTrajectory() for _ in range(self._num_items)]
            link.note_taken(name, self._num_items)
        keys, probabilities, sizes, _, _, *columns = zip(*items, strict=True)
        # Twice as fast as `np.stack`.
        data = [np.concatenate(column).reshape(len(column), *column[0].shape) for column in columns]
        self._drawn = _make_sample(
            link, self._table, self._shape, np.array(keys), np.array(probabilities), int(sizes[0]), data
        )
        return True

    def _describe(self) -> str:
        return f"{self._num_items} items from {self._link.describe([self._table.name])}"


class PrefetchingReverbDataset:
    """An `interface.Dataset` that a thread fills from a server anywhere.

    Made by `ReverbReplay.dataset`. No more than two batches are drawn ahead, which the server's counts hold already:
    one lies here while the next is on its way, or two are on their way where a call takes several, whose others are
    drawn once it is asked for. It starts to draw when it is first asked for a sample or whether there is one. While the
    server is away it waits, and goes on when the server is back.

    What was drawn ahead is lost with `close`, also of a table whose items leave once they have been sampled. If it was
    waiting for the limiter, so is some of what comes next. Of a server elsewhere that is one item for each of its
    connections (one, or up to 4 where the order of the items does not matter): those end at once, but the server does
    not forget what it was asked for. Of a server in this process it is what one call gives, and so it is elsewhere of
    what comes before the server knows.

    Where the server is in this process, `ready` and `due` go by what was taken and not by what was drawn, so that a
    runner acts and learns in the same order as with a local replay: whatever the limiter would give to somebody who
    draws on demand is on its way to this thread. With a second dataset of the table, also once one of them was closed,
    that is not known: they share what the limiter gives, and each is ready when a sample lies here.

    Attributes:
        source: see `tables.Table.source`.
        batch_size: B.
    """

    def __init__(self, link: Link, table: tables.Table, shape: tuple[int, ...], timeout_seconds: float | None):
        self.source = table.source(link)
        self.batch_size = shape[-1]
        self._link = link
        self._table = table
        self._shape = shape
        self._num_items = int(np.prod(shape))
        self._num_ahead = min(self._num_items, 2 * shape[-1])
        self._waits_to_be_asked = len(shape) > 1
        self._asked = False
        self._timeout_seconds = timeout_seconds
        link.note_ahead(table.name, 1)
        self._changed = threading.Condition()
        self._drawn: interface.Sample | None = None
        self._generation: int | None = None  # of the link, when the thread was started
        self._error: Exception | None = None
        self._cancellation = _eager("cancellation").CancellationManager()
        self._closed = False

    def __iter__(self) -> PrefetchingReverbDataset:
        return self

    def __next__(self) -> interface.Sample:
        if not self._has_drawn():
            self._link.send()
            self._link.wait(self._has_drawn, self._timeout_seconds, self._describe, self._pause)
        if self._link.plans(self._table):
            self._link.note_taken(self._table.name, self._num_items)
        with self._changed:
            sample, self._drawn = self._drawn, None
            self._asked = False
            self._changed.notify_all()
        assert sample is not None
        return sample

    def ready(self) -> bool:
        plans = self._link.plans(self._table)
        return self._has_drawn() or (plans and _can_sample(self._link, self._table, self._num_items))

    def due(self) -> bool:
        plans = self._link.plans(self._table)
        return _is_due(self._link, self._table, self._num_items) if plans else self.ready()

    def update_priorities(self, info: interface.SampleInfo, priorities: types.ArrayTree) -> None:
        update_priorities(self._link, self._table, info.keys, priorities)

    def state(self) -> dict[str, Any]:
        """Returns nothing: a Reverb server draws with a generator of its own, which cannot be saved."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        pass

    def close(self) -> None:
        with self._changed:
            if not self._closed and self._generation is None:
                self._link.note_ahead(self._table.name, -1)
            self._closed = True
            self._changed.notify_all()
        if not self._link.has_server:  # one in this process takes up to 3 s, and holds Python's lock meanwhile
            self._cancellation.start_cancel()

    def _has_drawn(self) -> bool:
        self._start()
        if self._error is not None:
            raise RuntimeError(f"Sampling from {self._link.describe([self._table.name])} failed.") from self._error
        if self._drawn is None and not self._asked:
            with self._changed:
                self._asked = True
                self._changed.notify_all()
        return self._drawn is not None

    def _start(self) -> None:
        """Starts the thread; anew where the server was replaced, as one that waits for the old server may never end."""
        if self._closed:
            raise interface.ClosedError("The dataset was closed.")
        generation = self._link.generation
        if self._generation != generation:
            self._generation = generation
            with self._changed:
                self._drawn = None
                self._changed.notify_all()
            threading.Thread(target=self._run, args=(generation,), name="reverb-dataset", daemon=True).start()

    def _run(self, generation: int) -> None:
        while self._is_wanted(generation):
            try:
                self._fill(generation)
            except Exception as error:
                if not _is_transient(error):
                    self._error = error  # raised again in `ready`
                    return
                with self._changed:
                    self._changed.wait_for(lambda: not self._is_wanted(generation), _RETRY_SECONDS)

    def _is_wanted(self, generation: int) -> bool:
        return not self._closed and not self._link.closed and self._generation == generation

    def _fill(self, generation: int) -> None:
        """Draws until no more is wanted; the connections end with this call."""
        draw = self._make_draw()
        while self._may_draw(generation) and self._hand_over(draw(), generation):
            pass

    def _may_draw(self, generation: int) -> bool:
        """Waits until a call is asked for, where it takes several batches; returns whether more are wanted."""
        with self._changed:
            while self._waits_to_be_asked and not self._asked and self._is_wanted(generation):
                self._changed.wait(_LOOK_AROUND_SECONDS)
        return self._is_wanted(generation)

    def _make_draw(self) -> Callable[[], list[np.ndarray]]:
        """Returns a function that draws what one call gives, in columns; `close` makes it fail with CancelledError."""
        import reverb

        tensorflow = _runtime.import_extra("tensorflow", "distributed", "A Reverb replay")
        # Several would mix up the order of a queue; beside the server one is fast enough, and costs least.
        is_ordered = isinstance(self._table.sampler, (tables.Fifo, tables.Lifo))
        num_workers = 1 if is_ordered or self._link.has_server else min(_NUM_WORKERS, self._num_ahead)
        try:
            source = reverb.TrajectoryDataset.from_table_signature(
                self._link.address,
                self._table.name,
                max_in_flight_samples_per_worker=self._num_ahead // num_workers,
                num_workers_per_iterator=num_workers,
                get_signature_timeout_secs=_SIGNATURE_SECONDS,
            )
        except RuntimeError as error:
            raise ConnectionError(f"the server ended while it was asked for a table: {error}") from error
        # TensorFlow's own threads and tuning take a fifth of the time of items as small as these.
        options = tensorflow.data.Options()
        options.threading.private_threadpool_size = 1
        options.autotune.enabled = False
        options.experimental_optimization.apply_default_optimizations = False
        batches = source.batch(self._num_items).with_options(options)
        specs = tensorflow.nest.flatten(batches.element_spec)
        attributes = ("output_types", [one.dtype for one in specs], "output_shapes", [one.shape for one in specs])
        execute, context = _eager("execute").execute_with_cancellation, _eager("context").context()
        iterator = iter(batches)

        def draw() -> list[np.ndarray]:
            # What `next` of the iterator does, which knows of no cancellation; in a `tensorflow.function` small batches
            # would take twice as long.
            columns = execute(
                "IteratorGetNext",
                len(specs),
                inputs=[iterator._iterator_resource],
                attrs=attributes,
                ctx=context,
                cancellation_manager=self._cancellation,
            )
            return [np.asarray(column) for column in columns]

        return draw

    def _hand_over(self, columns: list[np.ndarray], generation: int) -> bool:
        """Puts a sample where `__next__` takes it; returns whether more are wanted."""
        keys, probabilities, sizes, _, _, *data = columns
        made = _make_sample(self._link, self._table, self._shape, keys, probabilities, int(sizes[0]), data)
        with self._changed:
            if self._is_wanted(generation):
                self._drawn = made
                self._changed.notify_all()
                # Whoever closes the replay, or restores it, does not know of this thread.
                while self._drawn is not None and self._is_wanted(generation):
                    self._changed.wait(_LOOK_AROUND_SECONDS)
        return self._is_wanted(generation)

    def _pause(self, _: float) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._drawn is not None or self._closed, _NAP_SECONDS)

    def _describe(self) -> str:
        return f"{self._num_items} items from {self._link.describe([self._table.name])}"


def _can_sample(link: Link, table: tables.Table, num_items: int) -> bool:
    """Whether the limiter gives so many items now, or as soon as those that writers here have created arrive."""
    if not link.plans(table):
        return link.can_sample(table, link.settled_counts()[table.name], num_items)
    if not table.limiter.can_sample(link.planned(table), num_items):
        link.counts()  # others may have inserted
    return table.limiter.can_sample(link.planned(table), num_items)


def _is_due(link: Link, table: tables.Table, num_items: int) -> bool:
    if link.plans(table):
        return table.limiter.due(link.planned(table), num_items)
    counts = link.settled_counts()[table.name]
    return table.limiter.due(counts, num_items) and link.can_sample(table, counts, num_items)


def _is_transient(error: Exception) -> bool:
    """Whether an error is one of a server that is away or ends, or of a dataset that is closed."""
    from reverb import errors as reverb_errors

    errors = _runtime.import_extra("tensorflow", "distributed", "A Reverb replay").errors
    known = (errors.CancelledError, errors.UnavailableError, errors.OutOfRangeError)
    if isinstance(error, (ConnectionError, reverb_errors.DeadlineExceededError, *known)):
        return True
    # As TensorFlow calls it where the operation is none that communicates: the iterator is made as the server ends.
    return isinstance(error, errors.InternalError) and "UnavailableError" in str(error)


def _eager(name: str) -> ModuleType:
    """Returns a module of how TensorFlow calls its operations; what it exports has no cancellation."""
    return _runtime.import_extra(f"tensorflow.python.eager.{name}", "distributed", "A Reverb replay")


def _make_sample(
    link: Link,
    table: tables.Table,
    shape: tuple[int, ...],
    keys: np.ndarray,
    probabilities: np.ndarray,
    table_size: int,
    columns: Any,
) -> interface.Sample:
    info = interface.SampleInfo(keys.view(np.int64).reshape(shape), probabilities.reshape(shape), table_size)
    return interface.Sample(link.layout.unpack(table.items, columns, shape), info)


def update_priorities(link: Link, table: tables.Table, keys: np.ndarray, priorities: types.ArrayTree) -> None:
    """Sets priorities by key, int64 or uint64."""
    keys = np.asarray(keys)
    checked = table.check_priorities(np.asarray(priorities))
    if keys.shape != checked.shape:
        raise ValueError(f"priorities must have the shape of the keys {keys.shape}, got {checked.shape}.")
    if not isinstance(table.sampler, tables.Prioritized):
        return
    names = keys.astype(np.int64, copy=False).view(np.uint64) if keys.dtype != np.uint64 else keys
    updates = list(zip(names.ravel().tolist(), checked.ravel().tolist(), strict=True))
    link.call(lambda: link.client.MutatePriorities(table.name, updates, []), "set priorities")
