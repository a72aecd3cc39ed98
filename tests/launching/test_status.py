"""What nodes report."""

import json
import socket
import subprocess
import sys

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


def test_without_a_supervisor_reports_go_nowhere(monkeypatch):
    monkeypatch.setattr(status, "_control", None)
    status.report_status(steps=1)
    status.request_stop()
    assert status._control is None


def test_launching_is_imported_without_grpc_launchpad_and_tensorflow():
    code = """
import sys
import acme_lite
acme_lite.launching.report_status, acme_lite.launching.NodePolicy
print([name for name in ("grpc", "launchpad", "tensorflow") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=240, check=True)
    assert result.stdout == "[]\n"
