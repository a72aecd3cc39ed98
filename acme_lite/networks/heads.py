"""Heads: from features `[B, D]` to what an agent needs."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from acme_lite import specs
from acme_lite.networks import distributions, legal_actions


def check_discrete(spec: specs.EnvironmentSpec, *, agent: str) -> specs.DiscreteArray:
    """Returns the spec of an agent's actions if they are one choice among finitely many.

    Args:
        spec: of the environment.
        agent: name of the agent, for errors.

    Raises:
        ValueError: they are not, or the observation's action mask has not one element for each of them.
    """
    action = spec.action
    if not isinstance(action, specs.DiscreteArray):
        raise ValueError(
            f"{agent} needs one discrete action (a DiscreteArray spec), got {specs.describe(action)}. "
            f"{distributions.agents_for(action)} A wrapper around the environment can also offer a choice of them."
        )
    _, mask = legal_actions.split_action_mask(spec.observation)
    if mask is not None and mask.shape != (action.num_values,):
        raise ValueError(
            f"An observation's {legal_actions.ACTION_MASK!r} must have shape ({action.num_values},), one element for "
            f"each action, got {specs.describe(mask)}."
        )
    return action


def check_output(output: jax.Array, shape: tuple[int | None, ...], *, agent: str, what: str) -> None:
    """Checks the shape of what a network or loss of one's own gives: a wrong one may broadcast without an error.

    Args:
        output: an array.
        shape: that it must have; None for any size.
        agent: name of the agent, for errors.
        what: the output is, for errors.

    Raises:
        ValueError: it has another shape.
    """
    got = jnp.shape(output)
    if len(got) != len(shape) or any(size not in (None, found) for size, found in zip(shape, got, strict=True)):
        expected = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{agent} needs {what} of shape ({expected}), got {got}.")


def action_values(
    features: Float[Array, "B D"], num_actions: int, *, num_atoms: int | None = None, duelling: bool = False
) -> jax.Array:
    """Returns action values `[B, A]`, or N numbers for each of them `[B, A, N]`; call it inside a Haiku transform.

    Duelling: q(s, a) = v(s) + advantage(s, a) - mean_a' advantage(s, a'), for each of the N numbers alone.

    Args:
        features: `[B, D]`.
        num_actions: A.
        num_atoms: N, the logits or quantiles of a value distribution; None for plain values.
        duelling: whether values and advantages have layers of their own.

    Reference: Wang et al., Dueling Network Architectures for Deep Reinforcement Learning (2016), equation 9; Hessel et
    al., Rainbow (2018), section "The Integrated Agent", for value distributions.
    """

    def linear(num_values: int, name: str) -> jax.Array:
        flat = hk.Linear(num_values * (num_atoms or 1), name=name)(features)
        return flat if num_atoms is None else jnp.reshape(flat, (-1, num_values, num_atoms))

    advantages = linear(num_actions, "advantage" if duelling else "value")
    if not duelling:
        return advantages
    return linear(1, "state_value") + advantages - jnp.mean(advantages, axis=1, keepdims=True)


def categorical_mean(logits: Float[Array, "*batch N"], atoms: Float[Array, " N"]) -> Float[Array, "*batch"]:
    """Returns the means `[...]` of distributions over fixed atoms.

    Args:
        logits: `[..., N]` unnormalised log probabilities.
        atoms: `[N]` values that they are the probabilities of.
    """
    return jax.nn.softmax(logits) @ atoms
