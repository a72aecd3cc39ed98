"""Tests of the loggers: every row is kept, in every kind of logger, with every kind of scalar."""

import csv
import os
import struct
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import loggers
from acme_lite.loggers import atomic, scalars, tensorboard


def read_csv(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def read_events(directory):
    """Returns (step, {tag: value}) of every event in a directory; a record is length, checksum, data, checksum."""
    from tensorboardX.proto import event_pb2

    rows = []
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.summary.value:
                rows.append((event.step, {value.tag: value.simple_value for value in event.summary.value}))
    return rows


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3),
        (2.5, 2.5),
        (True, True),
        ("text", "text"),
        (np.int64(7), 7),
        (np.float32(0.5), 0.5),
        (np.float64(0.25), 0.25),
        (np.bool_(True), True),
        (np.array(4), 4),
        (jnp.float32(1.5), 1.5),
        (jnp.int32(9), 9),
        (jnp.bfloat16(2.0), 2.0),
    ],
)
def test_scalars_become_pythons_own(value, expected):
    scalar = scalars.to_scalar("x", value)
    assert scalar == expected
    assert type(scalar) is type(expected)


@pytest.mark.parametrize("value", [np.zeros(3), [1, 2], None, object()])
def test_what_is_no_scalar_is_named(value):
    with pytest.raises(ValueError, match="loss must be a"):
        scalars.to_scalar("loss", value)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1234567, "1,234,567"),
        (12.3456, "12.35"),
        (123456.7, "123,457"),
        (-2500.0, "-2,500"),
        (0.0, "0"),
        (1.5e-5, "1.50e-05"),
        (float("nan"), "nan"),
        (True, "True"),
        ("text", "text"),
    ],
)
def test_scalars_are_readable(value, text):
    assert scalars.format_scalar(value) == text


class TestCSVLogger:
    def test_rows_are_readable_before_the_file_is_closed(self, tmp_path):
        logger = loggers.CSVLogger(tmp_path / "logs" / "a.csv")
        logger.write({"steps": 1, "loss": np.float64(0.1)})
        logger.write({"loss": jnp.float32(0.5), "steps": np.int32(2)})
        assert read_csv(tmp_path / "logs" / "a.csv") == [{"steps": "1", "loss": "0.1"}, {"steps": "2", "loss": "0.5"}]
        logger.close()

    def test_a_late_column_is_kept_and_so_is_every_row(self, tmp_path):
        path = tmp_path / "a.csv"
        logger = loggers.CSVLogger(path)
        for step in range(100):
            logger.write({"steps": step, "note": 'a "quoted", part'})
        logger.write({"steps": 100, "late": 5.0, "later": 6})
        logger.write({"later": 7})
        rows = read_csv(path)
        assert [row["steps"] for row in rows] == [*map(str, range(101)), ""]
        assert [row["late"] for row in rows] == [""] * 100 + ["5.0", ""]
        assert [row["later"] for row in rows[100:]] == ["6", "7"]
        assert rows[0]["note"] == 'a "quoted", part'
        assert os.listdir(tmp_path) == ["a.csv"]
        logger.close()

    def test_a_failure_while_widening_leaves_the_file_as_it_was(self, tmp_path, monkeypatch):
        logger = loggers.CSVLogger(tmp_path / "a.csv")
        logger.write({"steps": 1})

        def fail(*_):
            raise OSError("disk full")

        with monkeypatch.context() as patch:
            patch.setattr(atomic.os, "replace", fail)
            with pytest.raises(OSError, match="disk full"):
                logger.write({"steps": 2, "late": 3})
        logger.write({"steps": 4})
        assert read_csv(tmp_path / "a.csv") == [{"steps": "1"}, {"steps": "4"}]
        assert os.listdir(tmp_path) == ["a.csv"]
        logger.close()

    def test_an_existing_file_is_continued(self, tmp_path):
        path = tmp_path / "a.csv"
        for step in range(3):
            logger = loggers.CSVLogger(path)
            logger.write({"steps": step, f"only_{step}": 1})
            logger.close()
        rows = read_csv(path)
        assert [row["steps"] for row in rows] == ["0", "1", "2"]
        assert [row["only_1"] for row in rows] == ["", "1", ""]

    def test_half_a_line_is_cut_off(self, tmp_path):
        path = tmp_path / "a.csv"
        path.write_text("steps,loss\n1,2\n123")
        logger = loggers.CSVLogger(path)
        logger.write({"steps": 3, "loss": 4})
        logger.close()
        assert path.read_text() == "steps,loss\n1,2\n3,4\n"

    def test_line_breaks_and_empty_rows_make_no_lines(self, tmp_path):
        path = tmp_path / "a.csv"
        logger = loggers.CSVLogger(path)
        logger.write({})
        logger.write({"note": "two\nlines"})
        logger.close()
        assert path.read_text() == "note\ntwo lines\n"

    def test_a_killed_process_loses_nothing(self, tmp_path):
        script = (
            "import os, sys, types\n"
            # The package alone: importing acme_lite itself would take JAX's second.
            f"package = types.ModuleType('acme_lite'); package.__path__ = [{os.path.dirname(loggers.__path__[0])!r}]\n"
            "sys.modules['acme_lite'] = package\n"
            "from acme_lite.loggers import CSVLogger\n"
            "logger = CSVLogger(sys.argv[1])\n"
            "for step in range(1000): logger.write({'steps': step})\n"
            "os.kill(os.getpid(), 9)\n"
        )
        path = tmp_path / "a.csv"
        assert subprocess.run([sys.executable, "-c", script, path], check=False).returncode == -9
        assert [row["steps"] for row in read_csv(path)] == [str(step) for step in range(1000)]


