"""Finding and killing what a process has started, also where that leads groups and sessions of its own.

Parents are read from `/proc`. A process whose parent dies goes to the nearest living ancestor that is a subreaper:
nodes are, so what they have started stays below them, and so is the zygote, to which it goes when a node dies.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import time

_PR_SET_CHILD_SUBREAPER = 36
_ZOMBIE = "Z"
_KILLING_SECONDS = 5.0


def adopt_orphans() -> None:
    """Makes this process the parent of those descendants whose own parents die."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children() -> dict[int, list[int]]:
    """Returns process id -> ids of its children that have not ended, for all processes."""
    found: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                with open(f"/proc/{name}/stat", encoding="utf-8", errors="replace") as file:
                    state, parent = file.read().rpartition(")")[2].split()[:2]
                if state != _ZOMBIE:
                    found.setdefault(int(parent), []).append(int(name))
    return found


def descendants(pid: int) -> list[int]:
    """Returns the processes that a process has started, and those that these have, and so on."""
    known, found = children(), [pid]
    for each in found:
        found += known.get(each, ())
    return found[1:]


def kill_group(pid: int) -> None:
    """Kills a process and the group that it leads."""
    for kill in (os.kill, os.killpg):  # it may lead none yet
        with contextlib.suppress(ProcessLookupError, PermissionError):
            kill(pid, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """Kills a process and its descendants, each with the group that it leads."""
    for each in (pid, *descendants(pid)):
        kill_group(each)


def kill_descendants() -> None:
    """Kills what a subreaper has started; gives up after some seconds on what it may not kill."""
    deadline = time.monotonic() + _KILLING_SECONDS
    while (left := descendants(os.getpid())) and time.monotonic() < deadline:
        for pid in left:
            kill_group(pid)
        time.sleep(0.01)
