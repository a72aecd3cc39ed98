"""The task of DQN on CartPole-v1 for the ideal loop: MLP 64-64, batch 128, and no library."""

from __future__ import annotations

import functools

import gymnasium
import haiku as hk
import ideal_loop
import jax
import jax.numpy as jnp
import numpy as np
import optax

EPSILON, LEARNING_RATE, MAX_NORM = 0.1, 5e-4, 10.0
TARGET_STEPS = 500
"""Environment steps from one copy of the parameters to the next."""
OPTIMIZER = optax.chain(optax.clip_by_global_norm(MAX_NORM), optax.adam(LEARNING_RATE))


def make_environment(seed):
    environment = gymnasium.make("CartPole-v1")
    environment.reset(seed=seed)
    return lambda: environment.reset()[0], lambda action: environment.step(int(action))


def action_values(observation):
    return hk.nets.MLP([64, 64, 2], activation=jnp.tanh)(observation)


network: hk.Transformed = hk.without_apply_rng(hk.transform(action_values))


def init(key):
    params = network.init(key, jnp.zeros((1, 4)))
    return params, params, OPTIMIZER.init(params), jnp.int32(0)


def policy(params, observation, key):
    key, use = jax.random.split(key)
    uniform = jax.random.uniform(use, (2, 1))
    greedy = jnp.argmax(network.apply(params, observation), axis=-1).astype(jnp.int32)
    explored = jnp.floor(uniform[1] * 2).astype(jnp.int32)
    return jnp.where(uniform[0] < EPSILON, explored, greedy), key


def loss_fn(params, target_params, batch):
    o_tm1, a_tm1, r_t, discount_t, o_t = batch
    q_tm1 = jnp.take_along_axis(network.apply(params, o_tm1), a_tm1[:, None], axis=-1)[:, 0]
    target = r_t + ideal_loop.DISCOUNT * discount_t * jnp.max(network.apply(target_params, o_t), axis=-1)
    td = jax.lax.stop_gradient(target) - q_tm1
    return jnp.mean(optax.losses.huber_loss(td))


def update(state, batch, *, target_period):
    params, target_params, opt_state, steps = state
    loss, gradients = jax.value_and_grad(loss_fn)(params, target_params, batch)
    params, opt_state = ideal_loop.apply_gradients(OPTIMIZER, gradients, params, opt_state)
    steps += 1
    return (params, optax.periodic_update(params, target_params, steps, target_period), opt_state, steps), loss


def make_task(steps_per_update: int) -> ideal_loop.Task:
    """Returns the task with so many environment steps per SGD step."""
    return ideal_loop.Task(
        make_environment,
        init,
        policy,
        functools.partial(update, target_period=TARGET_STEPS // steps_per_update),
        observation_size=4,
        action=np.zeros((), np.int32),
        batch=128,
        capacity=50_000,
        steps_per_update=steps_per_update,
    )