class TestTensorBoardLogger:
    def test_numbers_stand_at_their_steps(self, tmp_path):
        logger = loggers.TensorBoardLogger(tmp_path / "events", "learner")
        logger.write({"loss": 0.25})
        logger.write({"actor_steps": 10, "loss": jnp.float32(0.5), "note": "text"})
        logger.write({"loss": np.float64(0.75)})
        logger.close()
        assert read_events(tmp_path / "events") == [
            (0, {"learner/loss": 0.25}),
            (10, {"learner/actor_steps": 10.0, "learner/loss": 0.5}),
            (10, {"learner/loss": 0.75}),
        ]

    def test_rows_a_second_apart_are_there_before_the_file_is_closed(self, tmp_path, monkeypatch):
        now = [1e9]
        monkeypatch.setattr(tensorboard.time, "time", lambda: now[0])
        logger = loggers.TensorBoardLogger(tmp_path, "a")
        steps = []
        for step in range(3):
            logger.write({"actor_steps": step})
            steps.append([row_step for row_step, _ in read_events(tmp_path)])
            now[0] += 0.6
        assert steps == [[0], [0], [0, 1, 2]]
        logger.close()

    def test_loggers_of_one_second_have_files_of_their_own(self, tmp_path):
        for step in range(3):
            logger = loggers.TensorBoardLogger(tmp_path, "a")
            logger.write({"actor_steps": step})
            logger.close()
        assert sorted(step for step, _ in read_events(tmp_path)) == [0, 1, 2]

    def test_nothing_is_made_for_no_rows(self, tmp_path):
        loggers.TensorBoardLogger(tmp_path / "events", "a").close()
        assert not (tmp_path / "events").exists()


_FIRST_ROWS_AT_ONCE = """
import sys, threading
from acme_lite import loggers
sys.setswitchinterval(1e-5)  # threads take turns often, within imports, too
names, written = ["sys", "tensorboardX", "tensorboardX.torchvis", "tensorboardX.writer", "tensorboardX.proto"], []
def write(name):
    logger = loggers.TensorBoardLogger(sys.argv[1], name)
    while name not in sys.modules: pass  # the first thread has come so far
    logger.write({"actor_steps": 1, "episode_return": 2.0})
    logger.close()
    written.append(name)
threads = [threading.Thread(target=write, args=(name,)) for name in names]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert sorted(written) == sorted(names), written
"""


