"""States as plain data."""

from __future__ import annotations

import collections
import dataclasses
import errno
import json
import os
import shutil
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from acme_lite import checkpointing, replay
from acme_lite.checkpointing import trees


class Pair(NamedTuple):
    left: Any
    right: Any


@dataclasses.dataclass(frozen=True)
class Record:
    values: Any
    name: str = "x"


def check_equal(first, second):
    assert jax.tree.structure(first) == jax.tree.structure(second)
    for one, two in zip(jax.tree.leaves(first), jax.tree.leaves(second), strict=True):
        if isinstance(one, np.ndarray | jax.Array):
            assert (one.dtype, one.shape) == (two.dtype, two.shape)
            np.testing.assert_array_equal(one, two)
        else:
            assert type(one) is type(two) and one == two


STATES = {
    "plain": [None, True, -3, 2**70, 0.1, float("inf"), "text", {"a": {}, "b": []}, {3: 1}, (), ((1,), [2])],
    "dtypes": [np.arange(4, dtype=name) for name in ("uint64", "int8", "float16", "float64")]
    + [jnp.ones(3, jnp.bfloat16)],
    "shapes": [
        np.zeros((0, 3), np.float32),
        np.float32(2),
        np.asarray(7),
        np.bool_(True),
        np.ones((2, 1, 3))[:, :, ::2],
    ],
    # From a megabyte on an array is written by itself; the others are written as one.
    "sizes": [np.arange(size, dtype=dtype) for size in (3, 1 << 20, 5, 1 << 18, 1 << 17) for dtype in ("int8", "f4")],
    "records": Pair(replay.SampleInfo(np.arange(3), np.ones(3), 7), [Pair(1, None)]),
    "optimiser": optax.adam(1e-3).init({"mlp/~/linear": {"w": jnp.ones((2, 2))}}),
}


def test_types_of_numbers_are_those_of_jax_where_tensorflow_has_others_of_their_names():
    pytest.importorskip("tensorflow")
    assert trees.find_dtype("bfloat16") == jnp.bfloat16
    assert trees.find_dtype("float32") == np.float32


@pytest.mark.parametrize("name", STATES)
def test_a_state_comes_back(name, tmp_path):
    description, leaves = checkpointing.flatten(STATES[name])
    assert all(isinstance(array, np.ndarray) and array.size for array in leaves.arrays) and not leaves.folders
    check_equal(checkpointing.unflatten(json.loads(json.dumps(description)), leaves), STATES[name])
    checkpoints = checkpointing.Checkpoints(tmp_path)
    path = checkpoints.save(STATES[name], {"step": 3})
    state, labels, found = checkpoints.load_newest()
    check_equal(state, STATES[name])
    assert labels == {"step": 3} and found == path
    assert all(leaf.flags.writeable for leaf in jax.tree.leaves(state) if isinstance(leaf, np.ndarray))


def test_dataclasses_and_keys_come_back():
    state = Record({"key": jax.random.key(3), "rbg": jax.random.key(4, impl="rbg")})
    back = checkpointing.unflatten(*checkpointing.flatten(state))
    assert type(back) is Record and back.name == "x"
    for name, key in state.values.items():
        assert back.values[name].dtype == key.dtype
        np.testing.assert_array_equal(jax.random.bits(back.values[name]), jax.random.bits(key))


def test_strings_of_numpy_come_back_as_strings():
    back = checkpointing.unflatten(*checkpointing.flatten({"level": np.str_("a")}))
    assert back == {"level": "a"} and type(back["level"]) is str


