"""How a node's waits end when its program stops."""

from __future__ import annotations

import concurrent.futures
import contextlib
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

from acme_lite import launching, replay
from acme_lite.launching import calls

_POLL_SECONDS = 0.2
_GONE_SECONDS = 2.0


def answer(future: concurrent.futures.Future[Any], server: Any) -> Any:
    """Waits for a node's answer while the program stops: as long as something listens there, since nobody comes back.

    Raises:
        ProgramStoppedError: the node is gone.
    """
    heard = time.monotonic()
    while True:
        try:
            return future.result(_POLL_SECONDS)
        except concurrent.futures.TimeoutError:
            if future.done():
                return future.result()  # perhaps the node's own TimeoutError
        if calls.is_served(server):
            heard = time.monotonic()
        elif time.monotonic() - heard > _GONE_SECONDS:
            future.cancel()
            raise launching.ProgramStoppedError(f"the program stops, and nobody is left to answer ({server})")


def flush(writer: replay.Writer, stop: threading.Event) -> None:
    """Waits until the limiter has let in all items, or the program stops."""
    while not stop.is_set():
        with contextlib.suppress(TimeoutError):
            return writer.flush(_POLL_SECONDS)


@contextlib.contextmanager
def closing_on_stop(waited_for: replay.Replay | replay.Dataset, stop: threading.Event) -> Iterator[None]:
    """Closes a replay or a dataset when the program stops: whoever waits for it in this process gets an error."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.is_set():
            if stop.wait(_POLL_SECONDS):
                waited_for.close()
                return

    thread = threading.Thread(target=watch, name="stop", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
        waited_for.close()


@contextlib.contextmanager
def until_stop(stop: threading.Event) -> Iterator[None]:
    """Ends what the program's stopping interrupts: a wait for samples, or for another node."""
    try:
        yield
    except (replay.ClosedError, launching.ProgramStoppedError):
        if not stop.is_set():
            raise


@contextlib.contextmanager
def quiet_end(stop: threading.Event) -> Iterator[None]:
    """Notes errors in the log, and no more, once the program stops: whoever has nothing to leave has lost nothing."""
    try:
        yield
    except Exception as error:
        if not stop.is_set():
            raise
        print(f"ended by the stop of the program: {type(error).__name__}: {error}", file=sys.stderr)
