"""The algorithm of MPO: weights of sampled actions, the losses of policy, multipliers and critic, one learner step."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from acme_lite import learning, networks, replay, specs, types
from acme_lite.agents.mpo import networks as mpo_networks
from acme_lite.networks import policy_gaussian, return_models
from acme_lite.networks.policy_gaussian import DiagonalGaussian

if TYPE_CHECKING:
    from acme_lite.agents.mpo.builder import MPOConfig

_LEAST_LOG_DUAL = -18.0
_LEAST_DUAL = 1e-8


class Duals(NamedTuple):
    """Multipliers of the constraints: as parameters before, or as the numbers themselves after `positive_duals`.

    Attributes:
        temperature: scalar, of the bound on the weights.
        penalty_temperature: scalar, of the bound on the weights that punish actions out of bounds.
        alpha_mean: `[D]` (`[1]` for all dimensions together), of the bound on the mean's divergence.
        alpha_std: as `alpha_mean`, of the deviation's.
    """

    temperature: jax.Array
    penalty_temperature: jax.Array
    alpha_mean: jax.Array
    alpha_std: jax.Array


class TrainingState(NamedTuple):
    """All that learning carries along.

    Attributes:
        policy_params: of the policy.
        critic_params: of the critic.
        duals: parameters of the multipliers.
        target_policy_params: of the target policy.
        target_critic_params: of the target critic.
        policy_opt_state: of the policy's optimiser.
        critic_opt_state: of the critic's optimiser.
        dual_opt_state: of the multipliers' optimiser.
        steps: learner steps taken, int32 scalar.
        key: words of the PRNG key that samples actions.
    """

    policy_params: types.Params
    critic_params: types.Params
    duals: Duals
    target_policy_params: types.Params
    target_critic_params: types.Params
    policy_opt_state: optax.OptState
    critic_opt_state: optax.OptState
    dual_opt_state: optax.OptState
    steps: jax.Array
    key: jax.Array


def positive_duals(duals: Duals) -> Duals:
    """Returns the multipliers of their parameters, by softplus."""
    return jax.tree.map(lambda leaf: jax.nn.softplus(leaf) + _LEAST_DUAL, duals)


def action_weights(scores: Float[Array, "K B"], temperature: jax.Array) -> Float[Array, "K B"]:
    """Returns the weights of K sampled actions, softmax(scores / temperature) over them; no gradient flows.

    Reference: Abdolmaleki et al., Maximum a Posteriori Policy Optimisation (2018), the E-step.
    """
    greatest = jnp.max(scores, axis=0)
    return jax.lax.stop_gradient(jax.nn.softmax((scores - greatest) / temperature, axis=0))


def temperature_loss(temperature: jax.Array, scores: Float[Array, "K B"], epsilon: float) -> jax.Array:
    """Returns temperature * (epsilon + mean_b log mean_k exp(scores_kb / temperature)).

    At its least the weights' divergence from equal ones is epsilon, in nats. No gradient flows to the scores.

    Reference: Abdolmaleki et al. (2018), the dual function of the E-step.
    """
    scores = jax.lax.stop_gradient(scores)
    # Beside the greatest one: float32 keeps too few digits of what many times the temperature is.
    greatest = jnp.max(scores, axis=0)
    log_means = jax.nn.logsumexp((scores - greatest) / temperature, axis=0) - jnp.log(scores.shape[0])
    return temperature * (epsilon + jnp.mean(log_means)) + jnp.mean(greatest)


def out_of_bounds(actions: Float[Array, "*batch D"]) -> Float[Array, "*batch"]:
    """Returns how far actions `[..., D]` lie beyond [-1, 1], the length of what clipping takes off."""
    return jnp.linalg.norm(actions - jnp.clip(actions, -1, 1), axis=-1)


def sample_actions(
    target_policy_params: types.Params,
    target_critic_params: types.Params,
    observation: types.ArrayTree,
    key: jax.Array,
    *,
    network: networks.ActorCriticNetworks,
    num_samples: int,
) -> tuple[DiagonalGaussian, Float[Array, "K B D"], jax.Array]:
    """Returns the target policy `[B, D]`, K actions of it at each observation, and the target critic's `[K, B, *O]`.

    Args:
        target_policy_params: of the target policy.
        target_critic_params: of the target critic.
        observation: `[B, ...]` tree.
        key: consumed.
        network: policy and critic.
        num_samples: K.
    """
    target = network.policy.apply(target_policy_params, observation)
    actions = target.mean + target.std * jax.random.normal(key, (num_samples, *target.mean.shape))
    repeated = jax.tree.map(lambda leaf: jnp.tile(leaf, (num_samples, *[1] * (leaf.ndim - 1))), observation)
    # Rows of all observations for the first actions, then for the second ones, as `tile` has them.
    rows = jnp.reshape(actions, (-1, actions.shape[-1]))
    output = network.critic.apply(target_critic_params, repeated, rows)
    return target, actions, jnp.reshape(output, (*actions.shape[:2], *output.shape[1:]))


def critic_loss(
    critic_params: types.Params,
    batch: types.Transition,
    next_output: jax.Array,
    *,
    apply: Callable[[types.Params, types.ArrayTree, jax.Array], jax.Array],
    returns: return_models.ReturnModel,
    discount: float,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean loss of the critic on a batch, and its metrics.

    The target is r_t + discount * discount_t * Z_t; what the loss is of it and Z(o_tm1, a_tm1), the return model says.
    No gradient flows to the target.

    Args:
        critic_params: of the critic.
        batch: n-step transitions `[B, ...]` whose actions `[B, D]` are in [-1, 1].
        next_output: `[B, *O]` the return model's Z_t, of the target policy's actions at the next observation.
        apply: the critic.
        returns: how the critic models returns.
        discount: factor per step, in [0, 1].
    """
    output = apply(critic_params, batch.observation, batch.action)
    q = returns.mean(output)
    networks.check_output(q, batch.reward.shape, agent=mpo_networks.AGENT, what="critic's values")
    losses = returns.losses(output, batch.reward, discount * batch.discount, next_output)
    return jnp.mean(losses), {"q_value": jnp.mean(q)}


