"""Checks of a config's fields: each raises a ValueError that names the field, the value and what is allowed.

Of a schedule, where one may be, the first and the last value are checked.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np


def in_range(config: Any, low: float, high: float, *names: str, schedules: bool = False, tuples: bool = False) -> None:
    """Checks that fields are finite numbers in [low, high], or schedules or tuples of such where these may be."""
    allowed = f"in [{low}, {high}]" if math.isfinite(high) else f"a finite number of at least {low}"

    def fits(value: Any) -> bool:
        return _is_number(value) and low <= value <= high

    _check(config, names, fits, allowed, schedules=schedules, tuples=tuples)


def positive(config: Any, *names: str, schedules: bool = False) -> None:
    """Checks that fields are finite numbers greater than 0, or schedules from such to 0 or more, where these may be."""
    _check(config, names, _is_positive, "a finite number greater than 0", schedules=schedules, may_end_at_zero=True)


def positive_or_none(config: Any, *names: str) -> None:
    """Checks that fields are finite numbers greater than 0, or None."""
    allowed = "a finite number greater than 0, or None"
    _check(config, names, lambda value: value is None or _is_positive(value), allowed)


def at_least(config: Any, least: int, *names: str) -> None:
    """Checks that fields are whole numbers of at least `least`."""
    _check(config, names, lambda value: _is_whole(value) and value >= least, f"a whole number of at least {least}")


def sizes(config: Any, *names: str) -> None:
    """Checks that fields are tuples of whole numbers of at least 1, and not empty."""

    def fits(value: Any) -> bool:
        return isinstance(value, tuple) and len(value) > 0 and all(_is_whole(size) and size >= 1 for size in value)

    _check(config, names, fits, "a tuple of whole numbers of at least 1")


def booleans(config: Any, *names: str) -> None:
    """Checks that fields are True or False."""
    _check(config, names, lambda value: isinstance(value, (bool, np.bool_)), "True or False")


def seeds(config: Any, *names: str) -> None:
    """Checks that fields are whole numbers in [0, 2^32): JAX would take greater ones for others of these."""
    for name in names:
        value = getattr(config, name)
        if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or not 0 <= value < 2**32:
            raise ValueError(f"{type(config).__name__}.{name} must be a whole number in [0, 2**32), got {value!r}.")


def one_of(config: Any, allowed: tuple[Any, ...], *names: str) -> None:
    """Checks that fields are one of the allowed values."""
    for name in names:
        value = getattr(config, name)
        if value not in allowed:
            raise ValueError(
                f"{type(config).__name__}.{name} must be one of {', '.join(map(repr, allowed))}, got {value!r}."
            )


def increasing(config: Any, *names: str) -> None:
    """Checks that fields are finite numbers, each greater than the one before."""
    values = [getattr(config, name) for name in names]
    if not all(map(_is_number, values)) or not all(low < high for low, high in itertools.pairwise(values)):
        raise ValueError(f"{type(config).__name__}: {' < '.join(names)} must hold for finite numbers, got {values}.")


def must_be(config: Any, why: str, **values: Any) -> None:
    """Checks that fields have the only values that go together with others, which `why` names."""
    for name, value in values.items():
        if getattr(config, name) != value:
            raise ValueError(f"{type(config).__name__}.{name} must be {value!r} {why}, got {getattr(config, name)!r}.")


def left_at_default(config: Any, why: str, *names: str) -> None:
    """Checks that fields of a dataclass that nothing would use were not set; `why` says what would use them."""
    must_be(config, why, **{field.name: field.default for field in dataclasses.fields(config) if field.name in names})


def _check(
    config: Any,
    names: tuple[str, ...],
    fits: Callable[[Any], bool],
    allowed: str,
    *,
    schedules: bool = False,
    tuples: bool = False,
    may_end_at_zero: bool = False,
) -> None:
    others = " or ".join(["a schedule"] * schedules + ["a tuple"] * tuples)
    for name in names:
        field = getattr(config, name)
        values: tuple[Any, ...] = (field,)
        if schedules and hasattr(field, "initial"):
            values = (field.initial,) if may_end_at_zero and field.final == 0 else (field.initial, field.final)
        elif tuples and isinstance(field, tuple) and field:
            values = field
        if not all(fits(value) for value in values):
            also = f", or {others} of such" + ", which may end at 0" * may_end_at_zero if others else ""
            raise ValueError(f"{type(config).__name__}.{name} must be {allowed}{also}, got {field!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)


def _is_whole(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and _is_number(value)


def _is_positive(value: Any) -> bool:
    return _is_number(value) and value > 0
