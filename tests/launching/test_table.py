"""What a running program shows."""

import io

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


def test_elsewhere_each_change_of_state_is_a_line():
    assert show(ROWS, force_terminal=False) == "learner/0: running\nactor/0: restarting\n"
