"""What must happen before fragile imports, and how this library compiles.

Importing this module changes nothing but JAX's `jax_cpu_enable_async_dispatch`, which it turns off unless the
environment variable `JAX_CPU_ENABLE_ASYNC_DISPATCH` is set: on a CPU the default hands even an action of batch size 1
to another thread, which costs more than the action.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import pathlib
import sys
import sysconfig
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

import jax
import numpy as np

_LARGEST_FOR_OLDER_RUNTIME = 500_000
"""Numbers in the state of an update: with optimiser and target, 256-256 units have 270,000 and 512-512 a million."""

if "JAX_CPU_ENABLE_ASYNC_DISPATCH" not in os.environ:
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def jit(function: Callable[..., Any], *, state: Any = (), **kwargs: Any) -> Callable[..., Any]:
    """Returns `jax.jit` of a function with the compiler options that acting and learning share.

    Args:
        function: what to compile.
        state: a tree of arrays, what the function updates, if anything; large updates get other options.
        kwargs: of `jax.jit`.
    """
    options: dict[str, bool | str] = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
    size = sum(np.size(leaf) for leaf in jax.tree.leaves(state))
    if jax.__version_info__ < (0, 7) and jax.local_device_count() == 1 and size <= _LARGEST_FOR_OLDER_RUNTIME:
        # The newer of XLA's two runtimes, which later versions of JAX have alone, takes twice as long for a small
        # update and does not vectorise an activation in place; the older one ends the process at an all-reduce. One of
        # its passes, which calls oneDNN for large products, ends the process at the gradient of `tanh(x) @ w` by an
        # index, as of DQN's action values with 256 units. Without it large updates are slower than in the newer one.
        options |= {"xla_cpu_use_thunk_runtime": False, "xla_disable_hlo_passes": "onednn-contraction-rewriter"}
    return jax.jit(function, compiler_options=options, **kwargs)


def acting_device() -> jax.Device | None:
    """Returns the device on which to act: None, the default one, where there is no other device than the CPU.

    Beside an accelerator it is the CPU, where a learner that is at work in the accelerator does not hold up the actor.
    """
    if jax.default_backend() == "cpu":
        return None
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves the CPU out
        return None


def import_rlax() -> ModuleType:
    """Imports rlax without TensorFlow.

    rlax imports TensorFlow Probability, which imports TensorFlow wherever it is installed (4 s and 250 MB), and fails
    on the version that Reverb needs. Its JAX half needs none of it, so TensorFlow is hidden during the import alone.
    """
    return import_without("rlax", "tensorflow")


def import_without(module: str, package: str) -> ModuleType:
    """Imports a module while another package seems not to be installed."""
    if module in sys.modules:
        return sys.modules[module]
    hidden = {name: sys.modules.pop(name) for name in list(sys.modules) if name.split(".")[0] == package}
    sys.modules[package] = None  # type: ignore[assignment]  # the documented way to make an import fail
    try:
        return importlib.import_module(module)
    finally:
        del sys.modules[package]
        sys.modules.update(hidden)


def import_extra(module: str, extra: str, purpose: str) -> ModuleType:
    """Imports a module that comes with an extra of this package.

    Raises:
        ImportError: it is not installed; the message says what to install.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".", maxsplit=1)[0]:
            raise
        raise ImportError(f"{purpose} needs the package {error.name!r}: pip install '.[{extra}]'") from error


def python_library_folders() -> list[pathlib.Path]:
    """Returns the folders in which this Python's shared library may lie."""
    folders = [pathlib.Path(sys.base_prefix) / "lib"]
    configured = sysconfig.get_config_var("LIBDIR")
    if configured:
        folders.append(pathlib.Path(configured))
    return folders


def load_python_library(
    folders: Iterable[pathlib.Path] | None = None,
    maps: pathlib.Path = pathlib.Path("/proc/self/maps"),
    load: Callable[..., Any] = ctypes.CDLL,
) -> pathlib.Path | None:
    """Makes libpython known to the loader, for the extension modules of Reverb and Courier.

    A statically linked Python does not bring it. It is loaded into this process, and its folder is put at the front of
    `LD_LIBRARY_PATH` for the processes that this one starts. Nothing happens where it is already mapped.

    Args:
        folders: where to look; the folders of this Python unless given.
        maps: the list of mapped files.
        load: loads a shared library globally.

    Returns:
        The library that was loaded, or None where none was needed or found.
    """
    name = f"libpython{sys.version_info.major}.{sys.version_info.minor}.so.1.0"
    if not maps.exists() or name in maps.read_text():
        return None
    for folder in python_library_folders() if folders is None else folders:
        library = pathlib.Path(folder) / name
        if library.is_file():
            load(str(library), mode=ctypes.RTLD_GLOBAL)
            known = os.environ.get("LD_LIBRARY_PATH")
            os.environ["LD_LIBRARY_PATH"] = str(folder) + (os.pathsep + known if known else "")
            return library
    return None
