"""The algorithm of TD3: the two losses on a batch of n-step transitions, and one learner step."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from acme_lite import learning, networks, replay, specs, types

if TYPE_CHECKING:
    from acme_lite.agents.td3.builder import TD3Config


class Weights(NamedTuple):
    """The parameters of policy and critics.

    Attributes:
        policy: of the policy.
        critic: of both critics.
    """

    policy: types.Params
    critic: types.Params


class TrainingState(NamedTuple):
    """All that learning carries along.

    Attributes:
        params: that are trained.
        target_params: of the targets.
        policy_opt_state: of the policy's optimiser.
        critic_opt_state: of the critics' optimiser.
        policy_metrics: of the policy's last update, which is not at every learner step; float32 scalars.
        steps: learner steps taken, int32 scalar.
        key: words of the PRNG key that the noise is drawn with.
    """

    params: Weights
    target_params: Weights
    policy_opt_state: optax.OptState
    critic_opt_state: optax.OptState
    policy_metrics: dict[str, jax.Array]
    steps: jax.Array
    key: jax.Array


def smoothed_action(action: Float[Array, "B D"], key: jax.Array, *, noise: float, clip: float) -> Float[Array, "B D"]:
    """Returns action + clip(Normal(0, noise), -clip, clip), within [-1, 1]; the key is consumed.

    Reference: Fujimoto et al., Addressing Function Approximation Error in Actor-Critic Methods (2018), equation 15.
    """
    drawn = noise * jax.random.normal(key, action.shape)
    return jnp.clip(action + jnp.clip(drawn, -clip, clip), -1, 1)


def clipped_targets(batch: types.Transition, next_q: Float[Array, "E B"], *, discount: float) -> Float[Array, " B"]:
    """Returns the critics' targets r + discount * d * min_i q_i(o', a').

    Args:
        batch: of transitions.
        next_q: `[E, B]` the target critics' values of the smoothed actions a' at o'.
        discount: the last discount factor; those before it stand in the batch.

    Reference: Fujimoto et al. (2018), equation 10.
    """
    networks.check_output(next_q, (None, *batch.reward.shape), agent="TD3", what="critics' values")
    return batch.reward + discount * batch.discount * jnp.min(next_q, axis=0)


def critic_loss(
    critic_params: types.Params,
    batch: types.Transition,
    action: Float[Array, "B D"],
    targets: Float[Array, " B"],
    *,
    critic: networks.Critic,
) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
    """Returns sum_i mean_b (q_i(o, a) - target)^2; no gradient flows to the targets.

    Args:
        critic_params: of both critics.
        batch: of transitions.
        action: `[B, D]` in [-1, 1], the batch's actions in the critics' coordinates.
        targets: `[B]`, in units of return.
        critic: gives values `[E, B]`.

    Reference: Fujimoto et al. (2018), algorithm 1.
    """
    q = critic.apply(critic_params, batch.observation, action)
    td = jax.lax.stop_gradient(targets) - q
    return jnp.sum(jnp.mean(jnp.square(td), axis=-1)), {"q_value": jnp.mean(q), "td_error": jnp.mean(jnp.abs(td))}


def policy_loss(
    policy_params: types.Params,
    critic_params: types.Params,
    observation: types.ArrayTree,
    *,
    nets: networks.ActorCriticNetworks,
) -> tuple[Float[Array, ""], tuple[()]]:
    """Returns -mean q_1(o, pi(o)); the gradient flows through the action.

    Reference: Fujimoto et al. (2018), algorithm 1.
    """
    q = nets.critic.apply(critic_params, observation, nets.policy.apply(policy_params, observation))
    return -jnp.mean(q[0]), ()


def make_core(
    config: TD3Config, nets: networks.ActorCriticNetworks, spec: specs.EnvironmentSpec
) -> learning.LearnerCore:
    """Returns TD3 as pure functions."""
    scaling = networks.make_action_scaling(spec.action, agent="TD3")
    limited = functools.partial(learning.make_optimizer, max_gradient_norm=config.max_gradient_norm)

    def policy_learning_rate(policy_updates: jax.Array) -> jax.Array:
        # Each one is in the last learner step of a period.
        learner_steps = (policy_updates + 1) * config.policy_update_period - 1
        return learning.value_at(config.learning_rate, learner_steps)

    policy_optimizer, critic_optimizer = limited(policy_learning_rate), limited(config.learning_rate)

    def init(key: jax.Array) -> TrainingState:
        key_policy, key_critic, key = jax.random.split(key, 3)
        params = Weights(nets.policy.init(key_policy), nets.critic.init(key_critic))
        return TrainingState(
            params,
            params,
            policy_optimizer.init(params.policy),
            critic_optimizer.init(params.critic),
            {"policy_loss": jnp.float32(0), "policy_gradient_norm": jnp.float32(0)},
            jnp.int32(0),
            learning.key_words(key),
        )

    def update_policy_and_targets(state: TrainingState, observation: types.ArrayTree) -> TrainingState:
        def loss(params):
            return policy_loss(params, state.params.critic, observation, nets=nets)

        policy_params, opt_state, _, metrics = learning.gradient_step(
            loss, policy_optimizer, state.params.policy, state.policy_opt_state
        )
        params = Weights(policy_params, state.params.critic)
        return state._replace(
            params=params,
            target_params=optax.incremental_update(params, state.target_params, config.target_update_rate),
            policy_opt_state=opt_state,
            policy_metrics={f"policy_{name}": value.astype(jnp.float32) for name, value in metrics.items()},
        )

    def update(state: TrainingState, sample: replay.Sample) -> tuple[TrainingState, learning.LearnerOutput]:
        batch: types.Transition = sample.data
        key, key_noise = jax.random.split(jax.random.wrap_key_data(state.key))
        next_action = smoothed_action(
            nets.policy.apply(state.target_params.policy, batch.next_observation),
            key_noise,
            noise=config.target_noise,
            clip=config.target_noise_clip,
        )
        next_q = nets.critic.apply(state.target_params.critic, batch.next_observation, next_action)
        targets = clipped_targets(batch, next_q, discount=config.discount)

        def loss(params):
            return critic_loss(params, batch, scaling.from_action(batch.action), targets, critic=nets.critic)

        critic_params, critic_opt_state, metrics, critic_metrics = learning.gradient_step(
            loss, critic_optimizer, state.params.critic, state.critic_opt_state
        )
        steps = state.steps + 1
        state = state._replace(
            params=Weights(state.params.policy, critic_params),
            critic_opt_state=critic_opt_state,
            steps=steps,
            key=jax.random.key_data(key),
        )
        state = jax.lax.cond(
            steps % config.policy_update_period == 0,
            update_policy_and_targets,
            lambda state, observation: state,
            state,
            batch.observation,
        )
        metrics |= {f"critic_{name}": value for name, value in critic_metrics.items()}
        return state, learning.LearnerOutput({**metrics, **state.policy_metrics})

    def variables(state: TrainingState) -> dict[str, types.ArrayTree]:
        policy = {"params": state.params.policy, "steps": state.steps}
        return {"policy": policy, "critic": state.params.critic}

    return learning.LearnerCore(init, update, variables)
