"""Tests of run directories: names, what happens when a run is started again, and descriptions of configs."""

import dataclasses
import enum
import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

from acme_lite.experiments import run_directory
from acme_lite.launching import log_directory


class Mode(enum.Enum):
    FAST = 1


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class AgentConfig:
    batch_size: int = 256
    learning_rate: float = 1e-3
    activation: Any = np.tanh
    layers: tuple[int, ...] = (64, 64)


@dataclasses.dataclass(frozen=True)
class OtherAgentConfig(AgentConfig):
    pass


@dataclasses.dataclass(frozen=True)
class Config:
    agent: AgentConfig = dataclasses.field(default_factory=AgentConfig)
    seed: int = 0


def make_environment(seed, size):
    raise NotImplementedError


PARTS = ("dqn", "CartPole-v1", "seed0")


def make(*args, **kwargs):
    """Makes a run's directory, and gives it free again as the end of the process would."""
    directory = run_directory.make_run_directory(*args, **kwargs)
    directory.close()
    return directory.path


def open_(*args, **kwargs):
    directory = run_directory.open_run_directory(*args, **kwargs)
    directory.close()
    return directory.path


def visible(directory):
    return sorted(name for name in os.listdir(directory) if not name.startswith("."))


def finish(directory):
    run_directory.write_json(directory / run_directory.RESULT_FILE, {"return": 1.0})


class TestMakeRunDirectory:
    def test_the_name_follows_from_parts_and_config(self, tmp_path):
        path = make(tmp_path / "runs", PARTS, Config())
        assert path.name == f"dqn-CartPole-v1-seed0-{run_directory.config_hash(Config())}"
        assert path.parent == tmp_path / "runs"
        other = make(tmp_path / "runs", PARTS, Config(seed=1))
        assert other != path

    def test_names_of_environments_become_names_of_files(self, tmp_path):
        path = make(tmp_path, ("d4pg", "dm_control:cartpole/swingup", "seed", 3), Config())
        assert path.name.startswith("d4pg-dm_control_cartpole_swingup-seed-3-")
        assert path.parent == tmp_path

    def test_parts_are_needed(self, tmp_path):
        with pytest.raises(ValueError, match="parts must hold at least one part"):
            make(tmp_path, (), Config())

    def test_the_config_is_written_readably(self, tmp_path):
        path = make(tmp_path, PARTS, Config())
        text = (path / run_directory.CONFIG_FILE).read_text()
        config = json.loads(text)
        assert config["agent"]["batch_size"] == 256
        assert config["agent"]["layers"] == [64, 64]
        assert config["__class__"].endswith("test_run_directory.Config")
        assert '\n  "seed": 0\n' in text
        assert visible(path) == [run_directory.CONFIG_FILE]

    def test_a_finished_run_gets_a_new_directory(self, tmp_path):
        paths = []
        for _ in range(3):
            paths.append(make(tmp_path, PARTS, Config()))
            finish(paths[-1])
        base = paths[0].name
        assert [path.name for path in paths] == [base, f"{base}-2", f"{base}-3"]
        assert all(run_directory.is_finished(path) for path in paths)

    def test_an_unfinished_run_is_taken_over_and_its_files_are_kept(self, tmp_path):
        path = make(tmp_path, PARTS, Config())
        for attempt in range(2):
            (path / "logs").mkdir()
            (path / "logs" / "actor.csv").write_text(f"attempt {attempt}")
            assert make(tmp_path, PARTS, Config()) == path
            assert not (path / "logs").exists()
        assert visible(path) == [run_directory.CONFIG_FILE, "interrupted-1", "interrupted-2"]
        for attempt in range(2):
            assert (path / f"interrupted-{attempt + 1}" / "logs" / "actor.csv").read_text() == f"attempt {attempt}"

    def test_an_unfinished_second_run_is_taken_over(self, tmp_path):
        finish(make(tmp_path, PARTS, Config()))
        second = make(tmp_path, PARTS, Config())
        assert make(tmp_path, PARTS, Config()) == second


