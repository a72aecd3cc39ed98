"""Comparisons of trees that say where two differ, and a count of what JAX compiles."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator
from typing import Any

import jax
import jax.monitoring
import numpy as np

from acme_lite import types

_COMPILATION = "/jax/core/compile/backend_compile_duration"


def type_difference(expected: types.ArrayTree, actual: types.ArrayTree) -> str | None:
    """Returns where two trees differ in structure, shapes or dtypes, in words; None if they do not.

    Leaves are arrays, numbers, or what has a `shape` and a `dtype`, such as specs.
    """
    structure: Any = jax.tree.structure(expected)
    if structure != jax.tree.structure(actual):
        return f"its structure is {jax.tree.structure(actual)}, expected {structure}"
    for (path, one), (_, other) in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree_util.tree_leaves_with_path(actual), strict=True
    ):
        if _leaf_type(one) != _leaf_type(other):
            return f"{_where(path)} is {_words(other)}, expected {_words(one)}"
    return None


def value_difference(expected: types.ArrayTree, actual: types.ArrayTree) -> str | None:
    """Returns where two trees of arrays differ in type or, bit for bit, in value, in words; None if they do not."""
    difference = type_difference(expected, actual)
    if difference is not None:
        return difference
    for (path, one), (_, other) in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree_util.tree_leaves_with_path(actual), strict=True
    ):
        if np.asarray(one).tobytes() != np.asarray(other).tobytes():
            return f"{_where(path)} differs"
    return None


def _leaf_type(leaf: types.ArrayTree) -> tuple[tuple[int, ...], np.dtype]:
    return tuple(np.shape(leaf)), np.dtype(jax.dtypes.result_type(leaf.dtype if hasattr(leaf, "dtype") else leaf))


def _words(leaf: types.ArrayTree) -> str:
    shape, dtype = _leaf_type(leaf)
    return f"{dtype}{list(shape)}"


def _where(path: tuple) -> str:
    return jax.tree_util.keystr(path) or "it"


@functools.cache
def _compilations() -> list[float]:
    """Returns the seconds of every compilation of this process since the first call, a list that grows."""
    seconds: list[float] = []

    def listen(event: str, duration_secs: float, **kwargs: str | int) -> None:
        if event == _COMPILATION:
            seconds.append(duration_secs)

    jax.monitoring.register_event_duration_secs_listener(listen)
    return seconds


@contextlib.contextmanager
def no_compilation(what: str) -> Iterator[None]:
    """Raises an AssertionError if JAX compiles anything within, in any thread; `what` says what was done."""
    before = len(_compilations())
    yield
    num = len(_compilations()) - before
    assert num == 0, f"{what} compiled {num} functions anew: shapes, dtypes or Python values changed between calls."
