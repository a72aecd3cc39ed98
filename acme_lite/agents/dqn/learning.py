"""The algorithm of DQN: the losses on a batch of n-step transitions, and one learner step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from acme_lite import _runtime, learning, networks, replay, specs, types
from acme_lite.agents.dqn import networks as dqn_networks

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


LossOutput = tuple[Float[Array, " B"], Float[Array, " B"], dict[str, jax.Array]]

Loss = Callable[..., LossOutput]
"""A loss: `(params, target_params, batch, apply, *, config) -> (losses [B], priorities [B], metrics)`.

The losses are those of single transitions; the learner step multiplies them by the importance weights of prioritised
replay and takes their mean. The priorities are not negative. The metrics are scalars for the logs.
"""

Apply = Callable[[types.Params, types.ArrayTree], jax.Array]


def q_learning_loss(
    params: types.Params, target_params: types.Params, batch: types.Transition, apply: Apply, *, config: DQNConfig
) -> LossOutput:
    """Returns the losses `[B]` of plain action values, and the size of their temporal differences `[B]` as priorities.

    td = r_t + discount * discount_t * q_target(o_t, a*) - q(o_tm1, a_tm1), with a* the best legal action at o_t by the
    target network, or by the trained one for double Q. No gradient flows to the target.

    Args:
        params: of the network.
        target_params: of the target network.
        batch: n-step transitions `[B, ...]`.
        apply: the network, to action values `[B, A]`.
        config: gives `discount`, `double_q` and `huber_delta`.

    Reference: Mnih et al., Human-level control through deep reinforcement learning (2015); van Hasselt et al., Deep
    Reinforcement Learning with Double Q-learning (2016), equation 4; priorities: Schaul et al., Prioritized Experience
    Replay (2016), section 3.3.
    """
    q_tm1 = apply(params, batch.observation)
    q_t, q_t_selector = _bootstrap(params, target_params, batch, apply, config)
    discount_t = config.discount * batch.discount
    td = jax.vmap(rlax.double_q_learning)(q_tm1, batch.action, batch.reward, discount_t, q_t, q_t_selector)
    return _td_output(td, q_tm1, batch, config)


def munchausen_loss(
    params: types.Params, target_params: types.Params, batch: types.Transition, apply: Apply, *, config: DQNConfig
) -> LossOutput:
    """Returns the losses `[B]` of Munchausen DQN, and the size of their temporal differences `[B]` as priorities.

    With pi = softmax(q_target / tau) over the legal actions, and alpha, tau and l_0 the settings `munchausen_*`:

        td = r_t + alpha * clip(tau * log pi(a_tm1 | o_tm1), l_0, 0)
             + discount * discount_t * sum_a pi(a | o_t) (q_target(o_t, a) - tau * log pi(a | o_t)) - q(o_tm1, a_tm1)

    No gradient flows to the target, nor to pi.

    Args:
        params: of the network.
        target_params: of the target network.
        batch: 1-step transitions `[B, ...]`.
        apply: the network, to action values `[B, A]`.
        config: gives `discount`, `huber_delta`, `munchausen_scale`, `munchausen_temperature` and `munchausen_clip`.

    Reference: Vieillard et al., Munchausen Reinforcement Learning (2020), section 2; the clipping: section 4.
    """
    temperature = config.munchausen_temperature
    q_tm1 = apply(params, batch.observation)
    log_pi_tm1 = _log_policy(apply(target_params, batch.observation), batch.observation, temperature)
    q_t = apply(target_params, batch.next_observation)
    log_pi_t = _log_policy(q_t, batch.next_observation, temperature)
    log_pi_taken = jnp.take_along_axis(log_pi_tm1, batch.action[:, None], axis=-1)[:, 0]
    bonus = config.munchausen_scale * jnp.clip(temperature * log_pi_taken, config.munchausen_clip, 0)
    pi_t = jnp.exp(log_pi_t)
    # Of an illegal action, the least finite number times the temperature may be infinite.
    scaled_log_pi_t = jnp.where(pi_t > 0, temperature * log_pi_t, 0)
    discount_t = config.discount * batch.discount
    td = jax.vmap(rlax.expected_sarsa)(
        q_tm1, batch.action, batch.reward + bonus, discount_t, q_t - scaled_log_pi_t, pi_t
    )
    return _td_output(td, q_tm1, batch, config, log_policy_bonus=jnp.mean(bonus))


def categorical_loss(
    params: types.Params, target_params: types.Params, batch: types.Transition, apply: Apply, *, config: DQNConfig
) -> LossOutput:
    """Returns the losses `[B]` of categorical value distributions (C51), which are their priorities, too.

    loss = KL(target || p(o_tm1, a_tm1)), where target is the distribution of r_t + discount * discount_t * Z with Z ~
    p_target(o_t, a*), projected on the atoms; a* is the legal action of the greatest mean at o_t by the target network,
    or by the trained one for double Q. No gradient flows to the target.

    Args:
        params: of the network.
        target_params: of the target network.
        batch: n-step transitions `[B, ...]`.
        apply: the network, to logits `[B, A, N]`.
        config: gives `discount`, `double_q`, `v_min`, `v_max` and `num_atoms`.

    Reference: Bellemare et al., A Distributional Perspective on Reinforcement Learning (2017), algorithm 1. Its loss
    is the cross-entropy, which has the same gradient; the divergence is what Hessel et al., Rainbow (2018), section
    "The Integrated Agent", take as priority.
    """
    logits_tm1 = apply(params, batch.observation)
    logits_t, q_t_selector = _bootstrap(params, target_params, batch, apply, config)
    atoms, rows = dqn_networks.atoms(config), jnp.arange(len(batch.reward))
    probs_t = jax.nn.softmax(logits_t[rows, jnp.argmax(q_t_selector, axis=-1)])
    returns = batch.reward[:, None] + config.discount * batch.discount[:, None] * atoms
    losses = jax.vmap(_projected_divergence, in_axes=(0, 0, 0, None))(
        logits_tm1[rows, batch.action], returns, probs_t, atoms
    )
    # Rounding can leave the divergence of equal distributions just below zero, where no priority may be.
    priorities = jnp.maximum(losses, 0)
    return losses, priorities, {"q_value": _mean_taken(dqn_networks.mean_values(logits_tm1, config), batch.action)}


def quantile_loss(
    params: types.Params, target_params: types.Params, batch: types.Transition, apply: Apply, *, config: DQNConfig
) -> LossOutput:
    """Returns the losses `[B]` of quantile regression (QR-DQN), which are their priorities, too.

    loss = sum_i mean_j abs(tau_i - 1[u_ij < 0]) * huber(u_ij), with u_ij = r_t + discount * discount_t *
    theta_target_j(o_t, a*) - theta_i(o_tm1, a_tm1) and tau_i = (i + 1/2) / N for i = 0 ... N - 1; a* is the legal
    action of the greatest mean at o_t by the target network, or by the trained one for double Q. No gradient flows to
    the target.

    Args:
        params: of the network.
        target_params: of the target network.
        batch: n-step transitions `[B, ...]`.
        apply: the network, to quantiles `[B, A, N]`.
        config: gives `discount`, `double_q`, `num_atoms` and `huber_delta`, where None stands for abs(u) in place of
            huber(u).

    Reference: Dabney et al., Distributional Reinforcement Learning with Quantile Regression (2018), algorithm 1 and
    equation 10. The paper samples uniformly; that the priority is what is minimised follows Hessel et al., Rainbow
    (2018).
    """
    quantiles_tm1 = apply(params, batch.observation)
    quantiles_t, q_t_selector = _bootstrap(params, target_params, batch, apply, config)
    midpoints = (jnp.arange(config.num_atoms) + 0.5) / config.num_atoms
    loss = functools.partial(rlax.quantile_q_learning, huber_param=config.huber_delta or 0.0)
    losses = jax.vmap(loss, in_axes=(0, None, 0, 0, 0, 0, 0))(
        jnp.swapaxes(quantiles_tm1, 1, 2),
        midpoints,
        batch.action,
        batch.reward,
        config.discount * batch.discount,
        q_t_selector[:, None],  # rlax takes quantiles here, and their mean: so the means are one quantile
        jnp.swapaxes(quantiles_t, 1, 2),
    )
    return losses, losses, {"q_value": _mean_taken(dqn_networks.mean_values(quantiles_tm1, config), batch.action)}


def loss_for(config: DQNConfig) -> Loss:
    """Returns the loss that a config asks for."""
    if config.munchausen:
        return munchausen_loss
    return {None: q_learning_loss, "categorical": categorical_loss, "quantile": quantile_loss}[config.distribution]


def _bootstrap(
    params: types.Params, target_params: types.Params, batch: types.Transition, apply: Apply, config: DQNConfig
) -> tuple[jax.Array, Float[Array, "B A"]]:
    """Returns the target network's output at o_t, and the values `[B, A]` by whose greatest an action is chosen."""
    output = apply(target_params, batch.next_observation)
    selector = apply(params, batch.next_observation) if config.double_q else output
    _, action_mask = networks.split_action_mask(batch.next_observation)
    return output, networks.mask_illegal(dqn_networks.mean_values(selector, config), action_mask)