class TestOpenRunDirectory:
    def test_another_config_is_an_error_that_names_the_fields(self, tmp_path):
        path = open_(tmp_path / "mine", Config())
        before = (path / run_directory.CONFIG_FILE).read_bytes()
        config = Config(agent=AgentConfig(batch_size=32), seed=1)
        with pytest.raises(ValueError, match="hold a run with this config") as error:
            open_(path, config)
        assert "agent.batch_size: 256 there, 32 here" in str(error.value)
        assert "seed: 0 there, 1 here" in str(error.value)
        assert "learning_rate" not in str(error.value)
        assert (path / run_directory.CONFIG_FILE).read_bytes() == before

    def test_another_config_is_an_error_also_where_the_run_has_finished(self, tmp_path):
        finish(open_(tmp_path / "mine", Config()))
        with pytest.raises(ValueError, match="seed: 0 there, 1 here"):
            open_(tmp_path / "mine", Config(seed=1))

    def test_foreign_files_are_left_alone(self, tmp_path):
        (tmp_path / "notes.txt").write_text("mine")
        with pytest.raises(ValueError, match=r"must be new, empty or a run's, got .* no config\.json"):
            open_(tmp_path, Config())
        assert os.listdir(tmp_path) == ["notes.txt"]

    @pytest.mark.parametrize("place", [".", "logs", "a/b"])
    def test_a_launchers_logs_are_no_foreign_files_and_stay_where_they_are(self, tmp_path, place):
        folder = tmp_path / place
        folder.mkdir(parents=True, exist_ok=True)
        with log_directory.lock(folder):
            for name in ("learner-0.log", "zygote.log", "nodes.json"):
                (folder / name).write_text("a launcher's")
            first = run_directory.open_run_directory(tmp_path, Config())
            assert (first.path, first.resumed) == (tmp_path, False)
            (tmp_path / "logs").mkdir(exist_ok=True)
            (tmp_path / "logs" / "learner.csv").write_text("the run's")
            first.close()
            assert open_(tmp_path, Config()) == tmp_path
        assert (tmp_path / "interrupted-1" / "logs" / "learner.csv").read_text() == "the run's"
        assert not (tmp_path / "logs" / "learner.csv").exists()
        moved = [path.name for path in (tmp_path / "interrupted-1").rglob("*") if path.is_file()]
        assert moved == ["learner.csv"]
        assert {path.name for path in folder.glob("*-*.log")} == {"learner-0.log"}
        assert (folder / "nodes.json").exists() and (folder / "zygote.log").exists()

    def test_foreign_files_beside_a_launchers_are_left_alone(self, tmp_path):
        (tmp_path / "logs").mkdir()
        with log_directory.lock(tmp_path / "logs"):
            (tmp_path / "logs" / "notes.txt").write_text("mine")
            with pytest.raises(ValueError, match="must be new, empty or a run's"):
                open_(tmp_path, Config())

    def test_what_a_crash_left_is_no_foreign_file(self, tmp_path):
        (tmp_path / ".config.123.json").write_text("{")
        assert open_(tmp_path, Config()) == tmp_path
        assert (tmp_path / run_directory.CONFIG_FILE).exists()


class TestDescribe:
    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (None, None),
            (True, True),
            (3, 3),
            (0.5, 0.5),
            (float("inf"), "inf"),
            ("text", "text"),
            ((1, [2, 3]), [1, [2, 3]]),
            ({"a": 1, 2: "b"}, {"a": 1, "2": "b"}),
            ({3, 1, 2}, [1, 2, 3]),
            (np.float32(0.5), 0.5),
            (np.array([1, 2]), [1, 2]),
            (np.array([1.0, np.nan]), [1.0, "nan"]),
            (pathlib.Path("a") / "b", "a/b"),
            (json.dumps, "json.dumps"),
            (dict, "builtins.dict"),
            (np.add, "numpy.add"),
            (object(), "builtins.object"),
        ],
    )
    def test_values(self, value, expected):
        description = run_directory.describe(value)
        assert description == expected
        assert json.loads(json.dumps(description, allow_nan=False)) == expected

    def test_records(self):
        module = __name__
        assert run_directory.describe(Mode.FAST) == f"{module}.Mode.FAST"
        assert run_directory.describe(Pair(1, Mode)) == {
            "__class__": f"{module}.Pair",
            "left": 1,
            "right": f"{module}.Mode",
        }
        assert run_directory.describe(functools.partial(make_environment, size=3)) == {
            "__class__": "functools.partial",
            "function": f"{module}.make_environment",
            "arguments": [],
            "keywords": {"size": 3},
        }

    def test_the_class_of_a_config_counts(self):
        hashes = {run_directory.config_hash(config) for config in (AgentConfig(), OtherAgentConfig())}
        assert len(hashes) == 2

    def test_the_hash_is_the_same_in_another_process(self):
        config = {"names": {"b", "a", "c"}, "function": json.dumps, "object": object(), "x": 0.1}
        script = (
            "import json\n"
            "from acme_lite.experiments import run_directory\n"
            "config = {'x': 0.1, 'object': object(), 'function': json.dumps, 'names': {'a', 'b', 'c'}}\n"
            "print(run_directory.config_hash(config))\n"
        )
        result = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
        assert result.stdout.strip() == run_directory.config_hash(config)


def test_differences_name_fields_that_one_side_lacks():
    lines = run_directory.differences({"a": 1, "b": {"c": 2}}, {"b": {"c": 2, "d": [1]}})
    assert lines == ["a: 1 there, nothing here", "b.d: nothing there, [1] here"]


def test_json_is_replaced_at_once(tmp_path):
    path = tmp_path / "result.json"
    run_directory.write_json(path, {"return": 1.0})
    with pytest.raises(ValueError, match="JSON compliant"):
        run_directory.write_json(path, {"return": float("nan")})
    assert json.loads(path.read_text()) == {"return": 1.0}
    assert os.listdir(tmp_path) == ["result.json"]


def test_a_damaged_config_is_named(tmp_path):
    open_(tmp_path / "run", {"seed": 0})
    (tmp_path / "run" / run_directory.CONFIG_FILE).write_text("")
    with pytest.raises(ValueError, match=r"directory must hold a whole config.json or none, got .*run.config.json"):
        open_(tmp_path / "run", {"seed": 0})


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(ValueError, match=r"directory must be a folder that can be made, got .*runs"):
        make(tmp_path / "runs", PARTS, {"seed": 0})


def test_whoever_begins_anew_hears_where_the_run_before_is(tmp_path, caplog):
    open_(tmp_path, {"seed": 0})
    (tmp_path / "variables.npz").write_text("0")
    assert not caplog.records
    open_(tmp_path, {"seed": 0})
    assert str(tmp_path / "interrupted-1") in caplog.text