def policy_loss(
    policy_params: types.Params,
    observation: types.ArrayTree,
    target: DiagonalGaussian,
    actions: Float[Array, "K B D"],
    weights: Float[Array, "K B"],
    duals: Duals,
    *,
    apply: Callable[[types.Params, types.ArrayTree], DiagonalGaussian],
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    """Returns the loss of the policy, and its divergences from the target policy in mean and deviation.

    With pi_mean the policy with the target's deviation, and pi_std the one with the target's mean:

        loss = -mean_b sum_k weights_kb (log pi_mean(a_kb) + log pi_std(a_kb))
               + alpha_mean . KL_mean + alpha_std . KL_std, with KL_* = mean_b KL(target || pi_*)

    so that means and deviations are learned, and held back, each alone. Gradients flow to the policy only.

    Args:
        policy_params: of the policy.
        observation: `[B, ...]` tree.
        target: `[B, D]` distributions of the target policy.
        actions: `[K, B, D]` samples of the target policy.
        weights: `[K, B]`.
        duals: the multipliers themselves.
        apply: the policy.

    Returns:
        The loss and (KL_mean, KL_std), each of the shape of its multiplier.

    Reference: Abdolmaleki et al., Relative Entropy Regularized Policy Iteration (2018, arXiv 1812.02256), for means and
    deviations apart.
    """
    policy = apply(policy_params, observation)
    target, duals = jax.lax.stop_gradient((target, duals))
    parts = DiagonalGaussian(policy.mean, target.std), DiagonalGaussian(target.mean, policy.std)
    loss, divergences = jnp.float32(0), []
    for part, alpha in zip(parts, (duals.alpha_mean, duals.alpha_std), strict=True):
        divergence = jnp.mean(policy_gaussian.gaussian_divergence(target, part), axis=0)
        if alpha.shape != divergence.shape:
            divergence = jnp.sum(divergence, keepdims=True)
        log_probs = policy_gaussian.gaussian_log_prob(part, actions)
        loss += jnp.sum(alpha * divergence) - jnp.mean(jnp.sum(weights * log_probs, axis=0))
        divergences.append(divergence)
    return loss, (divergences[0], divergences[1])


def dual_loss(
    duals: Duals,
    values: Float[Array, "K B"],
    distances: Float[Array, "K B"],
    divergences: tuple[jax.Array, jax.Array],
    *,
    config: MPOConfig,
) -> tuple[jax.Array, tuple[()]]:
    """Returns the loss of the multipliers' parameters: those of the temperatures and alpha . (epsilon - KL).

    A multiplier grows where its divergence is beyond its bound. Gradients flow to the multipliers only.

    Args:
        duals: parameters of the multipliers.
        values: `[K, B]` of the sampled actions, in units of return.
        distances: `[K, B]` of the sampled actions, from `out_of_bounds`.
        divergences: (KL_mean, KL_std) of `policy_loss`.
        config: gives the bounds `epsilon*` and `action_penalty`.
    """
    duals = positive_duals(duals)
    kl_mean, kl_std = jax.lax.stop_gradient(divergences)
    loss = temperature_loss(duals.temperature, values, config.epsilon)
    if config.action_penalty:
        loss += temperature_loss(duals.penalty_temperature, -distances, config.epsilon_penalty)
    loss += jnp.sum(duals.alpha_mean * (config.epsilon_mean - kl_mean))
    loss += jnp.sum(duals.alpha_std * (config.epsilon_std - kl_std))
    return loss, ()


def _initial_duals(config: MPOConfig, action_size: int) -> Duals:
    size = action_size if config.per_dimension else 1
    temperature = jnp.float32(config.initial_log_temperature)
    alphas = [jnp.full(size, log, jnp.float32) for log in (config.initial_log_alpha_mean, config.initial_log_alpha_std)]
    return Duals(temperature, temperature, *alphas)


def make_core(
    config: MPOConfig, network: networks.ActorCriticNetworks, spec: specs.EnvironmentSpec
) -> learning.LearnerCore:
    """Returns MPO as pure functions."""
    scaling = networks.make_action_scaling(spec.action, agent=mpo_networks.AGENT)
    returns = return_models.from_config(config)
    limited = functools.partial(learning.make_optimizer, max_gradient_norm=config.max_gradient_norm)
    policy_optimizer, critic_optimizer = limited(config.policy_learning_rate), limited(config.critic_learning_rate)
    dual_optimizer = learning.make_optimizer(config.dual_learning_rate)
    sampled = functools.partial(sample_actions, network=network, num_samples=config.num_samples)
    loss_of_critic = functools.partial(
        critic_loss, apply=network.critic.apply, returns=returns, discount=config.discount
    )
    loss_of_policy = functools.partial(policy_loss, apply=network.policy.apply)
    loss_of_duals = functools.partial(dual_loss, config=config)

    def init(key: jax.Array) -> TrainingState:
        key_policy, key_critic, key = jax.random.split(key, 3)
        policy, critic = network.policy.init(key_policy), network.critic.init(key_critic)
        duals = _initial_duals(config, scaling.size)
        opt_states = policy_optimizer.init(policy), critic_optimizer.init(critic), dual_optimizer.init(duals)
        return TrainingState(policy, critic, duals, policy, critic, *opt_states, jnp.int32(0), learning.key_words(key))

    def update(state: TrainingState, sample: replay.Sample) -> tuple[TrainingState, learning.LearnerOutput]:
        key, key_actions = jax.random.split(jax.random.wrap_key_data(state.key))
        batch = sample.data._replace(action=scaling.from_action(sample.data.action))
        old_targets = (state.target_policy_params, state.target_critic_params)
        target, actions, outputs = sampled(*old_targets, batch.next_observation, key_actions)
        critic, critic_opt_state, critic_metrics, critic_step = learning.gradient_step(
            loss_of_critic,
            critic_optimizer,
            *(state.critic_params, state.critic_opt_state),
            *(batch, returns.mixture(outputs)),
        )
        values, distances, positive = returns.mean(outputs), out_of_bounds(actions), positive_duals(state.duals)
        weights = action_weights(values, positive.temperature)
        if config.action_penalty:
            weights += action_weights(-distances, positive.penalty_temperature)
        policy, policy_opt_state, divergences, policy_step = learning.gradient_step(
            loss_of_policy,
            policy_optimizer,
            *(state.policy_params, state.policy_opt_state),
            *(batch.next_observation, target, actions, weights, positive),
        )
        duals, dual_opt_state, _, dual_step = learning.gradient_step(
            loss_of_duals, dual_optimizer, state.duals, state.dual_opt_state, values, distances, divergences
        )
        duals = jax.tree.map(lambda leaf: jnp.maximum(leaf, _LEAST_LOG_DUAL), duals)
        steps = state.steps + 1
        target_policy, target_critic = optax.periodic_update(
            (policy, critic), old_targets, steps, config.target_update_period
        )
        parts = {"critic": critic_step, "policy": policy_step, "dual": dual_step}
        metrics = {f"{part}_{name}": value for part, step in parts.items() for name, value in step.items()}
        metrics |= critic_metrics | {
            "temperature": positive.temperature,
            "kl_mean": jnp.mean(divergences[0]),
            "kl_std": jnp.mean(divergences[1]),
            "alpha_mean": jnp.mean(positive.alpha_mean),
            "alpha_std": jnp.mean(positive.alpha_std),
            "policy_std": jnp.mean(target.std),
            "out_of_bounds": jnp.mean(distances),
        }
        opt_states = (policy_opt_state, critic_opt_state, dual_opt_state)
        state = TrainingState(
            policy, critic, duals, target_policy, target_critic, *opt_states, steps, jax.random.key_data(key)
        )
        return state, learning.LearnerOutput(metrics)

    return learning.LearnerCore(init, update, lambda state: {"policy": state.policy_params})