def test_threads_write_their_first_rows_to_tensorboard_at_once(tmp_path):
    command = [sys.executable, "-c", _FIRST_ROWS_AT_ONCE, str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert result.returncode == 0, result.stderr
    assert len(list(tmp_path.iterdir())) == 5


def test_a_tensorboard_logger_that_goes_back_begins_a_new_file(tmp_path):
    logger = loggers.TensorBoardLogger(tmp_path, "actor")
    logger.write({"actor_steps": 3, "episode_return": 1.0})
    saved = logger.save()
    logger.write({"actor_steps": 4, "episode_return": 2.0})
    logger.restore(saved)
    logger.write({"actor_steps": 4, "episode_return": 3.0})
    logger.close()
    assert len(list(tmp_path.iterdir())) == 2


def test_in_memory_logger_keeps_rows():
    logger = loggers.InMemoryLogger()
    row = {"steps": np.int64(1)}
    logger.write(row)
    row["steps"] = np.int64(2)
    logger.write(row)
    logger.close()
    assert logger.rows == [{"steps": 1}, {"steps": 2}]


def test_terminal_logger_prints_one_line(capsys):
    logger = loggers.TerminalLogger("actor")
    logger.write({"actor_steps": 12000, "episode_return": np.float32(23.5)})
    logger.close()
    assert capsys.readouterr().out == "actor | actor_steps 12,000 | episode_return 23.5\n"


class Closing:
    def __init__(self, error=None):
        self.closed = False
        self.error = error

    def write(self, row):
        pass

    def close(self):
        self.closed = True
        if self.error:
            raise self.error


def test_dispatcher_sends_to_all_and_closes_all():
    memories = [loggers.InMemoryLogger(), loggers.InMemoryLogger()]
    closing = [Closing(), Closing(OSError("no space")), Closing()]
    dispatcher = loggers.Dispatcher([*memories, *closing])
    dispatcher.write({"a": 1})
    assert [memory.rows for memory in memories] == [[{"a": 1}]] * 2
    with pytest.raises(OSError, match="no space"):
        dispatcher.close()
    assert all(logger.closed for logger in closing)


def test_factory_writes_where_it_says(tmp_path):
    make_logger = loggers.make_logger_factory(tmp_path)
    for label in ("actor", "learner"):
        logger = make_logger(label)
        logger.write({"actor_steps": 3, "who": label})
        logger.close()
    assert read_csv(tmp_path / "logs" / "actor.csv") == [{"actor_steps": "3", "who": "actor"}]
    assert read_csv(tmp_path / "logs" / "learner.csv") == [{"actor_steps": "3", "who": "learner"}]
    assert read_events(tmp_path / "tensorboard" / "learner") == [(3, {"learner/actor_steps": 3.0})]


def test_factory_without_events(tmp_path):
    logger = loggers.make_logger_factory(tmp_path, tensorboard_events=False)("actor")
    logger.write({"actor_steps": 3})
    logger.close()
    assert os.listdir(tmp_path) == ["logs"]


def test_importing_loggers_imports_nothing_heavy():
    script = (
        "import sys, acme_lite.loggers\n"
        "print([name for name in ('matplotlib', 'rich', 'tensorboardX') if name in sys.modules])\n"
    )
    result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert result.stdout == "[]\n"


def test_a_csv_file_goes_on_behind_the_rows_that_were_saved(tmp_path):
    logger = loggers.CSVLogger(tmp_path / "log.csv")
    for step in range(3):
        logger.write({"step": step, "note": "a, b\nc"})
    state = logger.save()
    expected = (tmp_path / "log.csv").read_bytes()
    logger.write({"step": 3, "late": 1.5})
    logger.close()
    again = loggers.CSVLogger(tmp_path / "log.csv")
    again.restore(state)
    again.write({"step": 3, "late": 2.5})
    assert again.save() == 4
    again.restore(9)  # rows that a crash of the machine has lost do not come back
    again.close()
    rows = read_csv(tmp_path / "log.csv")
    assert [row["step"] for row in rows] == ["0", "1", "2", "3"] and rows[3]["late"] == "2.5"
    assert [row["late"] for row in rows[:3]] == [""] * 3
    assert expected.splitlines()[1:] == [
        line.rsplit(b",", 1)[0] for line in (tmp_path / "log.csv").read_bytes().splitlines()[1:4]
    ]


def test_names_of_several_lines_lose_no_row(tmp_path):
    logger = loggers.CSVLogger(tmp_path / "rows.csv")
    for value in range(3):
        logger.write({"of two\nlines": value})
    state = logger.save()
    logger.write({"of two\nlines": 9})
    logger.restore(state)
    logger.close()
    assert (tmp_path / "rows.csv").read_text() == "of two lines\n0\n1\n2\n"


def read_starts(directory):
    """Returns the steps from which on the events of other files are forgotten."""
    from tensorboardX.proto import event_pb2

    starts = []
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        while content:
            (length,) = struct.unpack("<Q", content[:8])
            event = event_pb2.Event.FromString(content[12 : 12 + length])
            content = content[16 + length :]
            if event.session_log.status == event_pb2.SessionLog.START:
                starts.append(event.step)
    return starts


def test_events_after_what_was_saved_are_forgotten(tmp_path):
    logger = loggers.TensorBoardLogger(tmp_path / "first", "actor")
    logger.write({"actor_steps": 70, "x": 1.0})
    state = logger.save()
    logger.close()
    again = loggers.TensorBoardLogger(tmp_path / "second", "actor")
    again.restore(state)
    again.write({"x": 2.0})
    again.close()
    assert read_events(tmp_path / "second") == [(70, {"actor/x": 2.0})]
    assert read_starts(tmp_path / "second") == [71]


def test_a_dispatcher_saves_each_logger_that_can(tmp_path):
    logger = loggers.Dispatcher([loggers.InMemoryLogger(), loggers.CSVLogger(tmp_path / "log.csv")])
    logger.write({"x": 1})
    state = logger.save()
    logger.write({"x": 2})
    logger.restore(state)
    logger.close()
    assert state == [None, 1] and read_csv(tmp_path / "log.csv") == [{"x": "1"}]


def test_a_factory_drops_what_was_written_behind_a_step(tmp_path):
    logger = loggers.make_logger_factory(tmp_path)("actor")
    for step in (10, 20, 30, 15):
        logger.write({"actor_steps": step})
    logger.close()
    logger = loggers.make_logger_factory(tmp_path, drop_after_step=20)("actor")
    logger.write({"actor_steps": 22})
    logger.close()
    assert [row["actor_steps"] for row in read_csv(tmp_path / "logs" / "actor.csv")] == ["10", "20", "22"]
    assert read_starts(tmp_path / "tensorboard" / "actor") == [21]


def test_rows_of_a_file_without_the_column_are_kept(tmp_path):
    logger = loggers.CSVLogger(tmp_path / "log.csv")
    logger.write({"value": 3})
    logger.drop_after("actor_steps", 1)
    logger.close()
    assert read_csv(tmp_path / "log.csv") == [{"value": "3"}]
