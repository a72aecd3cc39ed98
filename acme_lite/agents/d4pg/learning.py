"""The algorithm of D4PG: the losses of critic and policy on a batch of n-step transitions, and one learner step."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax

from acme_lite import _runtime, learning, networks, replay, specs, types
from acme_lite.agents.d4pg import networks as d4pg_networks
from acme_lite.networks import return_models

if TYPE_CHECKING:
    from acme_lite.agents.d4pg.builder import D4PGConfig

rlax = _runtime.import_rlax()


class TrainingState(NamedTuple):
    """All that learning carries along.

    Attributes:
        policy_params: of the policy.
        critic_params: of the critic.
        target_policy_params: of the target policy.
        target_critic_params: of the target critic.
        policy_opt_state: of the policy's optimiser.
        critic_opt_state: of the critic's optimiser.
        steps: learner steps taken, int32 scalar.
    """

    policy_params: types.Params
    critic_params: types.Params
    target_policy_params: types.Params
    target_critic_params: types.Params
    policy_opt_state: optax.OptState
    critic_opt_state: optax.OptState
    steps: jax.Array


def critic_loss(
    critic_params: types.Params,
    target_policy_params: types.Params,
    target_critic_params: types.Params,
    batch: types.Transition,
    *,
    network: networks.ActorCriticNetworks,
    returns: return_models.ReturnModel,
    discount: float,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean loss of the critic on a batch, and its metrics.

    The target is r_t + discount * discount_t * Z_target(o_t, pi_target(o_t)); what the loss is of it and
    Z(o_tm1, a_tm1), the return model says. No gradient flows to the target.

    Args:
        critic_params: of the critic.
        target_policy_params: of the target policy.
        target_critic_params: of the target critic.
        batch: n-step transitions `[B, ...]` whose actions `[B, D]` are in [-1, 1].
        network: policy and critic.
        returns: how the critic models returns.
        discount: factor per step, in [0, 1].

    Reference: Barth-Maron et al., Distributed Distributional Deterministic Policy Gradients (2018), section 3.
    """
    a_t = network.policy.apply(target_policy_params, batch.next_observation)
    output_t = network.critic.apply(target_critic_params, batch.next_observation, a_t)
    output_tm1 = network.critic.apply(critic_params, batch.observation, batch.action)
    q_tm1 = returns.mean(output_tm1)
    networks.check_output(q_tm1, batch.reward.shape, agent=d4pg_networks.AGENT, what="critic's values")
    losses = returns.losses(output_tm1, batch.reward, discount * batch.discount, output_t)
    return jnp.mean(losses), {"q_value": jnp.mean(q_tm1)}


def policy_loss(
    policy_params: types.Params,
    critic_params: types.Params,
    observation: types.ArrayTree,
    *,
    network: networks.ActorCriticNetworks,
    returns: return_models.ReturnModel,
    max_action_gradient_norm: float | None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean loss of the policy on observations `[B, ...]`, and its metrics.

    Its gradient is -mean dq/da(o, pi(o)) dpi(o)/dparams, where dq/da of an observation is scaled down to
    `max_action_gradient_norm` if it is longer; its value is half the squared length of dq/da. No gradient flows to the
    critic.

    Args:
        policy_params: of the policy.
        critic_params: of the critic.
        observation: `[B, ...]` tree.
        network: policy and critic.
        returns: how the critic models returns.
        max_action_gradient_norm: greater than 0, in units of return; None for no limit.

    Reference: Silver et al., Deterministic Policy Gradient Algorithms (2014), theorem 1; Barth-Maron et al. (2018),
    section 3.
    """
    action = network.policy.apply(policy_params, observation)

    def total_value(action: jax.Array) -> jax.Array:
        return jnp.sum(returns.mean(network.critic.apply(critic_params, observation, action)))

    action_gradient = jax.grad(total_value)(jax.lax.stop_gradient(action))
    losses = jax.vmap(rlax.dpg_loss, in_axes=(0, 0, None))(action, action_gradient, max_action_gradient_norm)
    metrics = {
        "action_gradient_norm": jnp.mean(jnp.linalg.norm(action_gradient, axis=-1)),
        "action_size": jnp.mean(jnp.abs(action)),
    }
    # rlax gives a loss for each of an action's numbers.
    return jnp.mean(jnp.sum(losses, axis=-1)), metrics


def make_core(
    config: D4PGConfig, network: networks.ActorCriticNetworks, spec: specs.EnvironmentSpec
) -> learning.LearnerCore:
    """Returns D4PG as pure functions."""
    scaling = networks.make_action_scaling(spec.action, agent=d4pg_networks.AGENT)
    returns = return_models.from_config(config)
    policy_optimizer = learning.make_optimizer(config.policy_learning_rate, max_gradient_norm=config.max_gradient_norm)
    critic_optimizer = learning.make_optimizer(config.critic_learning_rate, max_gradient_norm=config.max_gradient_norm)

    def loss_of_critic(params, *arguments):
        return critic_loss(params, *arguments, network=network, returns=returns, discount=config.discount)

    def loss_of_policy(params, *arguments):
        limit = config.max_action_gradient_norm
        return policy_loss(params, *arguments, network=network, returns=returns, max_action_gradient_norm=limit)

    def init(key: jax.Array) -> TrainingState:
        key_policy, key_critic = jax.random.split(key)
        policy, critic = network.policy.init(key_policy), network.critic.init(key_critic)
        opt_states = policy_optimizer.init(policy), critic_optimizer.init(critic)
        return TrainingState(policy, critic, policy, critic, *opt_states, jnp.int32(0))

    def update(state: TrainingState, sample: replay.Sample) -> tuple[TrainingState, learning.LearnerOutput]:
        batch = sample.data._replace(action=scaling.from_action(sample.data.action))
        targets = (state.target_policy_params, state.target_critic_params)
        critic, critic_opt_state, critic_metrics, critic_step = learning.gradient_step(
            loss_of_critic, critic_optimizer, state.critic_params, state.critic_opt_state, *targets, batch
        )
        policy, policy_opt_state, policy_metrics, policy_step = learning.gradient_step(
            loss_of_policy,
            policy_optimizer,
            state.policy_params,
            state.policy_opt_state,
            state.critic_params,
            batch.observation,
        )
        steps = state.steps + 1
        moved = (policy, critic)
        if config.target_update_rate < 1:
            moved = optax.incremental_update(moved, targets, config.target_update_rate)
        target_policy, target_critic = optax.periodic_update(moved, targets, steps, config.target_update_period)
        metrics = {f"critic_{name}": value for name, value in critic_step.items()}
        metrics |= {f"policy_{name}": value for name, value in policy_step.items()}
        state = TrainingState(policy, critic, target_policy, target_critic, policy_opt_state, critic_opt_state, steps)
        return state, learning.LearnerOutput(metrics | critic_metrics | policy_metrics)

    return learning.LearnerCore(init, update, lambda state: {"policy": state.policy_params})
