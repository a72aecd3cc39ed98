"""Programs of real processes, and what happens when these die."""

import io
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import psutil
import pytest
import rich.console

from acme_lite import _runtime

_runtime.load_python_library()
lp = pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite import launching  # noqa: E402  # after the check for Launchpad
from acme_lite.launching import processes  # noqa: E402
from tests.launching import programs  # noqa: E402

LIMIT = 120.0
ROOT = pathlib.Path(__file__).parents[2]


def run(program, tmp_path, **kwargs):
    """Launches a program; returns what was shown."""
    shown = io.StringIO()
    launching.launch(program, log_directory=tmp_path / "logs", console=rich.console.Console(file=shown), **kwargs)
    return shown.getvalue()


def alive(pids):
    """Returns which processes exist and are not zombies."""
    running = []
    for pid in pids:
        try:
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                running.append(pid)
        except psutil.NoSuchProcess:
            pass
    return running


def wait_until(condition, what):
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.05)


@pytest.fixture
def start_script(tmp_path):
    """Starts a script from a folder of its own; whatever is left of it ends with the test."""
    started = []

    def start(code):
        script = tmp_path / "script" / "main.py"
        script.parent.mkdir()
        script.write_text(code)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, str(script), str(tmp_path)]
        started.append(
            subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        )
        return started[-1]

    yield start
    for popen in started:
        popen.kill()
        popen.communicate()


def test_killed_nodes_come_back_at_their_address_and_the_program_completes(tmp_path):
    program = lp.Program("restarts")
    names = ["actor/0", "actor/1"]
    with program.group("counter"):
        counter = program.add_node(launching.CallNode(programs.Counter, str(tmp_path / "counter")))
    with program.group("learner"):
        program.add_node(launching.CallNode(programs.Learner, counter, names, 20))
    with program.group("actor"):
        for index, name in enumerate(names):
            notes = str(tmp_path / f"actor{index}")
            program.add_node(launching.CallNode(programs.Actor, counter, name, notes, dies=index == 1))

    shown = run(program, tmp_path, policies={"counter": launching.NodePolicy(max_restarts=2, stop_stage=2)})

    lives = {name: programs.read(tmp_path / name) for name in ("counter", "actor0", "actor1")}
    assert {name: len(notes) for name, notes in lives.items()} == {"counter": 2, "actor0": 1, "actor1": 2}
    assert "counter/0 died; restart 1 of 2" in shown and "killed by SIGKILL" in shown
    assert "actor/1 died; restart 1 of 5" in shown
    assert "learner/0: finished" in shown and "actor/0: stopped" in shown
    actors = lives["actor0"] + lives["actor1"]
    for seen in actors:
        assert seen["cores"] == 1 and seen["session"] == seen["pid"] and seen["platforms"] == ["cpu", "cpu"]
    assert len({seen["draw"] for seen in actors}) == len(actors)
    assert not alive(seen["pid"] for notes in lives.values() for seen in notes)
    assert not (tmp_path / "logs" / "nodes.json").exists()


def test_a_killed_learner_ends_the_program_and_stubborn_nodes_are_killed(tmp_path):
    program = lp.Program("killed")
    program.add_node(lp.PyNode(programs.wait_stubbornly, str(tmp_path / "stubborn")), label="other")
    node = lp.PyNode(programs.die_when_noted, str(tmp_path / "stubborn"), int(signal.SIGKILL))
    program.add_node(node, label="learner")
    with pytest.raises(launching.NodeFailedError, match="node learner/0 failed:\n\nkilled by SIGKILL; its log"):
        run(program, tmp_path, stop_seconds=1.0)
    (stubborn,) = programs.read(tmp_path / "stubborn")
    assert not alive([stubborn["pid"]])


def test_a_node_that_dies_too_often_ends_the_program_with_its_traceback(tmp_path):
    program = lp.Program("hopeless")
    program.add_node(lp.PyNode(programs.fail_every_time, str(tmp_path / "lives")), label="actor")
    program.add_node(launching.CallNode(programs.Waiter, "w", str(tmp_path / "waiter")), label="replay")
    with pytest.raises(launching.NodeFailedError) as caught:
        run(program, tmp_path, policies={"actor": launching.NodePolicy(max_restarts=1)})
    assert caught.value.node == "actor/0"
    assert caught.value.reason.startswith("after 1 restarts, the most that its policy allows: Traceback")
    assert "RuntimeError: life 2" in caught.value.reason
    assert len(programs.read(tmp_path / "lives")) == 2
    assert "RuntimeError: life 1" in (tmp_path / "logs" / "actor-0.log").read_text()


def test_nodes_are_spawned_where_imports_start_threads(tmp_path, monkeypatch):
    code = "import threading\nthreading.Thread(target=threading.Event().wait, daemon=True).start()\n"
    (tmp_path / "starts_a_thread.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(sys.modules, "starts_a_thread", threading)
    monkeypatch.setattr(processes, "_HEAVY", ("starts_a_thread",))
    program = lp.Program("spawned")
    for _ in range(2):
        program.add_node(lp.PyNode(programs.return_at_once, str(tmp_path / "ran")), label="other")
    shown = run(program, tmp_path)
    assert "nodes are started as fresh Pythons" in shown
    assert len({seen["pid"] for seen in programs.read(tmp_path / "ran")}) == 2


def test_launchpads_stop_ends_the_program_normally(tmp_path):
    program = lp.Program("stopped")
    program.add_node(lp.PyNode(programs.stop_program), label="other")
    program.add_node(launching.CallNode(programs.Waiter, "w", str(tmp_path / "waiter")), label="learner")
    assert "learner/0: stopped" in run(program, tmp_path)


SCRIPT = """
import pathlib
import sys

import launchpad as lp
from acme_lite import launching
from tests.launching import programs
import beside  # a module in the script's own folder

folder = pathlib.Path(sys.argv[1])


class Learner:
    def __init__(self, peer):
        self._peer = peer

    def run(self):
        while not (folder / "fail").exists():
            if lp.wait_for_stop(0.02):
                programs.note(folder / "notes", name="learner/0", event="stopped")
                return
        beside.fail(self._peer.ping())


if __name__ == "__main__":
    program = lp.Program("script")
    with program.group("replay"):
        replay = program.add_node(launching.CallNode(programs.Waiter, "replay/0", str(folder / "notes")))
    with program.group("learner"):
        program.add_node(launching.CallNode(Learner, replay))
    with program.group("actor"):
        for index in range(2):
            program.add_node(launching.CallNode(programs.Waiter, f"actor/{index}", str(folder / "notes")))
    launching.launch(program, log_directory=folder / "logs")
"""
BESIDE = "def fail(name):\n    raise ArithmeticError('no good, ' + name)\n"


@pytest.fixture
def running_script(tmp_path, start_script):
    """A script whose program of four nodes runs, with the processes that it has started."""
    (tmp_path / "script").mkdir()
    (tmp_path / "script" / "beside.py").write_text(BESIDE)
    (tmp_path / "script").rename(tmp_path / "beside")
    popen = start_script(SCRIPT)
    (tmp_path / "beside" / "beside.py").rename(tmp_path / "script" / "beside.py")
    return popen


def wait_for_nodes(popen, tmp_path):
    def all_run():
        if popen.poll() is not None:
            raise AssertionError(popen.communicate())
        return len(programs.read(tmp_path / "notes")) == 3

    wait_until(all_run, "three nodes run")
    return [process.pid for process in psutil.Process(popen.pid).children(recursive=True)]
