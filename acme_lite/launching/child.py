"""What happens in a node's process: settle in, run the node's function, say how it ended.

The launcher holds the other end of the control socket. End-of-file there means that it has died, and then the node
kills itself with all that it started. Until it watches for that, the kernel kills it when its parent dies; no longer,
since SIGKILL would leave behind whatever the node has started.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import dataclasses
import faulthandler
import importlib
import json
import os
import random
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Sequence
from typing import Any

from acme_lite.launching import process_trees, status

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15


@dataclasses.dataclass(frozen=True)
class NodeProcess:
    """How a node's process is set up.

    Attributes:
        name: such as "actor/0".
        environment: variables to set.
        cores: which cores to run on; None for all.
        jax_settings: of `jax.config`, for this process to take over.
    """

    name: str
    environment: dict[str, str]
    cores: tuple[int, ...] | None
    jax_settings: dict[str, Any] = dataclasses.field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @staticmethod
    def from_json(text: str) -> NodeProcess:
        fields = json.loads(text)
        cores = fields.pop("cores")
        return NodeProcess(cores=None if cores is None else tuple(cores), **fields)


def read_jax_settings() -> dict[str, Any]:
    """Returns what `jax.config` says here, but for where to compute, which is the node's own affair."""
    if "jax" not in sys.modules:
        return {}
    plain = (bool, int, float, str, type(None))
    values = sys.modules["jax"].config.values.items()
    return {name: value for name, value in values if isinstance(value, plain) and name != "jax_default_device"}


def _take_over_jax_settings(process: NodeProcess) -> None:
    """Gives JAX, where it has been imported, the settings of the launcher; a node's own variables are stronger."""
    if "jax" not in sys.modules:
        return
    config = sys.modules["jax"].config
    here = config.values
    for name, value in process.jax_settings.items():
        if here.get(name, value) != value and name.upper() not in process.environment:
            config.update(name, value)


def die_with_parent(on: bool) -> None:
    """Sets whether the kernel kills this process, and it alone, when its parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL) if on else 0)


def settle(process: NodeProcess) -> None:
    """Applies a node's settings to this process, before any use of JAX."""
    if process.cores is not None:
        os.sched_setaffinity(0, process.cores)
    os.environ.update(process.environment)
    ctypes.CDLL(None).prctl(_PR_SET_NAME, process.name.encode()[:15])
    faulthandler.enable()
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]  # the log file's


def settle_after_fork(process: NodeProcess, log: int) -> None:
    """Makes a forked copy of the zygote into a node's process in a session of its own, which writes to a log file."""
    os.setsid()
    die_with_parent(True)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (log, 1), (log, 2)):
        os.dup2(source, target)
    os.close(null)
    os.close(log)
    settle(process)
    if "JAX_PLATFORMS" in process.environment and "jax" in sys.modules:
        sys.modules["jax"].config.update("jax_platforms", process.environment["JAX_PLATFORMS"])
    _take_over_jax_settings(process)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed()  # otherwise all nodes draw the same numbers
    random.seed()


def run_node(process: NodeProcess, control: socket.socket, payload: int) -> int:
    """Runs the pickled function behind a file descriptor; returns the exit status."""
    threading.Thread(target=_kill_when_launcher_dies, args=(control.dup(),), name="launcher-watch", daemon=True).start()
    die_with_parent(False)
    process_trees.adopt_orphans()  # so that they are found below this process, whoever else has died
    status.attach(control)
    status.send({"state": "running"})
    try:
        _run(process, payload)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        status.send({"state": "failed", "traceback": traceback.format_exc()})
        return 1
    status.send({"state": "finished"})
    return 0


def _run(process: NodeProcess, payload: int) -> None:
    from acme_lite import _runtime

    _runtime.load_python_library()
    flags = importlib.import_module("absl.flags").FLAGS
    if not flags.is_parsed():
        flags.mark_as_parsed()
    worker_manager = importlib.import_module("launchpad.launch.worker_manager")
    # The supervisor knows how long a node may take to stop.
    flags.lp_termination_notice_secs = -1
    manager = worker_manager.WorkerManager(register_in_thread=True)
    _leave_signals_to_node([signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
    with os.fdopen(payload, "rb") as file:
        file.seek(0)  # a node that is started again reads it again
        function = importlib.import_module("cloudpickle").load(file)
    _take_over_jax_settings(process)  # a fresh Python has imported JAX only now
    try:
        function()
    except SystemExit as error:
        if not manager.stop_event().is_set():
            raise RuntimeError(
                f"something in the node called sys.exit({error.code!r}), although nobody had asked it to stop"
            ) from error
        if error.code not in (None, 0):
            raise
    except Exception as error:
        from acme_lite.launching import calls

        if not (isinstance(error, calls.ProgramStoppedError) and manager.stop_event().is_set()):
            raise
        # Whom it called may have stopped first.
        print(f"ended by the stop of the program: {error}", file=sys.stderr)


def _leave_signals_to_node(numbers: Sequence[int]) -> None:
    """Gives these signals their usual meaning in the processes that this one forks.

    With Launchpad's handlers, which only note that the program stops, nothing but SIGKILL would end them.
    """
    handlers = {number: signal.getsignal(number) for number in numbers}

    def restore() -> None:
        for number, handler in handlers.items():
            if signal.getsignal(number) is handler:
                signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)

    os.register_at_fork(after_in_child=restore)


def _kill_when_launcher_dies(control: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while control.recv(4096):
            pass
    process_trees.kill_descendants()
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main(arguments: Sequence[str]) -> int:
    """Runs a node in a fresh Python; the arguments are the node's settings and the two file descriptors."""
    text, control, payload = arguments
    process = NodeProcess.from_json(text)
    settle(process)
    atexit.register(process_trees.kill_descendants)  # registered first, and so called last
    return run_node(process, socket.socket(fileno=int(control)), int(payload))


def command(module: str, *arguments: Any) -> list[str]:
    """Returns the command that calls `main(arguments)` of a module here, in a fresh Python with this one's `sys.path`.

    So what a script imports from its own folder is found in the nodes too.
    """
    code = (
        "import ctypes, json, sys\n"
        f"ctypes.CDLL(None).prctl({_PR_SET_PDEATHSIG}, {int(signal.SIGKILL)})\n"  # first: imports take seconds
        "sys.path[:] = json.loads(sys.argv[1])\n"
        f"from acme_lite.launching.{module} import main\n"
        "sys.exit(main(sys.argv[2:]))"
    )
    path = [os.path.abspath(folder) for folder in sys.path]
    return [sys.executable, "-c", code, json.dumps(path), *map(str, arguments)]
