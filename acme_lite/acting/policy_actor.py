"""The actor shell: runs a policy in the members of a vector environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dm_env
import jax
import jax.numpy as jnp
import numpy as np

from acme_lite import _runtime, adders, core, packing, types
from acme_lite.acting import actor_core, variable_client

_FIRST = int(dm_env.StepType.FIRST)


class PolicyActor:
    """Acts with an `ActorCore` for N members at once, in one compiled call per vector step.

    The call splits the key, resets the recurrent state of the members whose step is FIRST, and selects actions.
    """

    def __init__(
        self,
        policy: actor_core.ActorCore,
        variables: core.VariableSource,
        adder: adders.Adder | None = None,
        *,
        key: jax.Array,
        num_envs: int = 1,
        device: jax.Device | None = None,
    ):
        """Makes an actor.

        Args:
            policy: what selects actions.
            variables: serves the variable `"policy"`.
            adder: records the steps; None records nothing.
            key: PRNG key; consumed.
            num_envs: N, at least 1.
            device: where the policy runs; where its parameters are unless given.

        Raises:
            ValueError: `num_envs` is less than 1.
        """
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        self._variables = variables
        self._adder = adder
        self._device = device
        self._source: Any = None  # what the parameters in use were made of
        self._params: Any = None
        packed = packing.packed_variable(variables, "policy")
        self._packing: packing.Packing | None = None if packed is None else packed.packing
        # The words of the key: a key array is checked in Python at every call.
        self._key = jax.random.key_data(key if device is None else jax.device_put(key, device))
        self._state = actor_core.initial_state(policy, num_envs)
        self._recurrent = bool(jax.tree.leaves(self._state))
        self._first: np.ndarray | None = None
        self._to_host: Callable[[types.ArrayTree], types.ArrayTree] | None = None
        self._extras: types.ArrayTree = ()
        self._extras_to_host: Callable[[types.ArrayTree], types.ArrayTree] = lambda extras: extras
        select = _recurrent(policy, num_envs) if self._recurrent else _stateless(policy)
        self._select = _runtime.jit(_with_plain_arrays(select, self._packing, jax.random.key_impl(key)))

    def select_action(self, observation: types.ArrayTree) -> types.ArrayTree:
        if self._params is None:
            self.update()
        if self._recurrent:
            action, self._extras, self._state, self._key = self._select(
                self._params, observation, self._state, self._first, self._key
            )
        else:
            action, self._extras, self._key = self._select(self._params, observation, self._key)
        if self._to_host is None:
            self._select = _runtime.chosen(self._select)
            self._to_host = _to_host(action)
            self._extras_to_host = _to_host(self._extras)
        return self._to_host(action)

    def observe_first(self, timestep: dm_env.TimeStep) -> None:
        self._first = timestep.step_type == _FIRST
        if self._adder is not None:
            self._adder.add_first(timestep)

    def observe(self, action: types.ArrayTree, next_timestep: dm_env.TimeStep) -> None:
        if self._recurrent:
            self._first = next_timestep.step_type == _FIRST
        if self._adder is not None:
            extras = self._extras
            self._adder.add(action, next_timestep, extras and self._extras_to_host(extras))

    def save(self) -> dict[str, Any]:
        """Returns key, recurrent state and the variables in use; the adder is saved by whoever made it."""
        state = {"key": self._key, "params": self._params, "state": self._state, "first": self._first}
        state = jax.device_get(state)
        if self._packing is not None and state["params"] is not None:
            state["params"] = self._packing.unpack(state["params"])
        return state

    def restore(self, state: dict[str, Any]) -> None:
        params = state["params"]
        if self._packing is not None and params is not None:
            params = _runtime.jit(self._packing.pack)(params)
        self._params, self._state, self._key = jax.device_put((params, state["state"], state["key"]), self._device)
        self._first = state["first"]
        self._source = None  # the next `update` looks for newer variables

    def update(self, wait: bool = False) -> None:
        if wait and isinstance(self._variables, variable_client.VariableClient):
            self._variables.fetch()
        if self._packing is None:
            (source,) = self._variables.get_variables(("policy",))
        else:
            source = self._variables.packed_variable("policy")  # type: ignore[attr-defined]  # it gave the packing
        if source is not self._source:
            self._source = source
            params = source if self._packing is None else source.arrays
            # By way of the host: `device_get` starts the copies of all leaves before it waits for the first.
            self._params = params if self._device is None else jax.device_put(jax.device_get(params), self._device)


def _to_host(tree: types.ArrayTree) -> Callable[[types.ArrayTree], types.ArrayTree]:
    """Returns the function that turns trees like this one into NumPy arrays, without JAX where the tree is flat.

    The trees are looked at once, since `isinstance(..., jax.Array)` runs Python code.
    """
    if isinstance(tree, jax.Array):
        return np.asarray
    if type(tree) is dict and all(isinstance(leaf, jax.Array) for leaf in tree.values()):
        return lambda values: {name: np.asarray(value) for name, value in values.items()}
    return lambda values: jax.tree.map(np.asarray, values)


def _with_plain_arrays(
    select: Callable[..., tuple], params_packing: packing.Packing | None, impl: Any
) -> Callable[..., tuple]:
    """Returns a function that takes packed parameters, first, and takes and returns the words of a key, last."""

    def select_with_plain_arrays(params, *args):
        if params_packing is not None:
            params = params_packing.unpack(params)
        *results, key = select(params, *args[:-1], jax.random.wrap_key_data(args[-1], impl=impl))
        return *results, jax.random.key_data(key)

    return select_with_plain_arrays


def _stateless(policy: actor_core.ActorCore):
    def select(params, observation, key):
        key, key_policy = jax.random.split(key)
        action, extras, _ = policy.select_action(params, observation, (), key_policy)
        return action, extras, key

    return select


def _recurrent(policy: actor_core.ActorCore, num_envs: int):
    def select(params, observation, state, first, key):
        key, key_policy = jax.random.split(key)
        start = actor_core.initial_state(policy, num_envs)

        def reset(leaf, start_leaf):
            return jnp.where(first.reshape((num_envs,) + (1,) * (leaf.ndim - 1)), start_leaf, leaf)

        state = jax.tree.map(reset, state, start)
        action, extras, state = policy.select_action(params, observation, state, key_policy)
        return action, extras, state, key

    return select
