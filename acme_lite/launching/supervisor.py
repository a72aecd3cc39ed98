"""Runs an unmodified Launchpad program on this machine: starts its nodes, restarts actors, stops everything in order.

Launchpad's own launchers restart nothing, notice little, and leave processes behind. Here every node is a process in a
session of its own, whose function has been pickled, and that dies when the launcher dies.
"""

from __future__ import annotations

import contextlib
import json
import numbers
import os
import pathlib
import selectors
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import rich.console

from acme_lite.launching import addresses, process_trees, processes
from acme_lite.launching import log_directory as log_directories
from acme_lite.launching.policies import DEFAULT_POLICIES, NodePolicy
from acme_lite.launching.records import NodeRecord, make_records, write_connections
from acme_lite.launching.table import Display

_TICK_SECONDS = 0.1
_FIRST_BACKOFF_SECONDS = 0.5
_LONGEST_BACKOFF_SECONDS = 30.0
_HEALTHY_SECONDS = 600.0  # whoever dies after that did not die of how it was started


class NodeFailedError(RuntimeError):
    """A node died that is not, or not any more, started again, and the program was stopped.

    Attributes:
        node: its name, such as "learner/0".
        reason: its traceback, or by which signal it was killed and how its log ends.
    """

    def __init__(self, node: str, reason: str):
        super().__init__(f"node {node} failed:\n\n{reason}")
        self.node = node
        self.reason = reason


def launch(
    program: Any,
    *,
    policies: Mapping[str, NodePolicy] | None = None,
    log_directory: str | os.PathLike[str] | None = None,
    first_port: int | None = None,
    stop_seconds: float = 15.0,
    console: rich.console.Console | None = None,
) -> None:
    """Runs a program to its end.

    It ends when every node of a group whose policy says so has finished (by default the learners), when all nodes have
    finished, or when a node calls `launchpad.stop()`. Then, as after any failure or signal, nodes are asked to stop
    (SIGTERM, which `launchpad.wait_for_stop()` tells them) stage by stage, and killed where they do not.

    Args:
        program: an `lp.Program`.
        policies: by label of a group, what takes the place of its whole default; to change a field of that, use
            `dataclasses.replace(DEFAULT_POLICIES[label], cores=(2, 3))`. Groups without either get `NodePolicy()`.
        log_directory: where each node's output goes (`actor-0.log`), and `nodes.json`, for its owner alone, with the
            addresses and tokens for `connect`. A temporary directory unless given; no other program that runs may
            have the same. The directory of a run may be it, or hold it.
        first_port: nodes get the ports from here on; free ones unless given.
        stop_seconds: how long the nodes of one stage may take to stop.
        console: where to show what happens; the standard output unless given.

    Raises:
        ValueError: a node cannot be pickled, or an argument is wrong.
        RuntimeError: another program that runs writes its logs there.
        OSError: a port is taken.
        NodeFailedError: a node failed for good; an uncaught one makes exit code 1.
        KeyboardInterrupt: after Ctrl-C, when everything has ended; uncaught, a shell shows exit code 130. A second
            Ctrl-C kills what has not ended.
        SystemExit: after SIGTERM or SIGHUP, likewise, with code 143 or 129.
    """
    policies = _checked_policies(program, {} if policies is None else policies)
    if isinstance(stop_seconds, bool) or not isinstance(stop_seconds, numbers.Real) or not stop_seconds > 0:
        raise ValueError(f"stop_seconds must be a number greater than 0, got {stop_seconds!r}")
    directory = pathlib.Path(log_directory or tempfile.mkdtemp(prefix=f"acme_lite-{program.name.replace('/', '-')}-"))
    directory.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(log_directories.lock(directory))
        held, known_addresses = addresses.bind(program, first_port)
        for port in held:
            stack.enter_context(port)
        nodes = make_records(program, policies, directory, stack)
        write_connections(program, known_addresses, directory / log_directories.CONNECTIONS_FILE)
        stack.callback((directory / log_directories.CONNECTIONS_FILE).unlink, missing_ok=True)
        signals = stack.enter_context(_record_signals())
        display = stack.enter_context(Display(program.name, console))
        display.say(f"{program.name}: {len(nodes)} nodes, logs in {directory}")
        supervisor = _Supervisor(nodes, directory, stop_seconds, display, signals)
        stack.callback(supervisor.close)
        supervisor.run()
    if supervisor.failure is not None:
        raise supervisor.failure
    if signal.SIGINT in signals:
        raise KeyboardInterrupt
    if signals:
        raise SystemExit(128 + signals[0])


