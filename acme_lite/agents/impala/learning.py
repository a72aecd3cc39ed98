"""The algorithm of IMPALA: V-trace over windows of steps, the loss, and one learner step."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float

from acme_lite import _runtime, learning, networks, replay, specs, types
from acme_lite.agents.impala import networks as impala_networks
from acme_lite.networks import distributions

if TYPE_CHECKING:
    from acme_lite.agents.impala.builder import IMPALAConfig

rlax = _runtime.import_rlax()


class TrainingState(NamedTuple):
    """All that learning carries along: the network's parameters and the optimiser's state."""

    params: types.Params
    opt_state: optax.OptState


def masked_vtrace(
    value: Float[Array, " T+1"],
    reward: Float[Array, " T"],
    discount: Float[Array, " T"],
    ratio: Float[Array, " T"],
    mask: Bool[Array, " T"],
    *,
    trace_lambda: float = 1.0,
    max_ratio: float = 1.0,
    max_policy_ratio: float = 1.0,
) -> tuple[Float[Array, " T"], Float[Array, " T"]]:
    """Returns the V-trace errors v_t - V(o_t) and the advantages of the policy gradient, for one stream.

        v_t = V(o_t) + δ_t + γ_t c_t (v_{t+1} - V(o_{t+1})),   δ_t = ρ_t (r_t + γ_t V(o_{t+1}) - V(o_t))
        advantage_t = min(max_policy_ratio, π/μ) (r_t + γ_t v_{t+1} - V(o_t))

    with ρ_t = min(max_ratio, π/μ) and c_t = λ min(1, π/μ). Rows whose mask is False have error and advantage 0, and end
    the trace: the steps before an episode's last observation bootstrap from its value and from nothing behind it. That
    makes a truncated episode (γ_t > 0 on its last step) right; a terminated one has γ_t = 0 there. For λ < 1, v_{t+1}
    in the advantage is λ v_{t+1} + (1 - λ) V(o_{t+1}), as in rlax. Gradients flow into V(o_t) alone, through the error.

    Args:
        value: `[T+1]` V(o_t), the last one for bootstrapping.
        reward: `[T]` r_t.
        discount: `[T]` γ_t in [0, 1], the discount factor included.
        ratio: `[T]` π/μ, by how much likelier the action has become since; positive.
        mask: `[T]` bool, True where the step is real.
        trace_lambda: λ in [0, 1].
        max_ratio: ρ's limit; it decides whose value is learned (section 4.1 of the paper).
        max_policy_ratio: limit of the ratio in the policy's gradient.

    Reference: Espeholt et al., IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
    Architectures (2018), equation 1 and section 4.2.
    """
    # A ratio of 0 zeroes the row's temporal difference, its advantage, and the trace through it.
    ratio, discount, reward = (jnp.where(mask, array, 0.0) for array in (ratio, discount, reward))
    output = rlax.vtrace_td_error_and_advantage(
        value[:-1],
        value[1:],
        reward,
        discount,
        jax.lax.stop_gradient(ratio),
        trace_lambda,
        max_ratio,
        max_policy_ratio,
    )
    return output.errors, jax.lax.stop_gradient(output.pg_advantage)


def impala_loss(
    params: types.Params,
    batch: types.Sequence,
    *,
    network: networks.RecurrentNetwork,
    distribution: distributions.ActionDistribution,
    config: IMPALAConfig,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss of a batch, and metrics.

        loss = mean(-advantage log π(a|o)) + value_cost mean((v - V(o))^2 / 2) - entropy_cost mean(entropy of π(.|o))

    Means are over the real steps of the batch but each window's last row, which only bootstraps. The state begins with
    the stored one (`batch.start`) and is reset wherever an episode begins.

    Args:
        params: of the network.
        batch: windows `[B, T+1, ...]` with the extra `log_prob` and the start value `core_state`.
        network: to `PolicyAndValue`.
        distribution: of the actions.
        config: the settings.

    Reference: Espeholt et al. (2018), section 4.2. Departures: means instead of sums, so that the costs and the limit
    on the gradient do not depend on the batch's shape; masks.
    """
    reset = networks.episode_starts(batch.mask)
    output, _ = network.unroll(params, batch.observation, batch.start["core_state"], reset)
    _, action_mask = networks.split_action_mask(batch.observation)
    logits = networks.mask_illegal(output.logits, action_mask)[:, :-1]
    action, reward, env_discount, mask, behaviour_log_prob = jax.tree.map(
        lambda leaf: leaf[:, :-1], (batch.action, batch.reward, batch.discount, batch.mask, batch.extras["log_prob"])
    )
    if config.max_abs_reward is not None:
        reward = jnp.clip(reward, -config.max_abs_reward, config.max_abs_reward)
    log_prob = distribution.log_prob(logits, action)
    ratio = jnp.exp(log_prob - behaviour_log_prob)
    vtrace = functools.partial(
        masked_vtrace,
        trace_lambda=config.trace_lambda,
        max_ratio=config.max_ratio,
        max_policy_ratio=config.max_policy_ratio,
    )
    errors, advantages = jax.vmap(vtrace)(output.value, reward, config.discount * env_discount, ratio, mask)
    mean = functools.partial(learning.masked_mean, mask=mask)

    policy_loss = mean(-advantages * log_prob)
    value_loss = mean(0.5 * jnp.square(errors))
    entropy = mean(distribution.entropy(logits))
    metrics = {
        "policy_loss": policy_loss,
        "value_loss": value_loss,
        "entropy": entropy,
        "importance_ratio": mean(ratio),
        "value": mean(output.value[:, :-1]),
    }
    return policy_loss + config.value_cost * value_loss - config.entropy_cost * entropy, metrics


def make_core(
    config: IMPALAConfig, network: networks.RecurrentNetwork, spec: specs.EnvironmentSpec
) -> learning.LearnerCore:
    """Returns IMPALA as pure functions."""
    optimizer = learning.make_optimizer(
        config.learning_rate,
        max_gradient_norm=config.max_gradient_norm,
        epsilon=config.optimizer_epsilon,
        kind=config.optimizer,
    )
    distribution = impala_networks.make_distribution(spec)
    batch_loss = functools.partial(impala_loss, network=network, distribution=distribution, config=config)

    def init(key: jax.Array) -> TrainingState:
        params = network.init(key)
        return TrainingState(params, optimizer.init(params))

    def update(state: TrainingState, sample: replay.Sample) -> tuple[TrainingState, learning.LearnerOutput]:
        params, opt_state, loss_metrics, metrics = learning.gradient_step(
            batch_loss, optimizer, state.params, state.opt_state, sample.data
        )
        return TrainingState(params, opt_state), learning.LearnerOutput(metrics | loss_metrics)

    def variables(state: TrainingState) -> dict[str, types.ArrayTree]:
        return {"policy": state.params}

    return learning.LearnerCore(init, update, variables)
