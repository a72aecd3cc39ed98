"""What a running program shows: one live table on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import dataclasses
import datetime
import time
from collections.abc import Sequence
from types import TracebackType

import rich.console
import rich.live
import rich.table

from acme_lite import loggers

_REFRESH_SECONDS = 0.25


@dataclasses.dataclass(frozen=True)
class Row:
    """A node at this moment; what it has not reported is None."""

    name: str
    state: str
    restarts: int
    steps_per_second: float | None
    episode_return: float | None
    seconds_left: float | None


def make_table(title: str, rows: Sequence[Row]) -> rich.table.Table:
    """Returns the table of the nodes."""
    table = rich.table.Table(title=title, title_justify="left")
    table.add_column("node")
    table.add_column("state")
    for header in ("restarts", "steps/s", "last return", "time left"):
        table.add_column(header, justify="right")
    for row in rows:
        table.add_row(
            row.name,
            row.state,
            str(row.restarts),
            "" if row.steps_per_second is None else f"{row.steps_per_second:,.0f}",
            "" if row.episode_return is None else f"{row.episode_return:.4g}",
            "" if row.seconds_left is None else _duration(row.seconds_left),
        )
    return table


def _duration(seconds: float) -> str:
    try:
        return str(datetime.timedelta(seconds=max(round(seconds), 0)))  # actors may make more steps than were asked for
    except (OverflowError, ValueError):  # a node may have divided by no progress at all
        return ""


class Display:
    """Shows rows, as a live table where the console is a terminal and as lines of changed states elsewhere."""

    def __init__(self, title: str, console: rich.console.Console | None = None):
        self._title = title
        self._console = console or rich.console.Console()
        self._live: rich.live.Live | None = None
        self._states: dict[str, str] = {}
        self._refreshed = float("-inf")

    def __enter__(self) -> Display:
        if self._console.is_terminal:
            live = rich.live.Live(console=self._console, auto_refresh=False)
            with loggers.tolerate_loss():
                live.start()
                self._live = live  # one that has not started could not be stopped either
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            with loggers.tolerate_loss():
                self._live.stop()

    def update(self, rows: Sequence[Row], *, last: bool = False) -> None:
        """Shows rows; a terminal is written to four times a second, and at the end."""
        if self._live is not None:
            now = time.monotonic()
            if last or now - self._refreshed >= _REFRESH_SECONDS:
                self._refreshed = now
                with loggers.tolerate_loss():
                    self._live.update(make_table(self._title, rows), refresh=True)
            return
        for row in rows:
            if self._states.get(row.name) != row.state:
                self._states[row.name] = row.state
                self.say(f"{row.name}: {row.state}")

    def say(self, line: str) -> None:
        """Prints a line, above the table where there is one."""
        with loggers.tolerate_loss():
            self._console.print(line, markup=False, highlight=False, soft_wrap=True)
