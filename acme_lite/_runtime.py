"""What must happen before fragile imports, and how this library compiles.

Importing this module changes two things in JAX, both for the CPU alone. It turns `jax_cpu_enable_async_dispatch` off
unless the environment variable `JAX_CPU_ENABLE_ASYNC_DISPATCH` is 1 or true (JAX itself does not read it): the default
hands even an action of batch size 1 to another thread, which costs more than the action. And gradients of convolutions
are fast in loops, too, where XLA leaves them slow (`speed_up_convolutions_in_loops`).
"""

from __future__ import annotations

import ctypes
import functools
import importlib
import os
import pathlib
import sys
import sysconfig
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import jax
import numpy as np
from jax import lax
from jax.interpreters import mlir

_LARGEST_FOR_OLDER_RUNTIME = 500_000
"""Numbers in the state of an update: with optimiser and target, 256-256 units have 270,000 and 512-512 a million."""

_LINEAR_ALGEBRA = frozenset(dir(jax.lax.linalg)) | {"geqrf", "geqp3"}
"""Names of JAX's primitives of linear algebra, and of some functions."""

_PYTHON_310 = "Python 3.10 on x86-64 Linux"
_EXISTS_FOR = {"dm_control": "Python 3.10 to 3.12", "launchpad": _PYTHON_310, "reverb": _PYTHON_310}
"""Where packages can be installed that no extra brings elsewhere."""

if os.environ.get("JAX_CPU_ENABLE_ASYNC_DISPATCH", "").lower() not in {"1", "true", "yes", "on"}:
    jax.config.update("jax_cpu_enable_async_dispatch", False)


def speed_up_convolutions_in_loops() -> None:
    """Makes the gradients of convolutions as fast in loops as outside, on the CPU.

    XLA has a fast convolution for one order of axes. It brings others into that order by transposing what goes in and
    comes out, but not within a loop (`lax.scan`), and the gradients of a convolution are convolutions in another order.
    So they are transposed here, when JAX hands them to XLA. Where JAX has no such rule to build on, nothing changes.
    """
    try:
        from jax._src.lax import convolution

        rule = functools.partial(convolution._conv_general_dilated_lower, expand_complex_convolutions=True)
    except (ImportError, AttributeError):
        return
    primitive = lax.conv_general_dilated_p

    def lower(context: Any, inputs: Any, kernel: Any, **params: Any) -> Any:
        order = lax.ConvDimensionNumbers(*map(tuple, params["dimension_numbers"]))
        spatial = tuple(range(1, len(order.lhs_spec) - 1))
        last = len(spatial) + 1
        batch_spatial_channels = (0, last, *spatial)
        fast = lax.ConvDimensionNumbers(
            batch_spatial_channels, (last, last - 1, *range(last - 1)), batch_spatial_channels
        )
        groups = (params["feature_group_count"], params["batch_group_count"])
        if order == fast or groups != (1, 1):
            return rule(context, inputs, kernel, **params)

        def convolve(inputs: jax.Array, kernel: jax.Array) -> jax.Array:
            inputs = _reorder(inputs, order.lhs_spec, fast.lhs_spec)
            kernel = _reorder(kernel, order.rhs_spec, fast.rhs_spec)
            output = primitive.bind(inputs, kernel, **params | {"dimension_numbers": fast})
            return _reorder(output, fast.out_spec, order.out_spec)

        return mlir.lower_fun(convolve, multiple_results=False)(context, inputs, kernel)

    mlir.register_lowering(primitive, lower, platform="cpu")


def _reorder(array: jax.Array, order: Sequence[int], new_order: Sequence[int]) -> jax.Array:
    """Returns an array whose axis `new_order[i]` is axis `order[i]` of the one given."""
    axes = dict(zip(new_order, order, strict=True))
    return lax.transpose(array, [axes[axis] for axis in range(len(axes))])


speed_up_convolutions_in_loops()


def jit(function: Callable[..., Any], *, state: Any = (), **kwargs: Any) -> Callable[..., Any]:
    """Returns a function of positional arguments, compiled with the options that acting and learning share.

    Args:
        function: what to compile.
        state: a tree of arrays, what the function updates, if anything; large updates get other options, and what
            updates nothing is compiled in a third of the time.
        kwargs: of `jax.jit`.
    """
    options: dict[str, bool | int | str] = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
    leaves = jax.tree.leaves(state)
    if not leaves and jax.default_backend() == "cpu":
        # To act and to draw parameters takes as long as with all of LLVM's optimisations; some updates take longer.
        options["xla_backend_optimization_level"] = 1
    newer = jax.jit(function, compiler_options=options, **kwargs)
    size = sum(np.size(leaf) for leaf in leaves)
    if jax.__version_info__ >= (0, 7) or jax.local_device_count() > 1 or size > _LARGEST_FOR_OLDER_RUNTIME:
        return newer
    # The newer of XLA's two runtimes, which later versions of JAX have alone, takes twice as long for a small update
    # and does not vectorise an activation in place; the older one ends the process at an all-reduce. One of its passes,
    # which calls oneDNN for large products, ends the process at the gradient of `tanh(x) @ w` by an index, as of DQN's
    # action values with 256 units. Without it large updates are slower than in the newer one.
    of_older = {"xla_cpu_use_thunk_runtime": False, "xla_disable_hlo_passes": "onednn-contraction-rewriter"}
    older = jax.jit(function, compiler_options=options | of_older, **kwargs)
    return _ForEitherRuntime(newer, older)


class _ForEitherRuntime:
    """Compiles for the older runtime unless it would give wrong numbers; the first call shows that."""

    def __init__(self, newer: Callable[..., Any], older: Any):
        self._newer, self._older = newer, older
        self.chosen: Callable[..., Any] | None = None

    def __call__(self, *args: Any) -> Any:
        if self.chosen is None:
            # The older runtime's triangular solves of some sizes give wrong numbers.
            self.chosen = self._newer if _has_linear_algebra(self._older.trace(*args).jaxpr.jaxpr) else self._older
        return self.chosen(*args)


def chosen(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns what a function of `jit` hands its calls on to, once it was called: a third of a microsecond less."""
    return getattr(function, "chosen", None) or function


def _has_linear_algebra(jaxpr: Any) -> bool:
    """Returns whether a traced function, or one that it calls, solves, factorises or inverts."""
    return any(
        equation.primitive.name in _LINEAR_ALGEBRA
        or any(_has_linear_algebra(inner) for value in equation.params.values() for inner in _jaxprs(value))
        for equation in jaxpr.eqns
    )


def _jaxprs(value: Any) -> Iterator[Any]:
    """Yields the traced functions among an equation's parameters."""
    for part in value if isinstance(value, (tuple, list)) else (value,):
        inner = getattr(part, "jaxpr", part)
        if hasattr(inner, "eqns"):
            yield inner


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
        package = module.split(".", maxsplit=1)[0]
        if error.name is None or error.name.split(".")[0] != package:
            raise
        exists = f", which exists for {_EXISTS_FOR[package]} alone" if package in _EXISTS_FOR else ""
        raise ImportError(f"{purpose} needs the package {error.name!r}{exists}: pip install '.[{extra}]'") from error


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
