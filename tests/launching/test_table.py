"""What a running program shows."""

import io
import re

import pytest
import rich.console

from acme_lite.launching import table

ROWS = [
    table.Row("learner/0", "running", 0, 1234.4, None, 3700.2),
    table.Row("actor/0", "restarting", 2, None, 21.5, None),
]


def show(rows, **kwargs):
    file = io.StringIO()
    with table.Display("program", rich.console.Console(file=file, width=100, **kwargs)) as display:
        display.update(rows)
        display.update(rows, last=True)
    return file.getvalue()


def test_a_terminal_shows_all_columns():
    shown = show(ROWS, force_terminal=True, color_system=None)
    for text in ("program", "steps/s", "last return", "time left", "1,234", "1:01:40", "restarting", "2", "21.5"):
        assert text in shown


@pytest.mark.parametrize("seconds", [float("inf"), float("nan"), 1e300])
def test_a_time_that_is_none_is_not_shown(seconds):
    shown = show([table.Row("mine/0", "running", 7, None, None, seconds)], force_terminal=True, color_system=None)
    assert re.search(r"mine/0 +│ running +│ +7 │ +│ +│ +│", shown)


def test_a_time_left_is_never_below_0():
    shown = show([table.Row("mine/0", "running", 7, None, None, -1.0)], force_terminal=True, color_system=None)
    assert re.search(r"mine/0 +│ running +│ +7 │ +│ +│ +0:00:00 │", shown)


def test_elsewhere_each_change_of_state_is_a_line():
    assert show(ROWS, force_terminal=False) == "learner/0: running\nactor/0: restarting\n"
