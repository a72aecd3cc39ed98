"""The algorithm of SAC: the three losses on a batch of n-step transitions, and one learner step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from acme_lite import learning, networks, replay, specs, types

if TYPE_CHECKING:
    from acme_lite.agents.sac.builder import SACConfig


class TrainingState(NamedTuple):
    """All that learning carries along.

    Attributes:
        policy_params: of the policy.
        critic_params: of both critics.
        target_critic_params: of the critics that bootstrap.
        log_temperature: logarithm of the entropy's weight, float32 scalar.
        policy_opt_state: of the policy's optimiser.
        critic_opt_state: of the critics' optimiser.
        temperature_opt_state: of the temperature's optimiser; `()` if the temperature is fixed.
        key: words of the PRNG key that actions are drawn with.
    """

    policy_params: types.Params
    critic_params: types.Params
    target_critic_params: types.Params
    log_temperature: jax.Array
    policy_opt_state: optax.OptState
    critic_opt_state: optax.OptState
    temperature_opt_state: optax.OptState
    key: jax.Array


LossOutput = tuple[Float[Array, ""], dict[str, jax.Array]]


def soft_targets(
    batch: types.Transition,
    next_q: Float[Array, "E B"],
    next_log_prob: Float[Array, " B"],
    temperature: Float[Array, ""],
    *,
    discount: float,
) -> Float[Array, " B"]:
    """Returns the critics' targets r + discount * d * (min_i q_i(o', a') - temperature * log pi(a' | o')).

    Args:
        batch: of transitions.
        next_q: `[E, B]` the target critics' values of actions a' that the policy draws at o'.
        next_log_prob: `[B]` log densities of these actions.
        temperature: scalar, at least 0.
        discount: the last discount factor; those before it stand in the batch.

    Reference: Haarnoja et al., Soft Actor-Critic Algorithms and Applications (2018), equations 3 and 5; Fujimoto et
    al. (2018), equation 10, for the minimum.
    """
    networks.check_output(next_q, (None, *batch.reward.shape), agent="SAC", what="critics' values")
    value = jnp.min(next_q, axis=0) - temperature * next_log_prob
    return batch.reward + discount * batch.discount * value


def critic_loss(
    critic_params: types.Params,
    batch: types.Transition,
    action: Float[Array, "B D"],
    targets: Float[Array, " B"],
    *,
    critic: networks.Critic,
) -> LossOutput:
    """Returns sum_i mean_b (q_i(o, a) - target)^2 / 2; no gradient flows to the targets.

    Args:
        critic_params: of both critics.
        batch: of transitions.
        action: `[B, D]` in [-1, 1], the batch's actions in the critics' coordinates.
        targets: `[B]`, in units of return.
        critic: gives values `[E, B]`.

    Reference: Haarnoja et al. (2018), equation 5.
    """
    q = critic.apply(critic_params, batch.observation, action)
    td = jax.lax.stop_gradient(targets) - q
    loss = jnp.sum(jnp.mean(0.5 * jnp.square(td), axis=-1))
    return loss, {"q_value": jnp.mean(q), "td_error": jnp.mean(jnp.abs(td))}


def policy_loss(
    policy_params: types.Params,
    critic_params: types.Params,
    observation: types.ArrayTree,
    temperature: Float[Array, ""],
    key: jax.Array,
    *,
    nets: networks.ActorCriticNetworks,
) -> tuple[Float[Array, ""], Float[Array, " B"]]:
    """Returns mean (temperature * log pi(a | o) - min_i q_i(o, a)) over actions a that the policy draws.

    The gradient flows through the actions. The key is consumed.

    Returns:
        The loss, and the log densities `[B]` of the actions.

    Reference: Haarnoja et al. (2018), equation 9.
    """
    action, log_prob = networks.squashed_sample(nets.policy.apply(policy_params, observation), key)
    q = jnp.min(nets.critic.apply(critic_params, observation, action), axis=0)
    return jnp.mean(temperature * log_prob - q), log_prob


def temperature_loss(
    log_temperature: Float[Array, ""], log_prob: Float[Array, " B"], target_entropy: float
) -> LossOutput:
    """Returns -temperature * mean(log pi + target entropy), which rises with the temperature above the target.

    Args:
        log_temperature: scalar.
        log_prob: `[B]` log densities of the policy's actions; no gradient flows to them.
        target_entropy: in nats.

    Reference: Haarnoja et al. (2018), equation 18.
    """
    entropy = -jnp.mean(jax.lax.stop_gradient(log_prob))
    return jnp.exp(log_temperature) * (entropy - target_entropy), {"entropy": entropy}


def make_core(
    config: SACConfig, nets: networks.ActorCriticNetworks, spec: specs.EnvironmentSpec
) -> learning.LearnerCore:
    """Returns SAC as pure functions."""
    scaling = networks.make_action_scaling(spec.action, agent="SAC")
    target_entropy = -float(scaling.size) if config.target_entropy is None else config.target_entropy
    optimizer = learning.make_optimizer(config.learning_rate, max_gradient_norm=config.max_gradient_norm)

    def init(key: jax.Array) -> TrainingState:
        key_policy, key_critic, key = jax.random.split(key, 3)
        policy_params, critic_params = nets.policy.init(key_policy), nets.critic.init(key_critic)
        fixed = config.temperature is not None
        log_temperature = jnp.log(jnp.float32(config.temperature if fixed else config.initial_temperature))
        return TrainingState(
            policy_params,
            critic_params,
            critic_params,
            log_temperature,
            optimizer.init(policy_params),
            optimizer.init(critic_params),
            () if fixed else optimizer.init(log_temperature),
            learning.key_words(key),
        )

    def update(state: TrainingState, sample: replay.Sample) -> tuple[TrainingState, learning.LearnerOutput]:
        batch: types.Transition = sample.data
        key, key_next, key_policy = jax.random.split(jax.random.wrap_key_data(state.key), 3)
        temperature = jnp.exp(state.log_temperature)
        next_policy = nets.policy.apply(state.policy_params, batch.next_observation)
        next_action, next_log_prob = networks.squashed_sample(next_policy, key_next)
        next_q = nets.critic.apply(state.target_critic_params, batch.next_observation, next_action)
        targets = soft_targets(batch, next_q, next_log_prob, temperature, discount=config.discount)

        def loss_of_critics(params):
            return critic_loss(params, batch, scaling.from_action(batch.action), targets, critic=nets.critic)

        def loss_of_policy(params):
            return policy_loss(params, critic_params, batch.observation, temperature, key_policy, nets=nets)

        critic_params, critic_opt_state, metrics, critic_metrics = learning.gradient_step(
            loss_of_critics, optimizer, state.critic_params, state.critic_opt_state
        )
        policy_params, policy_opt_state, log_prob, policy_metrics = learning.gradient_step(
            loss_of_policy, optimizer, state.policy_params, state.policy_opt_state
        )
        log_temperature, temperature_opt_state = state.log_temperature, state.temperature_opt_state
        if config.temperature is None:
            log_temperature, temperature_opt_state, _, _ = learning.gradient_step(
                temperature_loss, optimizer, log_temperature, temperature_opt_state, log_prob, target_entropy
            )
        target_params = optax.incremental_update(critic_params, state.target_critic_params, config.target_update_rate)
        metrics |= {f"critic_{name}": value for name, value in critic_metrics.items()}
        metrics |= {f"policy_{name}": value for name, value in policy_metrics.items()}
        metrics |= {"temperature": temperature, "entropy": -jnp.mean(log_prob)}
        state = TrainingState(
            policy_params,
            critic_params,
            target_params,
            log_temperature,
            policy_opt_state,
            critic_opt_state,
            temperature_opt_state,
            jax.random.key_data(key),
        )
        return state, learning.LearnerOutput(metrics)

    def variables(state: TrainingState) -> dict[str, types.ArrayTree]:
        return {"policy": state.policy_params, "critic": state.critic_params}

    return learning.LearnerCore(init, update, variables)
