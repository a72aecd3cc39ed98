"""Saving a policy as a file of its own, and loading it back without the agent's code."""

from __future__ import annotations

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
_PLATFORMS = ("cpu", "cuda", "tpu")


def save_variables(directory: pathlib.Path, variables: dict[str, types.ArrayTree]) -> pathlib.Path:
    """Writes variables as one NumPy archive, an array for each leaf, named by its path in the tree."""
    path = directory / _VARIABLES_FILE
    leaves = {
        jax.tree_util.keystr(key): np.asarray(leaf) for key, leaf in jax.tree_util.tree_leaves_with_path(variables)
    }
    np.savez(path, **leaves)
    return path


def save_policy(
    directory: pathlib.Path, policy: acting.ActorCore, params: types.Params, spec: specs.EnvironmentSpec
) -> pathlib.Path:
    """Exports a policy, with its parameters, as a file that runs without Haiku or the agent's code.

    Args:
        directory: where the file is written.
        policy: an evaluation policy.
        params: its parameters.
        spec: of the environment that it acts in.
    """
    # For one observation: not every network can be traced for a batch of unknown size.
    observation = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), spec.observation)
    state = jax.eval_shape(policy.init)
    batched_state = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1, *leaf.shape), leaf.dtype), state)
    leaves, structure = jax.tree.flatten(params)
    state_structure = jax.tree.structure(state)

    def select_action(leaves, observation, state_leaves, key_data):
        params = jax.tree.unflatten(structure, leaves)
        state = jax.tree.unflatten(state_structure, state_leaves)
        key = jax.random.wrap_key_data(key_data)
        action, _, state = policy.select_action(params, observation, state, key)
        return action, jax.tree.leaves(state)

    exported = jax.export.export(jax.jit(select_action), platforms=_PLATFORMS)(
        [jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for leaf in map(jnp.asarray, leaves)],
        observation,
        jax.tree.leaves(batched_state),
        jax.ShapeDtypeStruct((2,), jnp.uint32),
    )
    path = directory / _POLICY_FILE
    arrays = {f"params_{index}": np.asarray(leaf) for index, leaf in enumerate(leaves)}
    arrays |= {f"state_{index}": np.asarray(leaf) for index, leaf in enumerate(jax.tree.leaves(policy.init()))}
    with path.open("wb") as file:
        np.savez(file, function=np.frombuffer(exported.serialize(), np.uint8), **arrays)
    return path


class Policy:
    """A policy that a run has learned: call it with an observation to get an action.

    It carries its recurrent state, if any, from call to call; `reset` starts an episode.
    """

    def __init__(self, function: Callable[..., Any], params: list[Any], initial_state: list[Any], seed: int):
        self._function = jax.jit(function)
        self._params = params
        self._initial_state = [leaf[None] for leaf in initial_state]
        self._keys = np.random.default_rng(seed)
        self.reset()

    def reset(self) -> None:
        """Starts an episode."""
        self._state = self._initial_state

    def __call__(self, observation: types.ArrayTree) -> types.ArrayTree:
        """Returns the action for one observation (no batch axis), with the leaves of the action spec."""
        key = self._keys.integers(2**32, size=2, dtype=np.uint32)
        batched = jax.tree.map(lambda leaf: np.asarray(leaf)[None], observation)
        action, self._state = self._function(self._params, batched, self._state, key)
        return jax.tree.map(lambda leaf: np.asarray(leaf)[0], action)


def load_policy(directory: str | pathlib.Path, *, seed: int = 0) -> Policy:
    """Returns the evaluation policy of a run that has finished, as a function from an observation to an action.

    Args:
        directory: the run's directory.
        seed: for a policy that draws random actions.

    Raises:
        FileNotFoundError: the directory holds no policy; says what to look for.
    """
    path = pathlib.Path(directory) / _POLICY_FILE
    if not path.is_file():
        raise FileNotFoundError(f"{path.parent} holds no {_POLICY_FILE}: a run writes it when it ends.")
    with np.load(path) as archive:
        arrays = dict(archive)
    exported = jax.export.deserialize(bytearray(arrays.pop("function").tobytes()))
    params = [arrays[f"params_{index}"] for index in range(sum(name.startswith("params_") for name in arrays))]
    state = [arrays[f"state_{index}"] for index in range(sum(name.startswith("state_") for name in arrays))]
    return Policy(exported.call, params, state, seed)
