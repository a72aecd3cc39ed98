"""What happens before fragile imports, on faked trees and in fresh processes."""

import ctypes
import json
import os
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from acme_lite import _runtime

LIBRARY = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"


@pytest.fixture
def tree(tmp_path, monkeypatch):
    """A static Python: a maps file without libpython, a folder without it, and one with it."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / LIBRARY).touch()
    (tmp_path / "maps").write_text("7f00-7f01 r-xp /usr/lib/libc.so.6\n")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/already/here")
    return tmp_path


def load(tree, folders, maps="maps"):
    loaded = []
    found = _runtime.load_python_library(
        [tree / folder for folder in folders], tree / maps, lambda path, mode: loaded.append((path, mode))
    )
    return found, loaded


def test_libpython_is_loaded_globally_and_its_folder_goes_first(tree):
    found, loaded = load(tree, ["empty", "lib"])
    assert found == tree / "lib" / LIBRARY
    assert loaded == [(str(found), ctypes.RTLD_GLOBAL)]
    assert os.environ["LD_LIBRARY_PATH"] == f"{tree / 'lib'}{os.pathsep}/already/here"


def test_nothing_happens_where_libpython_is_mapped_already(tree):
    (tree / "maps").write_text(f"7f00-7f01 r-xp /usr/lib/{LIBRARY}\n")
    assert load(tree, ["lib"]) == (None, [])
    assert os.environ["LD_LIBRARY_PATH"] == "/already/here"


def test_nothing_happens_where_there_is_none_or_no_proc(tree):
    assert load(tree, ["empty"]) == (None, [])
    assert load(tree, ["lib"], maps="missing") == (None, [])
    assert os.environ["LD_LIBRARY_PATH"] == "/already/here"


def test_the_folders_of_this_python_are_looked_at():
    folders = [str(folder) for folder in _runtime.python_library_folders()]
    assert os.path.join(sys.base_prefix, "lib") in folders


def run_python(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        env=os.environ | environment,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


HEAVY = (
    "[name for name in ('tensorflow', 'reverb', 'launchpad', 'rlax', 'matplotlib', 'bsuite') if name in sys.modules]"
)


def test_importing_the_package_leaves_heavy_modules_out():
    assert run_python(f"import json, sys, acme_lite; print(json.dumps({HEAVY}))") == []


def test_a_learning_process_imports_rlax_without_tensorflow():
    imports = "import json, sys; from acme_lite.agents import dqn; from acme_lite import experiments"
    code = f"{imports}; print(json.dumps({HEAVY}))"
    assert run_python(code) == ["rlax"]


def test_rlax_is_imported_after_tensorflow_too_and_tensorflow_stays():
    pytest.importorskip("tensorflow")
    code = """
import json, sys
import tensorflow
from acme_lite import _runtime
rlax = _runtime.import_rlax()
import jax.numpy as jnp
value = float(rlax.huber_loss(jnp.array(3.0), 1.0))
print(json.dumps([value, sys.modules["tensorflow"] is tensorflow, float(tensorflow.constant(2.0) + 1)]))
"""
    assert run_python(code) == [2.5, True, 3.0]


def test_a_missing_extra_is_named_in_one_sentence():
    with pytest.raises(ImportError, match=r"^Flying needs the package 'no_such_module': pip install '\.\[envs\]'$"):
        _runtime.import_extra("no_such_module", "envs", "Flying")


def test_a_package_that_does_not_exist_everywhere_says_where_it_does(monkeypatch):
    monkeypatch.setitem(sys.modules, "launchpad", None)
    message = (
        r"^A program needs the package 'launchpad', which exists for Python 3.10 on x86-64 Linux alone: "
        r"pip install '\.\[distributed\]'$"
    )
    with pytest.raises(ImportError, match=message):
        _runtime.import_extra("launchpad", "distributed", "A program")


def test_an_error_inside_an_extra_is_not_hidden(tmp_path, monkeypatch):
    (tmp_path / "broken_extra.py").write_text("import also_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ModuleNotFoundError, match="also_not_there"):
        _runtime.import_extra("broken_extra", "envs", "Flying")


def test_submodules_are_reached_as_attributes():
    import acme_lite

    assert acme_lite.replay.Table.__name__ == "Table"
    assert "agents" in dir(acme_lite)
    with pytest.raises(AttributeError, match="no attribute 'agent'"):
        _ = acme_lite.agent


def test_large_layers_compile():
    # XLA ended the process here, at the gradient of an index into what follows a tanh: with 256 units.
    code = """
import json
import jax, numpy as np
from acme_lite import _runtime
def loss(weights, observation, action):
    hidden = jax.numpy.tanh(jax.numpy.tanh(observation @ weights[0]) @ weights[1])
    return jax.vmap(lambda values, index: values[index])(hidden @ weights[2], action).mean()
