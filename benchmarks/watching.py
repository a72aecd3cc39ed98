"""A program of many processes seen from outside: its counts by calls, its processes by /proc."""

from __future__ import annotations

import collections
import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import TypeVar

from acme_lite import launching

_LIMIT_SECONDS = 300.0
_POLL_SECONDS = 0.05
_TICKS = os.sysconf("SC_CLK_TCK")
_Found = TypeVar("_Found")


class Program:
    """A command that calls `launching.launch(..., log_directory=logs)`, started in a process of its own.

    As a context it ends the program when it is left, and all its processes with it.

    Attributes:
        begun: when it was started, by `time.monotonic()`.
        process: that of the command.
    """

    def __init__(self, command: Sequence[str], logs: pathlib.Path):
        self._command = command
        self._logs = logs
        self._clients: dict[str, launching.Client] = {}

    def __enter__(self) -> Program:
        self._logs.mkdir(parents=True, exist_ok=True)
        with (self._logs / "launcher.log").open("wb") as log:
            self.begun = time.monotonic()
            self.process = subprocess.Popen(self._command, stdout=log, stderr=log)
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.terminate()
        try:
            self.process.wait(_LIMIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()  # its nodes see that, and end
            self.process.wait()

    def wait_for(
        self, find: Callable[[], _Found | None], what: str, *, limit_seconds: float = _LIMIT_SECONDS
    ) -> _Found:
        """Returns what is found as soon as it is there.

        Raises:
            RuntimeError: the program has ended before, or it took too long; the message ends with its output.
        """
        deadline = time.monotonic() + limit_seconds
        while (found := find()) is None:
            if self.process.poll() is not None or time.monotonic() > deadline:
                output = (self._logs / "launcher.log").read_text()
                raise RuntimeError(f"There was no {what}. The program's output ends:\n{output[-4000:]}")
            time.sleep(_POLL_SECONDS)
        return found

    def client(self, node: str) -> launching.Client:
        """Returns a client of a node such as "counter/0", once the program has given it an address."""
        if node not in self._clients:
            connection = self.wait_for(self._read_connections, "file nodes.json")[node]
            self._clients[node] = launching.connect(
                connection["address"], connection["token"], timeout_seconds=_LIMIT_SECONDS
            )
        return self._clients[node]

    def counts(self) -> dict[str, int]:
        """Returns all counts of the program's counter."""
        return self.client("counter/0").get_counts()

    def wait_for_count(self, name: str, least: int = 1) -> int:
        """Returns a count as soon as it has come so far."""

        def find() -> int | None:
            count = self.counts().get(name, 0)
            return count if count >= least else None

        return self.wait_for(find, f"count {name} of {least}")

    def processes(self) -> dict[int, str]:
        """Returns the names of all processes by their ids: "launcher", "zygote", and those of the nodes."""
        parents: dict[int, int] = {}
        names: dict[int, str] = {}
        for entry in os.listdir("/proc"):
            if entry.isdigit() and (fields := _read_stat(pathlib.Path("/proc", entry, "stat"))) is not None:
                names[int(entry)], parents[int(entry)] = fields[0], int(fields[2])
        found = {self.process.pid: "launcher"}
        added = [self.process.pid]
        while added:
            added = [pid for pid, parent in parents.items() if parent in added]
            # A node takes its name when it begins to run; before, it is called as the zygote is.
            found.update({pid: names[pid] if "/" in names[pid] else "zygote" for pid in added})
        return found

    def memory(self) -> dict[str, float]:
        """Returns the proportional set size of the processes in megabytes: what they share is divided among them."""
        sizes: dict[str, float] = collections.defaultdict(float)
        for pid, name in self.processes().items():
            sizes[name] += _proportional_set_size(pid)
        return dict(sizes)

    def cpu_seconds(self) -> dict[str, float]:
        """Returns the CPU time of the processes so far."""
        seconds: dict[str, float] = collections.defaultdict(float)
        for pid, name in self.processes().items():
            if (fields := _read_stat(pathlib.Path(f"/proc/{pid}/stat"))) is not None:
                seconds[name] += (int(fields[12]) + int(fields[13])) / _TICKS
        return dict(seconds)

    def num_sockets(self) -> dict[str, int]:
        """Returns how many sockets each process has open."""
        numbers: collections.Counter[str] = collections.Counter()
        for pid, name in self.processes().items():
            for descriptor in pathlib.Path(f"/proc/{pid}/fd").glob("*"):
                try:
                    numbers[name] += os.readlink(descriptor).startswith("socket:")
                except OSError:
                    continue  # closed meanwhile
        return dict(numbers)

    def kill(self, node: str) -> bool:
        """Kills a node's process; returns False where it has none."""
        pids = [pid for pid, name in self.processes().items() if name == node]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        return bool(pids)

    def _read_connections(self) -> dict[str, dict[str, str]] | None:
        try:
            return json.loads((self._logs / "nodes.json").read_text())
        except (FileNotFoundError, json.JSONDecodeError):
            return None


def _read_stat(path: pathlib.Path) -> list[str] | None:
    """Returns name, state, parent and so on of a process or thread (proc(5), without the id)."""
    try:
        text = path.read_text()
    except OSError:
        return None  # ended meanwhile
    name, _, rest = text.partition("(")[2].rpartition(")")
    return [name, *rest.split()]


def _proportional_set_size(pid: int) -> float:
    try:
        lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return sum(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))
