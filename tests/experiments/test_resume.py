"""Runs that go on after a crash: the same bits, the same counts, and what stops them."""

from __future__ import annotations

import csv
import dataclasses
import errno
import itertools
import json
import logging
import os
import pathlib
import re
import shutil
import signal

import jax
import numpy as np
import pytest

from acme_lite import checkpointing, environments, experiments, testing
from acme_lite.agents import dqn, r2d2
from acme_lite.experiments import checkpoints, run_directory

pytestmark = pytest.mark.usefixtures("no_curves")

STEPS = 320


class Spy:
    """Makes the parts of a builder, and keeps what learner and replay hold when the learner is closed."""

    def __init__(self, builder, final):
        self._builder = builder
        self._final = final

    def __getattr__(self, name):
        return getattr(self._builder, name)

    def make_dataset(self, replay, *, seed):
        self._final["replay"] = replay
        return self._builder.make_dataset(replay, seed=seed)

    def make_learner(self, *args, **kwargs):
        learner = self._builder.make_learner(*args, **kwargs)
        close = learner.close

        def save_and_close():
            # As far as the run has come, and once more when all has been taken up.
            self._final.setdefault("learner", learner.save())
            self._final.setdefault("contents", contents(self._final["replay"]))
            close()
            self._final["closed"] = learner.save()

        learner.close = save_and_close
        return learner


def contents(replay):
    """Returns the items of all tables, oldest first, with their order's state."""
    saved = {}
    for name, table in replay._store.tables.items():
        records = table._records[table.order.slots()]
        saved[name] = (table.order.save(), table._gather(records), table.counts)
    return saved


@dataclasses.dataclass
class Crash:
    """Ends the run with an error at a step, or presses Ctrl-C there."""

    at_step: int
    ctrl_c: bool = False

    def observe_first(self, timestep):
        pass

    def observe(self, action, next_timestep):
        self.at_step -= 1
        if self.at_step == 0:
            if not self.ctrl_c:
                raise RuntimeError("power cut")
            os.kill(os.getpid(), signal.SIGINT)

    def get_metrics(self, member):
        return {}


def dqn_builder(*, prioritised=False, overlap=False, num_steps_per_call=1, n_step=1):
    config = dqn.DQNConfig(
        n_step=n_step,
        hidden_sizes=(8,),
        batch_size=8,
        samples_per_insert=8.0,
        min_replay_size=20,
        max_replay_size=150,
        epsilon=0.2,
        priority_exponent=0.6 if prioritised else 0.0,
        num_steps_per_call=num_steps_per_call,
        overlap=overlap,
    )
    return dqn.DQNBuilder(config)


RECURRENT = r2d2.R2D2Builder(
    r2d2.R2D2Config(
        trace_length=4,
        period=2,
        hidden_sizes=(8,),
        core_size=4,
        batch_size=4,
        min_replay_size=16,
        max_replay_size=60,
        overlap=False,
    )
)


def run(directory, builder, *, crash=None, final=None, every_steps=90, **settings):
    settings = {
        "environment_factory": testing.MemoryEnvironment,
        "max_num_actor_steps": STEPS,
        "evaluation": experiments.EvaluationConfig(every_steps=100, num_episodes=3),
        "checkpointing": experiments.CheckpointConfig(every_steps=every_steps),
        "observers": [crash] if crash else [],
    } | settings
    experiment = experiments.ExperimentConfig(
        builder=Spy(builder, {} if final is None else final), directory=directory, **settings
    )
    return experiments.run_experiment(experiment, quiet=True)


def run_twice(directory, builder, *, at_step=250, **settings):
    """Runs until a crash, and again to the end; returns the result and what was left."""
    with pytest.raises(RuntimeError, match="power cut"):
        run(directory, builder, crash=Crash(at_step), **settings)
    final = {}
    return run(directory, builder, final=final, **settings), final


def rows(directory):
    """Returns the rows of all logs but for times."""
    found = {}
    for path in sorted((directory / "logs").iterdir()):
        with path.open() as file:
            found[path.stem] = [
                {name: value for name, value in row.items() if "second" not in name} for row in csv.DictReader(file)
            ]
    return found


