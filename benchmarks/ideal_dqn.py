"""The ideal loop of DQN on CartPole-v1: environment, jitted policy, NumPy ring buffer, jitted update, and no library.

It is the floor that `loop_overhead.py` holds the library against; same networks, batch sizes, optimiser and XLA
settings (`compiler_options`).
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import optax

NEWER_RUNTIME = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
BATCH, CAPACITY, MIN_SIZE, DISCOUNT, EPSILON = 128, 50_000, 1_000, 0.99, 0.1


def compiler_options() -> dict[str, bool]:
    """Returns the options that the library compiles with, on one device."""
    if jax.__version_info__ < (0, 7):
        return NEWER_RUNTIME | {"xla_cpu_use_thunk_runtime": False}
    return NEWER_RUNTIME


def make_functions(num_updates: int, target_period: int, options: dict[str, bool] | None = None):
    """Returns the jitted init, policy and update (of `num_updates` SGD steps in one call)."""
    options = compiler_options() if options is None else options

    def values(observation):
        return hk.nets.MLP([64, 64, 2], activation=jnp.tanh)(observation)

    network: hk.Transformed = hk.without_apply_rng(hk.transform(values))
    optimizer = optax.chain(optax.clip_by_global_norm(10.0), optax.adam(5e-4))

    def init(key):
        params = network.init(key, jnp.zeros((1, 4)))
        return params, params, optimizer.init(params), jnp.int32(0)

    def policy(params, observation, key):
        key, use = jax.random.split(key)
        uniform = jax.random.uniform(use, (2, 1))
        greedy = jnp.argmax(network.apply(params, observation), axis=-1).astype(jnp.int32)
        explored = jnp.floor(uniform[1] * 2).astype(jnp.int32)
        return jnp.where(uniform[0] < EPSILON, explored, greedy), key

    def loss_fn(params, target_params, batch):
        o_tm1, a_tm1, r_t, d_t, o_t = batch
        q_tm1 = jnp.take_along_axis(network.apply(params, o_tm1), a_tm1[:, None], axis=-1)[:, 0]
        target = r_t + DISCOUNT * d_t * jnp.max(network.apply(target_params, o_t), axis=-1)
        td = jax.lax.stop_gradient(target) - q_tm1
        return jnp.mean(optax.losses.huber_loss(td))

    def update(state, batch):
        params, target_params, opt_state, steps = state
        loss, gradients = jax.value_and_grad(loss_fn)(params, target_params, batch)
        updates, opt_state = optimizer.update(gradients, opt_state, params)
        params = optax.apply_updates(params, updates)
        steps += 1
        return (params, optax.periodic_update(params, target_params, steps, target_period), opt_state, steps), loss

    def updates(state, batches):
        return jax.lax.scan(update, state, batches)

    def compiled(function):
        return jax.jit(function, compiler_options=options)

    return compiled(init), compiled(policy), compiled(update if num_updates == 1 else updates)


def run(
    num_steps: int,
    *,
    num_updates: int,
    steps_per_update: int,
    measure_from: int,
    seed: int = 0,
    options: dict[str, bool] | None = None,
) -> dict[str, Any]:
    """Runs the loop and returns environment steps per second from step `measure_from` on."""
    environment = gymnasium.make("CartPole-v1")
    rng = np.random.default_rng(seed)
    init, policy, update = make_functions(num_updates, 500 // steps_per_update, options)
    state = init(jax.random.key(seed))
    key = jax.random.PRNGKey(seed + 1)  # raw words: key arrays cost a check in Python at every call
    o_tm1s, o_ts = np.empty((CAPACITY, 4), np.float32), np.empty((CAPACITY, 4), np.float32)
    actions = np.empty(CAPACITY, np.int32)
    rewards, discounts = np.empty(CAPACITY, np.float32), np.empty(CAPACITY, np.float32)
    shape = (BATCH,) if num_updates == 1 else (num_updates, BATCH)
    period = steps_per_update * num_updates
    observation, _ = environment.reset(seed=seed)
    start, returns, episode_return = 0.0, [], 0.0
    for step in range(num_steps):
        if step == measure_from:
            start = time.perf_counter()
        action, key = policy(state[0], observation[None], key)
        action = int(np.asarray(action)[0])
        next_observation, reward, terminated, truncated, _ = environment.step(action)
        index = step % CAPACITY
        o_tm1s[index], actions[index], rewards[index] = observation, action, reward
        discounts[index], o_ts[index] = 1.0 - terminated, next_observation
        episode_return += float(reward)
        observation = next_observation
        if terminated or truncated:
            returns.append(episode_return)
            episode_return = 0.0
            observation, _ = environment.reset()
        if step >= MIN_SIZE and step % period == 0:
            rows = rng.integers(min(step + 1, CAPACITY), size=shape)
            state, _ = update(state, (o_tm1s[rows], actions[rows], rewards[rows], discounts[rows], o_ts[rows]))
    jax.block_until_ready(state)
    rate = (num_steps - measure_from) / (time.perf_counter() - start)
    return {"steps_per_second": rate, "returns": returns}