class _Supervisor:
    """Turns what happens to processes into states of nodes, and these into what to do next."""

    def __init__(
        self,
        nodes: list[NodeRecord],
        directory: pathlib.Path,
        stop_seconds: float,
        display: Display,
        signals: list[int],
        clock: Callable[[], float] = time.monotonic,
    ):
        self._nodes = {node.name: node for node in nodes}
        self._stop_seconds = stop_seconds
        self._display = display
        self._signals = signals
        self._clock = clock
        self._stop_requested = False
        self._stopping = False
        self.failure: NodeFailedError | None = None
        self._selector = selectors.DefaultSelector()
        self._starters: dict[str, processes.Starter] = {"spawn": processes.Spawner()}
        self._zygote: processes.Zygote | None = None
        forked = [node for node in nodes if node.policy.start == "fork"]
        if forked:
            imports = {name for node in forked for name in node.imports}
            self._zygote = self._starters["fork"] = processes.Zygote(directory / "zygote.log", imports)
            self._selector.register(self._zygote, selectors.EVENT_READ)

    def run(self) -> None:
        """Runs until the program has ended, then stops what still runs."""
        for node in self._nodes.values():
            self._start(node)
        while not self._ended():
            self._turn()
        self._stop()

    def close(self) -> None:
        """Kills and closes whatever is left."""
        for starter in self._starters.values():
            starter.close()
        for node in self._nodes.values():
            self._close_control(node)
        self._selector.close()

    def _ended(self) -> bool:
        if self.failure is not None or self._signals or self._stop_requested:
            return True
        nodes = self._nodes.values()
        ending = {node.label for node in nodes if node.policy.ends_program}
        unfinished = {node.label for node in nodes if node.state != "finished"}
        return bool(ending - unfinished) or not unfinished

    def _start(self, node: NodeRecord) -> None:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        self._selector.register(ours, selectors.EVENT_READ, node)
        node.control, node.received, node.outcome, node.reason = ours, b"", None, ""
        node.state, node.start_at, node.running_since = "starting", None, None
        with theirs, node.log.open("ab") as log:
            node.log_start = log.tell()
            starter = self._starters[node.policy.start]
            starter.start(node.process, theirs, node.payload.fileno(), log.fileno())

    def _turn(self) -> None:
        """Waits a moment for something to happen, and handles it."""
        for key, _ in self._selector.select(_TICK_SECONDS):
            if isinstance(key.data, NodeRecord):
                self._receive(key.data)
        for starter in self._starters.values():
            for event in starter.events():
                self._handle(self._nodes[event.name], event)
        if self._zygote is not None and not self._zygote.alive:
            self._leave_zygote(self._zygote)
        now = self._clock()
        for node in self._nodes.values():
            if node.start_at is not None and now >= node.start_at and not self._stopping:
                self._start(node)
            if node.end_by is not None and now >= node.end_by and node.pid is not None:
                self._display.say(f"{node.name} did not end in time and is killed")
                node.end_by = None
                process_trees.kill_tree(node.pid)
        self._display.update([node.row() for node in self._nodes.values()])

    def _leave_zygote(self, zygote_: processes.Zygote) -> None:
        """Starts fresh Pythons from now on."""
        self._display.say("nodes are started as fresh Pythons from now on (see zygote.log)")
        self._selector.unregister(zygote_)
        zygote_.close()
        self._zygote, self._starters["fork"] = None, self._starters["spawn"]

    def _receive(self, node: NodeRecord) -> None:
        """Handles what a node has sent."""
        while node.control is not None:
            try:
                data = node.control.recv(1 << 16)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._close_control(node)
                return
            *lines, node.received = (node.received + data).split(b"\n")
            for line in lines:
                self._handle_message(node, json.loads(line))

    def _handle_message(self, node: NodeRecord, message: dict[str, Any]) -> None:
        if "report" in message:
            node.take_report(message["report"])
        elif "say" in message:
            self._display.say(message["say"])
        elif "stop" in message:
            self._stop_requested = True
        elif message["state"] == "running":
            node.state, node.running_since = "stopping" if self._stopping else "running", self._clock()
        else:
            node.outcome, node.reason = message["state"], message.get("traceback", "")
            node.end_by = self._clock() + self._stop_seconds

    def _handle(self, node: NodeRecord, event: processes.Event) -> None:
        """Handles what has become of a node's process."""
        if event.pid is not None:
            node.pid = event.pid
        elif event.failed_to_start:
            self._close_control(node)
            node.start_at = self._clock()
        elif event.returncode is not None:
            self._receive(node)  # its last words may not have been read
            self._close_control(node)
            node.pid, node.end_by = None, None
            if node.outcome == "finished":
                node.state = "stopped" if self._stopping else "finished"
            elif self._stopping:
                node.state = "stopped"
                if node.outcome == "failed":
                    node.state = "failed"
                    self._display.say(f"{node.name} failed while the program stopped:\n{node.reason}")
            else:
                self._handle_failure(node, node.reason or event.reason or node.describe_death(event.returncode))

    def _handle_failure(self, node: NodeRecord, reason: str) -> None:
        node.forget_reports()
        if node.running_since is not None and self._clock() - node.running_since >= _HEALTHY_SECONDS:
            node.attempts = 0
        if node.attempts < node.policy.max_restarts:
            delay = min(_FIRST_BACKOFF_SECONDS * 2**node.attempts, _LONGEST_BACKOFF_SECONDS)
            node.attempts += 1
            node.restarts += 1
            node.state, node.start_at = "restarting", self._clock() + delay
            self._display.say(
                f"{node.name} died; restart {node.attempts} of {node.policy.max_restarts} in {delay:g} s:\n{reason}"
            )
            return
        node.state = "failed"
        if node.policy.max_restarts:
            reason = f"after {node.attempts} restarts, the most that its policy allows: {reason}"
        if self.failure is None:
            self.failure = NodeFailedError(node.name, reason)

    def _close_control(self, node: NodeRecord) -> None:
        if node.control is not None:
            self._selector.unregister(node.control)
            node.control.close()
            node.control = None

    def _stop(self) -> None:
        """Stops what runs, stage by stage."""
        self._stopping = True
        num_signals = len(self._signals)
        nodes = self._nodes.values()
        for node in nodes:
            if node.state not in ("finished", "failed"):
                node.state, node.start_at = ("stopping", None) if node.pid is not None else ("stopped", None)
        for stage in sorted({node.policy.stop_stage for node in nodes}):
            members = [node for node in nodes if node.policy.stop_stage == stage]
            for node in members:
                if node.pid is not None:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(node.pid, signal.SIGTERM)
            self._wait_for(members, self._stop_seconds, max(num_signals, 1))
            for node in members:
                if node.pid is not None:
                    self._display.say(f"{node.name} did not stop in time and is killed")
                    process_trees.kill_tree(node.pid)
            self._wait_for(members, self._stop_seconds, None)
        self._display.update([node.row() for node in nodes], last=True)

    def _wait_for(self, nodes: list[NodeRecord], seconds: float, max_signals: int | None) -> None:
        """Waits until processes have ended; less than so long when more signals come than so many."""
        deadline = self._clock() + seconds
        while any(node.pid is not None for node in nodes) and self._clock() < deadline:
            if max_signals is not None and len(self._signals) > max_signals:
                return
            self._turn()


def _checked_policies(program: Any, policies: Mapping[str, NodePolicy]) -> dict[str, NodePolicy]:
    if not isinstance(policies, Mapping):
        raise ValueError(f"policies must map labels of groups to NodePolicy, got {policies!r}")
    unknown = set(policies) - set(program.groups)
    if unknown:
        raise ValueError(f"policies names groups {sorted(unknown)}, the program has {sorted(program.groups)}")
    for label, policy in policies.items():
        if not isinstance(policy, NodePolicy):
            raise ValueError(f"policies[{label!r}] must be a NodePolicy, got {policy!r}")
    if not program.groups:
        raise ValueError(f"program {program.name!r} has no nodes")
    return {label: policies.get(label, DEFAULT_POLICIES.get(label, NodePolicy())) for label in program.groups}


@contextlib.contextmanager
def _record_signals() -> Iterator[list[int]]:
    """Collects the signals that shall stop the program, where this is the main thread."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return
    previous = {}
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is not signal.SIG_IGN:
            previous[number] = signal.signal(number, lambda number, _: received.append(number))
    try:
        yield received
    finally:
        for number, handler in previous.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