def assert_same(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    jax.tree.map(np.testing.assert_array_equal, first, second)


def check_same(result, final, expected, plain):
    """A run that crashed and went on equals one that was never stopped and wrote no checkpoint."""
    assert result.finished and result.counts == expected.counts and result.evaluations == expected.evaluations
    for part in ("learner", "closed", "contents"):
        assert_same(final[part], plain[part])
    assert_same(result.variables, expected.variables)
    assert rows(result.directory) == rows(expected.directory)
    assert len(rows(result.directory)["actor"]) == result.counts["actor_episodes"]
    assert not (result.directory / "checkpoints").exists() and (result.directory / "result.json").exists()


def check_same_bits(tmp_path, builder):
    plain = {}
    expected = run(tmp_path / "plain", builder, final=plain, checkpointing=None)
    check_same(*run_twice(tmp_path / "crashed", builder), expected, plain)


FACTORS = {"prioritised": [False, True], "overlap": [False, True], "num_steps_per_call": [1, 2], "n_step": [1, 3]}
ALL = [dict(zip(FACTORS, values, strict=True)) for values in itertools.product(*FACTORS.values())]
CHOSEN = [2]  # no overlap, uniform, two learner steps in a call; `BUILDER` is the other one of the default tests
BUILDER = dqn_builder(prioritised=True, overlap=True, n_step=3)


@pytest.fixture(scope="module")
def never_stopped(tmp_path_factory):
    """The result of a run of `BUILDER`, and what was left."""
    final = {}
    return run(tmp_path_factory.mktemp("plain") / "run", BUILDER, final=final, checkpointing=None), final


@pytest.fixture(scope="module")
def crashed_once(tmp_path_factory):
    directory = tmp_path_factory.mktemp("crashed") / "run"
    with pytest.raises(RuntimeError, match="power cut"):
        run(directory, BUILDER, crash=Crash(310))
    return directory


@pytest.fixture
def crashed(crashed_once, tmp_path):
    """The directory of a run of `BUILDER` that crashed after two checkpoints."""
    return pathlib.Path(shutil.copytree(crashed_once, tmp_path / "run"))


def checkpoint_names(directory):
    return sorted(path.name for path in (directory / "checkpoints").iterdir())


def test_a_resumed_run_of_the_fastest_kind_equals_one_that_was_never_stopped(crashed, never_stopped):
    final = {}
    result = run(crashed, BUILDER, final=final)
    assert result.directory == crashed
    check_same(result, final, *never_stopped)


@pytest.mark.parametrize(
    "settings",
    [pytest.param(one, marks=() if i in CHOSEN else pytest.mark.slow) for i, one in enumerate(ALL)],
    ids=lambda one: "-".join(f"{name}={value}" for name, value in one.items()),
)
def test_a_resumed_run_equals_one_that_was_never_stopped(settings, tmp_path):
    check_same_bits(tmp_path, dqn_builder(**settings))


def test_a_resumed_recurrent_run_equals_one_that_was_never_stopped(tmp_path):
    check_same_bits(tmp_path, RECURRENT)


def test_a_run_does_not_go_on_in_another_environment(crashed, never_stopped):
    def make_limited(seed):
        return environments.StepLimit(testing.MemoryEnvironment(seed), 3)

    with pytest.raises(ValueError, match="these fields differ") as error:
        run(crashed, BUILDER, environment_factory=make_limited)
    fields = [line.split(":")[0].strip() for line in str(error.value).splitlines()[1:]]
    assert fields == ["environment_factory", "environment.layers"]
    final = {}
    check_same(run(crashed, BUILDER, final=final), final, *never_stopped)


def test_a_factory_that_has_changed_is_noticed_by_what_it_makes(tmp_path):
    limit = 4

    def make_limited(seed):
        return environments.StepLimit(testing.MemoryEnvironment(seed), limit)

    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "run", BUILDER, crash=Crash(100), environment_factory=make_limited)
    limit = 3
    with pytest.raises(ValueError, match=r"environment\.layers: .*\"max_steps\": 4.* there, .*\"max_steps\": 3.* here"):
        run(tmp_path / "run", BUILDER, environment_factory=make_limited)


