"""The algorithm of PPO: advantages, the loss on a minibatch, and one learner step of several epochs over a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from acme_lite import _runtime, learning, networks, replay, specs, types
from acme_lite.networks import running_statistics

if TYPE_CHECKING:
    from acme_lite.agents.ppo.builder import PPOConfig

rlax = _runtime.import_rlax()


class TrainingState(NamedTuple):
    """All that learning carries along.

    Attributes:
        params: of the network.
        opt_state: of the optimiser.
        steps: learner steps taken, int32 scalar.
        key: words of the PRNG key that shuffles the rows.
        returns: moments of the targets so far, in units of return; those of no rows without `normalize_values`.
    """

    params: types.Params
    opt_state: optax.OptState
    steps: jax.Array
    key: jax.Array
    returns: running_statistics.Moments


class Rows(NamedTuple):
    """Steps to learn from, in any order.

    With `normalize_values` the unit of advantages and targets is the standard deviation of all returns so far, these
    among them, and targets count from their mean. Values are as the network gave them, so that a limit on their change
    counts from there.

    Attributes:
        observation: `[B, ...]` tree.
        sample: `[B, ...]` tree, the sample of the distribution over actions that gave the action.
        log_prob: `[B]` logarithm of the probability or density with which it was drawn.
        advantage: `[B]`, in units of return.
        target: `[B]` what the value should be, in units of return.
        value: `[B]` the network's value of the observation before the update.
        mask: `[B]` bool, False for rows that are no steps.
    """

    observation: types.ArrayTree
    sample: types.ArrayTree
    log_prob: jax.Array
    advantage: jax.Array
    target: jax.Array
    value: jax.Array
    mask: jax.Array


Loss = Callable[..., tuple[jax.Array, dict[str, jax.Array]]]
"""A loss: `(params, rows, clip_epsilon, entropy_cost, *, apply, distribution, config) -> (scalar, metrics)`."""


def generalized_advantages(
    reward: Float[Array, " T"],
    discount: Float[Array, " T"],
    mask: Bool[Array, " T+1"],
    values: Float[Array, " T+1"],
    lambda_: float,
) -> Float[Array, " T"]:
    """Returns the generalised advantage estimates of one window of steps; 0 where there is no step.

    td_t = reward_t + discount_t values_{t+1} - values_t, and 0 where mask_t is False
    advantage_t = td_t + discount_t lambda advantage_{t+1}

    The row of an episode's last observation is no step: the sum ends there, and the step before it bootstraps from
    that observation's value if its discount is not 0, which is to say, if the episode was cut off.

    Args:
        reward: `[T]` rewards of the steps.
        discount: `[T]` discounts in [0, 1], with the discount factor; 0 where the episode terminated.
        mask: `[T + 1]`, True for the rows that are steps.
        values: `[T + 1]` values of the rows' observations.
        lambda_: in [0, 1]; 0 gives temporal differences, 1 returns less values.

    Reference: Schulman et al., High-Dimensional Continuous Control Using Generalized Advantage Estimation (2016),
    equation 16.
    """
    lambda_t = lambda_ * mask[1:]
    advantages = rlax.truncated_generalized_advantage_estimation(reward, discount, lambda_t, values)
    return jnp.where(mask[:-1], advantages, 0.0)


def ppo_loss(
    params: types.Params,
    rows: Rows,
    clip_epsilon: jax.Array,
    entropy_cost: jax.Array,
    *,
    apply: Callable[[types.Params, types.ArrayTree], networks.PolicyValue],
    distribution: networks.ActionDistribution,
    config: PPOConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss of a minibatch and its metrics, means over the rows that are steps.

    loss = policy loss + value_cost value loss - entropy_cost entropy
    policy loss = -mean min(ratio advantage, clip(ratio, 1 - clip_epsilon, 1 + clip_epsilon) advantage)
    value loss = mean (v - target)^2 / 2

    where ratio = exp(log_prob - log_prob when acting). Advantages are normalised over the minibatch, and values are
    clipped around the ones before the update, as the config says. Probabilities are those among legal actions.

    Args:
        params: of the network.
        rows: the minibatch.
        clip_epsilon: scalar of at least 0.
        entropy_cost: scalar.
        apply: the network.
        distribution: over actions.
        config: gives `normalize_advantages`, `value_clip` and `value_cost`.

    Reference: Schulman et al., Proximal Policy Optimization Algorithms (2017), equations 7 and 9.
    """
    mean = functools.partial(learning.masked_mean, mask=rows.mask)
    output = apply(params, rows.observation)
    policy = networks.mask_illegal_parameters(output.policy, rows.observation)
    log_ratio = jnp.where(rows.mask, distribution.log_prob(policy, rows.sample) - rows.log_prob, 0.0)
    ratio = jnp.exp(log_ratio)
    advantage = rows.advantage
    if config.normalize_advantages:
        advantage -= mean(advantage)
        advantage /= jnp.sqrt(mean(jnp.square(advantage))) + 1e-8
    clipped_ratio = jnp.clip(ratio, 1 - clip_epsilon, 1 + clip_epsilon)
    policy_loss = -mean(jnp.minimum(ratio * advantage, clipped_ratio * advantage))

    value_error = jnp.square(output.value - rows.target)
    if config.value_clip is not None:
        clipped_value = rows.value + jnp.clip(output.value - rows.value, -config.value_clip, config.value_clip)
        value_error = jnp.maximum(value_error, jnp.square(clipped_value - rows.target))
    value_loss = mean(0.5 * value_error)
    entropy = mean(distribution.entropy(policy))
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "approx_kl": mean(ratio - 1 - log_ratio),
        "clip_fraction": mean((jnp.abs(ratio - 1) > clip_epsilon).astype(jnp.float32)),
    }
    return policy_loss + config.value_cost * value_loss - entropy_cost * entropy, metrics


