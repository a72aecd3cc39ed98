"""States as plain data: a description that JSON can hold, and a list of arrays.

A state is a tree of dicts, lists, tuples, records (named tuples and dataclasses), arrays, NumPy scalars, PRNG keys,
numbers, strings and None. A record is named by its class, which is looked up among the modules that are loaded already:
reading a state imports nothing and runs no code of the state's own.
"""

from __future__ import annotations

import dataclasses
import operator
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

_PLAIN = (type(None), bool, int, float, str)


def flatten(state: Any) -> tuple[Any, list[np.ndarray]]:
    """Returns a description of a state, of JSON's own types, and its arrays, on the host and none of them empty.

    Raises:
        TypeError: the state holds something else; names its place.
    """
    arrays: list[np.ndarray] = []
    return _describe(state, "state", arrays), arrays


def unflatten(description: Any, arrays: Sequence[np.ndarray]) -> Any:
    """Returns the state that `flatten` was given; JAX's arrays come back as NumPy's.

    Raises:
        ValueError: the description is none, or names a record that is not defined here.
    """
    if isinstance(description, _PLAIN):
        return description
    try:
        (kind, content) = description
        build = _BUILDERS[kind]
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"description must be one that `flatten` gave, got {description!r}.") from None
    return build(content, arrays)


def _describe(value: Any, path: str, arrays: list[np.ndarray]) -> Any:
    if type(value) in _PLAIN:
        return value
    if type(value) in (list, tuple):
        return [type(value).__name__, [_describe(item, f"{path}[{i}]", arrays) for i, item in enumerate(value)]]
    if type(value) is dict:
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{path} has the key {key!r}, and a checkpoint's keys are strings or whole numbers.")
        return ["dict", [[key, _describe(item, f"{path}[{key!r}]", arrays)] for key, item in value.items()]]
    if isinstance(value, np.generic):
        return ["scalar", _describe(np.asarray(value), path, arrays)]
    if isinstance(value, np.ndarray | jax.Array):
        return _describe_array(value, path, arrays)
    return _describe_record(value, path, arrays)


def _describe_array(value: np.ndarray | jax.Array, path: str, arrays: list[np.ndarray]) -> Any:
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return ["key", [str(jax.random.key_impl(value)), _describe(jax.random.key_data(value), path, arrays)]]
    array = np.asarray(value)
    if array.dtype == object or array.dtype.names is not None:
        raise TypeError(f"{path} is an array of {array.dtype}, and a checkpoint's arrays hold numbers.")
    if not array.size:  # Orbax refuses these
        return ["empty", [list(array.shape), array.dtype.name]]
    # Rows that were never written may hold booleans that are neither 0 nor 1, which cannot be read back as such.
    is_bool = array.dtype == np.bool_
    arrays.append(array.view(np.uint8) if is_bool else array)
    return ["bool" if is_bool else "array", len(arrays) - 1]


def _describe_record(value: Any, path: str, arrays: list[np.ndarray]) -> Any:
    name = f"{type(value).__module__}:{type(value).__qualname__}"
    if not _is_record(type(value)):
        raise TypeError(
            f"{path} is of type {name}, and a checkpoint holds dicts, lists, tuples, named tuples, dataclasses, "
            "arrays, numbers and strings. Let `save` return such a tree, and `restore` build the object from it."
        )
    if _find_record(name) is not type(value):
        raise TypeError(f"{path} is of type {name}, which must be defined at the top of its module.")
    fields = {field: _describe(getattr(value, field), f"{path}.{field}", arrays) for field in _field_names(type(value))}
    return ["record", [name, fields]]


def _is_record(cls: type) -> bool:
    return dataclasses.is_dataclass(cls) or (issubclass(cls, tuple) and hasattr(cls, "_fields"))


def _field_names(cls: Any) -> list[str]:
    return [field.name for field in dataclasses.fields(cls)] if dataclasses.is_dataclass(cls) else list(cls._fields)


def _find_record(name: str) -> Any:
    """Returns the class of this name; None where there is none."""
    module, _, qualified_name = name.partition(":")
    try:
        found = operator.attrgetter(qualified_name)(sys.modules.get(module))
    except AttributeError:
        return None
    return found if isinstance(found, type) and _is_record(found) else None


def _build_record(content: Any, arrays: Sequence[np.ndarray]) -> Any:
    name, fields = content
    cls = _find_record(name)
    if cls is None or sorted(_field_names(cls)) != sorted(fields):
        raise ValueError(f"The state holds a record {name} with the fields {sorted(fields)}, and there is none here.")
    return cls(**{field: unflatten(item, arrays) for field, item in fields.items()})


_BUILDERS: dict[str, Callable[[Any, Sequence[np.ndarray]], Any]] = {
    "list": lambda items, arrays: [unflatten(item, arrays) for item in items],
    "tuple": lambda items, arrays: tuple(unflatten(item, arrays) for item in items),
    "dict": lambda items, arrays: {key: unflatten(item, arrays) for key, item in items},
    "key": lambda content, arrays: jax.random.wrap_key_data(unflatten(content[1], arrays), impl=content[0]),
    "scalar": lambda content, arrays: unflatten(content, arrays)[()],
    "array": lambda index, arrays: arrays[index],
    "bool": lambda index, arrays: arrays[index].view(np.bool_),
    "empty": lambda content, arrays: np.empty(content[0], content[1]),
    "record": _build_record,
}
