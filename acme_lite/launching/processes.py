"""Starting the processes of nodes on this machine, by fork from a zygote or as fresh Pythons."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Collection
from typing import Protocol

from acme_lite.launching import child, process_trees, zygote

_LOGGER = logging.getLogger(__name__)

# What nodes may use and takes long to import; the zygote imports what the launcher itself has imported.
_HEAVY = ("jax", "haiku", "optax", "rlax", "chex", "gymnasium", "reverb")
_ENDING_SECONDS = 5.0  # between the end-of-file of a process that ends, and its end


@dataclasses.dataclass(frozen=True)
class Event:
    """What has become of a node's process.

    Attributes:
        name: of the node.
        pid: of its process, when it has started.
        returncode: how it has ended (negative: by which signal), when it has.
        reason: why it has ended, where that is known and stands in no log of its own.
        failed_to_start: whether it could not be started this way, and another is to be tried.
    """

    name: str
    pid: int | None = None
    returncode: int | None = None
    reason: str = ""
    failed_to_start: bool = False


def describe_end(returncode: int) -> str:
    """Returns how a process has ended, for people."""
    return f"killed by {signal.Signals(-returncode).name}" if returncode < 0 else f"exited with status {returncode}"


def _unstarted(name: str, error: object) -> Event:
    return Event(name, returncode=1, reason=f"its process could not be started: {error}")


class Starter(Protocol):
    """Starts processes and says what becomes of them; where they run is its own affair."""

    def start(self, process: child.NodeProcess, control: socket.socket, payload: int, log: int) -> None:
        """Starts a process in a session of its own; control socket and descriptors stay the caller's to close."""

    def events(self) -> list[Event]:
        """Returns what has happened since the last call, without waiting."""

    def close(self) -> None:
        """Kills what still runs."""


class Spawner:
    """Starts a fresh Python for each node."""

    def __init__(self) -> None:
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._started: list[Event] = []

    def start(self, process: child.NodeProcess, control: socket.socket, payload: int, log: int) -> None:
        try:
            popen = subprocess.Popen(
                child.command("child", process.to_json(), control.fileno(), payload),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(control.fileno(), payload),
                env={**os.environ, **process.environment},
                start_new_session=True,
            )
        except OSError as error:  # too many processes, or too little memory
            self._started.append(_unstarted(process.name, error))
            return
        self._running[process.name] = popen
        self._started.append(Event(process.name, pid=popen.pid))

    def events(self) -> list[Event]:
        events, self._started = self._started, []
        for name, popen in list(self._running.items()):
            if (ended := zygote.reap(popen.pid)) is not None:
                popen.returncode = ended[1]  # Popen would wait for a process that has been waited for
                del self._running[name]
                events.append(Event(name, returncode=ended[1]))
        return events

    def close(self) -> None:
        for popen in self._running.values():
            process_trees.kill_tree(popen.pid)
            popen.wait()
        self._running.clear()


class Zygote:
    """Starts nodes as forks of a process that has imported everything; see `zygote`.

    Args:
        log: file to which the zygote's own output goes.
        imports: modules to import even if the launcher has not.
    """

    def __init__(self, log: pathlib.Path, imports: Collection[str] = ()):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        modules = [name for name in _HEAVY if name in sys.modules or name in imports]
        modules += sorted(name for name in sys.modules if name.split(".")[0] == "acme_lite")
        modules += [*sorted(set(imports) - set(modules)), "cloudpickle", "grpc", "launchpad"]
        # BLAS starts its threads when it is imported, and forks must copy none.
        one_thread = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL")}
        with theirs, log.open("ab") as file:
            self._popen = subprocess.Popen(
                child.command("zygote", theirs.fileno(), *modules),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                pass_fds=(theirs.fileno(),),
                env={"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ, **one_thread, "GRPC_ENABLE_FORK_SUPPORT": "0"},
                start_new_session=True,
            )
        self._socket = ours
        self._log = log
        self._pids: dict[str, int] = {}
        self._waiting: set[str] = set()
        self.alive = True

    def start(self, process: child.NodeProcess, control: socket.socket, payload: int, log: int) -> None:
        self._waiting.add(process.name)
        with contextlib.suppress(OSError):  # it has gone; the end-of-file tells
            socket.send_fds(self._socket, [process.to_json().encode()], [control.fileno(), payload, log])

    def events(self) -> list[Event]:
        events: list[Event] = []
        while True:
            try:
                message = self._socket.recv(zygote.MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return events
            except OSError:
                message = b""
            if not message:
                return events + self._gone()
            event = json.loads(message)
            if "threads" in event:
                _LOGGER.warning("nodes are not forked: importing started %d threads", event["threads"])
            elif "started" in event:
                self._waiting.discard(event["started"])
                self._pids[event["started"]] = event["pid"]
                events.append(Event(event["started"], pid=event["pid"]))
            elif "unstarted" in event:
                self._waiting.discard(event["unstarted"])
                events.append(_unstarted(event["unstarted"], event["error"]))
            elif "exited" in event:
                del self._pids[event["exited"]]
                events.append(Event(event["exited"], returncode=event["returncode"]))

    def _gone(self) -> list[Event]:
        """Without the zygote its nodes end too, and those that wait for it cannot start."""
        self.alive = False
        for pid in self._pids.values():
            process_trees.kill_tree(pid)
        reason = f"the process that nodes are forked from died: {self._end()} (see {self._log})"
        events = [Event(name, returncode=-9, reason=reason) for name in self._pids]
        events += [Event(name, failed_to_start=True) for name in self._waiting]
        self._pids.clear()
        self._waiting.clear()
        return events

    def _end(self) -> str:
        deadline = time.monotonic() + _ENDING_SECONDS
        while (ended := zygote.reap(self._popen.pid)) is None:
            if time.monotonic() > deadline:
                return "its socket was closed"
            time.sleep(0.01)
        self._popen.returncode = ended[1]
        return describe_end(ended[1])

    def fileno(self) -> int:
        """Returns a descriptor that is readable when there are events."""
        return self._socket.fileno()

    def close(self) -> None:
        for pid in self._pids.values():
            process_trees.kill_tree(pid)
        self._pids.clear()
        self._socket.close()
        if self._popen.returncode is None:  # otherwise its process id may be another's by now
            process_trees.kill_tree(self._popen.pid)
        self._popen.wait()
