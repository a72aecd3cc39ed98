"""Programs of real processes, and what happens when these die."""

import io
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import jax
import pytest
import rich.console

from acme_lite import _runtime

_runtime.load_python_library()
lp = pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

psutil = pytest.importorskip("psutil", reason="comes with Launchpad")

from acme_lite import launching  # noqa: E402  # after the check for Launchpad
from acme_lite.launching import addresses, processes  # noqa: E402
from tests.launching import programs  # noqa: E402

LIMIT = 120.0
ROOT = pathlib.Path(__file__).parents[2]


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
        programs.note(folder / "notes", name="learner/0", event="running")
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
        (script.parent / "beside.py").write_text(BESIDE)
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


@pytest.mark.parametrize(
    ("how", "reason"),
    [("sys", r"called sys.exit\(0\), although nobody had asked"), ("os", "exited with status 0; its log")],
)
def test_a_node_whose_process_is_ended_from_within_has_died(tmp_path, how, reason):
    program = lp.Program("exits")
    program.add_node(lp.PyNode(programs.exit_once, str(tmp_path / "lives"), how), label="actor")
    shown = run(program, tmp_path)
    assert re.search(reason, shown)
    assert "actor/0 died; restart 1 of 5" in shown and "actor/0: finished" in shown
    assert len(programs.read(tmp_path / "lives")) == 2


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