def test_several_members_go_on_with_counts_parameters_and_replay(tmp_path):
    kept = {}

    class Keeping(Spy):
        def make_learner(self, *args, **kwargs):
            learner = super().make_learner(*args, **kwargs)
            restore = learner.restore

            def restore_and_keep(state):
                restore(state)
                kept["saved"], kept["restored"] = state, learner.save()
                kept["contents"] = contents(self._final["replay"])

            learner.restore = restore_and_keep
            return learner

    builder = Keeping(dqn_builder(prioritised=True, n_step=3), {})
    result, final = run_twice(tmp_path / "run", builder, num_envs=3, at_step=90)
    assert result.finished and STEPS <= result.counts["actor_steps"] < STEPS + 3
    assert_same(kept["restored"], kept["saved"])
    (order, items, counts) = kept["contents"]["replay"]
    assert counts.inserts > 150 and len(items.reward) == counts.size and order["next_key"] == counts.inserts
    assert [one.actor_steps // 100 for one in result.evaluations] == [1, 2, 3, 3]
    # One learner step for each item after the first 20, as without the stop.
    assert abs(result.counts["learner_steps"] - (final["contents"]["replay"][-1].inserts - 20)) <= 4


def test_a_replay_that_is_left_out_is_filled_anew(tmp_path, capsys):
    settings = experiments.CheckpointConfig(every_steps=90, max_replay_bytes=100)
    builder = dqn_builder(prioritised=True)
    with pytest.raises(RuntimeError, match="power cut"):
        run(tmp_path / "run", builder, crash=Crash(250), checkpointing=settings)
    final = {}
    experiment = experiments.ExperimentConfig(
        builder=Spy(builder, final),
        environment_factory=testing.MemoryEnvironment,
        max_num_actor_steps=STEPS,
        evaluation=experiments.EvaluationConfig(every_steps=100, num_episodes=3),
        checkpointing=settings,
        directory=tmp_path / "run",
    )
    result = experiments.run_experiment(experiment)
    assert re.search(r"goes on after environment step 18.*; the replay begins empty\.", capsys.readouterr().out)
    assert result.finished and result.counts["actor_steps"] == STEPS
    inserts = final["contents"]["replay"][-1].inserts
    assert 100 <= inserts <= 140  # the steps since the checkpoint alone
    # Until the checkpoint one learner step per environment step, and so afterwards, but for the first 20 each time.
    assert abs(result.counts["learner_steps"] - (STEPS - 40)) <= 6


def damage(path):
    largest = max(
        (file for file in (path / "arrays").rglob("*") if file.is_file()), key=lambda file: file.stat().st_size
    )
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 0xFF
    largest.write_bytes(content)


def test_a_damaged_checkpoint_is_named_and_the_one_before_it_taken(crashed, never_stopped, caplog):
    older, newest = [crashed / "checkpoints" / name for name in checkpoint_names(crashed)]
    damage(newest)
    (crashed / "checkpoints" / ".checkpoint-000009").mkdir()  # half written
    final = {}
    with caplog.at_level(logging.WARNING):
        result = run(crashed, BUILDER, final=final)
    assert f"{newest} cannot be read" in caplog.text and "checksum" in caplog.text
    assert f"{older} cannot" not in caplog.text
    check_same(result, final, *never_stopped)


def test_where_all_checkpoints_are_damaged_the_run_does_not_begin(crashed):
    older, newest = [crashed / "checkpoints" / name for name in checkpoint_names(crashed)]
    damage(newest)
    (older / "manifest.json").unlink()
    with pytest.raises(checkpointing.CheckpointError, match="delete their folder to start the run anew") as error:
        run(crashed, BUILDER)
    assert str(older) in str(error.value) and str(newest) in str(error.value)


def test_a_full_disk_stops_the_run_with_the_last_checkpoint_whole(crashed, monkeypatch):
    names = checkpoint_names(crashed)
    before = checkpointing.Checkpoints(crashed / "checkpoints").load_newest()

    def fsync(descriptor):
        if any(path.name.startswith(".checkpoint") for path in (crashed / "checkpoints").iterdir()):
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fsync)
    message = r"A checkpoint of up to [0-9,]+ bytes could not be written to .*, where [0-9,]+ bytes are free"
    with pytest.raises(checkpointing.DiskFullError, match=message) as error:
        run(crashed, BUILDER, every_steps=20)
    assert error.value.errno == errno.ENOSPC
    assert f"The last whole one is {crashed / 'checkpoints' / names[-1]}." in str(error.value)
    assert checkpoint_names(crashed) == names
    assert_same(checkpointing.Checkpoints(crashed / "checkpoints").load_newest()[0], before[0])


def test_a_disk_that_fills_up_while_logs_are_written_is_explained(tmp_path):
    class FullLogger:
        def write(self, row):
            raise OSError(errno.ENOSPC, "No space left on device")

        def close(self):
            raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(checkpointing.DiskFullError, match=r"The run's files could not be written to .*start the run"):
        run(tmp_path / "run", BUILDER, logger_factory=lambda label: FullLogger(), evaluation=None)


def test_ctrl_c_writes_a_checkpoint_and_the_run_goes_on(tmp_path):
    builder = dqn_builder(overlap=True, prioritised=True)
    stopped = run(tmp_path / "run", builder, crash=Crash(150, ctrl_c=True), every_steps=1_000)
    assert not stopped.finished and stopped.counts["actor_steps"] < 150
    assert checkpoint_names(tmp_path / "run") == ["checkpoint-000001"]
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    result = run(tmp_path / "run", builder, every_steps=1_000)
    assert result.finished and result.counts["actor_steps"] == STEPS
    assert result.evaluations[:1] == stopped.evaluations
    actor = rows(result.directory)["actor"]
    assert len(actor) == result.counts["actor_episodes"]
    # The episode that Ctrl-C cut off is in no row, and its steps are counted.
    assert STEPS - 10 <= sum(int(row["episode_length"]) for row in actor) <= STEPS


