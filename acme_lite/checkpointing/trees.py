"""States as plain data: a description that JSON can hold, and what JSON cannot: arrays and folders.

A state is a tree of dicts, lists, tuples, records (named tuples and dataclasses), arrays, NumPy scalars, PRNG keys,
numbers, strings, None, and folders: a `pathlib.Path` means that the files there belong to the state. A record is named
by its class, which is looked up among the modules that are loaded already: reading a state imports nothing and runs no
code of the state's own. A script's classes reach the nodes of a program by value, without their module; there they are
looked up among all classes that exist.
"""

from __future__ import annotations

import dataclasses
import operator
import pathlib
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_PLAIN = (type(None), bool, int, float, str)
_LONG = (np.longdouble, np.clongdouble) if np.longdouble is not np.float64 else ()
"""Numbers of a length that only this kind of machine has."""


class Leaves(NamedTuple):
    """What a description refers to by number.

    Attributes:
        arrays: on the host, none of them empty.
        folders: where files lie that belong to the state.
    """

    arrays: list[np.ndarray]
    folders: list[pathlib.Path]


def flatten(state: Any) -> tuple[Any, Leaves]:
    """Returns a description of a state, of JSON's own types, and its leaves that are none of these.

    Raises:
        TypeError: the state holds something else; names its place.
    """
    leaves = Leaves([], [])
    return _describe(state, "state", leaves), leaves


def check(state: Any) -> None:
    """Raises TypeError unless a state can be saved and built again; names the place, or the record."""
    try:
        unflatten(*flatten(state))
    except ValueError as error:
        raise TypeError(f"state must be one that can be built again from what is saved of it: {error}") from error


def unflatten(description: Any, leaves: Leaves) -> Any:
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
    return build(content, leaves)


def find_dtype(name: str) -> np.dtype:
    """Returns the type of numbers of this name, of JAX's where NumPy has none: TensorFlow has another bfloat16."""
    return np.dtype(getattr(jnp, name, name))


def _describe(value: Any, path: str, leaves: Leaves) -> Any:
    if type(value) in _PLAIN:
        return value
    if type(value) in (list, tuple):
        return [type(value).__name__, [_describe(item, f"{path}[{i}]", leaves) for i, item in enumerate(value)]]
    if type(value) is dict:
        for key in value:
            if type(key) not in (str, int):
                raise TypeError(f"{path} has the key {key!r}, and a checkpoint's keys are strings or whole numbers.")
        return ["dict", [[key, _describe(item, f"{path}[{key!r}]", leaves)] for key, item in value.items()]]
    if isinstance(value, pathlib.Path):
        leaves.folders.append(value)
        return ["folder", len(leaves.folders) - 1]
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        return _describe_array(value, path, leaves)
    return _describe_record(value, path, leaves)


def _describe_array(value: np.generic | np.ndarray | jax.Array, path: str, leaves: Leaves) -> Any:
    if isinstance(value, np.str_):
        return str(value)
    if isinstance(value, np.generic):
        return ["scalar", _describe_array(np.asarray(value), path, leaves)]
    if jax.dtypes.issubdtype(value.dtype, jax.dtypes.prng_key):
        return ["key", [str(jax.random.key_impl(value)), _describe(jax.random.key_data(value), path, leaves)]]
    array = np.asarray(value)
    if array.dtype.kind in "OSUMm" or array.dtype.names is not None or array.dtype.type in _LONG:
        raise TypeError(f"{path} is an array of {array.dtype}, and a checkpoint's arrays hold numbers.")
    if not array.size:  # Orbax refuses these
        return ["empty", [list(array.shape), array.dtype.name]]
    # Rows that were never written may hold booleans that are neither 0 nor 1, which cannot be read back as such.
    is_bool = array.dtype == np.bool_
    leaves.arrays.append(array.view(np.uint8) if is_bool else array)
    return ["bool" if is_bool else "array", len(leaves.arrays) - 1]


def _describe_record(value: Any, path: str, leaves: Leaves) -> Any:
    name = f"{type(value).__module__}:{type(value).__qualname__}"
    if not _is_record(type(value)):
        raise TypeError(
            f"{path} is of type {name}, and a checkpoint holds dicts, lists, tuples, named tuples, dataclasses, "
            "arrays, numbers, strings and folders. Let `save` return such a tree, and `restore` build the object of it."
        )
    if _find_record(name) is not type(value):
        raise TypeError(f"{path} is of type {name}, which must be defined at the top of its module.")
    fields = {field: _describe(getattr(value, field), f"{path}.{field}", leaves) for field in _field_names(type(value))}
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
        came_by_value = (module == "__main__" or module not in sys.modules) and "<locals>" not in qualified_name
        found = _find_class(module, qualified_name) if came_by_value else None
    return found if isinstance(found, type) and _is_record(found) else None


def _find_class(module: str, qualified_name: str, base: type = object) -> type | None:
    """Returns the class of this name among those that derive from `base`; None where there is none."""
    subclasses: list[type] = type.__subclasses__(base)
    for cls in subclasses:
        if (cls.__module__, cls.__qualname__) == (module, qualified_name):
            return cls
        found = _find_class(module, qualified_name, cls)
        if found is not None:
            return found
    return None


def _build_record(content: Any, leaves: Leaves) -> Any:
    name, fields = content
    cls = _find_record(name)
    if cls is None or sorted(_field_names(cls)) != sorted(fields):
        raise ValueError(f"The state holds a record {name} with the fields {sorted(fields)}, and there is none here.")
    values = {field: unflatten(item, leaves) for field, item in fields.items()}
    try:
        return cls(**values)
    except Exception as error:
        raise ValueError(f"the record {name} cannot be made of its fields {sorted(fields)}: {error}") from error


_BUILDERS: dict[str, Callable[[Any, Leaves], Any]] = {
    "list": lambda items, leaves: [unflatten(item, leaves) for item in items],
    "tuple": lambda items, leaves: tuple(unflatten(item, leaves) for item in items),
    "dict": lambda items, leaves: {key: unflatten(item, leaves) for key, item in items},
    "key": lambda content, leaves: jax.random.wrap_key_data(unflatten(content[1], leaves), impl=content[0]),
    "scalar": lambda content, leaves: unflatten(content, leaves)[()],
    "array": lambda index, leaves: leaves.arrays[index],
    "bool": lambda index, leaves: leaves.arrays[index].view(np.bool_),
    "empty": lambda content, leaves: np.empty(content[0], find_dtype(content[1])),
    "folder": lambda index, leaves: leaves.folders[index],
    "record": _build_record,
}