@pytest.fixture
def import_in_zygote(tmp_path, monkeypatch):
    """Has the process that nodes are forked from import a module with this code."""

    def add(code):
        (tmp_path / "imported_in_zygote.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setitem(sys.modules, "imported_in_zygote", threading)
        monkeypatch.setattr(processes, "_HEAVY", (*processes._HEAVY, "imported_in_zygote"))

    return add


def test_a_process_that_an_import_has_left_may_end(tmp_path, import_in_zygote):
    path = tmp_path / "left"
    import_in_zygote(
        "import pathlib, subprocess\n"
        "left = subprocess.Popen(['sleep', '3600'])\n"
        f"pathlib.Path({str(path)!r}).write_text(str(left.pid))\n"
    )
    program = lp.Program("left")
    program.add_node(lp.PyNode(programs.end_a_process_of_the_zygote, str(path)), label="actor")
    shown = run(program, tmp_path)
    assert "actor/0 died; restart 1 of 5" in shown and "actor/0: finished" in shown
    assert "fresh Pythons" not in shown, (tmp_path / "logs" / "zygote.log").read_text()


def test_a_node_that_cannot_be_forked_is_started_again_and_the_others_run_on(tmp_path, import_in_zygote):
    import_in_zygote(
        "import os\n"
        "fork, errors = os.fork, [BlockingIOError(11, 'Resource temporarily unavailable')]\n"
        "def fork_or_fail():\n"
        "    if errors:\n"
        "        raise errors.pop()\n"
        "    return fork()\n"
        "os.fork = fork_or_fail\n"
    )
    program = lp.Program("unforked")
    program.add_node(lp.PyNode(programs.return_at_once, str(tmp_path / "first")), label="actor")
    program.add_node(lp.PyNode(programs.return_at_once, str(tmp_path / "second")), label="other")
    shown = run(program, tmp_path)
    assert (
        "actor/0 died; restart 1 of 5 in 0.5 s:\n"
        "its process could not be started: [Errno 11] Resource temporarily unavailable\n"
    ) in shown
    assert "other/0 died" not in shown and "fresh Pythons" not in shown
    assert [len(programs.read(tmp_path / name)) for name in ("first", "second")] == [1, 1]


def test_the_death_of_what_nodes_are_forked_from_is_told(tmp_path):
    program = lp.Program("zygote")
    program.add_node(lp.PyNode(programs.kill_the_zygote), label="learner")
    with pytest.raises(launching.NodeFailedError) as caught:
        run(program, tmp_path)
    log = tmp_path / "logs" / "zygote.log"
    assert caught.value.reason == f"the process that nodes are forked from died: killed by SIGKILL (see {log})"


def test_launchpads_stop_ends_the_program_normally_and_imports_are_made_once(tmp_path, monkeypatch):
    note = f"from tests.launching import programs\nprograms.note({str(tmp_path / 'imported')!r})\n"
    (tmp_path / "notes_its_import.py").write_text(note)
    monkeypatch.syspath_prepend(tmp_path)
    imports = ("notes_its_import",)
    program = lp.Program("stopped")
    program.add_node(launching.CallNode(programs.Importer, *imports, imports=imports), label="other")
    program.add_node(launching.CallNode(programs.Importer, *imports, imports=imports), label="learner")
    assert "learner/0: stopped" in run(program, tmp_path)
    assert len(programs.read(tmp_path / "imported")) == 1


def test_what_fails_while_the_program_stops_is_told_with_its_traceback(tmp_path):
    program = lp.Program("stopped")
    program.add_node(lp.PyNode(programs.fail_when_stopped, str(tmp_path / "runs")), label="other")
    program.add_node(lp.PyNode(programs.stop_when_noted, str(tmp_path / "runs")), label="learner")
    shown = run(program, tmp_path)
    assert "other/0 failed while the program stopped:\nTraceback" in shown
    for told in (shown, (tmp_path / "logs" / "other-0.log").read_text()):
        assert "in fail_when_stopped" in told and "OSError: nothing can be written any more" in told
    assert "other/0: failed" in shown and "learner/0: stopped" in shown


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_jax_is_set_up_in_nodes_as_in_the_script_but_for_a_policys_variables(tmp_path, start):
    program = lp.Program("settings")
    for label in ("other", "learner"):
        program.add_node(launching.CallNode(programs.Computer, str(tmp_path / label)), label=label)
    settings = {"jax_enable_x64": True, "jax_default_prng_impl": "rbg"}
    before = {name: jax.config.values[name] for name in settings}
    variables = {"JAX_PLATFORMS": "cpu", "JAX_ENABLE_X64": "0"}
    policies = {
        "other": launching.NodePolicy(start=start),
        "learner": launching.NodePolicy(start=start, environment=variables),
    }
    try:
        for name, value in settings.items():
            jax.config.update(name, value)
        run(program, tmp_path, policies=policies)
    finally:
        for name, value in before.items():
            jax.config.update(name, value)
    (other,), (learner,) = (programs.read(tmp_path / label) for label in ("other", "learner"))
    assert (other["dtype"], other["key"]) == ("float64", "rbg")
    assert (learner["dtype"], learner["key"], learner["platforms"]) == ("float32", "rbg", "cpu")


def test_a_worker_that_a_node_has_forked_can_be_terminated(tmp_path):
    program = lp.Program("forks")
    program.add_node(lp.PyNode(programs.terminate_a_worker, str(tmp_path / "ended")), label="learner")
    run(program, tmp_path)
    assert [seen["ended"] for seen in programs.read(tmp_path / "ended")] == [-signal.SIGTERM]


def wait_for_nodes(popen, tmp_path):
    def all_run():
        if popen.poll() is not None:
            raise AssertionError(popen.communicate())
        return len(programs.read(tmp_path / "notes")) == 4

    wait_until(all_run, "four nodes run")
    return [process.pid for process in psutil.Process(popen.pid).children(recursive=True)]


def test_an_exception_of_the_learner_is_exit_code_1_with_its_traceback(tmp_path, start_script):
    popen = start_script(SCRIPT)
    pids = wait_for_nodes(popen, tmp_path)
    (tmp_path / "fail").touch()
    shown, errors = popen.communicate(timeout=LIMIT)
    assert popen.returncode == 1
    assert "learner/0: failed" in shown
    assert "NodeFailedError: node learner/0 failed" in errors
    assert re.search(r'beside.py", line 2, in fail\n.*\nArithmeticError: no good, replay/0', errors)
    assert not alive(pids)


def test_ctrl_c_stops_actors_first_and_replay_last(tmp_path, start_script):
    popen = start_script(SCRIPT)
    pids = wait_for_nodes(popen, tmp_path)
    popen.send_signal(signal.SIGINT)
    _, errors = popen.communicate(timeout=LIMIT)
    assert popen.returncode == -signal.SIGINT, errors  # a shell shows 130
    stopped = [seen["name"] for seen in programs.read(tmp_path / "notes") if seen["event"] == "stopped"]
    assert set(stopped[:2]) == {"actor/0", "actor/1"} and stopped[2:] == ["learner/0", "replay/0"]
    assert not alive(pids)


def test_a_log_directory_is_one_programs_until_its_launcher_has_ended(tmp_path, start_script):
    popen = start_script(SCRIPT)
    wait_for_nodes(popen, tmp_path)
    program = lp.Program("second")
    program.add_node(lp.PyNode(programs.return_at_once, str(tmp_path / "ran")), label="other")
    connections = (tmp_path / "logs" / "nodes.json").read_text()
    with pytest.raises(RuntimeError, match=r"log_directory .* is that of another program that runs"):
        run(program, tmp_path)
    assert (tmp_path / "logs" / "nodes.json").read_text() == connections
    popen.kill()
    popen.wait()
    run(program, tmp_path)
    assert len(programs.read(tmp_path / "ran")) == 1


def test_nothing_is_left_when_the_launcher_is_killed(tmp_path, start_script):
    popen = start_script(SCRIPT)
    pids = wait_for_nodes(popen, tmp_path)
    assert len(pids) == 5  # four nodes and what they were forked from
    popen.kill()
    wait_until(lambda: not alive(pids), "all processes have ended")


STARTING_SCRIPT = """
import sys

import launchpad as lp
from acme_lite import launching
from tests.launching import programs

if __name__ == "__main__":
    program = lp.Program("script")
    program.add_node(lp.PyNode(programs.start_another_process, sys.argv[1] + "/notes", NEW_SESSION), label="other")
    policies = {"other": launching.NodePolicy(start=START)}
    launching.launch(program, log_directory=sys.argv[1] + "/logs", policies=policies)
"""


@pytest.mark.parametrize("new_session", [False, True])
@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_what_a_node_has_started_ends_too_when_the_launcher_is_killed(start, new_session, tmp_path, start_script):
    popen = start_script(STARTING_SCRIPT.replace("START", repr(start)).replace("NEW_SESSION", repr(new_session)))
    wait_until(lambda: programs.read(tmp_path / "notes"), "the node has started a process")
    (seen,) = programs.read(tmp_path / "notes")
    popen.kill()
    wait_until(lambda: not alive([seen["pid"], seen["started"]]), "both have ended")


def test_what_a_killed_node_has_started_ends_with_it(tmp_path):
    program = lp.Program("left")
    program.add_node(lp.PyNode(programs.leave_processes_behind, str(tmp_path / "notes")), label="actor")
    shown = run(program, tmp_path)
    assert "actor/0 died; restart 1 of 5" in shown and "actor/0: finished" in shown
    assert not alive(programs.read(tmp_path / "notes")[0]["started"])


def test_a_daemon_of_a_node_that_runs_is_left_alone_when_another_dies(tmp_path):
    daemon, died = str(tmp_path / "daemon"), str(tmp_path / "died")
    program = lp.Program("daemon")
    program.add_node(lp.PyNode(programs.start_a_daemon, daemon, died), label="learner")
    program.add_node(lp.PyNode(programs.die_once_when_noted, daemon, died), label="actor")
    run(program, tmp_path)
    started, seen = programs.read(daemon)
    assert seen["runs"]
    assert not alive([started["daemon"]])


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_what_a_node_has_started_ends_too_when_it_is_killed_for_not_stopping(start, tmp_path):
    program = lp.Program("stubborn")
    notes = str(tmp_path / "notes")
    program.add_node(lp.PyNode(programs.start_another_process_and_wait_stubbornly, notes), label="other")
    program.add_node(lp.PyNode(programs.stop_when_noted, notes), label="learner")
    run(program, tmp_path, stop_seconds=1.0, policies={"other": launching.NodePolicy(start=start)})
    (seen,) = programs.read(notes)
    wait_until(lambda: not alive([seen["started"]]), "it has ended")


def test_a_notebook_calls_a_node_by_what_the_log_directory_says(tmp_path, start_script):
    popen = start_script(SCRIPT)
    wait_for_nodes(popen, tmp_path)
    path = tmp_path / "logs" / "nodes.json"
    assert path.stat().st_mode & 0o777 == 0o600
    known = json.loads(path.read_text())
    assert set(known) == {"replay/0", "learner/0", "actor/0", "actor/1"}
    assert launching.connect(**known["replay/0"], timeout_seconds=LIMIT).ping() == "replay/0"
    popen.send_signal(signal.SIGTERM)
    popen.communicate(timeout=LIMIT)
    assert popen.returncode == 128 + signal.SIGTERM


LAUNCHPAD_SCRIPT = """
import sys

import launchpad as lp
import numpy as np
from acme_lite import launching
from tests.launching import programs


class Asker:
    def __init__(self, counter, path):
        self._counter, self._path = counter, path

    def run(self):
        programs.note(self._path, counts=self._counter.add("asker", np.ones(3, np.int32)))
        lp.stop()


if __name__ == "__main__":
    program = lp.Program("script")
    with program.group("counter"):
        counter = program.add_node(launching.CallNode(programs.Counter, sys.argv[1] + "/counter"))
    with program.group("asker"):
        program.add_node(launching.CallNode(Asker, counter, sys.argv[1] + "/asked"))
    lp.launch(program, launch_type=LAUNCH_TYPE, terminal="current_terminal")
"""


@pytest.mark.parametrize("launch_type", ["local_mt", "local_mp"])
def test_launchpads_own_launchers_run_the_same_nodes(launch_type, tmp_path, start_script):
    popen = start_script(LAUNCHPAD_SCRIPT.replace("LAUNCH_TYPE", repr(launch_type)))
    _, errors = popen.communicate(timeout=LIMIT)
    assert popen.returncode == 0, errors
    asked, counted = programs.read(tmp_path / "asked"), programs.read(tmp_path / "counter")
    assert [seen["counts"] for seen in asked] == [{"asker": 3}], errors
    pids = {seen["pid"] for seen in (*asked, *counted)}
    assert len(pids) == (1 if launch_type == "local_mt" else 2)
    wait_until(lambda: not alive(pids), "all nodes have ended")


def make_waiting_program(tmp_path):
    program = lp.Program("waiting")
    program.add_node(launching.CallNode(programs.Waiter, "w", str(tmp_path / "waiter")), label="learner")
    return program


def test_a_taken_port_is_an_error_that_names_port_and_node(tmp_path):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} of node learner/0 is taken"):
            run(make_waiting_program(tmp_path), tmp_path, first_port=port)
    assert not (tmp_path / "waiter").exists()


