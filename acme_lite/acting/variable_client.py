"""Variables fetched in the background."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence

import jax

from acme_lite import core, types

_WAITS_PER_FETCH = 9
"""From one fetch to the next it is at least so many times as long as a fetch takes..."""
_LONGEST_ADDED_WAIT_SECONDS = 1.0
"""... or so long, if that is less: a fetch that waited for its source to come back is no reason to wait for minutes."""


class VariableClient:
    """A `core.VariableSource` that gives the newest variables fetched so far, and fetches them in a thread of its own.

    One client serves all actors of a process, so each set of variables comes over once. Whoever asks never waits, but
    for the first set. Where several names are fetched they come from one call, so they fit together.
    """

    def __init__(self, source: core.VariableSource, names: Sequence[str], *, update_period_seconds: float = 1.0):
        """Makes a client; the thread starts with the first call that asks.

        Args:
            source: where the variables are, usually a learner in another process.
            names: which variables to fetch.
            update_period_seconds: from the end of one fetch to the start of the next, at least 0; infinite for a fetch
                only where `fetch` is called. Where a fetch takes long, the next one waits nine times as long, or a
                second if that is less, so that large variables do not come over all the time.

        Raises:
            ValueError: there are no names, or the period is negative.
        """
        if not names:
            raise ValueError("names must hold at least one name, got none.")
        if not update_period_seconds >= 0:
            raise ValueError(f"update_period_seconds must be at least 0, got {update_period_seconds}.")
        self._source = source
        self._names = tuple(names)
        self._update_period_seconds = min(update_period_seconds, threading.TIMEOUT_MAX)
        self._variables: dict[str, types.ArrayTree] | None = None
        self._error: BaseException | None = None
        self._lock = threading.Lock()
        self._fetching = threading.Lock()
        self._closed = threading.Event()
        self._thread: threading.Thread | None = None

    def get_variables(self, names: Sequence[str]) -> list[types.ArrayTree]:
        """Returns the newest variables.

        Raises:
            KeyError: a name is not among those that the client fetches.
            RuntimeError: a fetch failed since the last call; its cause is the error. Fetching goes on.
        """
        if self._variables is None:
            self.fetch()
        if self._thread is None:
            self._start()
        if self._error is not None:
            error, self._error = self._error, None
            raise RuntimeError(f"Fetching the variables {list(self._names)} failed: {error}") from error
        variables = self._variables
        assert variables is not None
        try:
            return [variables[name] for name in names]
        except KeyError as error:
            raise KeyError(f"There is no variable {error} here; there are {sorted(self._names)}.") from None

    def fetch(self) -> None:
        """Fetches now, and returns when the newest variables are there; raises what the source raises."""
        # One at a time: what a fetch of the thread brings late must not take the place of newer variables.
        with self._fetching:
            values = self._source.get_variables(self._names)
            # On a device once, not at every call that acts.
            self._variables = dict(zip(self._names, jax.device_put(values), strict=True))

    def close(self) -> None:
        """Ends the thread; a fetch that is under way ends first, or dies with the process."""
        self._closed.set()

    def _start(self) -> None:
        with self._lock:
            if self._thread is None and not self._closed.is_set():
                self._thread = threading.Thread(target=self._run, name="variables", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        wait_seconds = self._update_period_seconds
        while not self._closed.wait(wait_seconds):
            begun = time.perf_counter()
            try:
                self.fetch()
            except Exception as error:  # whoever asks next hears of it
                self._error = error
            took_seconds = time.perf_counter() - begun
            wait_seconds = max(
                self._update_period_seconds, min(_WAITS_PER_FETCH * took_seconds, _LONGEST_ADDED_WAIT_SECONDS)
            )
