"""The algorithm of R2D2: the loss on a batch of sequences from stored recurrent states, and one learner step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int

from acme_lite import _runtime, learning, networks, replay, types

if TYPE_CHECKING:
    from acme_lite.agents.r2d2.builder import R2D2Config

rlax = _runtime.import_rlax()

_LEAST_PRIORITY = 1e-6  # so that a sequence without errors can still be drawn


class TrainingState(NamedTuple):
    """All that learning carries along.

    Attributes:
        params: of the network.
        target_params: of the target network.
        opt_state: of the optimiser.
        steps: learner steps taken, int32 scalar.
        epsilon: base of the probabilities of a random action in training, float32 scalar in [0, 1].
    """

    params: types.Params
    target_params: types.Params
    opt_state: optax.OptState
    steps: jax.Array
    epsilon: jax.Array


class LossOutput(NamedTuple):
    """What the loss gives beside its value.

    Attributes:
        priorities: `[B]` of the sequences, not negative.
        metrics: name -> scalar.
    """

    priorities: jax.Array
    metrics: dict[str, jax.Array]


Loss = Callable[..., tuple[jax.Array, LossOutput]]
"""A loss: `(params, target_params, batch, weights, network, *, config) -> (scalar, LossOutput)`."""


def has_next(mask: Bool[Array, "*B T"]) -> Bool[Array, "*B T"]:
    """Returns where a real step's next observation is in the window: where the mask is True, but for the last row."""
    return mask & (jnp.arange(mask.shape[-1]) < mask.shape[-1] - 1)


def n_step_returns(
    reward: Float[Array, " T"],
    discount: Float[Array, " T"],
    value: Float[Array, " T"],
    mask: Bool[Array, " T"],
    *,
    n_step: int,
) -> Float[Array, " T"]:
    """Returns the n-step returns of one stream, which bootstrap early where the stream has no n further observations.

        return_t = sum_{i<k} (prod_{j<i} discount_{t+j}) reward_{t+i} + (prod_{j<k} discount_{t+j}) value_{t+k}

    with k = min(n, e - t), where e is the row of the last observation at or after t: that of the episode, whether it
    was terminated or truncated, or the stream's last row. On that row itself the return is its value.

    Args:
        reward: `[T]` rewards.
        discount: `[T]` discounts in [0, 1], the discount factor included; 0 ends the episode.
        value: `[T]` values of the observations.
        mask: `[T]`, True where reward and discount are real, see `types.Sequence`.
        n_step: n, at least 1.
    """
    continues = has_next(mask)
    value = value.astype(jnp.result_type(reward, discount, value))  # networks may give fewer bits than rewards have

    def one_step_longer(_: int, returns: jax.Array) -> jax.Array:
        return jnp.where(continues, reward + discount * jnp.roll(returns, -1), value)

    return jax.lax.fori_loop(0, n_step, one_step_longer, value)


def td_errors(
    q: Float[Array, " T"],
    value: Float[Array, " T"],
    reward: Float[Array, " T"],
    discount: Float[Array, " T"],
    mask: Bool[Array, " T"],
    *,
    n_step: int,
    rescaling_epsilon: float | None,
) -> Float[Array, " T"]:
    """Returns the temporal differences of one stream, zero where the mask is False and on the last row.

        td_t = h(return_t) - q_t, with return_t by `n_step_returns` of the values h^-1(value_t)

    and h(x) = sign(x) (sqrt(abs(x) + 1) - 1) + epsilon x. No gradient flows to the return.

    Args:
        q: `[T]` values of the actions taken, in the scale of h.
        value: `[T]` values of the observations to bootstrap from, in the same scale.
        reward: `[T]` rewards.
        discount: `[T]` discounts in [0, 1], the discount factor included.
        mask: `[T]`, True where reward and discount are real, see `types.Sequence`.
        n_step: steps to the bootstrap, at least 1.
        rescaling_epsilon: of h, greater than 0; None for no rescaling.

    Reference: Kapturowski et al., Recurrent Experience Replay in Distributed Reinforcement Learning (2019), section
    2.3.
    """
    if rescaling_epsilon is not None:
        value = rlax.signed_parabolic(value, rescaling_epsilon)
    target = n_step_returns(reward, discount, value, mask, n_step=n_step)
    if rescaling_epsilon is not None:
        target = rlax.signed_hyperbolic(target, rescaling_epsilon)
    return jnp.where(has_next(mask), jax.lax.stop_gradient(target) - q, 0.0)


def sequence_priority(
    td: Float[Array, " T"], mask: Bool[Array, " T"], *, max_priority_weight: float
) -> Float[Array, ""]:
    """Returns eta max_t abs(td_t) + (1 - eta) mean_t abs(td_t) over the rows where the mask is True; 0 without any.

    Reference: Kapturowski et al. (2019), section 2.3.
    """
    size = jnp.where(mask, jnp.abs(td), 0.0)
    return max_priority_weight * jnp.max(size) + (1 - max_priority_weight) * learning.masked_mean(size, mask)


