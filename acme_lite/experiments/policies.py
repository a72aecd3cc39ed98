"""Saving a policy as a file of its own, and loading it back without the agent's code."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.export
import jax.numpy as jnp
import numpy as np

from acme_lite import acting, specs, types

_POLICY_FILE = "policy.bin"
_VARIABLES_FILE = "variables.npz"
_MISSING_FILE = "policy_missing.txt"
_PLATFORMS = ("cpu", "cuda", "tpu")
_MOST_ARRAYS_IN_WORDS = 10

_logger = logging.getLogger(__name__)


def save_variables(directory: pathlib.Path, variables: dict[str, types.ArrayTree]) -> pathlib.Path:
    """Writes variables as one NumPy archive, an array for each leaf, named by its path in the tree.

    Numbers that NumPy has no type for, such as bfloat16, are written as float32, and PRNG keys as their words.
    """
    path = directory / _VARIABLES_FILE
    arrays = {
        jax.tree_util.keystr(key): np.asarray(leaf)
        for key, leaf in jax.tree_util.tree_leaves_with_path(_with_words(variables))
    }
    np.savez(path, **{name: array.astype(np.float32) if _is_raw(array) else array for name, array in arrays.items()})
    return path


def save_policy(
    directory: pathlib.Path, policy: acting.ActorCore, params: types.Params, spec: specs.EnvironmentSpec
) -> pathlib.Path | None:
    """Exports a policy, with its parameters, as a file that runs without Haiku or the agent's code; returns its path.

    Of a policy that cannot be exported, such as one that calls Python, a warning says why and another file keeps it:
    that must not cost the run its result. It returns None then.

    Args:
        directory: where the file is written.
        policy: an evaluation policy.
        params: its parameters.
        spec: of the environment that it acts in.
    """
    # For one observation: not every network can be traced for a batch of unknown size.
    observation = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), spec.observation)
    state, key = policy.init(), jax.random.key(0)  # of the kind that all keys of the run have
    leaves, state_leaves, (key_words,) = (jax.tree.leaves(_with_words(tree)) for tree in (params, state, key))

    def select_action(leaves, fields, state_leaves, key_words):
        action, _, new_state = policy.select_action(
            _with_keys(params, leaves),
            _with_named_tuples(observation, fields),
            _with_keys(state, state_leaves),
            _with_keys(key, [key_words]),
        )
        return _with_dicts(action), jax.tree.leaves(_with_words(new_state))

    path, missing = directory / _POLICY_FILE, directory / _MISSING_FILE
    try:
        function = _export(
            select_action,
            [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in map(jnp.asarray, leaves)],
            _with_dicts(observation),
            [jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype) for leaf in map(jnp.asarray, state_leaves)],
            jax.ShapeDtypeStruct(key_words.shape, key_words.dtype),
        )
    except Exception as error:
        reason = f"the policy could not be exported ({error}); its parameters are in {_VARIABLES_FILE}."
        _logger.warning("%s is not written: %s", path, reason)
        missing.write_text(reason, encoding="utf-8")
        path.unlink(missing_ok=True)
        return None
    arrays = {f"params_{index}": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    arrays |= {f"state_{index}": np.asarray(leaf) for index, leaf in enumerate(state_leaves)}
    with path.open("wb") as file:
        np.savez(file, function=np.frombuffer(function, np.uint8), **arrays)
    missing.unlink(missing_ok=True)
    return path


def _with_words(tree: types.ArrayTree) -> types.ArrayTree:
    """Returns a tree whose PRNG keys are arrays of their words."""
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if _is_key(leaf) else leaf, tree)


def _with_keys(tree: types.ArrayTree, leaves: list[Any]) -> types.ArrayTree:
    """Returns a tree like this one with other leaves, which have words in place of PRNG keys."""

    def wrap(like: Any, leaf: Any) -> Any:
        return jax.random.wrap_key_data(leaf, impl=jax.random.key_impl(like)) if _is_key(like) else leaf

    return jax.tree.map(wrap, tree, jax.tree.unflatten(jax.tree.structure(tree), leaves))


def _with_dicts(tree: types.ArrayTree) -> types.ArrayTree:
    """Returns a tree whose named tuples are dicts of their fields, since an exported function knows no such class."""

    def convert(node: Any) -> Any:
        return {name: _with_dicts(value) for name, value in node._asdict().items()} if _is_named_tuple(node) else node

    return jax.tree.map(convert, tree, is_leaf=_is_named_tuple)


def _with_named_tuples(tree: types.ArrayTree, other: types.ArrayTree) -> types.ArrayTree:
    """Returns a tree like this one with the leaves of the other, which has dicts in place of named tuples."""

    def convert(node: Any, part: Any) -> Any:
        if not _is_named_tuple(node):
            return part
        return type(node)(**{name: _with_named_tuples(value, part[name]) for name, value in node._asdict().items()})

    return jax.tree.map(convert, tree, other, is_leaf=_is_named_tuple)


def _is_named_tuple(node: Any) -> bool:
    return isinstance(node, tuple) and hasattr(node, "_fields")


def _is_key(leaf: Any) -> bool:
    return isinstance(leaf, jax.Array) and jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _is_raw(array: np.ndarray) -> bool:
    """Whether NumPy's files hold such an array as bytes without a type: JAX has types that NumPy has not."""
    return array.dtype.kind == "V"


