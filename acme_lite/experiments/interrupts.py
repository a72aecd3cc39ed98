"""Signals as a request, so that a run ends between two steps and not in the middle of one."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from types import FrameType, TracebackType
from typing import Any

_USUAL: dict[int, Any] = {
    signal.SIGINT: signal.default_int_handler,  # Ctrl-C
    signal.SIGTERM: signal.SIG_DFL,  # a scheduler wants the machine back
}
if hasattr(signal, "SIGHUP"):  # Windows has none
    _USUAL[signal.SIGHUP] = signal.SIG_DFL  # the terminal was closed


class Interrupt:
    """Takes the first Ctrl-C, SIGTERM or SIGHUP as a request, as a context manager; a second raises KeyboardInterrupt.

    It does nothing outside the main thread, nor for a signal that the program handles or ignores.

    Attributes:
        requested: the number of the first signal; None before.

    Args:
        message: written to standard error at the first signal, after its name; "" for nothing.
    """

    def __init__(self, message: str = ""):
        self.requested: int | None = None
        self._message = message
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if threading.current_thread() is threading.main_thread():
            for number, usual in _USUAL.items():
                if signal.getsignal(number) is usual:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        while self._previous:
            signal.signal(*self._previous.popitem())

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested is not None:
            raise KeyboardInterrupt
        self.requested = number
        if self._message:
            name = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
            with contextlib.suppress(OSError):  # its reader may have been ended by the same Ctrl-C
                os.write(2, f"\n{name}: {self._message}\n".encode())  # `print` may be what was interrupted


def exit_after(number: int | None) -> None:
    """Ends the process as a shell expects it after this signal; goes on after Ctrl-C, or where there was none.

    Raises:
        SystemExit: with code 128 + number.
    """
    if number is not None and number != signal.SIGINT:
        raise SystemExit(128 + number)
