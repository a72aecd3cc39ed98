"""Tests of progress on a terminal and without one, with a clock that is set by hand."""

import io
import os
import pty
import sys
import threading

import pytest
from rich.console import Console

from acme_lite import loggers
from acme_lite.loggers import progress

SHOW_CURSOR = "\x1b[?25h"
HIDE_CURSOR = "\x1b[?25l"


@pytest.fixture
def clock(monkeypatch):
    """Returns a list whose one number is the time in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def console(monkeypatch):
    for name in ("NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    return Console(file=io.StringIO(), force_terminal=True, width=80)


class TestLines:
    def test_first_and_last_line(self, clock, capsys):
        with loggers.Progress(1000, "dqn CartPole-v1") as run:
            for _ in range(1000):
                run.advance(1)
            clock[0] = 2.0
        assert capsys.readouterr().out.splitlines() == [
            "dqn CartPole-v1: 0/1,000 steps",
            "dqn CartPole-v1: 1,000/1,000 steps, 500/s, 0:00:02 in all",
        ]

    def test_a_line_every_ten_seconds(self, clock, capsys):
        with loggers.Progress(4000) as run:
            for _ in range(40):  # one call a second, 100 steps each
                clock[0] += 1.0
                run.advance(100)
                run.report(training_return=clock[0])
            run.report(evaluation_return=500)
        lines = capsys.readouterr().out.splitlines()
        assert lines == [
            "0/4,000 steps",
            "1,000/4,000 steps, 100/s, return: training 9, 0:00:30 left",
            "2,000/4,000 steps, 100/s, return: training 19, 0:00:20 left",
            "3,000/4,000 steps, 100/s, return: training 29, 0:00:10 left",
            "4,000/4,000 steps, 100/s, return: training 39, 0:00:00 left",
            "4,000/4,000 steps, 100/s, return: training 40, evaluation 500, 0:00:40 in all",
        ]

    def test_the_rate_is_of_late(self, clock, capsys):
        with loggers.Progress(10**6) as run:
            for _ in range(10):
                clock[0] += 1.0
                run.advance(1000)
            for _ in range(100):
                clock[0] += 1.0
                run.advance(10)
            lines = capsys.readouterr().out.splitlines()
        # Of 1,000/s, exp(-1) is left after 10 s at 10/s, and exp(-10) after 100 s: 10.04.
        assert " 1,000/s" in lines[1]
        assert " 374.2/s" in lines[2]
        assert " 10.04/s" in lines[11]

    def test_what_goes_on_in_place_of_steps_is_told(self, clock, capsys):
        with loggers.Progress(2000) as run:
            for _ in range(10):
                clock[0] += 1.0
                run.advance(100)
            for episode in range(25):
                run.tell(f"evaluating: {episode} of 25 episodes")
                clock[0] += 1.0
            run.tell("")
            for _ in range(10):
                clock[0] += 1.0
                run.advance(100)
        assert capsys.readouterr().out.splitlines() == [
            "0/2,000 steps",
            "1,000/2,000 steps, 100/s, 0:00:10 left",
            "1,000/2,000 steps, 100/s, evaluating: 10 of 25 episodes, 0:00:10 left",
            "1,000/2,000 steps, 100/s, evaluating: 20 of 25 episodes, 0:00:10 left",
            "1,100/2,000 steps, 10.99/s, 0:01:22 left",  # the steps since, over the time since, evaluation and all
            "2,000/2,000 steps, 44.44/s, 0:00:45 in all",
        ]

    def test_an_error_passes_and_the_last_line_comes(self, clock, capsys):
        with pytest.raises(KeyError, match="lost"), loggers.Progress(10, "run") as run:
            run.advance(3)
            raise KeyError("lost")
        assert capsys.readouterr().out.splitlines()[-1].startswith("run: 3/10 steps")

    def test_a_continued_run_does_not_count_the_steps_before(self, clock, capsys):
        with loggers.Progress(1000, start_steps=900) as run:
            clock[0] = 10.0
            run.advance(50)
        assert run.steps == 950
        assert capsys.readouterr().out.splitlines()[-1] == "950/1,000 steps, 5/s, 0:00:10 in all"

    def test_a_dumb_terminal_gets_lines(self, clock, capsys, monkeypatch):
        monkeypatch.setenv("TERM", "dumb")
        with loggers.Progress(10, "run", console=Console(file=io.StringIO(), force_terminal=True)):
            pass
        assert capsys.readouterr().out.startswith("run: 0/10 steps\n")


def test_quiet_prints_nothing(capsys):
    with loggers.Progress(10, quiet=True) as run:
        run.advance(10)
    assert run.steps == 10
    assert capsys.readouterr().out == ""


def test_total_steps_are_checked():
    with pytest.raises(ValueError, match="total_steps must be at least 1, got 0"):
        loggers.Progress(0)


@pytest.mark.parametrize(("seconds", "text"), [(0.4, "0:00:00"), (61, "0:01:01"), (36059.6, "10:01:00")])
def test_times_are_readable(seconds, text):
    assert progress._format_time(seconds) == text


class TestBar:
    def test_it_shows_steps_rate_returns_and_time_left(self, clock, console):
        with loggers.Progress(10_000, "dqn CartPole-v1", console=console) as run:
            run.report(training_return=123.456, evaluation_return=500)
            for _ in range(20):
                clock[0] += 0.1
                run.advance(100)
            screen = console.file.getvalue()
        assert "dqn CartPole-v1" in screen
        assert "━" in screen
        assert "2,000/10,000 steps, 1,000/s, return: training 123.5, evaluation 500" in screen
        assert "20% 0:00:08 left" in screen

    def test_it_is_drawn_at_most_five_times_a_second(self, clock, console, monkeypatch):
        shown = []
        monkeypatch.setattr(progress._Bar, "show", lambda _, status: shown.append(status.steps))
        with loggers.Progress(10**6, console=console) as run:
            for _ in range(10_000):  # one second
                clock[0] += 1e-4
                run.advance(1)
        assert 4 <= len(shown) <= 5

    def test_a_sudden_slowness_is_seen_after_a_few_calls(self, clock, console, monkeypatch):
        shown = []
        monkeypatch.setattr(progress._Bar, "show", lambda _, status: shown.append(status.steps))
        with loggers.Progress(10**6, console=console) as run:
            for _ in range(10_000):
                run.advance(8)
            for _ in range(100):
                clock[0] += 1.0
                run.advance(8)
        assert len(shown) >= 100 - progress._CALLS_BETWEEN_LOOKS - 1

    def test_lines_of_other_code_stay_whole(self, clock, console):
        with loggers.Progress(100, "run", console=console) as run:
            for step in range(10):
                clock[0] += 0.5
                run.advance(1)
                print(f"line {step} of other code")
        screen = console.file.getvalue()
        for step in range(10):
            assert screen.count(f"line {step} of other code\n") == 1

    def test_an_error_gives_the_terminal_back(self, clock, console):
        stdout, stderr = sys.stdout, sys.stderr
        with pytest.raises(KeyboardInterrupt), loggers.Progress(100, "run", console=console) as run:
            assert sys.stdout is not stdout
            run.advance(1)
            raise KeyboardInterrupt
        assert (sys.stdout, sys.stderr) == (stdout, stderr)
        screen = console.file.getvalue()
        assert screen.rindex(SHOW_CURSOR) > screen.rindex(HIDE_CURSOR)

    def test_an_error_while_drawing_gives_the_terminal_back(self, clock, console, monkeypatch):
        stdout = sys.stdout
        with pytest.raises(RuntimeError, match="cannot draw"), loggers.Progress(100, "run", console=console) as run:

            def fail(*_, **__):
                raise RuntimeError("cannot draw")

            monkeypatch.setattr(progress._Bar, "_render", fail)
            clock[0] = 1.0
            run.advance(1)
        assert sys.stdout is stdout
        assert console.file.getvalue().endswith(SHOW_CURSOR)

    def test_on_a_pseudo_terminal(self, console, monkeypatch):
        ours, theirs = pty.openpty()
        chunks = []

        def read():
            while True:
                try:
                    chunks.append(os.read(ours, 4096))
                except OSError:  # the other end is closed
                    return

        reader = threading.Thread(target=read)
        reader.start()
        with os.fdopen(theirs, "w") as terminal, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", terminal)
            patch.setattr(sys, "stderr", terminal)
            with loggers.Progress(1000, "sac Pendulum-v1") as run:
                run.advance(500)
                print("a line of other code")
                run.advance(500)
        reader.join(timeout=10)
        os.close(ours)
        screen = b"".join(chunks).decode().replace("\r\n", "\n")
        assert screen.count("a line of other code\n") == 1
        assert "━" in screen
        assert "1,000/1,000 steps" in screen
        assert screen.rindex(SHOW_CURSOR) > screen.rindex(HIDE_CURSOR)
