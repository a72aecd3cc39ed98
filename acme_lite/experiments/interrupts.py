"""Ctrl-C as a request, so that a run ends between two steps and not in the middle of one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupt:
    """Takes the first Ctrl-C as a request and gives the second its usual meaning, as a context manager.

    It does nothing outside the main thread, and where the program has a handler of its own.

    Attributes:
        requested: whether Ctrl-C was pressed.

    Args:
        message: written to standard error at the first Ctrl-C; "" for nothing.
    """

    def __init__(self, message: str = ""):
        self.requested = False
        self._message = message
        self._previous: Any = None

    def __enter__(self) -> Interrupt:
        is_main = threading.current_thread() is threading.main_thread()
        if is_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True
        if self._message:
            with contextlib.suppress(OSError):  # its reader may have been ended by the same Ctrl-C
                os.write(2, f"\n{self._message}\n".encode())  # `print` may be what was interrupted
