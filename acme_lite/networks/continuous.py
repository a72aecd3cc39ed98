"""Continuous control: actions in coordinates of their bounds, torsos, policy heads, and critics.

Networks see and give actions as flat arrays `[..., D]` in [-1, 1], where -1 and 1 stand for the bounds of the action
spec; `ActionScaling` goes to the environment's actions and back. Densities are those of these coordinates, so that an
entropy means the same whatever the unit of an action is.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from acme_lite import specs, types
from acme_lite.networks import activations, distributions, feed_forward, torsos

_LEAST_LOG_STD, _GREATEST_LOG_STD = -20.0, 2.0
_GREATEST_ACTION = 1 - 1e-6  # its inverse tanh is finite in float32


class ActionScaling(NamedTuple):
    """Ways from actions `[..., D]` in [-1, 1] to those of a spec and back.

    Attributes:
        size: D, how many numbers an action is.
        to_action: `([..., D] in [-1, 1]) -> [..., *shape]`, of the spec's dtype and never beyond its bounds.
        from_action: `([..., *shape]) -> [..., D]` float32 in [-1, 1].
    """

    size: int
    to_action: Callable[[jax.Array], jax.Array]
    from_action: Callable[[jax.Array], jax.Array]


def make_action_scaling(action_spec: types.SpecTree, *, agent: str) -> ActionScaling:
    """Returns the scaling of a spec of bounded continuous actions.

    Args:
        action_spec: of one action; bounds may differ from dimension to dimension, and need not be symmetric.
        agent: name of the agent, for errors.

    Raises:
        ValueError: the action is not one array of floats with finite bounds; says which agents to use instead.
    """
    minimum, maximum = _check_action_spec(action_spec, agent)
    shape, dtype = action_spec.shape, jax.dtypes.canonicalize_dtype(action_spec.dtype)
    size = math.prod(shape)
    low, high = specs.inward_bounds(action_spec, dtype)
    centre = ((minimum + maximum) / 2).astype(np.float32)
    scale = ((maximum - minimum) / 2).astype(np.float32)

    def to_action(value: Float[Array, "... D"]) -> jax.Array:
        shaped = jnp.reshape(value, (*value.shape[:-1], *shape))
        return jnp.clip((centre + scale * shaped).astype(dtype), low, high)

    def from_action(action: jax.Array) -> Float[Array, "... D"]:
        value = (action.astype(jnp.float32) - centre) / scale
        return jnp.clip(jnp.reshape(value, (*action.shape[: action.ndim - len(shape)], size)), -1, 1)

    return ActionScaling(size, to_action, from_action)


def _check_action_spec(spec: types.SpecTree, agent: str) -> tuple[np.ndarray, np.ndarray]:
    """Returns the bounds of a spec of continuous actions, of its shape, as float64."""
    needs = (
        f"{agent} needs actions that are one array of floats with finite bounds (a BoundedArray spec), got "
        f"{specs.describe(spec)}."
    )
    if not (isinstance(spec, specs.Array) and np.issubdtype(spec.dtype, np.floating)):
        raise ValueError(f"{needs} {distributions.agents_for(spec)}")
    unbounded = (
        f"{needs} Give the environment a wrapper that bounds its actions, or use ppo, which takes unbounded ones."
    )
    if not isinstance(spec, specs.BoundedArray):
        raise ValueError(unbounded)
    minimum, maximum = (
        np.broadcast_to(np.asarray(bound, np.float64), spec.shape) for bound in (spec.minimum, spec.maximum)
    )
    greatest = np.finfo(np.float32).max
    if np.any(np.abs(minimum) >= greatest) or np.any(np.abs(maximum) >= greatest):
        raise ValueError(unbounded)
    if not np.all(maximum - minimum > 2 * np.finfo(np.float32).tiny) or not math.prod(spec.shape):
        raise ValueError(
            f"{needs} It must have at least one number, and each minimum must be below its maximum, by what float32 "
            "holds."
        )
    return minimum, maximum


def observation_encoder(
    observation_spec: types.SpecTree, torso: torsos.Torso | None = None, *, agent: str
) -> torsos.Torso:
    """Returns `torso`, or without one the concatenation of all leaves of the observation.

    Args:
        observation_spec: spec tree of one observation.
        torso: from an observation to features `[B, D]`; observations with images need one.
        agent: name of the agent, for errors.

    Raises:
        ValueError: the observation has an image and there is no torso for it, or it has no array.
    """
    if torso is not None:
        return torso
    for leaf in torsos.array_specs(observation_spec):
        if len(leaf.shape) >= 3 or (leaf.dtype == np.uint8 and len(leaf.shape) == 2):
            raise ValueError(
                f"{agent}'s own networks take vectors, and the observation has an image, {specs.describe(leaf)}. Pass "
                "a torso for it, such as networks.default_torso(spec.observation, (256,)), to the agent's "
                "make_networks, in a network_factory."
            )
    return functools.partial(torsos.concatenate, spec=observation_spec)


def layer_norm_mlp(
    features: jax.Array, hidden_sizes: Sequence[int], activation: Callable[[jax.Array], jax.Array] = activations.elu
) -> jax.Array:
    """Returns features `[B, hidden_sizes[-1]]` of a perceptron whose first layer is normalised; call it inside Haiku.

    The first layer is linear, layer normalisation (Ba et al., 2016) and tanh, so that inputs of any scale are bounded;
    the others have the activation.

    The weights begin uniform with the variance 0.333 / fan-out, smaller than Haiku's own, with which a critic's first
    values depend on the action at random, and a policy saturates on that before there is a value to learn from.

    Args:
        features: `[B, D]`.
        hidden_sizes: of the layers, at least one.
        activation: of all layers but the first.

    Reference: Hoffman et al., Acme (2020), whose code has these layers and initial weights for D4PG, and for MPO
    without the last activation.
    """
    w_init = hk.initializers.VarianceScaling(0.333, "fan_out", "uniform")
    first = hk.Linear(hidden_sizes[0], w_init=w_init)(features)
    normalized = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)(first)
    rest = hk.nets.MLP(hidden_sizes[1:], w_init=w_init, activation=activation, activate_final=True)
    return rest(activations.tanh(normalized))


def deterministic_head(features: jax.Array, size: int) -> Float[Array, "B D"]:
    """Returns actions `[B, D]` in [-1, 1], tanh of a linear layer; call it inside a Haiku transform.

    The weights begin a hundred times smaller than usual, so that the first actions are in the middle of the bounds.
    """
    return jnp.tanh(hk.Linear(size, w_init=hk.initializers.VarianceScaling(1e-4), name="policy")(features))


class SquashedGaussian(NamedTuple):
    """Parameters of the distribution of a = tanh(u) with u ~ Normal(mean, exp(log_std)), elements independent.

    Attributes:
        mean: `[..., D]` of u.
        log_std: `[..., D]` logarithm of u's standard deviation.
    """

    mean: jax.Array
    log_std: jax.Array


def squashed_gaussian_head(features: jax.Array, size: int) -> SquashedGaussian:
    """Returns parameters `[B, D]` that are linear in the features; call it inside a Haiku transform.

    The logarithms of the standard deviations are clipped to [-20, 2], as in the code of Haarnoja et al. (2018). The
    weights begin a hundred times smaller than usual: the first policy depends little on the observation.
    """
    linear = hk.Linear(2 * size, w_init=hk.initializers.VarianceScaling(1e-4), name="policy")(features)
    mean, log_std = jnp.split(linear, 2, axis=-1)
    return SquashedGaussian(mean, jnp.clip(log_std, _LEAST_LOG_STD, _GREATEST_LOG_STD))


def squashed_mode(params: SquashedGaussian) -> Float[Array, "... D"]:
    """Returns tanh(mean), the action `[..., D]` that evaluation takes: the median, which is not the densest point."""
    return jnp.tanh(params.mean)


def squashed_sample(params: SquashedGaussian, key: jax.Array) -> tuple[Float[Array, "... D"], jax.Array]:
    """Returns actions `[..., D]` in [-1, 1] and the logarithms of their densities `[...]`; the key is consumed.

    Gradients flow through both (reparameterisation). The density is computed from u, so it is exact where tanh(u)
    rounds to 1.
    """
    noise = jax.random.normal(key, params.mean.shape)
    u = params.mean + jnp.exp(params.log_std) * noise
    return jnp.tanh(u), _log_density(noise, params.log_std, u)


def squashed_log_prob(params: SquashedGaussian, action: Float[Array, "... D"]) -> jax.Array:
    """Returns the logarithms of the densities `[...]` of actions `[..., D]` in [-1, 1].

    Actions nearer than 1e-6 to a bound, whose u is infinite, count as 1e-6 away from it.
    """
    u = jnp.arctanh(jnp.clip(action, -_GREATEST_ACTION, _GREATEST_ACTION))
    return _log_density((u - params.mean) * jnp.exp(-params.log_std), params.log_std, u)


def _log_density(standardized: jax.Array, log_std: jax.Array, u: jax.Array) -> jax.Array:
    """Returns log N(u) - log |d tanh(u) / du|, summed over the last axis.

    log(1 - tanh(u)^2) = 2 (log 2 - u - softplus(-2 u)) holds where 1 - tanh(u)^2 rounds to 0. Reference: Haarnoja et
    al., Soft Actor-Critic (2018), appendix C, equation 21.
    """
    gaussian = -0.5 * jnp.square(standardized) - log_std - 0.5 * math.log(2 * math.pi)
    log_derivative = 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
    return jnp.sum(gaussian - log_derivative, axis=-1)


class Critic(NamedTuple):
    """A network of observations and actions as pure functions.

    Attributes:
        init: `(key) -> params`; the key is consumed.
        apply: `(params, observation [B, ...], action [B, D] in [-1, 1]) -> output`.
    """

    init: Callable[[jax.Array], types.Params]
    apply: Callable[[types.Params, types.ArrayTree, jax.Array], Any]


class ActorCriticNetworks(NamedTuple):
    """The networks of an agent with continuous actions.

    Attributes:
        policy: from observations `[B, ...]` to the policy head's output.
        critic: from observations and actions to values, or to their distributions.
    """

    policy: feed_forward.FeedForwardNetwork
    critic: Critic


def critic_from_haiku(
    function: Callable[[types.ArrayTree, jax.Array], Any], observation_spec: types.SpecTree, action_size: int
) -> Critic:
    """Returns the critic of a function that uses Haiku modules.

    Args:
        function: `(observation [B, ...], action [B, D]) -> output [B, ...]`; uses no randomness.
        observation_spec: spec tree of one observation.
        action_size: D.
    """
    transformed: hk.Transformed = hk.without_apply_rng(hk.transform(function))

    def init(key: jax.Array) -> types.Params:
        observation = specs.zeros(observation_spec, batch_shape=(1,))
        return transformed.init(key, observation, jnp.zeros((1, action_size)))

    return Critic(init, transformed.apply)


def critic_ensemble(critic: Critic, size: int) -> Critic:
    """Returns `size` critics alike as one: its parameters are a tuple, its outputs `[size, B, ...]`."""

    def init(key: jax.Array) -> types.Params:
        return tuple(critic.init(key_critic) for key_critic in jax.random.split(key, size))

    def apply(params: types.Params, observation: types.ArrayTree, action: jax.Array) -> jax.Array:
        return jnp.stack([critic.apply(own, observation, action) for own in params])

    return Critic(init, apply)


def actor_critic_from_haiku(
    spec: specs.EnvironmentSpec,
    policy: Callable[[jax.Array, int], Any],
    critic: Callable[[jax.Array, jax.Array], Any],
    *,
    torso: torsos.Torso | None = None,
    num_critics: int | None = None,
    agent: str,
) -> ActorCriticNetworks:
    """Returns the networks of two functions of features that use Haiku modules.

    Args:
        spec: of the environment.
        policy: `(features [B, F], D) -> output [B, ...]` of the policy head, where actions are of D numbers.
        critic: `(features [B, F], action [B, D] in [-1, 1]) -> output [B, ...]`.
        torso: from an observation to features `[B, F]`, of which policy and critics have one each; observations with
            images need it, and all others are concatenated without it.
        num_critics: how many critics alike there are, whose outputs are `[num_critics, B, ...]`; None for one alone.
        agent: name of the agent, for errors.

    Raises:
        ValueError: actions are not continuous within finite bounds, or images have no torso.
    """
    size = make_action_scaling(spec.action, agent=agent).size
    encode = observation_encoder(spec.observation, torso, agent=agent)
    one_critic = critic_from_haiku(
        lambda observation, action: critic(encode(observation), action), spec.observation, size
    )
    return ActorCriticNetworks(
        feed_forward.from_haiku(lambda observation: policy(encode(observation), size), spec.observation),
        one_critic if num_critics is None else critic_ensemble(one_critic, num_critics),
    )
