"""Recurrent networks as pure functions: one step for acting, and windows of steps for learning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp

from acme_lite import specs, types

CORES = ("none", "gru", "lstm")
"""What may stand between torso and head: nothing, a GRU (Cho et al., 2014) or an LSTM (Hochreiter and Schmidhuber,
1997)."""


class RecurrentNetwork(NamedTuple):
    """A network with a state, as pure functions; both uses take the same parameters and give the same outputs.

    Attributes:
        init: `(key) -> params`; the key is consumed.
        apply: `(params, observation [B, ...], state [B, ...]) -> (output [B, ...], state [B, ...])`, one step.
        unroll: `(params, observation [B, T, ...], state [B, ...], reset [B, T]) -> (output [B, T, ...], state
            [B, ...])`, T steps from the state before the first of them to the state behind the last. Where `reset` is
            True, the state is that of an episode's start before the step.
        initial_state: `() -> state [...]` at an episode's start, one row without batch axis; `()` for the core
            `"none"`.
    """

    init: Callable[[jax.Array], types.Params]
    apply: Callable[[types.Params, types.ArrayTree, types.ArrayTree], tuple[Any, types.ArrayTree]]
    unroll: Callable[[types.Params, types.ArrayTree, types.ArrayTree, jax.Array], tuple[Any, types.ArrayTree]]
    initial_state: Callable[[], types.ArrayTree]


def from_haiku_recurrent(
    torso: Callable[[types.ArrayTree], jax.Array],
    head: Callable[[jax.Array], Any],
    observation_spec: types.SpecTree,
    *,
    core: str = "lstm",
    hidden_size: int = 256,
) -> RecurrentNetwork:
    """Returns the network head(core(torso(observation), state)).

    In an unroll, torso and head take all B x T steps at once, and only the core goes from step to step.

    Args:
        torso: `(observation [B, ...]) -> features [B, D]`; may call Haiku modules, and uses no randomness.
        head: `(features [B, D]) -> output [B, ...]` tree; as `torso`. Without a core it gets the torso's features.
        observation_spec: spec tree of one observation.
        core: one of `CORES`.
        hidden_size: of the core, at least 1.

    Raises:
        ValueError: there is no such core, or `hidden_size` is less than 1.
    """
    make_core, initial_state = _core_functions(core, hidden_size)

    def step(observation: types.ArrayTree, state: types.ArrayTree) -> tuple[Any, types.ArrayTree]:
        features = torso(observation)
        if make_core is not None:
            features, state = make_core()(features, state)
        return head(features), state

    def unroll(observation: types.ArrayTree, state: types.ArrayTree, reset: jax.Array) -> tuple[Any, types.ArrayTree]:
        shape = reset.shape
        features = torso(jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, *leaf.shape[2:])), observation))
        if make_core is not None:
            recurrent = make_core()

            def advance(inputs, state):
                features, reset = inputs
                return recurrent(features, reset_where(reset, state, initial_state()))

            features = jnp.reshape(features, (*shape, -1))
            features, state = hk.dynamic_unroll(advance, (features, reset), state, time_major=False)
            features = jnp.reshape(features, (-1, hidden_size))
        output = head(features)
        return jax.tree.map(lambda leaf: jnp.reshape(leaf, (*shape, *leaf.shape[1:])), output), state

    def make_functions() -> tuple[Callable[..., Any], tuple[Callable[..., Any], Callable[..., Any]]]:
        return step, (step, unroll)

    transformed: hk.MultiTransformed = hk.without_apply_rng(hk.multi_transform(make_functions))

    def init(key: jax.Array) -> types.Params:
        state = jax.tree.map(lambda leaf: leaf[None], initial_state())
        return transformed.init(key, specs.zeros(observation_spec, batch_shape=(1,)), state)

    apply_step, apply_unroll = transformed.apply
    return RecurrentNetwork(init, apply_step, apply_unroll, initial_state)


def _core_functions(
    core: str, hidden_size: int
) -> tuple[Callable[[], hk.RNNCore] | None, Callable[[], types.ArrayTree]]:
    """Returns what makes a core inside a transform (None for no core), and the function `initial_state`."""
    if core not in CORES:
        raise ValueError(f"core must be one of {', '.join(CORES)}, got {core!r}.")
    if hidden_size < 1:
        raise ValueError(f"hidden_size must be at least 1, got {hidden_size}.")
    if core == "none":
        return None, lambda: ()
    if core == "gru":
        return lambda: hk.GRU(hidden_size, name="core"), lambda: jnp.zeros(hidden_size)
    return (
        lambda: hk.LSTM(hidden_size, name="core"),
        lambda: hk.LSTMState(jnp.zeros(hidden_size), jnp.zeros(hidden_size)),
    )


def reset_where(reset: jax.Array, state: types.ArrayTree, initial_state: types.ArrayTree) -> types.ArrayTree:
    """Returns the state `[B, ...]` with the rows where `reset` `[B]` replaced by the initial state `[...]`."""

    def choose(leaf: jax.Array, start: jax.Array) -> jax.Array:
        return jnp.where(jnp.reshape(reset, reset.shape + (1,) * (leaf.ndim - 1)), start, leaf)

    return jax.tree.map(choose, state, initial_state)


def episode_starts(mask: jax.Array) -> jax.Array:
    """Returns `[B, T]` bool: True for the rows at which an episode begins within a window.

    These are the rows behind one that is not real (`types.Sequence.mask` is False there): behind an episode's last
    observation comes the first row of the next. Row 0 is never among them: the window's stored state is its own.

    Args:
        mask: `[B, T]` bool, as in `types.Sequence`.
    """
    return jnp.concatenate([jnp.zeros_like(mask[:, :1]), ~mask[:, :-1]], axis=1)
