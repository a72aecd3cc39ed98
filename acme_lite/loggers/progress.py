"""How far a run has come: a bar on a terminal, a plain line now and then where there is none."""

from __future__ import annotations

import math
import sys
import time
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol

from acme_lite.loggers import output, scalars

if TYPE_CHECKING:
    import rich.console
    import rich.live
    import rich.table

_BAR_PERIOD_SECONDS = 0.2
_LINE_PERIOD_SECONDS = 10.0
_RATE_HORIZON_SECONDS = 10.0
_SLOW_LOOK_SECONDS = 0.1
_CALLS_BETWEEN_LOOKS = 15


class Status(NamedTuple):
    """What is shown.

    Attributes:
        steps: steps done.
        total_steps: steps of the whole run.
        seconds: time since the start, in seconds.
        steps_per_second: rate of late; 0 where there is none yet.
        training_return: return of the last training episode, if any.
        evaluation_return: mean return of the last evaluation, if any.
        note: what goes on in place of steps, if anything.
    """

    steps: int
    total_steps: int
    seconds: float
    steps_per_second: float
    training_return: float | None
    evaluation_return: float | None
    note: str

    @property
    def seconds_left(self) -> float | None:
        """Time left at the rate of late, in seconds; None where there is no rate yet."""
        return (self.total_steps - self.steps) / self.steps_per_second if self.steps_per_second > 0 else None

    def text(self) -> str:
        """Returns steps, rate and returns on one line."""
        parts = [f"{self.steps:,}/{self.total_steps:,} steps"]
        if self.steps_per_second > 0:
            parts.append(f"{scalars.format_scalar(self.steps_per_second)}/s")
        named = {"training": self.training_return, "evaluation": self.evaluation_return}
        returns = [f"{name} {scalars.format_scalar(value)}" for name, value in named.items() if value is not None]
        if returns:
            parts.append("return: " + ", ".join(returns))
        if self.note:
            parts.append(self.note)
        return ", ".join(parts)


class _Display(Protocol):
    """Shows a status; `start` comes first and `stop` last, each once.

    Attributes:
        period_seconds: shortest time from one `show` to the next.
    """

    period_seconds: float

    def start(self, status: Status) -> None: ...

    def show(self, status: Status) -> None: ...

    def stop(self, status: Status) -> None: ...


class Progress:
    """Shows how far a run has come, as a context manager.

    The bar needs a terminal as standard output; lines that other code prints with `print` appear above it. Elsewhere a
    plain line is printed at the start, every ten seconds, and at the end. Leaving the block, also by an error, gives
    the terminal back as it was.

        with Progress(100_000, "dqn CartPole-v1") as progress:
            progress.advance(1)
            progress.report(training_return=21.0)

    Attributes:
        steps: steps done.

    Args:
        total_steps: steps of the whole run, at least 1.
        description: a few words that name the run.
        start_steps: steps that had been done before, where a run is continued.
        quiet: show nothing.
        console: a rich console to show the bar on, instead of standard output.
    """

    def __init__(
        self,
        total_steps: int,
        description: str = "",
        *,
        start_steps: int = 0,
        quiet: bool = False,
        console: rich.console.Console | None = None,
    ):
        if total_steps < 1:
            raise ValueError(f"total_steps must be at least 1, got {total_steps}.")
        self.steps = start_steps
        self._start_steps = start_steps
        self._total_steps = total_steps
        self._display = _make_display(description, quiet, console)
        self._training_return: float | None = None
        self._evaluation_return: float | None = None
        self._note = ""
        self._calls_to_look = 0
        self._rate = 0.0
        self._start_time = self._look_time = self._show_time = self._tell_time = 0.0
        self._show_steps = start_steps

    def __enter__(self) -> Progress:
        self._start_time = self._look_time = self._show_time = time.monotonic()
        with output.tolerate_loss():
            self._display.start(self._status(0.0))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        seconds = time.monotonic() - self._start_time
        self._note = ""
        if seconds > 0:
            self._rate = (self.steps - self._start_steps) / seconds
        with output.tolerate_loss():
            self._display.stop(self._status(seconds))

    def advance(self, steps: int) -> None:
        """Counts steps, and shows them if it is time; cheap enough to call at every step."""
        self.steps += steps
        self._calls_to_look -= 1
        if self._calls_to_look < 0:
            self._look()

    def report(self, *, training_return: float | None = None, evaluation_return: float | None = None) -> None:
        """Takes the newest returns; what is not given stays as it was."""
        if training_return is not None:
            self._training_return = float(training_return)
        if evaluation_return is not None:
            self._evaluation_return = float(evaluation_return)

    def tell(self, note: str) -> None:
        """Says what goes on in place of steps, and shows it if it is time; "" when steps go on."""
        self._note = note
        now = time.monotonic()
        # The time of `_look`, from which it takes the rate, stays as it is.
        if note and now - max(self._show_time, self._tell_time) >= self._display.period_seconds:
            self._tell_time = now
            with output.tolerate_loss():
                self._display.show(self._status(now - self._start_time))

    def _look(self) -> None:
        """Looks at the clock: every few calls where they come fast, at every call where they come slowly."""
        now = time.monotonic()
        self._calls_to_look = _CALLS_BETWEEN_LOOKS if now - self._look_time < _SLOW_LOOK_SECONDS else 0
        self._look_time = now
        elapsed = now - self._show_time
        if elapsed < self._display.period_seconds:
            return
        rate = (self.steps - self._show_steps) / elapsed
        keep = math.exp(-elapsed / _RATE_HORIZON_SECONDS) if self._rate > 0 else 0.0
        self._rate = keep * self._rate + (1 - keep) * rate
        self._show_time, self._show_steps = now, self.steps
        with output.tolerate_loss():
            self._display.show(self._status(now - self._start_time))

    def _status(self, seconds: float) -> Status:
        return Status(
            steps=self.steps,
            total_steps=self._total_steps,
            seconds=seconds,
            steps_per_second=self._rate,
            training_return=self._training_return,
            evaluation_return=self._evaluation_return,
            note=self._note,
        )