def test_a_run_that_is_under_way_is_not_started_again(tmp_path):
    directory = run_directory.open_run_directory(tmp_path / "run", {"a": 1})
    with pytest.raises(RuntimeError, match=rf"under way in {tmp_path / 'run'} \(process {os.getpid()}\)"):
        run_directory.open_run_directory(tmp_path / "run", {"a": 1})
    directory.close()
    run_directory.open_run_directory(tmp_path / "run", {"a": 1}).close()


class PlainActor:
    """An actor of one's own that can do what the interface asks, and no more."""

    def __init__(self, adder):
        self._adder = adder
        self._rng = np.random.default_rng(0)

    def select_action(self, observation):
        return self._rng.integers(2, size=1, dtype=np.int32)

    def observe_first(self, timestep):
        if self._adder is not None:
            self._adder.add_first(timestep)

    def observe(self, action, next_timestep):
        if self._adder is not None:
            self._adder.add(action, next_timestep)

    def update(self, wait=False):
        pass


class PlainBuilder(Spy):
    def make_actor(self, policy, variables, adder, *, key, num_envs):
        return PlainActor(adder)


def test_an_actor_that_saves_nothing_begins_anew_and_the_rest_goes_on(tmp_path):
    builder = PlainBuilder(dqn_builder(n_step=3), {})
    result, final = run_twice(tmp_path / "run", builder, evaluation=None)
    assert result.finished and result.counts["actor_steps"] == STEPS
    assert final["contents"]["replay"][-1].inserts >= STEPS - 6
    assert len(rows(result.directory)["actor"]) == result.counts["actor_episodes"]


class UnsaveableBuilder(Spy):
    def make_learner(self, *args, **kwargs):
        learner = super().make_learner(*args, **kwargs)
        learner.save = lambda: {"state": object()}
        return learner


def test_a_state_that_cannot_be_saved_is_an_error_at_the_start(tmp_path):
    builder = UnsaveableBuilder(dqn_builder(), {})
    with pytest.raises(TypeError, match=r"state\['learner'\]\['state'\] is of type builtins:object"):
        run(tmp_path / "run", builder)


def move_checkpoints(directory, disk):
    """Moves the checkpoints of the run in this directory to another place; returns their folder."""
    config_hash = run_directory.config_hash(json.loads((directory / "config.json").read_text()))
    disk.mkdir()
    return (directory / "checkpoints").rename(disk / f"{directory.name}-{config_hash}")


def test_checkpoints_elsewhere_belong_to_one_run(crashed, never_stopped, tmp_path):
    settings = experiments.CheckpointConfig(directory=tmp_path / "disk", every_steps=90)
    folder = move_checkpoints(crashed, tmp_path / "disk")
    # Another run in a directory of the same name has a folder of its own, which goes when it has finished.
    assert run(tmp_path / "other" / "run", BUILDER, checkpointing=settings, seed=1).finished
    assert list((tmp_path / "disk").iterdir()) == [folder]
    final = {}
    check_same(run(crashed, BUILDER, checkpointing=settings, final=final), final, *never_stopped)
    assert not folder.exists()


def test_a_directory_in_which_nothing_can_be_written_is_an_error_when_the_run_begins(tmp_path):
    (tmp_path / "file").touch()
    settings = experiments.CheckpointConfig(directory=tmp_path / "file" / "checkpoints")
    with pytest.raises(ValueError, match=r"CheckpointConfig.directory must be a folder .*, got '.*/file/checkpoints'"):
        run(tmp_path / "run", BUILDER, checkpointing=settings)
    assert not (tmp_path / "run" / "variables.npz").exists()


def test_a_run_does_not_go_on_from_checkpoints_of_another(crashed):
    settings = experiments.CheckpointConfig()
    opened = checkpoints.open_checkpoints(settings, "another hash", crashed)
    with pytest.raises(ValueError, match=r"CheckpointConfig.directory must hold this run's checkpoints or none, got"):
        checkpoints.Schedule(settings, opened, "another hash").load()


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("every_steps", 0, "CheckpointConfig.every_steps must be a whole number of at least 1, got 0"),
        ("keep", 0, "CheckpointConfig.keep must be a whole number of at least 1, got 0"),
        ("max_replay_bytes", -1, "CheckpointConfig.max_replay_bytes must be a whole number of at least 0, got -1"),
    ],
)
def test_bad_settings_are_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        experiments.CheckpointConfig(**{name: value})
