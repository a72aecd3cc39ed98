"""Checks of a config's fields: each raises a ValueError that names the field, the value and what is allowed.

A field may be a number, a tuple of numbers, or a schedule, whose first and last value are checked.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np


def in_range(config: Any, low: float, high: float, *names: str) -> None:
    """Checks that fields are finite numbers in [low, high]."""
    allowed = f"in [{low}, {high}]" if math.isfinite(high) else f"a finite number of at least {low}"
    _check(config, names, lambda value: _is_number(value) and low <= value <= high, allowed)


def positive(config: Any, *names: str) -> None:
    """Checks that fields are finite numbers greater than 0, or None."""
    allowed = "a finite number greater than 0"
    _check(config, names, lambda value: value is None or (_is_number(value) and value > 0), allowed)


def at_least(config: Any, least: int, *names: str) -> None:
    """Checks that fields are whole numbers of at least `least`."""
    allowed = f"a whole number of at least {least}"
    _check(
        config,
        names,
        lambda value: _is_number(value) and isinstance(value, (int, np.integer)) and bool(value >= least),
        allowed,
    )


def one_of(config: Any, allowed: tuple[Any, ...], *names: str) -> None:
    """Checks that fields are one of some values."""
    _check(config, names, lambda value: value in allowed, f"one of {', '.join(map(repr, allowed))}")


def _check(config: Any, names: tuple[str, ...], fits: Callable[[Any], bool], allowed: str) -> None:
    for name in names:
        field = getattr(config, name)
        if not all(fits(value) for value in _values(field)):
            raise ValueError(f"{type(config).__name__}.{name} must be {allowed}, got {field!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.number)) and not isinstance(value, bool) and math.isfinite(value)


def _values(field: Any) -> tuple[Any, ...]:
    if hasattr(field, "initial"):
        return (field.initial, field.final)
    return field if isinstance(field, tuple) and field else (field,)
