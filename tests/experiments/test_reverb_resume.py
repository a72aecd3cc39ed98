"""Runs around a Reverb server that go on after a crash, wherever they have been moved, and what they leave behind."""

from __future__ import annotations

import importlib.util
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from acme_lite import checkpointing, experiments, loggers, replay, testing
from acme_lite.agents import dqn
from tests.experiments import test_resume
from tests.replay import steps

if importlib.util.find_spec("reverb") is None:
    pytest.skip("Reverb's wheels exist for Python 3.10 on x86-64 Linux alone", allow_module_level=True)

pytestmark = pytest.mark.usefixtures("no_curves")

STEPS = 320
ROOT = pathlib.Path(__file__).parents[2]
CONFIG = dqn.DQNConfig(
    n_step=1,
    hidden_sizes=(64, 64),
    batch_size=8,
    samples_per_insert=8.0,
    min_replay_size=20,
    max_replay_size=150,
    priority_exponent=0.6,
    num_steps_per_call=1,
    overlap=False,
)


class Witness:
    """Makes the parts of DQN, and notes what they hold.

    Attributes:
        saved: how many items had been inserted, at each checkpoint of the replay.
        restored: what learner, counter and replay held once they were restored.
    """

    def __init__(self):
        self.saved, self.restored = [], {}
        self._builder = dqn.DQNBuilder(CONFIG)

    def __getattr__(self, name):
        return getattr(self._builder, name)

    def make_dataset(self, replay, *, seed):
        self._replay, save = replay, replay.save

        def save_and_note():
            state = save()
            self.saved.append(num_inserts(replay))
            return state

        replay.save = save_and_note
        return self._builder.make_dataset(replay, seed=seed)

    def make_learner(self, *args, counter, **kwargs):
        learner = self._builder.make_learner(*args, counter=counter, **kwargs)
        restore_learner, restore_counter = learner.restore, counter.restore

        def restore(state):
            restore_learner(state)
            self.restored |= {"learner": learner.save(), "inserts": num_inserts(self._replay)}

        def restore_counts(state):
            restore_counter(state)
            self.restored["counts"] = counter.get_counts()

        learner.restore, counter.restore = restore, restore_counts
        return learner


def num_inserts(made):
    return made.info().tables["replay"].num_inserts


def run(directory, /, *, witness=None, backend="reverb", observers=(), **checkpointing_settings):
    experiment = experiments.ExperimentConfig(
        Witness() if witness is None else witness,
        testing.MemoryEnvironment,
        max_num_actor_steps=STEPS,
        evaluation=None,
        checkpointing=experiments.CheckpointConfig(**{"every_steps": 90} | checkpointing_settings),
        directory=directory,
        logger_factory=lambda label: loggers.InMemoryLogger(),
        observers=observers,
    )
    return experiments.run_experiment(experiment, replay=backend, quiet=True)


def crash(directory, at_step, /, **settings):
    with pytest.raises(RuntimeError, match="power cut"):
        run(directory, observers=[test_resume.Crash(at_step)], **settings)


@pytest.fixture(scope="module")
def crashed_elsewhere(tmp_path_factory):
    """The directory of a run that crashed after two checkpoints and was moved, and the inserts at each."""
    directory, witness = tmp_path_factory.mktemp("crashed") / "run", Witness()
    crash(directory, 250, witness=witness)
    assert len(witness.saved) == 2 and not list(directory.glob("reverb*"))
    return directory.rename(directory.with_name("moved")), witness.saved


@pytest.fixture
def crashed(crashed_elsewhere, tmp_path):
    """The same, for one test: the run's directory, its older and its newest checkpoint, and the inserts at each."""
    directory, saved = crashed_elsewhere
    directory = pathlib.Path(shutil.copytree(directory, tmp_path / "run"))
    older, newest = (directory / "checkpoints" / f"checkpoint-00000{number}" for number in (1, 2))
    return directory, (older, newest), saved


def leave_server_files(directory):
    """Leaves what the server of a run that is killed leaves: a checkpoint, and one that is not complete."""
    made = replay.ReverbReplay([steps.transition_table()], checkpoint_directory=directory / "reverb")
    stream = steps.Steps(made.writer(1))
    stream.transitions(7)
    unfinished = pathlib.Path(made.save()["checkpoint"]).with_name("2999-01-01T00:00:00+00:00")
    made.close()
    unfinished.mkdir()
    (unfinished / "chunks.tfrecord").write_bytes(b"x")