def _projected_divergence(
    logits: Float[Array, " N"], returns: Float[Array, " N"], probs: Float[Array, " N"], atoms: Float[Array, " N"]
) -> Float[Array, ""]:
    """Returns KL(`probs` over `returns`, projected on the atoms || softmax(logits)); the first gets no gradient."""
    target = jax.lax.stop_gradient(rlax.categorical_l2_project(returns, probs, atoms))
    return optax.losses.kl_divergence(jax.nn.log_softmax(logits), target)


def _log_policy(q: Float[Array, "B A"], observation: types.ArrayTree, temperature: float) -> Float[Array, "B A"]:
    """Returns log softmax(q / temperature) over the legal actions, finite for all of them."""
    _, action_mask = networks.split_action_mask(observation)
    # Masked after the division, which would make the least finite number infinite.
    return jax.nn.log_softmax(networks.mask_illegal(q / temperature, action_mask))


def _td_output(
    td: Float[Array, " B"], q_tm1: Float[Array, "B A"], batch: types.Transition, config: DQNConfig, **metrics: jax.Array
) -> LossOutput:
    """Returns the output of a loss on temporal differences."""
    losses = 0.5 * jnp.square(td) if config.huber_delta is None else rlax.huber_loss(td, config.huber_delta)
    metrics |= {"td_error": jnp.mean(jnp.abs(td)), "q_value": _mean_taken(q_tm1, batch.action)}
    return losses, jnp.abs(td), metrics


