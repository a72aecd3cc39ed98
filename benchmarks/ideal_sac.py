"""The task of SAC on Pendulum-v1 for the ideal loop: MLP 256-256, two critics, batch 256, and no library."""

from __future__ import annotations

import math

import gymnasium
import haiku as hk
import ideal_loop
import jax
import jax.numpy as jnp
import numpy as np
import optax

HIDDEN_SIZES, LEARNING_RATE, TARGET_RATE, TARGET_ENTROPY = (256, 256), 3e-4, 0.005, -1.0
MAX_TORQUE = 2.0
"""Actions are in [-MAX_TORQUE, MAX_TORQUE]; the critics see them in [-1, 1]."""
OPTIMIZER = optax.adam(LEARNING_RATE)


def make_environment(seed):
    environment = gymnasium.make("Pendulum-v1")
    environment.reset(seed=seed)
    return lambda: environment.reset()[0], environment.step


def mean_and_log_std(observation):
    features = hk.nets.MLP(HIDDEN_SIZES, activate_final=True)(observation)
    linear = hk.Linear(2, w_init=hk.initializers.VarianceScaling(1e-4), name="policy")(features)
    mean, log_std = jnp.split(linear, 2, axis=-1)
    return mean, jnp.clip(log_std, -20, 2)


def value(observation, action):
    return hk.nets.MLP((*HIDDEN_SIZES, 1))(jnp.concatenate([observation, action], axis=-1))[..., 0]


gaussian: hk.Transformed = hk.without_apply_rng(hk.transform(mean_and_log_std))
critic: hk.Transformed = hk.without_apply_rng(hk.transform(value))


def sample(params, observation, key):
    """Returns actions `[B, 1]` in [-1, 1], tanh of a Gaussian, and their log densities `[B]`."""
    mean, log_std = gaussian.apply(params, observation)
    noise = jax.random.normal(key, mean.shape)
    u = mean + jnp.exp(log_std) * noise
    log_prob = -0.5 * jnp.square(noise) - log_std - 0.5 * math.log(2 * math.pi)
    log_prob -= 2 * (math.log(2) - u - jax.nn.softplus(-2 * u))
    return jnp.tanh(u), jnp.sum(log_prob, axis=-1)


def both_values(critic_params, observation, action):
    """Returns the values `[2, B]` of both critics."""
    return jnp.stack([critic.apply(params, observation, action) for params in critic_params])


def init(key):
    key_policy, key_first, key_second, key = jax.random.split(key, 4)
    observation, action = jnp.zeros((1, 3)), jnp.zeros((1, 1))
    policy_params = gaussian.init(key_policy, observation)
    critic_params = tuple(critic.init(one, observation, action) for one in (key_first, key_second))
    trained = (policy_params, critic_params, jnp.float32(0))
    opt_states = [OPTIMIZER.init(params) for params in trained]
    return policy_params, critic_params, critic_params, trained[2], *opt_states, jax.random.key_data(key)


def policy(params, observation, key):
    key, use = jax.random.split(key)
    return MAX_TORQUE * sample(params, observation, use)[0], key


def critic_loss(critic_params, observation, action, target):
    td = target - both_values(critic_params, observation, action)
    return jnp.sum(jnp.mean(0.5 * jnp.square(td), axis=-1))


def policy_loss(policy_params, critic_params, observation, temperature, key):
    action, log_prob = sample(policy_params, observation, key)
    q = jnp.min(both_values(critic_params, observation, action), axis=0)
    return jnp.mean(temperature * log_prob - q), log_prob


def temperature_loss(log_temperature, log_prob):
    return jnp.exp(log_temperature) * (-jnp.mean(log_prob) - TARGET_ENTROPY)


def update(state, batch):
    policy_params, critic_params, target_params, log_temperature, policy_opt, critic_opt, temperature_opt, key = state
    o_tm1, a_tm1, r_t, discount_t, o_t = batch
    key, key_next, key_policy = jax.random.split(key, 3)
    temperature = jnp.exp(log_temperature)
    a_t, log_prob_t = sample(policy_params, o_t, key_next)
    v_t = jnp.min(both_values(target_params, o_t, a_t), axis=0) - temperature * log_prob_t
    target = r_t + ideal_loop.DISCOUNT * discount_t * v_t
    loss, gradients = jax.value_and_grad(critic_loss)(critic_params, o_tm1, a_tm1 / MAX_TORQUE, target)
    critic_params, critic_opt = ideal_loop.apply_gradients(OPTIMIZER, gradients, critic_params, critic_opt)
    gradients, log_prob = jax.grad(policy_loss, has_aux=True)(
        policy_params, critic_params, o_tm1, temperature, key_policy
    )
    policy_params, policy_opt = ideal_loop.apply_gradients(OPTIMIZER, gradients, policy_params, policy_opt)
    gradient = jax.grad(temperature_loss)(log_temperature, log_prob)
    log_temperature, temperature_opt = ideal_loop.apply_gradients(OPTIMIZER, gradient, log_temperature, temperature_opt)
    target_params = optax.incremental_update(critic_params, target_params, TARGET_RATE)
    opt_states = policy_opt, critic_opt, temperature_opt
    return (policy_params, critic_params, target_params, log_temperature, *opt_states, key), loss


TASK = ideal_loop.Task(
    make_environment,
    init,
    policy,
    update,
    observation_size=3,
    action=np.zeros(1, np.float32),
    batch=256,
    capacity=1_000_000,
    steps_per_update=1,
)