class _Nothing:
    """Shows nothing."""

    period_seconds = math.inf

    def start(self, status: Status) -> None:
        pass

    show = stop = start


class _Lines:
    """Prints plain lines."""

    period_seconds = _LINE_PERIOD_SECONDS

    def __init__(self, description: str):
        self._prefix = f"{description}: " if description else ""

    def start(self, status: Status) -> None:
        print(f"{self._prefix}{status.text()}", flush=True)

    def show(self, status: Status) -> None:
        left = status.seconds_left
        ending = "" if left is None else f", {_format_time(left)} left"
        print(f"{self._prefix}{status.text()}{ending}", flush=True)

    def stop(self, status: Status) -> None:
        print(f"{self._prefix}{status.text()}, {_format_time(status.seconds)} in all", flush=True)


class _Bar:
    """Draws two lines at the bottom of a terminal, from the caller's thread alone."""

    period_seconds = _BAR_PERIOD_SECONDS

    def __init__(self, description: str, console: rich.console.Console):
        self._description = description
        self._console = console
        self._live: rich.live.Live | None = None

    def start(self, status: Status) -> None:
        from rich import live

        self._live = live.Live(self._render(status), console=self._console, auto_refresh=False)
        self._live.start(refresh=True)

    def show(self, status: Status) -> None:
        assert self._live is not None
        self._live.update(self._render(status), refresh=True)

    def stop(self, status: Status) -> None:
        assert self._live is not None
        try:
            self._live.update(self._render(status, finished=True))
        finally:
            self._live.stop()

    def _render(self, status: Status, finished: bool = False) -> rich.table.Table:
        from rich import progress_bar, table, text

        left = status.seconds_left
        if finished:
            time_text = f"{_format_time(status.seconds)} in all"
        else:
            time_text = "" if left is None else f"{_format_time(left)} left"
        first = table.Table.grid(expand=True, padding=(0, 1))
        first.add_column(no_wrap=True)
        first.add_column(ratio=1)
        first.add_column(no_wrap=True, justify="right")
        first.add_column(no_wrap=True, justify="right")
        bar = progress_bar.ProgressBar(total=status.total_steps, completed=min(status.steps, status.total_steps))
        percent = f"{100 * status.steps // status.total_steps}%"
        first.add_row(text.Text(self._description, style="bold"), bar, percent, time_text)
        both = table.Table.grid(expand=True)
        both.add_row(first)
        both.add_row(text.Text(status.text(), style="dim", no_wrap=True, overflow="ellipsis"))
        return both


def _make_display(description: str, quiet: bool, console: rich.console.Console | None) -> _Display:
    if quiet:
        return _Nothing()
    if console is None:
        if not sys.stdout.isatty():
            return _Lines(description)
        from rich.console import Console

        console = Console()
    return _Lines(description) if console.is_dumb_terminal else _Bar(description, console)


def _format_time(seconds: float) -> str:
    """Returns a time as `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