sizes = [(4, 256), (256, 256), (256, 2)]
weights = [np.ones(size, np.float32) for size in sizes]
gradient = _runtime.jit(jax.grad(loss))(weights, np.ones((128, 4), np.float32), np.zeros(128, np.int32))
print(json.dumps([leaf.shape for leaf in gradient]))
"""
    assert run_python(code) == [[4, 256], [256, 256], [256, 2]]


def test_linear_algebra_in_updates_is_right():
    # XLA's older runtime gives wrong numbers here, at the level of optimisation that runs have, unlike tests.
    code = """
import json
import jax, jax.numpy as jnp, numpy as np
from acme_lite import _runtime
def solve(factor, vector):
    return jax.scipy.linalg.solve_triangular(factor, vector, lower=True)
def solve_in_loop(factor, vector):
    return jax.lax.scan(lambda carry, _: (carry, solve(factor, vector + carry)), 0.0, None, 2)[1]
def gradient(factor, vector):
    return jax.grad(lambda factor: jnp.sum(solve(factor, vector) ** 2))(factor)
worst = {}
for function in (solve, solve_in_loop, gradient):
    for size in (4, 6, 7):
        factor = np.tril(np.full((size, size), 0.1, np.float32)) + 1.8 * np.eye(size, dtype=np.float32)
        vector = np.ones(size, np.float32)
        ours = _runtime.jit(function, state=factor)(factor, vector)
        difference = np.abs(ours - jax.jit(function)(factor, vector)).max()
        worst[function.__name__] = max(worst.get(function.__name__, 0), float(difference))
print(json.dumps(worst))
"""
    worst = run_python(code, XLA_FLAGS="")
    assert len(worst) == 3 and max(worst.values()) < 1e-6, worst


def convolve(inputs, kernel, strides, padding, dilation=(1, 1)):
    order = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(inputs, kernel, strides, padding, rhs_dilation=dilation, dimension_numbers=order)


def convolve_by_hand(inputs, kernel, strides, padding, dilation=(1, 1)):
    """A convolution as one product of matrices for each place of the kernel."""
    inputs = jnp.pad(inputs, ((0, 0), *padding, (0, 0)))
    reach = [(size - 1) * step for size, step in zip(kernel.shape[:2], dilation, strict=True)]
    height, width = (
        (size - far - 1) // stride + 1 for size, far, stride in zip(inputs.shape[1:3], reach, strides, strict=True)
    )
    total = 0.0
    for row in range(kernel.shape[0]):
        for column in range(kernel.shape[1]):
            seen = inputs[:, row * dilation[0] :: strides[0], column * dilation[1] :: strides[1]]
            total += seen[:, :height, :width] @ kernel[row, column]
    return total


@pytest.mark.parametrize(
    "how",
    [
        ((1, 1), ((0, 0), (0, 0))),
        ((2, 3), ((0, 0), (0, 0))),
        ((2, 1), ((1, 2), (3, 0))),
        ((1, 2), ((0, 1), (2, 2)), (2, 3)),
    ],
)
def test_gradients_of_convolutions_are_right_and_fast_in_loops(how):
    keys = jax.random.split(jax.random.key(0), 3)
    inputs, kernel = jax.random.normal(keys[0], (2, 2, 11, 12, 3)), jax.random.normal(keys[1], (4, 3, 3, 5))

    def gradients(convolution):
        def loss(kernel, inputs):
            return jnp.sum(jnp.sin(convolution(inputs, kernel, *how)))

        def in_loop(kernel, inputs):
            return lax.scan(lambda _, each: (None, jax.grad(loss, (0, 1))(kernel, each)), None, inputs)[1]

        return jax.jit(in_loop).lower(kernel, inputs).compile()

    compiled = gradients(convolve)
    expected = gradients(convolve_by_hand)(kernel, inputs)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), compiled(kernel, inputs), expected
    )
    if jax.default_backend() == "cpu":
        orders = re.findall(r"dim_labels=(\S+?)[, ]", compiled.as_text() + " ")
        assert len(orders) == 3  # the convolution and its gradients by kernel and by inputs
        assert set(orders) == {"b01f_01io->b01f"}


def test_other_convolutions_stay_as_they_are():
    # In one dimension, of groups of channels, and with complex numbers.
    series, kernel = jax.random.normal(jax.random.key(0), (2, 4, 10)), jax.random.normal(jax.random.key(1), (6, 2, 3))

    def grouped(series):
        weights = kernel.astype(series.dtype)
        return jax.jit(lambda x: lax.conv_general_dilated(x, weights, (1,), "VALID", feature_group_count=2))(series)

    halves = [
        sum(jnp.einsum("bcl,oc->bol", part[..., i : i + 8], weights[..., i]) for i in range(3))
        for part, weights in zip(jnp.split(series, 2, axis=1), jnp.split(kernel, 2), strict=True)
    ]
    np.testing.assert_allclose(grouped(series), jnp.concatenate(halves, axis=1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(grouped(1j * series), 1j * grouped(series), rtol=1e-5)
