"""The algorithm of DQN: the loss on a batch of n-step transitions, and one learner step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from acme_lite import _runtime, learning, networks, replay, specs, types

if TYPE_CHECKING:
    from acme_lite.agents.dqn.builder import DQNConfig

rlax = _runtime.import_rlax()


class TrainingState(NamedTuple):
    """All that learning carries along.

    Attributes:
        params: of the network.
        target_params: of the target network.
        opt_state: of the optimiser.
        steps: learner steps taken, int32 scalar.
        epsilon: probability of a random action in training, float32 scalar in [0, 1].
    """

    params: types.Params
    target_params: types.Params
    opt_state: optax.OptState
    steps: jax.Array
    epsilon: jax.Array


Loss = Callable[..., tuple[jax.Array, jax.Array]]
"""A loss: `(params, target_params, batch, weights, apply, *, config) -> (scalar, priorities [B])`."""


def q_learning_loss(
    params: types.Params,
    target_params: types.Params,
    batch: types.Transition,
    weights: Float[Array, " B"],
    apply: Callable[[types.Params, types.ArrayTree], jax.Array],
    *,
    config: DQNConfig,
) -> tuple[jax.Array, Float[Array, " B"]]:
    """Returns the weighted mean loss of a batch, and the size of its temporal differences `[B]`.

    td = r_t + discount * discount_t * q_target(o_t, a*) - q(o_tm1, a_tm1), with a* the best action at o_t by the target
    network, or by the trained one for double Q. No gradient flows to the target.

    Args:
        params: of the network.
        target_params: of the target network.
        batch: n-step transitions `[B, ...]`.
        weights: `[B]` weights in (0, 1] of the transitions.
        apply: the network, to action values `[B, A]`.
        config: gives `discount`, `double_q` and `huber_delta`.

    Reference: Mnih et al., Human-level control through deep reinforcement learning (2015); van Hasselt et al., Deep
    Reinforcement Learning with Double Q-learning (2016), equation 4.
    """
    q_tm1 = apply(params, batch.observation)
    q_t = apply(target_params, batch.next_observation)
    _, action_mask = networks.split_action_mask(batch.next_observation)
    q_t_selector = networks.mask_illegal(apply(params, batch.next_observation) if config.double_q else q_t, action_mask)
    discount_t = config.discount * batch.discount
    td = jax.vmap(rlax.double_q_learning)(q_tm1, batch.action, batch.reward, discount_t, q_t, q_t_selector)
    losses = 0.5 * jnp.square(td) if config.huber_delta is None else rlax.huber_loss(td, config.huber_delta)
    return jnp.mean(weights * losses), jnp.abs(td)


def importance_weights(probabilities: Float[Array, " B"], exponent: jax.Array) -> Float[Array, " B"]:
    """Returns w_i = (min_j p_j / p_i)^exponent, at most 1.

    The table's size in w_i = (1 / (size * p_i))^exponent cancels in the division by the batch's greatest weight.

    Args:
        probabilities: `[B]` in (0, 1] with which the transitions were drawn.
        exponent: scalar in [0, 1]; 1 corrects for all of the bias.

    Reference: Schaul et al., Prioritized Experience Replay (2016), section 3.4.
    """
    return (jnp.min(probabilities) / probabilities) ** exponent


def make_core(
    config: DQNConfig,
    network: networks.FeedForwardNetwork,
    spec: specs.EnvironmentSpec,
    *,
    loss_fn: Loss = q_learning_loss,
) -> learning.LearnerCore:
    """Returns DQN as pure functions, with a loss of one's own if one is given."""
    optimizer = learning.make_optimizer(
        config.learning_rate, max_gradient_norm=config.max_gradient_norm, epsilon=config.adam_epsilon
    )
    batch_loss = functools.partial(loss_fn, apply=network.apply, config=config)

    def epsilon_at(steps: jax.Array) -> jax.Array:
        # A value per actor is chosen by the actor's policy: nothing of it is learned or scheduled.
        return jnp.float32(0) if isinstance(config.epsilon, tuple) else learning.value_at(config.epsilon, steps)

    def init(key: jax.Array) -> TrainingState:
        params = network.init(key)
        steps = jnp.int32(0)
        return TrainingState(params, params, optimizer.init(params), steps, epsilon_at(steps))

    def update(state: TrainingState, sample: replay.Sample) -> tuple[TrainingState, learning.LearnerOutput]:
        if config.priority_exponent:
            exponent = learning.value_at(config.importance_exponent, state.steps)
            weights = importance_weights(sample.info.probabilities, exponent)
        else:
            weights = jnp.ones_like(sample.data.reward)
        params, opt_state, td_error, metrics = learning.gradient_step(
            batch_loss, optimizer, state.params, state.opt_state, state.target_params, sample.data, weights
        )
        steps = state.steps + 1
        moved = params
        if config.target_update_rate < 1:
            moved = optax.incremental_update(params, state.target_params, config.target_update_rate)
        target_params = optax.periodic_update(moved, state.target_params, steps, config.target_update_period)
        epsilon = epsilon_at(steps)
        metrics |= {"td_error": jnp.mean(td_error), "epsilon": epsilon}
        priorities = td_error + 1e-6 if config.priority_exponent else None
        state = TrainingState(params, target_params, opt_state, steps, epsilon)
        return state, learning.LearnerOutput(metrics, priorities)

    def variables(state: TrainingState) -> dict[str, types.ArrayTree]:
        return {"policy": {"params": state.params, "epsilon": state.epsilon}}

    return learning.LearnerCore(init, update, variables)