def _export(function: Callable[..., Any], *arguments: Any) -> bytearray:
    """Returns a function for arguments of these shapes, serialised for all platforms, or for this one if that fails."""
    jitted = jax.jit(function)
    try:
        return jax.export.export(jitted, platforms=_PLATFORMS)(*arguments).serialize()
    except Exception as error:
        here = jax.export.default_export_platform()
        exported = jax.export.export(jitted, platforms=(here,))(*arguments).serialize()
        _logger.warning("The exported policy runs on %s alone: %s", here, error)
        return exported


class Policy:
    """A policy that a run has learned: call it with an observation to get an action.

    It carries its recurrent state, if any, from call to call; `reset` starts an episode.
    """

    def __init__(self, exported: jax.export.Exported, params: list[Any], initial_state: list[Any], seed: int):
        self._function = jax.jit(exported.call)
        arguments, _ = jax.tree.unflatten(exported.in_tree, exported.in_avals)
        self._observation = jax.tree.map(lambda aval: jax.ShapeDtypeStruct(aval.shape[1:], aval.dtype), arguments[1])
        self._key_shape = exported.in_avals[-1].shape
        self._params = params
        self._initial_state = [leaf[None] for leaf in initial_state]
        self._keys = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> None:
        """Starts an episode."""
        self._state = self._initial_state

    def __call__(self, observation: types.ArrayTree) -> types.ArrayTree:
        """Returns the action for one observation (no batch axis), with the leaves of the action spec.

        Where that has named tuples, the action has dicts of their fields; of the observation's, dicts will do, too.

        Raises:
            ValueError: the observation is not what the policy was trained with; names the array.
        """
        observation = _with_dicts(observation)
        key = self._keys.integers(2**32, size=self._key_shape, dtype=np.uint32)
        batched = jax.tree.map(lambda leaf: np.asarray(leaf)[None], observation)
        try:
            action, self._state = self._function(self._params, batched, self._state, key)
        except (TypeError, ValueError):
            # Looked into here alone, since that takes as long as acting. The function refuses what does not fit it.
            problem = _mismatch(self._observation, observation)
            if problem is None:
                raise
            raise ValueError(f"The policy takes observations {problem}.") from None
        return jax.tree.map(lambda leaf: np.asarray(leaf)[0], action)


def _mismatch(expected: types.ArrayTree, observation: types.ArrayTree) -> str | None:
    """Returns which observation was expected and which came, in words; None where no difference is seen.

    Args:
        expected: tree of `jax.ShapeDtypeStruct`.
        observation: tree of arrays.
    """
    structures: list[Any] = [jax.tree.structure(expected), jax.tree.structure(observation)]
    if structures[0] != structures[1]:
        return f"{_in_words(expected)}, got {_in_words(observation)}"
    for (path, leaf), value in zip(
        jax.tree_util.tree_leaves_with_path(expected), jax.tree.leaves(observation), strict=True
    ):
        array = np.asarray(value)
        # Numbers of 64 bits become those of 32, which JAX has.
        fits = array.dtype.kind in "biuf" and jax.dtypes.canonicalize_dtype(array.dtype) == leaf.dtype
        if array.shape != leaf.shape or not fits:
            where = f"whose {jax.tree_util.keystr(path)} is " if path else ""
            return f"{where}{_in_words(leaf)}, got {_in_words(array)}"
    return None


def _in_words(tree: types.ArrayTree) -> str:
    """Returns dtypes and shapes of a tree's arrays, with their paths; of many, their number alone."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    if len(leaves) > _MOST_ARRAYS_IN_WORDS:
        return f"a {type(tree).__name__} of {len(leaves)} arrays"
    arrays = [(path, leaf if hasattr(leaf, "dtype") else np.asarray(leaf)) for path, leaf in leaves]
    words = [f"{jax.tree_util.keystr(path)} {array.dtype}{list(array.shape)}".strip() for path, array in arrays]
    return ", ".join(words) or repr(tree)


def load_policy(directory: str | pathlib.Path, *, seed: int = 0) -> Policy:
    """Returns the evaluation policy of a run that has finished, as a function from an observation to an action.

    Args:
        directory: the run's directory.
        seed: for a policy that draws random actions.

    Raises:
        FileNotFoundError: the directory holds no policy; says why.
    """
    path = pathlib.Path(directory) / _POLICY_FILE
    if not path.is_file():
        missing = path.with_name(_MISSING_FILE)
        why = missing.read_text(encoding="utf-8") if missing.is_file() else "a run writes it when it ends."
        raise FileNotFoundError(f"{path.parent} holds no {_POLICY_FILE}: {why}")
    with np.load(path) as archive:
        arrays = dict(archive)
    exported = jax.export.deserialize(bytearray(arrays.pop("function").tobytes()))
    params = [arrays[f"params_{index}"] for index in range(sum(name.startswith("params_") for name in arrays))]
    state = [arrays[f"state_{index}"] for index in range(sum(name.startswith("state_") for name in arrays))]
    # The function is one of parameters, observation, state and key.
    params, state = (
        [leaf.view(aval.dtype) if _is_raw(leaf) else leaf for leaf, aval in zip(leaves, avals, strict=True)]
        for leaves, avals in (
            (params, exported.in_avals[: len(params)]),
            (state, exported.in_avals[-1 - len(state) : -1]),
        )
    )
    return Policy(exported, params, state, seed)
