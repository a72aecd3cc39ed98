"""What a node tells the supervisor: its state, how far it has come, that the program shall stop.

The two ends of a node's control socket speak lines of JSON. In a process that no supervisor started, reports go
nowhere.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from typing import Any

_MIN_PERIOD_SECONDS = 0.25

_lock = threading.Lock()  # of the socket: whoever has it may wait for the supervisor, so reports do not wait for it
_control: socket.socket | None = None
_last_report = float("-inf")


def attach(control: socket.socket) -> None:
    """Sends this process's reports to a socket from now on."""
    global _control, _last_report
    _control, _last_report = control, float("-inf")


def send(message: dict[str, Any]) -> None:
    """Sends a message to the supervisor, if there is one, and waits for a supervisor that reads nothing for a while."""
    with _lock:
        if _control is not None:
            with contextlib.suppress(OSError):  # the supervisor has gone, and its end of the socket ends this node
                _control.sendall(_encode(message))


def _encode(message: dict[str, Any]) -> bytes:
    return json.dumps(message).encode() + b"\n"


def report_status(
    *, steps: int | None = None, episode_return: float | None = None, seconds_left: float | None = None
) -> None:
    """Tells the supervisor's table how far this node has come; cheap enough to be called at every step.

    Reports that follow each other within a quarter of a second are left out, as are those for which the supervisor has
    no room, because it has been stopped (Ctrl-Z) or waits for its terminal (Ctrl-S).

    Args:
        steps: how many steps this node has made so far; the table shows the rate.
        episode_return: of the last episode.
        seconds_left: how long this node will take to finish.
    """
    global _last_report  # noqa: PLW0603  # one process is one node
    now = time.monotonic()
    if _control is None or now - _last_report < _MIN_PERIOD_SECONDS:
        return
    _last_report = now
    report = {"steps": steps, "episode_return": episode_return, "seconds_left": seconds_left}
    data = _encode({"report": {name: float(value) for name, value in report.items() if value is not None}})
    if not _lock.acquire(blocking=False):  # another thread waits for room
        return
    try:
        # A message this short is taken whole or not at all.
        with contextlib.suppress(OSError):
            _control.send(data, socket.MSG_DONTWAIT)
    finally:
        _lock.release()


def request_stop() -> None:
    """Asks the supervisor to stop the program; what `launchpad.stop()` does in a node."""
    send({"stop": True})


def say(text: str) -> None:
    """Prints a message in this node's log, and where the program was launched."""
    print(text, flush=True)
    send({"say": text})
