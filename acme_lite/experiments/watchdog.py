"""Who says what a part of a program waits for."""

from __future__ import annotations

import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType

_MOST_FRAMES = 4


class Watchdog:
    """Says, while a thread is getting nothing done, what it waits for, and where in the code.

    A context manager, of the thread that it watches.

    Args:
        name: who is watched.
        waits_for: what for at first.
        seconds: how long it may wait before this is said, and said again.
        say: takes a message.
        describe: returns what else is of use, such as the limiter's counts, or raises if it does not know soon.
        beat: called every tenth of that time, as a sign of the process's life; must not wait.
    """

    def __init__(
        self,
        name: str,
        waits_for: str,
        *,
        seconds: float,
        say: Callable[[str], None],
        describe: Callable[[], str],
        beat: Callable[[], None] = lambda: None,
    ):
        self._name, self._seconds, self._say, self._describe = name, seconds, say, describe
        self._beat = beat
        self._done = waits_for, time.monotonic()
        self._watched = threading.get_ident()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()

    def done(self, waits_for: str) -> None:
        """Notes that something got done, and what is waited for now; cheap enough for every step."""
        self._done = waits_for, time.monotonic()

    def waiting(self, waits_for: str) -> None:
        """Notes what is waited for now, without anything done; since when is kept while it is the same."""
        if waits_for != self._done[0]:
            self.done(waits_for)

    def _watch(self) -> None:
        said = time.monotonic()
        while not self._ended.wait(self._seconds / 10):
            self._beat()
            waits_for, since = self._done
            now = time.monotonic()
            if now - max(since, said) >= self._seconds:
                said = now
                self._say(f"{self._name} has waited {now - since:.0f} s for {waits_for}, in {self._place()}.")
                self._say(f"{self._name} waits. {self._description()}")

    def _description(self) -> str:
        try:
            return self._describe()
        except Exception as error:  # whoever is asked may be what is waited for
            return f"How far the program has come is not known ({type(error).__name__}: {error})."

    def _place(self) -> str:
        """Returns where the watched thread is, innermost function first."""
        frame = sys._current_frames().get(self._watched)  # documented, in spite of its name
        calls = reversed(traceback.extract_stack(frame)[-_MOST_FRAMES:])
        return " < ".join(f"{call.name} ({call.filename.rpartition('/')[2]}:{call.lineno})" for call in calls)
