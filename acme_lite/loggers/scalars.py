"""Scalars of all kinds as Python's own, and as text for people."""

from __future__ import annotations

import math
from typing import Any, TypeAlias

import numpy as np

Scalar: TypeAlias = int | float | bool | str

_PLAIN = frozenset({int, float, bool, str})
_LEAST_FIXED_POINT = 1e-3


def to_scalar(name: str, value: Any) -> Scalar:
    """Returns a Python, NumPy or JAX scalar as a Python number or string.

    Args:
        name: what the value is called, for messages.
        value: the scalar; an array of no dimensions is one.

    Raises:
        ValueError: the value is not a scalar.
    """
    if type(value) in _PLAIN:
        return value
    array = np.asarray(value)
    if array.ndim:
        raise ValueError(f"{name} must be a scalar, got an array of shape {array.shape}.")
    item = array.item()
    if type(item) in _PLAIN:
        return item
    try:
        return float(item)  # such as bfloat16, whose item is no Python number
    except (TypeError, ValueError):
        raise ValueError(f"{name} must be a number or a string, got {value!r}.") from None


def format_scalar(value: Scalar) -> str:
    """Returns a scalar as a person reads it: thousands separated, four digits that matter."""
    if isinstance(value, (bool, str)):
        return str(value)
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    if size >= 1000:
        return f"{value:,.0f}"
    return f"{value:.4g}" if size >= _LEAST_FIXED_POINT or size == 0 else f"{value:.2e}"