def _mean_taken(values: Float[Array, "B A"], actions: jax.Array) -> jax.Array:
    """Returns the mean value of the actions that were taken."""
    return jnp.mean(jnp.take_along_axis(values, actions[:, None], axis=-1))


def make_core(
    config: DQNConfig,
    network: networks.FeedForwardNetwork,
    spec: specs.EnvironmentSpec,
    *,
    loss_fn: Loss | None = None,
) -> learning.LearnerCore:
    """Returns DQN as pure functions, with the config's loss or one's own."""
    optimizer = learning.make_optimizer(
        config.learning_rate, max_gradient_norm=config.max_gradient_norm, epsilon=config.adam_epsilon
    )
    loss_fn = loss_fn or loss_for(config)

    def batch_loss(params, target_params, batch, weights):
        losses, priorities, metrics = loss_fn(params, target_params, batch, network.apply, config=config)
        for output, what in ((losses, "losses"), (priorities, "priorities")):
            networks.check_output(output, weights.shape, agent="DQN", what=f"{what} from its loss_fn")
        return jnp.mean(weights * losses), (priorities, metrics)

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
            weights = learning.sample_weights(sample.info, exponent)
        else:
            weights = jnp.ones_like(sample.data.reward)
        params, opt_state, (priorities, loss_metrics), metrics = learning.gradient_step(
            batch_loss, optimizer, state.params, state.opt_state, state.target_params, sample.data, weights
        )
        steps = state.steps + 1
        moved = params
        if config.target_update_rate < 1:
            moved = optax.incremental_update(params, state.target_params, config.target_update_rate)
        target_params = optax.periodic_update(moved, state.target_params, steps, config.target_update_period)
        epsilon = epsilon_at(steps)
        metrics |= {**loss_metrics, "epsilon": epsilon}
        state = TrainingState(params, target_params, opt_state, steps, epsilon)
        return state, learning.LearnerOutput(metrics, priorities + 1e-6 if config.priority_exponent else None)

    def variables(state: TrainingState) -> dict[str, types.ArrayTree]:
        return {"policy": {"params": state.params, "epsilon": state.epsilon}}

    return learning.LearnerCore(init, update, variables)
