"""A learning algorithm as pure functions, and the gradient step that all of them share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import optax

from acme_lite import types

OPTIMIZERS = ("adam", "rmsprop")
"""Adam (Kingma and Ba, 2015) and RMSProp (Tieleman and Hinton, 2012)."""


class LearnerOutput(NamedTuple):
    """What one update gives beside the new state.

    Attributes:
        metrics: name -> scalar, for the logs; finite unless learning went wrong.
        priorities: `[B]` new priorities of the batch, finite and not negative; None to leave them.
    """

    metrics: Mapping[str, jax.Array]
    priorities: jax.Array | None = None


class LearnerCore(NamedTuple):
    """A learning algorithm as pure functions; what runs it (`SGDLearner`) is written once.

    Attributes:
        init: `(key) -> state`, a pytree with all that learning carries along: parameters, optimiser, schedules' count.
            The key is consumed.
        update: `(state, sample) -> (state, LearnerOutput)`, one learner step. `sample` is a `replay.Sample` whose keys
            stayed on the host.
        variables: `(state) -> {name: tree}`, what others may fetch; `"policy"` is what acting needs. It selects from
            the state and computes nothing.
    """

    init: Callable[[jax.Array], Any]
    update: Callable[[Any, Any], tuple[Any, LearnerOutput]]
    variables: Callable[[Any], Mapping[str, types.ArrayTree]]


def key_words(key: jax.Array) -> jax.Array:
    """Returns the words of a key, `[2]` uint32, for a state that carries it along.

    `jax.random.wrap_key_data` makes a key of them. A key of another generator than JAX's default one gives a default
    key that follows from it; it is consumed.
    """
    if jax.random.key_impl(key) != jax.random.key_impl(jax.random.key(0)):
        key = jax.random.key(jax.random.bits(key))
    return jax.random.key_data(key)


def make_optimizer(
    learning_rate: float | optax.Schedule,
    *,
    max_gradient_norm: float | None = None,
    epsilon: float = 1e-8,
    kind: str = "adam",
) -> optax.GradientTransformation:
    """Returns Adam, or RMSProp with a decay of 0.99, behind a limit on the gradient's global norm.

    Args:
        learning_rate: a number, or a schedule over optimiser steps.
        max_gradient_norm: gradients longer than this are scaled down to it; None for no limit.
        epsilon: the optimiser's; RMSProp adds it before the root is taken, Adam behind.
        kind: one of `OPTIMIZERS`.

    Raises:
        ValueError: there is no such optimiser.
    """
    if kind not in OPTIMIZERS:
        raise ValueError(f"kind must be one of {', '.join(OPTIMIZERS)}, got {kind!r}.")
    if kind == "adam":
        optimizer = optax.adam(learning_rate, eps=epsilon)
    else:
        optimizer = optax.rmsprop(learning_rate, decay=0.99, eps=epsilon)
    return (
        optimizer if max_gradient_norm is None else optax.chain(optax.clip_by_global_norm(max_gradient_norm), optimizer)
    )


def gradient_step(
    loss_fn: Callable[..., tuple[jax.Array, Any]],
    optimizer: optax.GradientTransformation,
    params: types.Params,
    opt_state: optax.OptState,
    *batch: Any,
) -> tuple[types.Params, optax.OptState, Any, dict[str, jax.Array]]:
    """Takes one step of gradient descent.

    Args:
        loss_fn: `(params, *batch) -> (loss, aux)`.
        optimizer: turns gradients into updates.
        params: what the loss is differentiated by.
        opt_state: the optimiser's state.
        *batch: further arguments of the loss.

    Returns:
        The new parameters, the new optimiser state, the loss's `aux`, and the metrics `loss` and `gradient_norm` (the
        global norm before any limit).
    """
    (loss, aux), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params, *batch)
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    metrics = {"loss": loss, "gradient_norm": optax.tree.norm(gradients)}
    return optax.apply_updates(params, updates), opt_state, aux, metrics