def test_a_function_that_cannot_be_pickled_is_an_error_that_names_the_node(tmp_path):
    program = make_waiting_program(tmp_path)
    program.add_node(lp.PyNode(programs.return_at_once, threading.Lock()), label="actor")
    with pytest.raises(ValueError, match="node actor/0 cannot be pickled: TypeError"):
        run(program, tmp_path)
    assert not (tmp_path / "waiter").exists()


def test_wrong_arguments_are_errors(tmp_path, monkeypatch):
    program = make_waiting_program(tmp_path)
    with pytest.raises(ValueError, match=r"policies names groups \['actr'\], the program has \['learner'\]"):
        run(program, tmp_path, policies={"actr": launching.NodePolicy()})
    monkeypatch.setattr(addresses, "bind", lambda *_: pytest.fail("ports were bound"))
    with pytest.raises(ValueError, match=r"policies\['learner'\] must be a NodePolicy, got \{'max_restarts': 1\}"):
        run(program, tmp_path, policies={"learner": {"max_restarts": 1}})
    with pytest.raises(ValueError, match=r"policies must map labels of groups to NodePolicy, got \['learner'\]"):
        run(program, tmp_path, policies=["learner"])
    monkeypatch.undo()
    for seconds in (0, "15", None, float("nan"), True):
        with pytest.raises(ValueError, match=f"stop_seconds must be a number greater than 0, got {seconds!r}"):
            run(program, tmp_path, stop_seconds=seconds)
    with pytest.raises(ValueError, match="program 'empty' has no nodes"):
        run(lp.Program("empty"), tmp_path)
    with pytest.raises(ValueError, match=r"NodePolicy.max_restarts must be a whole number of at least 0, got -1"):
        launching.NodePolicy(max_restarts=-1)
    with pytest.raises(ValueError, match=r"NodePolicy\.start must be 'fork' or 'spawn', got 'thread'"):
        launching.NodePolicy(start="thread")
    for cores in ((100000,), ()):
        with pytest.raises(
            ValueError, match=rf"NodePolicy.cores must be at least one of .*, got {re.escape(str(cores))}"
        ):
            launching.NodePolicy(cores=cores)
    for port in (0, -1, 65_536, "x", 1.5, True):
        with pytest.raises(
            ValueError, match=rf"first_port must be a whole number in \[1, 65535\] for 1 ports, got {port!r}"
        ):
            run(program, tmp_path, first_port=port)
    for settings, message in (
        ({"cores": [99]}, r"cores must be 'single', a tuple of cores or None, got \[99\]"),
        ({"cores": 0}, "cores must be 'single', a tuple of cores or None, got 0"),
        ({"environment": {"A": 1}}, r"environment must map names to strings, got \{'A': 1\}"),
        ({"environment": ["A"]}, r"environment must map names to strings, got \['A'\]"),
        ({"ends_program": "no"}, "ends_program must be True or False, got 'no'"),
    ):
        with pytest.raises(ValueError, match=f"NodePolicy.{message}"):
            launching.NodePolicy(**settings)
    with pytest.raises(ValueError, match=r"CallOptions.token must be ASCII and not empty"):
        launching.CallOptions(token="")


def test_a_program_whose_name_has_a_slash_gets_a_temporary_directory_for_its_logs(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = lp.Program("a/b")
    program.add_node(lp.PyNode(programs.return_at_once, str(tmp_path / "ran")), label="other")
    launching.launch(program)
    assert len(list(tmp_path.glob("acme_lite-a-b-*/other-0.log"))) == 1


def test_a_handle_says_that_it_is_no_client_yet():
    handle = lp.Program("p").add_node(launching.CallNode(programs.Counter, "notes"), label="counter")
    with pytest.raises(AttributeError, match="a handle has no attribute 'add': it becomes a client"):
        handle.add("a", 1)
