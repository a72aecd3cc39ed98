"""The replay of a program, and what takes its place when it dies."""

from __future__ import annotations

import shutil
import socket
import threading
import types

import pytest

from acme_lite import _runtime

_runtime.load_python_library()
pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite import checkpointing, experiments  # noqa: E402  # after the check for Launchpad
from acme_lite.experiments import coordination, nodes  # noqa: E402
from tests.replay import steps  # noqa: E402


class Program:
    """Starts replays of one program; where another one is started, the one before it has died."""

    def __init__(self):
        with socket.socket() as probe:
            probe.bind(("", 0))
            self._port = probe.getsockname()[1]
        self.experiment = types.SimpleNamespace(checkpointing=experiments.CheckpointConfig())
        self._coordinator = coordination.Coordinator(100)
        self._replay = None

    def describe(self):
        return {}

    def plan(self):
        return types.SimpleNamespace(tables=[steps.transition_table()])

    def resolve(self):
        return f"localhost:{self._port}"

    def start(self):
        self.kill()
        self._replay = nodes.ReplayService(self, self, self._coordinator)
        return self._replay

    def open(self, directory, **settings):
        self.experiment.checkpointing = experiments.CheckpointConfig(**settings)
        service = self.start()
        service.open(str(directory), None)
        return service

    def kill(self):
        if self._replay is not None and self._replay.local is not None:
            self._replay.local.close()


@pytest.fixture
def make_program(monkeypatch):
    """Returns a function that makes programs, whose replays are closed after the test."""
    monkeypatch.setattr(nodes.lp, "stop_event", threading.Event)
    made = []

    def make():
        made.append(Program())
        return made[-1]

    yield make
    for program in made:
        program.kill()


def insert(service, num_items):
    writer = service.local.writer(1)
    steps.Steps(writer).transitions(num_items)
    writer.flush(60.0)
    service.keep_record()


def num_inserts(service):
    return service.tables()["replay"].num_inserts


def test_it_goes_on_from_the_checkpoint_that_was_saved_last(make_program, tmp_path, capsys):
    program = make_program()
    service = program.open(tmp_path)
    insert(service, 3)
    service.save()
    insert(service, 2)
    assert num_inserts(program.start()) == 3
    assert "from its last checkpoint; at least 2 inserted items are lost" in capsys.readouterr().out
    # That of the server before is still there where the new one has saved nothing.
    assert num_inserts(program.start()) == 3


def test_it_goes_on_from_what_the_server_has_written_where_nobody_was_told(make_program, tmp_path):
    program = make_program()
    service = program.open(tmp_path)
    insert(service, 3)
    told = service.save()["checkpoint"]
    insert(service, 2)
    service.local.save()
    assert not told.exists()
    assert num_inserts(program.start()) == 5


def test_it_goes_on_from_the_checkpoint_that_it_was_opened_with(make_program, tmp_path, capsys):
    before = make_program().start()
    before.open(str(tmp_path / "before"), None)
    insert(before, 4)
    kept = shutil.copytree(before.save()["checkpoint"], tmp_path / "kept")
    program = make_program()
    program.start().open(str(tmp_path / "run"), {"checkpoint": kept})
    assert num_inserts(program.start()) == 4
    shutil.rmtree(kept)
    assert num_inserts(program.start()) == 0
    assert "empty, since there is no checkpoint; at least 4 inserted items are lost" in capsys.readouterr().out


def test_it_goes_on_from_the_checkpoint_before_one_that_is_damaged(make_program, tmp_path, capsys):
    program = make_program()
    service = program.open(tmp_path)
    of_run = checkpointing.Checkpoints(tmp_path / "checkpoints")
    saved = []
    for _ in range(2):
        insert(service, 3)
        saved.append(service.save()["checkpoint"])
        of_run.save({"replay": {"checkpoint": saved[-1]}}, {})
    damage(saved[1])
    assert num_inserts(program.start()) == 3
    said = capsys.readouterr().out
    assert str(saved[1]) in said
    assert "The one before it is taken" in said
    assert "at least 3 inserted items are lost" in said


def test_it_says_so_where_all_checkpoints_are_damaged(make_program, tmp_path):
    program = make_program()
    service = program.open(tmp_path)
    insert(service, 3)
    saved = service.save()["checkpoint"]
    checkpointing.Checkpoints(tmp_path / "checkpoints").save({"replay": {"checkpoint": saved}}, {})
    damage(saved)
    with pytest.raises(checkpointing.CheckpointError, match="None of the run's checkpoints can be read"):
        program.start()


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"max_replay_bytes": 1_000}, "the replay is greater than CheckpointConfig.max_replay_bytes = 1,000"),
        ({"include_replay": False}, "CheckpointConfig.include_replay is False"),
    ],
)
def test_it_says_why_there_is_no_checkpoint_to_go_on_from(make_program, tmp_path, capsys, settings, reason):
    program = make_program()
    service = program.open(tmp_path, **settings)
    insert(service, 2)
    assert service.save() is None
    program.start()
    assert f"started again empty, since {reason}; at least 2 inserted items" in capsys.readouterr().out


def damage(checkpoint):
    """Takes away the end of a file, in every link to it."""
    path = max(checkpoint.glob("*.tfrecord"), key=lambda path: path.stat().st_size)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)


def test_it_begins_empty_whatever_another_program_has_left(make_program, tmp_path):
    before = make_program().start()
    before.open(str(tmp_path), None)
    insert(before, 3)
    before.save()
    program = make_program()
    service = program.open(tmp_path)
    assert num_inserts(service) == 0
    insert(service, 1)
    assert num_inserts(program.start()) == 0