def check_resumes(directory, checkpoint, inserts, /, **settings):
    """Asserts that a run goes on with what a checkpoint holds, comes to its end, and leaves nothing of it."""
    state, _, path = checkpointing.Checkpoints(checkpoint.parent).load_newest()
    assert path == checkpoint
    witness = Witness()
    result = run(directory, witness=witness, **settings)
    test_resume.assert_same(witness.restored["learner"], state["parts"]["learner"])
    assert witness.restored["counts"] == state["parts"]["counter"]
    assert witness.restored["inserts"] == inserts
    assert result.finished and result.counts["actor_steps"] == STEPS
    # One learner step for each step after the first 20; up to two batches that were drawn ahead are lost.
    assert abs(result.counts["learner_steps"] - (STEPS - 20)) <= 4
    left = {path.name for path in directory.iterdir()}
    assert "result.json" in left and not left & {"checkpoints", "reverb", "reverb_kept"}


def test_a_moved_run_goes_on_with_learner_counts_and_items(crashed):
    directory, (_, newest), saved = crashed
    leave_server_files(directory)
    check_resumes(directory, newest, saved[1])


def test_a_run_goes_on_from_checkpoints_elsewhere_that_were_moved(crashed, tmp_path):
    directory, (_, newest), saved = crashed
    folder = test_resume.move_checkpoints(directory, tmp_path / "disk")
    check_resumes(directory, folder / newest.name, saved[1], directory=tmp_path / "disk")
    assert not folder.exists()


def test_a_damaged_replay_is_named_and_the_checkpoint_before_it_taken(crashed, caplog):
    directory, (older, newest), saved = crashed
    (chunks,) = newest.rglob("chunks.tfrecord")
    content = bytearray(chunks.read_bytes())
    content[len(content) // 2] ^= 0xFF
    chunks.write_bytes(content)
    with caplog.at_level(logging.WARNING):
        check_resumes(directory, older, saved[0])
    assert f"{newest} cannot be read" in caplog.text and "chunks.tfrecord has size and checksum" in caplog.text


def test_a_replay_that_is_left_out_begins_empty_whatever_a_server_has_left(crashed):
    directory, _, _ = crashed
    leave_server_files(directory)
    crash(directory, 120, include_replay=False)
    leave_server_files(directory)
    witness = Witness()
    assert run(directory, witness=witness, include_replay=False).finished
    assert witness.restored["inserts"] == 0 and witness.saved == []


def test_what_a_server_has_left_goes_also_where_the_run_begins_anew(tmp_path):
    crash(tmp_path / "run", 20)
    leave_server_files(tmp_path / "run")
    assert run(tmp_path / "run").finished
    assert (tmp_path / "run" / "interrupted-1" / "variables.npz").exists() and not list(tmp_path.rglob("reverb*"))


LIMITED = """
import pathlib, resource, sys
from acme_lite import checkpointing
from tests.experiments import test_reverb_resume

class Limit(test_reverb_resume.test_resume.Crash):
    def observe(self, action, next_timestep):
        self.at_step -= 1
        if self.at_step == 0:
            resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))

try:
    test_reverb_resume.run(pathlib.Path(sys.argv[1]), backend=sys.argv[2], observers=[Limit(150)])
except checkpointing.DiskFullError as error:
    print(error)
"""


@pytest.mark.parametrize(("backend", "most_bytes"), [("local", 8_000), ("reverb", 1_000)])
def test_a_file_that_cannot_grow_ends_the_run_and_it_goes_on(tmp_path, backend, most_bytes):
    script = [sys.executable, "-c", LIMITED, str(tmp_path / "run"), backend, str(most_bytes)]
    # What is compiled there could not be written to the cache whole.
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1e9"}
    ended = subprocess.run(script, env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert ended.returncode == 0, ended.stderr
    folder = tmp_path / "run" / ("checkpoints" if backend == "local" else "reverb")
    assert re.match(
        rf"\[Errno 28\] A checkpoint .* could not be written to {folder}, where [0-9,]+ bytes are free", ended.stdout
    )
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint-000001"]
    assert not (tmp_path / "run" / "reverb").exists()
    assert run(tmp_path / "run", backend=backend).finished