def test_booleans_that_were_never_written_come_back_byte_for_byte(tmp_path):
    mask = np.array([0, 1, 177, 49], np.uint8).view(np.bool_)
    checkpoints = checkpointing.Checkpoints(tmp_path)
    checkpoints.save({"mask": mask}, {})
    state, _, _ = checkpoints.load_newest()
    assert state["mask"].dtype == np.bool_
    np.testing.assert_array_equal(state["mask"].view(np.uint8), mask.view(np.uint8))


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"a": [1, object()]}, r"state\['a'\]\[1\] is of type builtins:object, and a checkpoint holds dicts"),
        (Pair({1, 2}, 0), r"state.left is of type builtins:set"),
        (
            {"a": {(1, 2): 3}},
            r"state\['a'\] has the key \(1, 2\), and a checkpoint's keys are strings or whole numbers",
        ),
        ([np.array([None])], r"state\[0\] is an array of object"),
        ([np.array(["a", "bc"])], r"state\[0\] is an array of <U2, and a checkpoint's arrays hold numbers"),
        ([np.bytes_(b"a")], r"state\[0\] is an array of \|S1"),
        ([np.array(["2026-11-27"], "M8[D]")], r"state\[0\] is an array of datetime64\[D\]"),
        (np.zeros(1 << 17, np.longdouble), f"state is an array of {np.dtype(np.longdouble)}"),
        (collections.namedtuple("Local", "x")(1), r"state is of type .*:Local, which must be defined at the top of"),
    ],
)
def test_what_cannot_be_saved_is_named(state, message):
    with pytest.raises(TypeError, match=message):
        checkpointing.flatten(state)


@dataclasses.dataclass
class Derived:
    """Has a field that its constructor does not take."""

    x: int
    y: int = dataclasses.field(init=False, default=3)


class Shifted(NamedTuple("Shifted", [("x", int)])):
    """Takes something else than its fields."""

    def __new__(cls, *, base):
        return super().__new__(cls, base + 1)


@pytest.mark.parametrize("state", [Derived(1), Shifted(base=1)])
def test_what_cannot_be_built_again_is_named(state):
    name = type(state).__name__
    with pytest.raises(TypeError, match=rf"the record .*:{name} cannot be made of its fields \['x'"):
        checkpointing.check({"a": [state]})
    checkpointing.check(STATES)


_SCRIPT = """
import dataclasses, typing
State = typing.NamedTuple("State", [("params", typing.Any)])
@dataclasses.dataclass
class Extra:
    values: typing.Any
def local():
    @dataclasses.dataclass
    class Local:
        values: typing.Any
    return Local
Local = local()
"""


@pytest.mark.parametrize("module", ["__main__", "a_script_elsewhere"])
def test_records_whose_classes_came_without_their_module_come_back(module):
    script = {"__name__": module}
    exec(_SCRIPT, script)  # as what a script defines reaches a node
    state = script["State"]({"extra": script["Extra"](3)})
    back = checkpointing.unflatten(*checkpointing.flatten(state))
    assert type(back) is script["State"] and back == state
    with pytest.raises(TypeError, match="Local, which must be defined at the top of its module"):
        checkpointing.flatten(script["Local"](1))


def test_a_record_that_is_not_defined_here_is_named():
    description, leaves = checkpointing.flatten(Pair(1, 2))
    description[1][0] = "no_such_module:Pair"
    with pytest.raises(ValueError, match=r"record no_such_module:Pair with the fields \['left', 'right'\]"):
        checkpointing.unflatten(description, leaves)
    with pytest.raises(ValueError, match="must be one that `flatten` gave"):
        checkpointing.unflatten({"kind": "array"}, leaves)


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = checkpointing.Checkpoints(tmp_path / "a" / "b", keep=3)
    assert checkpoints.names() == [] and checkpoints.load_newest() is None
    for step in range(5):
        checkpoints.save({"x": np.full(3, step)}, {"step": step})
    assert checkpoints.names() == ["checkpoint-000003", "checkpoint-000004", "checkpoint-000005"]
    (tmp_path / "a" / "b" / "notes.txt").write_text("mine")
    checkpoints.clear()
    assert [path.name for path in (tmp_path / "a" / "b").iterdir()] == ["notes.txt"]
    with pytest.raises(ValueError, match="keep must be at least 1, got 0"):
        checkpointing.Checkpoints(tmp_path, keep=0)


def make_folder(path, text):
    (path / "deep").mkdir(parents=True)
    (path / "deep" / "items").write_text(text)
    (path / "DONE").touch()
    return path