def make_rows(
    batch: types.Sequence,
    params: types.Params,
    returns: running_statistics.Moments,
    *,
    apply: Callable[[types.Params, types.ArrayTree], networks.PolicyValue],
    config: PPOConfig,
) -> Rows:
    """Returns the steps of windows `[B, T + 1, ...]` as B T rows, in units of return but for the network's values.

    Args:
        batch: the windows, whose last rows only bootstrap.
        params: of the network.
        returns: what the network's values count in: its 0 is their mean, its 1 their standard deviation.
        apply: the network.
        config: gives `discount` and `gae_lambda`.
    """
    num_windows, length = batch.reward.shape
    flat_observation = jax.tree.map(lambda leaf: jnp.reshape(leaf, (-1, *leaf.shape[2:])), batch.observation)
    flat_values = apply(params, flat_observation).value
    networks.check_output(flat_values, (num_windows * length,), agent="PPO", what="values")
    network_values = jnp.reshape(flat_values, (num_windows, length))
    values = returns.mean + running_statistics.standard_deviation(returns) * network_values
    advantages = jax.vmap(functools.partial(generalized_advantages, lambda_=config.gae_lambda))(
        # Rewards may be whole numbers.
        batch.reward[:, :-1].astype(jnp.float32),
        config.discount * batch.discount[:, :-1],
        batch.mask,
        values,
    )

    def flatten(leaf: jax.Array) -> jax.Array:
        return jnp.reshape(jnp.asarray(leaf)[:, : length - 1], (-1, *leaf.shape[2:]))

    sample = batch.extras.get("sample", batch.action)
    targets = advantages + values[:, :-1]
    log_prob = batch.extras["log_prob"]
    return jax.tree.map(
        flatten, Rows(batch.observation, sample, log_prob, advantages, targets, network_values, batch.mask)
    )


def normalize_rows(rows: Rows, returns: running_statistics.Moments) -> Rows:
    """Returns rows whose advantages and targets are in standard deviations of returns, targets from their mean."""
    deviation = running_statistics.standard_deviation(returns)
    return rows._replace(advantage=rows.advantage / deviation, target=(rows.target - returns.mean) / deviation)


def explained_variance(rows: Rows) -> jax.Array:
    """Returns 1 - Var(target - value) / Var(target): 1 for perfect values, 0 for a constant; 0 if targets are equal."""

    def variance(values: jax.Array) -> jax.Array:
        centred = values - learning.masked_mean(values, rows.mask)
        return learning.masked_mean(jnp.square(centred), rows.mask)

    of_targets = variance(rows.target)
    return jnp.where(of_targets > 0, 1 - variance(rows.advantage) / jnp.where(of_targets > 0, of_targets, 1), 0.0)


def make_core(
    config: PPOConfig, network: networks.FeedForwardNetwork, spec: specs.EnvironmentSpec, *, loss_fn: Loss = ppo_loss
) -> learning.LearnerCore:
    """Returns PPO as pure functions, with a loss of one's own if one is given."""
    num_rows = config.batch_size * config.unroll_length
    num_minibatches = num_rows // config.minibatch_size

    def learning_rate(optimizer_steps: jax.Array) -> jax.Array:
        return learning.value_at(config.learning_rate, optimizer_steps // (config.num_epochs * num_minibatches))

    optimizer = learning.make_optimizer(
        learning_rate, max_gradient_norm=config.max_gradient_norm, epsilon=config.adam_epsilon
    )
    distribution = networks.make_action_distribution(spec.action)
    minibatch_loss = functools.partial(loss_fn, apply=network.apply, distribution=distribution, config=config)

    def init(key: jax.Array) -> TrainingState:
        key_params, key_shuffle = jax.random.split(key)
        params = network.init(key_params)
        returns = running_statistics.init_moments(())
        return TrainingState(params, optimizer.init(params), jnp.int32(0), learning.key_words(key_shuffle), returns)

    def update(state: TrainingState, sample: replay.Sample) -> tuple[TrainingState, learning.LearnerOutput]:
        key, key_shuffle = jax.random.split(jax.random.wrap_key_data(state.key))
        clip_epsilon = learning.value_at(config.clip_epsilon, state.steps)
        entropy_cost = learning.value_at(config.entropy_cost, state.steps)
        rows = make_rows(sample.data, state.params, state.returns, apply=network.apply, config=config)
        returns = state.returns
        if config.normalize_values:
            returns = running_statistics.add_rows(returns, rows.target, rows.mask)
            rows = normalize_rows(rows, returns)

        def minibatch_step(carry, indices):
            minibatch = jax.tree.map(lambda leaf: leaf[indices], rows)
            params, opt_state, metrics, step_metrics = learning.gradient_step(
                minibatch_loss, optimizer, *carry, minibatch, clip_epsilon, entropy_cost
            )
            return (params, opt_state), metrics | step_metrics

        order = learning.random_orders(key_shuffle, config.num_epochs, num_rows)
        (params, opt_state), metrics = jax.lax.scan(
            minibatch_step, (state.params, state.opt_state), jnp.reshape(order, (-1, config.minibatch_size))
        )
        metrics = jax.tree.map(jnp.mean, metrics) | {"explained_variance": explained_variance(rows)}
        state = TrainingState(params, opt_state, state.steps + 1, jax.random.key_data(key), returns)
        return state, learning.LearnerOutput(metrics)

    return learning.LearnerCore(init, update, lambda state: {"policy": state.params})
