"""The supervisor's records of a program's nodes, made before anything starts."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import socket
import tempfile
import time
from collections.abc import Mapping
from typing import IO, Any

from acme_lite import _runtime
from acme_lite.launching import child, processes, status
from acme_lite.launching.node import CallNode
from acme_lite.launching.policies import NodePolicy
from acme_lite.launching.table import Row

lp = _runtime.import_extra("launchpad", "distributed", "A distributed program")
cloudpickle = _runtime.import_extra("cloudpickle", "distributed", "A distributed program")

_LOG_TAIL_BYTES = 4000


@dataclasses.dataclass
class NodeRecord:
    """A node: what it is, what has become of its process, what it has reported."""

    label: str
    index: int
    policy: NodePolicy
    process: child.NodeProcess
    payload: IO[bytes]
    log: pathlib.Path
    imports: tuple[str, ...] = ()
    state: str = "starting"
    pid: int | None = None
    restarts: int = 0
    attempts: int = 0  # restarts since it last ran for long
    running_since: float | None = None
    outcome: str | None = None  # "finished" or "failed", as this process reported it
    reason: str = ""
    start_at: float | None = None  # when to start it again
    end_by: float | None = None  # when to kill it, once it should have ended
    log_start: int = 0
    control: socket.socket | None = None
    received: bytes = b""
    report: dict[str, float] = dataclasses.field(default_factory=dict)
    steps: tuple[float, float] | None = None  # when, how many
    steps_per_second: float | None = None

    @property
    def name(self) -> str:
        return f"{self.label}/{self.index}"

    def row(self) -> Row:
        episode_return, seconds_left = self.report.get("episode_return"), self.report.get("seconds_left")
        return Row(self.name, self.state, self.restarts, self.steps_per_second, episode_return, seconds_left)

    def take_report(self, report: dict[str, float]) -> None:
        self.report = {**self.report, **report}
        if "steps" in report:
            now = time.monotonic()
            if self.steps is not None and now > self.steps[0]:
                self.steps_per_second = (report["steps"] - self.steps[1]) / (now - self.steps[0])
            self.steps = now, report["steps"]

    def forget_reports(self) -> None:
        """Forgets what a process has reported that has died."""
        self.report, self.steps, self.steps_per_second = {}, None, None

    def describe_death(self, returncode: int) -> str:
        with self.log.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(self.log_start, size - _LOG_TAIL_BYTES))
            tail = file.read().decode(errors="replace").strip()
        return f"{processes.describe_end(returncode)}; its log {self.log}" + (
            f" ends:\n{tail}" if tail else " is empty"
        )


def make_records(
    program: Any, policies: Mapping[str, NodePolicy], directory: pathlib.Path, stack: contextlib.ExitStack
) -> list[NodeRecord]:
    """Returns the nodes with their functions pickled; the files close with the stack."""
    for label, group in program.groups.items():
        for node in group:
            node.launch_context.initialize(lp.LaunchType.LOCAL_MULTI_THREADING, None, status.request_stop)
            for handle in node.input_handles:
                handle.connect(node, label)
    jax_settings = child.read_jax_settings()
    next_core = itertools.cycle(sorted(os.sched_getaffinity(0)))
    nodes = []
    for label, group in program.groups.items():
        policy = policies[label]
        for index, function in enumerate(group[0].to_executables(group, label, group[0].launch_context)):
            name = f"{label}/{index}"
            payload = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115  # the stack closes it
            try:
                payload.write(cloudpickle.dumps(function))
                payload.flush()
            except Exception as error:  # pickling runs code of any class
                raise ValueError(f"node {name} cannot be pickled: {type(error).__name__}: {error}") from error
            cores = (next(next_core),) if policy.cores == "single" else policy.cores
            process = child.NodeProcess(name, dict(policy.environment), cores, jax_settings)  # type: ignore[arg-type]
            log = directory / f"{label.replace('/', '-')}-{index}.log"
            imports = getattr(group[index], "imports", ())
            nodes.append(NodeRecord(label, index, policy, process, payload, log, imports))
    return nodes


def write_connections(program: Any, known_addresses: Mapping[str, list[str]], path: pathlib.Path) -> None:
    """Writes where the nodes are called, and with which tokens, to a file that its owner alone can read."""
    connections: dict[str, Any] = {}
    for label, group in program.groups.items():
        for index, node in enumerate(group):
            if isinstance(node, CallNode):
                name = f"{label}/{index}"
                connections[name] = {"address": known_addresses[name][0], "token": node.call_options.token}
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump(connections, file, indent=2)