def unroll_after_burn_in(
    network: networks.RecurrentNetwork, params: types.Params, batch: types.Sequence, burn_in_length: int
) -> Float[Array, "B T A"]:
    """Returns the action values of the rows behind the burn-in, whose state the burn-in rows give.

    Unrolling starts from the first row's stored state, and anew where an episode begins within the window. No gradient
    flows into the burn-in rows, nor through them.

    Args:
        network: the network.
        params: its parameters.
        batch: sequences `[B, burn_in_length + T, ...]` with the start value `core_state`, the first row's state.
        burn_in_length: rows of the burn-in, at least 0.

    Reference: Kapturowski et al. (2019), section 3.
    """
    state = batch.start["core_state"]
    reset = networks.episode_starts(batch.mask)

    def rows(start: int | None, end: int | None) -> tuple[types.ArrayTree, jax.Array]:
        return jax.tree.map(lambda leaf: leaf[:, start:end], (batch.observation, reset))

    if burn_in_length:
        burn_in_observation, burn_in_reset = rows(None, burn_in_length)
        _, state = network.unroll(jax.lax.stop_gradient(params), burn_in_observation, state, burn_in_reset)
    observation, reset = rows(burn_in_length, None)
    values, _ = network.unroll(params, observation, state, reset)
    return values


def values_of(q: Float[Array, "B T A"], action: Int[Array, "B T"]) -> Float[Array, "B T"]:
    """Returns the values of the actions."""
    return jnp.take_along_axis(q, action[..., None], axis=-1)[..., 0]


def r2d2_loss(
    params: types.Params,
    target_params: types.Params,
    batch: types.Sequence,
    weights: Float[Array, " B"],
    network: networks.RecurrentNetwork,
    *,
    config: R2D2Config,
) -> tuple[jax.Array, LossOutput]:
    """Returns half the mean squared temporal difference of the trained steps, each weighted by its sequence's weight.

    Trained are the real steps behind the burn-in whose next observation is in the window, so padding and the rows of
    last observations are not. The trained network chooses the action that the target network values (double Q); both
    unroll from the stored state, so each has a state of its own. No gradient flows to the target.

    Args:
        params: of the network.
        target_params: of the target network.
        batch: sequences `[B, burn_in_length + T, ...]` with the start value `core_state`.
        weights: `[B]` weights in (0, 1] of the sequences.
        network: to action values.
        config: gives `discount`, `n_step`, `rescaling_epsilon`, `burn_in_length` and `max_priority_weight`.

    Reference: Kapturowski et al. (2019), section 2.3.
    """
    q = unroll_after_burn_in(network, params, batch, config.burn_in_length)
    target_q = unroll_after_burn_in(network, target_params, batch, config.burn_in_length)
    batch = jax.tree.map(lambda leaf: leaf[:, config.burn_in_length :], batch._replace(start=()))
    _, action_mask = networks.split_action_mask(batch.observation)
    selected = jnp.argmax(networks.mask_illegal(q, action_mask), axis=-1)
    stream_td = functools.partial(td_errors, n_step=config.n_step, rescaling_epsilon=config.rescaling_epsilon)
    td = jax.vmap(stream_td)(
        values_of(q, batch.action),
        values_of(target_q, selected),
        batch.reward,
        config.discount * batch.discount,
        batch.mask,
    )
    trained = has_next(batch.mask)
    priority = functools.partial(sequence_priority, max_priority_weight=config.max_priority_weight)
    metrics = {
        "td_error": learning.masked_mean(jnp.abs(td), trained),
        "trained_steps": jnp.mean(jnp.sum(trained, axis=1).astype(jnp.float32)),
    }
    loss = 0.5 * learning.masked_mean(weights[:, None] * jnp.square(td), trained)
    return loss, LossOutput(jax.vmap(priority)(td, trained), metrics)


def make_core(
    config: R2D2Config, network: networks.RecurrentNetwork, *, loss_fn: Loss = r2d2_loss
) -> learning.LearnerCore:
    """Returns R2D2 as pure functions, with a loss of one's own if one is given."""
    optimizer = learning.make_optimizer(
        config.learning_rate, max_gradient_norm=config.max_gradient_norm, epsilon=config.adam_epsilon
    )
    batch_loss = functools.partial(loss_fn, network=network, config=config)

    def init(key: jax.Array) -> TrainingState:
        params = network.init(key)
        steps = jnp.int32(0)
        return TrainingState(params, params, optimizer.init(params), steps, learning.value_at(config.epsilon, steps))

    def update(state: TrainingState, sample: replay.Sample) -> tuple[TrainingState, learning.LearnerOutput]:
        exponent = learning.value_at(config.importance_exponent, state.steps)
        weights = learning.sample_weights(sample.info, exponent)
        params, opt_state, output, metrics = learning.gradient_step(
            batch_loss, optimizer, state.params, state.opt_state, state.target_params, sample.data, weights
        )
        steps = state.steps + 1
        target_params = optax.periodic_update(params, state.target_params, steps, config.target_update_period)
        epsilon = learning.value_at(config.epsilon, steps)
        metrics |= output.metrics | {"epsilon": epsilon}
        priorities = output.priorities + _LEAST_PRIORITY if config.priority_exponent else None
        state = TrainingState(params, target_params, opt_state, steps, epsilon)
        return state, learning.LearnerOutput(metrics, priorities)

    def variables(state: TrainingState) -> dict[str, types.ArrayTree]:
        return {"policy": {"params": state.params, "epsilon": state.epsilon}}

    return learning.LearnerCore(init, update, variables)
