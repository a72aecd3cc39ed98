"""What the supervisor decides when nodes die, without processes."""

import io
import signal

import pytest
import rich.console

from acme_lite import _runtime

_runtime.load_python_library()
lp = pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite import launching  # noqa: E402
from acme_lite.launching import child, policies, processes, records, supervisor, table  # noqa: E402


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def node(tmp_path):
    policy = policies.NodePolicy(max_restarts=2, start="spawn")
    (tmp_path / "log").touch()
    return records.NodeRecord(
        "actor", 0, policy, child.NodeProcess("actor/0", {}, None), io.BytesIO(), tmp_path / "log"
    )


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def supervising(node, clock, tmp_path):
    display = table.Display("program", rich.console.Console(file=io.StringIO()))
    return supervisor._Supervisor([node], tmp_path, 5.0, display, [], clock)


def live(supervising, node, clock, seconds):
    """Lets a node run for so long, and die."""
    supervising._handle_message(node, {"state": "running"})
    clock.now += seconds
    supervising._handle(node, processes.Event(node.name, returncode=-9))


def test_a_node_that_dies_soon_each_time_is_given_up(supervising, node, clock):
    for seconds in (1.0, 599.0, 1.0):
        assert supervising.failure is None
        live(supervising, node, clock, seconds)
    assert "after 2 restarts, the most that its policy allows: killed by SIGKILL" in supervising.failure.reason


def test_a_node_that_has_run_for_ten_minutes_is_started_again_as_if_it_had_never_died(supervising, node, clock):
    for _ in range(5):
        live(supervising, node, clock, 600.0)
    live(supervising, node, clock, 1.0)
    assert supervising.failure is None
    assert node.state == "restarting" and node.row().restarts == 6
    live(supervising, node, clock, 1.0)
    assert supervising.failure is not None


@pytest.mark.parametrize("max_deaths", [1, 3])
def test_what_a_node_has_reported_is_not_shown_once_it_has_died(supervising, node, clock, max_deaths):
    for _ in range(max_deaths):
        for steps in (0, 100):
            supervising._handle_message(node, {"report": {"steps": steps, "episode_return": 1.5, "seconds_left": 60}})
        row = node.row()
        assert row.steps_per_second > 0 and (row.episode_return, row.seconds_left) == (1.5, 60)
        live(supervising, node, clock, 1.0)
    row = node.row()
    assert row.state == ("restarting" if max_deaths == 1 else "failed")
    assert (row.steps_per_second, row.episode_return, row.seconds_left) == (None, None, None)


@pytest.mark.parametrize("gone_from_the_start", [False, True])
@pytest.mark.parametrize("terminal", [False, True])
def test_a_display_goes_on_without_its_console(node, terminal, gone_from_the_start):
    class Terminal(io.StringIO):
        gone, num_lost = gone_from_the_start, 0

        def write(self, text):
            if self.gone:
                self.num_lost += 1
                raise OSError(5, "Input/output error")  # as of a terminal that was closed
            return super().write(text)

    file = Terminal()
    with table.Display("program", rich.console.Console(file=file, force_terminal=terminal)) as display:
        file.gone = True
        display.say("lost")
        assert file.num_lost > 0
        num_lost = file.num_lost
        node.state = "running"
        display.update([node.row()], last=True)
        assert file.num_lost > num_lost
        file.gone, node.state = False, "restarting"
        display.say("told")
        display.update([node.row()], last=True)
    shown = file.getvalue()
    assert "told" in shown and "restarting" in shown


def test_a_failure_is_told_also_where_ctrl_c_came_after_it(monkeypatch, tmp_path):
    def run(self):
        self.failure = supervisor.NodeFailedError("actor/0", "the reason")
        self._signals.append(signal.SIGINT)

    monkeypatch.setattr(supervisor._Supervisor, "run", run)
    program = lp.Program("program")
    program.add_node(launching.CallNode(print), label="actor")
    with pytest.raises(launching.NodeFailedError, match="the reason"):
        launching.launch(program, log_directory=tmp_path, console=rich.console.Console(file=io.StringIO()))
