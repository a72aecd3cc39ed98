"""Objects that the nodes of the tests' programs run. Each notes in files what it saw."""

import importlib
import json
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import launchpad as lp
import numpy as np
import psutil

from acme_lite import launching

# A step of waiting; whoever waits longer is ended by the supervisor or by the test.
TICK = 0.02
IN_NEW_SESSION = {"start_new_session": True, "stdout": subprocess.PIPE}


def note(path, **values):
    """Appends a line to a file, in one write."""
    with pathlib.Path(path).open("a") as file:
        file.write(json.dumps({"pid": os.getpid(), **values}) + "\n")


def read(path):
    path = pathlib.Path(path)
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def die(number=signal.SIGKILL):
    os.kill(os.getpid(), number)
    signal.pause()


class Counter:
    """Counts what it is told; in its first life, it is killed in the middle of a call."""

    def __init__(self, notes):
        self._first = not pathlib.Path(notes).exists()
        self._counts = {}
        note(notes)

    def add(self, name, array):
        if self._first and name == "actor/0":
            die()
        self._counts[name] = self._counts.get(name, 0) + int(array.sum())
        return dict(self._counts)

    def get_counts(self):
        return dict(self._counts)


class Learner:
    """Finishes when every actor has been counted often enough."""

    def __init__(self, counter, names, least):
        self._counter, self._names, self._least = counter, names, least

    def run(self):
        while not lp.wait_for_stop(TICK):
            counts = self._counter.get_counts()
            launching.report_status(steps=sum(counts.values()), episode_return=1.0, seconds_left=60)
            if all(counts.get(name, 0) >= self._least for name in self._names):
                return


class Actor:
    """Counts until it is stopped; may die once."""

    def __init__(self, counter, name, notes, *, dies=False):
        self._counter, self._name, self._notes = counter, name, notes
        self._dies = dies and not pathlib.Path(notes).exists()

    def run(self):
        import jax

        note(
            self._notes,
            cores=len(os.sched_getaffinity(0)),
            session=os.getsid(0),
            platforms=[jax.config.jax_platforms, os.environ["JAX_PLATFORMS"]],
            draw=float(np.random.random()),
        )
        if self._dies:
            die()
        while not lp.wait_for_stop(TICK):
            self._counter.add(self._name, np.ones(2, np.int32))


class Waiter:
    """Notes that it runs and, when it is stopped, that it was."""

    def __init__(self, name, notes):
        self._name, self._notes = name, notes

    def ping(self):
        return self._name

    def run(self):
        note(self._notes, name=self._name, event="running")
        lp.wait_for_stop()
        note(self._notes, name=self._name, event="stopped")


def runs(pid):
    """Returns whether a process exists and is no zombie."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def start_another_process(notes, new_session):
    """Starts a process that does not end by itself, and waits."""
    with subprocess.Popen(["sleep", "3600"], start_new_session=new_session) as started:
        note(notes, started=started.pid)
        lp.wait_for_stop()


def start_another_process_and_wait_stubbornly(notes):
    """Starts a process in a session of its own, and takes no notice of being asked to stop."""
    started = subprocess.Popen(["sleep", "3600"], start_new_session=True)
    note(notes, started=started.pid)
    while True:
        signal.pause()


def leave_processes_behind(notes):
    """Starts processes in sessions of their own and dies; reborn, ends once they have."""
    if not pathlib.Path(notes).exists():
        shell = subprocess.Popen(["sh", "-c", "sleep 3600 & echo $!; exec sleep 3600"], **IN_NEW_SESSION)
        note(notes, started=[shell.pid, int(shell.stdout.readline())])
        die()
    deadline = time.monotonic() + 30
    while any(runs(pid) for pid in read(notes)[0]["started"]):
        assert time.monotonic() < deadline
        lp.wait_for_stop(TICK)


def start_a_daemon(notes, path):
    """Starts a process whose parent ends; notes whether it runs when a file is there."""
    shell = subprocess.Popen(["sh", "-c", "sleep 3600 & echo $!"], **IN_NEW_SESSION)
    daemon = int(shell.stdout.readline())
    shell.wait()
    note(notes, daemon=daemon)
    while len(read(path)) < 2:
        lp.wait_for_stop(TICK)
    note(notes, runs=runs(daemon))


def die_once_when_noted(path, notes):
    """Is killed in its first life, once a file is there."""
    note(notes)
    if len(read(notes)) == 1:
        die_when_noted(path, signal.SIGKILL)


def end_a_process_of_the_zygote(path):
    """Kills the child that an import has left to the zygote, dies once it has been reaped, and returns when reborn."""
    pid = int(pathlib.Path(path).read_text())
    if not pathlib.Path(f"/proc/{pid}").exists():
        return
    os.kill(pid, signal.SIGKILL)
    while pathlib.Path(f"/proc/{pid}").exists():
        lp.wait_for_stop(TICK)
    die()


def kill_the_zygote():
    """Kills the process that this one was forked from."""
    os.kill(os.getppid(), signal.SIGKILL)
    lp.wait_for_stop()


class Computer:
    """Notes how JAX is set up where it runs."""

    def __init__(self, notes):
        self._notes = notes

    def run(self):
        import jax

        note(
            self._notes,
            dtype=str(jax.numpy.zeros(()).dtype),
            key=str(jax.random.key_impl(jax.random.key(0))),
            platforms=jax.config.jax_platforms,
        )


def terminate_a_worker(notes):
    """Starts a process as vector environments do, ends it, and notes how it ended."""
    context = multiprocessing.get_context("fork")
    runs = context.Event()
    worker = context.Process(target=lambda: (runs.set(), signal.pause()))
    worker.start()
    runs.wait()
    worker.terminate()
    worker.join(60)
    note(notes, ended=worker.exitcode)
    worker.kill()


def wait_stubbornly(notes):
    """Takes no notice of being asked to stop."""
    note(notes)
    while True:
        signal.pause()


def die_when_noted(path, number):
    """Is killed once a file is there."""
    while not pathlib.Path(path).exists():
        lp.wait_for_stop(TICK)
    die(number)


def fail_every_time(notes):
    note(notes)
    raise RuntimeError(f"life {len(read(notes))}")


def fail_when_stopped(notes):
    note(notes)
    lp.wait_for_stop()
    raise OSError("nothing can be written any more")


def stop_when_noted(path):
    """Stops the program once a file is there."""
    while not pathlib.Path(path).exists():
        lp.wait_for_stop(TICK)
    lp.stop()
    lp.wait_for_stop()


def exit_once(notes, how):
    """Ends its process in its first life, as a library may that takes the process for its own."""
    note(notes)
    if len(read(notes)) == 1:
        {"sys": sys.exit, "os": os._exit}[how](0)


def return_at_once(notes):
    note(notes)


class Importer:
    """Imports a module, and stops the program."""

    def __init__(self, module):
        importlib.import_module(module)

    def run(self):
        lp.stop()
        lp.wait_for_stop()
