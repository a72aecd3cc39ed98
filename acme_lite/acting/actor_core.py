"""A policy as pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import jax

from acme_lite import types


class ActorCore(NamedTuple):
    """A policy as pure functions; what runs it (`PolicyActor`) is written once.

    Attributes:
        init: `() -> state`, the recurrent state at an episode's start, one row without batch axis; `()` for none.
        select_action: `(params, observation [B, ...], state [B, ...], key) -> (action [B, ...], extras [B, ...],
            state [B, ...])`. `params` is the variable named `"policy"`: any pytree, with everything that acting needs.
            `extras` is what the adder stores beside the action, a dict or `()`. The key is consumed.
    """

    init: Callable[[], types.ArrayTree]
    select_action: Callable[
        [types.Params, types.ArrayTree, types.ArrayTree, jax.Array],
        tuple[types.ArrayTree, types.ArrayTree, types.ArrayTree],
    ]


def feed_forward(select_action: Callable[[types.Params, types.ArrayTree, jax.Array], types.ArrayTree]) -> ActorCore:
    """Returns the policy of a function `(params, observation [B, ...], key) -> action [B, ...]`."""

    def stateless(params, observation, state, key):
        return select_action(params, observation, key), (), state

    return ActorCore(init=lambda: (), select_action=stateless)


def initial_state(core: ActorCore, batch_size: int) -> types.ArrayTree:
    """Returns the state of `batch_size` episodes' starts, `[B, ...]`."""
    import jax.numpy as jnp

    return jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf)[None], batch_size, axis=0), core.init())


def extras_spec(core: ActorCore, params: types.Params, observation_spec: types.SpecTree) -> types.SpecTree:
    """Returns the specs of one row of a policy's extras, without running it.

    Args:
        core: the policy.
        params: the variable `"policy"`, or its shapes.
        observation_spec: spec tree of one observation.
    """
    from acme_lite import specs

    observation = specs.zeros(observation_spec, batch_shape=(1,))
    state = jax.eval_shape(lambda: initial_state(core, 1))
    _, extras, _ = jax.eval_shape(core.select_action, params, observation, state, jax.random.key(0))
    return jax.tree.map(lambda leaf: specs.Array(leaf.shape[1:], leaf.dtype), extras)
