"""The process that nodes are forked from: it has imported what takes seconds to import, and used none of it.

A fork copies one thread alone, so nothing that starts threads (JAX's backend, TensorFlow, a gRPC channel) may have
been used before. The zygote has one thread, says so when it is ready, and only ever forks and reaps. What a dead node
has left running becomes its child, and is killed.

Over its socket come requests, one JSON object a message with the descriptors of control socket, payload and log file
beside it; back go `{"ready": true}` or `{"threads": n}`, `{"started": name, "pid": ...}` or `{"unstarted": name,
"error": ...}`, and `{"exited": name, "returncode": ...}`. At end-of-file it kills what it has started and ends.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import selectors
import signal
import socket
import sys
import traceback
from collections.abc import Iterable, Sequence
from typing import Any

from acme_lite import _runtime
from acme_lite.launching import child, process_trees

MESSAGE_BYTES = 1 << 17
# What these try to import and do without: for rlax see `_runtime.import_rlax`; TensorFlow's Keras imports pandas, which
# takes a fifth of the time of importing Reverb.
_WITHOUT = {"rlax": "tensorflow", "reverb": "pandas"}


def import_all(modules: Iterable[str]) -> None:
    """Imports modules; one that fails is reported on stderr and left to the node that needs it."""
    _runtime.load_python_library()
    for name in modules:
        try:
            if name in _WITHOUT:
                _runtime.import_without(name, _WITHOUT[name])
            else:
                importlib.import_module(name)
        except Exception:
            print(f"the zygote could not import {name}:", file=sys.stderr)
            traceback.print_exc()


def num_threads() -> int:
    """Returns how many threads this process has."""
    return len(os.listdir("/proc/self/task"))


def reap(pid: int | None = None) -> tuple[int, int] | None:
    """Returns pid and return code of a child that has ended (negative: its signal), or None.

    Whatever is left of its group is killed while the process id is still its own.
    """
    what = (os.P_ALL, 0) if pid is None else (os.P_PID, pid)
    try:
        ended = os.waitid(*what, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return None
    if ended is None:
        return None
    process_trees.kill_group(ended.si_pid)
    _, wait_status = os.waitpid(ended.si_pid, 0)
    return ended.si_pid, os.waitstatus_to_exitcode(wait_status)


class _Zygote:
    def __init__(self, launcher: socket.socket):
        self._launcher = launcher
        self._names: dict[int, str] = {}
        process_trees.adopt_orphans()
        self._strangers = frozenset(process_trees.children().get(os.getpid(), ()))  # an import has started them
        self._wakeup = os.pipe()
        for end in self._wakeup:
            os.set_blocking(end, False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(self._wakeup[1])
        self._selector = selectors.DefaultSelector()
        self._selector.register(launcher, selectors.EVENT_READ)
        self._selector.register(self._wakeup[0], selectors.EVENT_READ)

    def serve(self) -> tuple[child.NodeProcess, socket.socket, int] | None:
        """Forks what is asked for; returns what `run_node` takes in a fork, None in the zygote at its end."""
        while True:
            ready = {key.fd for key, _ in self._selector.select()}
            if self._wakeup[0] in ready:
                os.read(self._wakeup[0], 4096)
            while (ended := reap()) is not None:
                pid, returncode = ended
                self._kill_orphans()
                if pid in self._names:  # otherwise an import or a node has started it
                    self._send({"exited": self._names.pop(pid), "returncode": returncode})
            if self._launcher.fileno() in ready:
                message, descriptors, _, _ = socket.recv_fds(self._launcher, MESSAGE_BYTES, 3)
                if not message:
                    break
                task = self._fork(child.NodeProcess.from_json(message.decode()), descriptors)
                if task is not None:
                    return task
        process_trees.kill_descendants()
        return None

    def _kill_orphans(self) -> None:
        """Kills what dead nodes have left; each that dies leaves its own children, and wakes the zygote again."""
        for pid in process_trees.children().get(os.getpid(), ()):
            if pid not in self._names and pid not in self._strangers:
                process_trees.kill_group(pid)

    def _fork(
        self, process: child.NodeProcess, descriptors: Sequence[int]
    ) -> tuple[child.NodeProcess, socket.socket, int] | None:
        control, payload, log = descriptors
        pid, error = -1, None
        try:
            pid = os.fork()
        except OSError as raised:  # too many processes, or too little memory
            error = str(raised)
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._selector.close()
            self._launcher.close()
            for end in self._wakeup:
                os.close(end)
            child.settle_after_fork(process, log)
            return process, socket.socket(fileno=control), payload
        for descriptor in descriptors:
            os.close(descriptor)
        if error is not None:
            self._send({"unstarted": process.name, "error": error})
            return None
        self._names[pid] = process.name
        self._send({"started": process.name, "pid": pid})
        return None

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the launcher has gone; its end-of-file comes next
            self._launcher.send(json.dumps(message).encode())


def main(arguments: Sequence[str]) -> int:
    """Imports, reports, and forks until the launcher closes its end; the arguments are the socket and the modules."""
    launcher = socket.socket(fileno=int(arguments[0]))
    import_all(arguments[1:])
    threads = num_threads()
    if threads > 1:
        launcher.send(json.dumps({"threads": threads}).encode())
        return 0
    gc.collect()
    gc.freeze()  # so that no collection in a node touches, and copies, what all share
    child.die_with_parent(False)  # from here on, the launcher's death is an end-of-file, at which the nodes are killed
    launcher.send(json.dumps({"ready": True}).encode())
    task = _Zygote(launcher).serve()
    return 0 if task is None else child.run_node(*task)