def contents(folder):
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("can_link", [True, False])
def test_files_of_a_folder_belong_to_the_checkpoint_wherever_it_is_moved(tmp_path, monkeypatch, can_link):
    if not can_link:

        def link(source, target):
            raise OSError(errno.EXDEV, "Invalid cross-device link")

        monkeypatch.setattr(os, "link", link)
    one, two = (make_folder(tmp_path / "server" / name, name) for name in ("one", "two"))
    path = checkpointing.Checkpoints(tmp_path / "run").save({"x": np.arange(3), "folders": [one, Pair(two, None)]}, {})
    assert (path / "folders" / "0" / "deep" / "items").samefile(one / "deep" / "items") == can_link
    shutil.rmtree(tmp_path / "server")
    (tmp_path / "run").rename(tmp_path / "moved")
    checkpoints = checkpointing.Checkpoints(tmp_path / "moved", keep=1)
    state, _, path = checkpoints.load_newest()
    first, (second, nothing) = state["folders"]
    assert contents(first) == {"deep/items": "one", "DONE": ""} and contents(second)["deep/items"] == "two"
    assert first.parent == second.parent == path / "folders" and nothing is None
    # What was read can be written again, and goes with its checkpoint.
    checkpoints.save(state, {})
    assert not first.exists()
    assert contents(checkpoints.load_newest()[0]["folders"][0])["deep/items"] == "one"


def test_a_damaged_file_of_a_folder_is_named_and_the_checkpoint_before_it_taken(tmp_path, caplog):
    checkpoints = checkpointing.Checkpoints(tmp_path / "run")
    older = checkpoints.save(make_folder(tmp_path / "one", "one"), {})
    newest = checkpoints.save(make_folder(tmp_path / "two", "two"), {})
    (newest / "folders" / "0" / "deep" / "items").write_text("tvo")
    state, _, path = checkpoints.load_newest()
    assert path == older and contents(state)["deep/items"] == "one"
    assert f"{newest} cannot be read" in caplog.text and "folders/0/deep/items has size and checksum" in caplog.text


def test_a_folder_that_is_not_there_leaves_nothing_behind(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        checkpointing.Checkpoints(tmp_path).save([tmp_path / "nowhere"], {})
    assert not list(tmp_path.iterdir())


def test_a_copy_made_by_hand_is_no_checkpoint(tmp_path):
    checkpoints = checkpointing.Checkpoints(tmp_path, keep=1)
    first = checkpoints.save({"step": 1}, {})
    copy = shutil.copytree(first, tmp_path / f"{first.name}.bak")
    assert checkpoints.names() == [first.name] and checkpoints.load_newest()[2] == first
    second = checkpoints.save({"step": 2}, {})
    assert second.name == "checkpoint-000002" and checkpoints.names() == [second.name]
    checkpoints.clear()
    assert list(tmp_path.iterdir()) == [copy]


@pytest.mark.parametrize("name", ["checkpoint-000003", ".checkpoint-000003", ".removed-checkpoint-000003"])
@pytest.mark.parametrize("is_link", [False, True])
def test_files_and_links_in_the_place_of_checkpoints_end_no_run(tmp_path, name, is_link):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    checkpoints = checkpointing.Checkpoints(tmp_path / "run", keep=1)
    checkpoints.save({"step": 1}, {})
    strange = checkpoints.directory / name
    strange.symlink_to(elsewhere) if is_link else strange.write_text("strange")
    assert checkpoints.load_newest()[0] == {"step": 1}
    newest = checkpoints.save({"step": 2}, {})
    assert list(checkpoints.directory.iterdir()) == [newest] and elsewhere.exists()
    checkpoints.clear()
    assert not checkpoints.directory.exists()


def test_names_are_in_the_order_of_their_numbers(tmp_path):
    checkpoints = checkpointing.Checkpoints(tmp_path)
    (tmp_path / "checkpoint-999999").mkdir()
    assert checkpoints.save({}, {}).name == "checkpoint-1000000"
    assert checkpoints.names() == ["checkpoint-999999", "checkpoint-1000000"]


def test_a_limit_on_the_size_of_files_is_named_and_the_last_checkpoint_is_whole(tmp_path):
    resource = pytest.importorskip("resource")
    checkpoints = checkpointing.Checkpoints(tmp_path)
    rng = np.random.default_rng(0)
    small = checkpoints.save({"x": rng.random(100)}, {})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # Python ignores the signal, so writing fails
    try:
        with pytest.raises(
            checkpointing.DiskFullError, match=r"of up to 8,000,000 bytes could not be written"
        ) as error:
            checkpoints.save({"x": rng.random(1_000_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert f"The last whole one is {small}." in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == [small.name]
    state, _, _ = checkpoints.load_newest()
    assert state["x"].shape == (100,)
    assert checkpoints.save(state, {}).name == "checkpoint-000002"
