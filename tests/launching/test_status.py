"""What nodes report."""

import json
import socket
import subprocess
import sys
import threading

import pytest

from acme_lite.launching import status


@pytest.fixture
def supervisor(monkeypatch):
    ours, theirs = socket.socketpair()
    monkeypatch.setattr(status, "_control", None)
    with ours, theirs:
        ours.settimeout(60)
        status.attach(theirs)
        yield ours


def test_the_first_report_arrives_and_those_right_after_it_are_left_out(supervisor):
    for step in range(100):
        status.report_status(steps=step, seconds_left=1.5)
    status.request_stop()
    with supervisor.makefile() as lines:
        first, second = (json.loads(lines.readline()) for _ in range(2))
    assert first == {"report": {"steps": 0.0, "seconds_left": 1.5}}
    assert second == {"stop": True}


def in_a_thread(function):
    thread = threading.Thread(target=function, daemon=True)
    thread.start()
    return thread


def report_often(num_reports=5_000):
    """Returns whether reporting ends although nobody reads."""

    def report():
        for step in range(num_reports):
            status.report_status(steps=step)

    reporting = in_a_thread(report)
    reporting.join(20)
    return not reporting.is_alive()


def test_reports_for_which_there_is_no_room_are_dropped_and_what_matters_arrives(supervisor, monkeypatch):
    monkeypatch.setattr(status, "_MIN_PERIOD_SECONDS", 0.0)
    assert report_often()
    saying = in_a_thread(lambda: status.say("it matters"))
    saying.join(0.2)
    assert saying.is_alive()  # it waits for room
    assert report_often()  # and holds back no report
    with supervisor.makefile() as lines:
        messages = list(iter(lambda: json.loads(lines.readline()), {"say": "it matters"}))
    saying.join(20)
    assert not saying.is_alive()
    assert 0 < len(messages) < 5_000
    assert messages == [{"report": {"steps": float(step)}} for step in range(len(messages))]


def test_without_a_supervisor_reports_go_nowhere(monkeypatch, capsys):
    def no_json(message):
        raise AssertionError(f"{message} was about to be sent")

    monkeypatch.setattr(status, "_control", None)
    monkeypatch.setattr(status.json, "dumps", no_json)
    last_report = status._last_report
    status.report_status(steps=1)
    status.request_stop()
    status.say("said here")
    assert status._last_report == last_report
    assert capsys.readouterr().out == "said here\n"


def test_launching_is_imported_without_grpc_launchpad_and_tensorflow():
    code = """
import sys
import acme_lite
acme_lite.launching.report_status, acme_lite.launching.NodePolicy
print([name for name in ("grpc", "launchpad", "tensorflow") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    assert result.stdout == "[]\n"
