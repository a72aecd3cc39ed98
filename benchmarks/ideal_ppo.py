"""The ideal loop of PPO on CartPole-v1: environments, jitted policy, NumPy rollout, jitted update, and no library.

It is the floor that `ppo_overhead.py` holds the library against; same networks, batch sizes, optimiser and XLA
settings.
"""

from __future__ import annotations

import time
from typing import Any

import gymnasium
import haiku as hk
import ideal_loop
import jax
import jax.numpy as jnp
import numpy as np
import optax

NUM_ENVS, NUM_STEPS, NUM_EPOCHS, MINIBATCH = 8, 128, 10, 256
DISCOUNT, LAMBDA, CLIP, LEARNING_RATE, MAX_NORM = 0.99, 0.95, 0.2, 1e-3, 0.5


def make_functions():
    """Returns the jitted init, policy and update (of all epochs over one rollout)."""

    def policy_and_value(observation):
        policy_features = hk.nets.MLP([64, 64], activation=jnp.tanh, activate_final=True)(observation)
        value_features = hk.nets.MLP([64, 64], activation=jnp.tanh, activate_final=True)(observation)
        logits = hk.Linear(2, w_init=hk.initializers.VarianceScaling(1e-4))(policy_features)
        return logits, hk.Linear(1)(value_features)[..., 0]

    network: hk.Transformed = hk.without_apply_rng(hk.transform(policy_and_value))
    optimizer = optax.chain(optax.clip_by_global_norm(MAX_NORM), optax.adam(LEARNING_RATE, eps=1e-5))

    def init(key):
        params = network.init(key, jnp.zeros((1, 4)))
        return params, optimizer.init(params)

    def policy(params, observation, key):
        key, use = jax.random.split(key)
        logits, _ = network.apply(params, observation)
        action = jax.random.categorical(use, logits).astype(jnp.int32)
        log_probs = jax.nn.log_softmax(logits)
        return action, jnp.take_along_axis(log_probs, action[:, None], axis=-1)[:, 0], key

    def loss_fn(params, rows):
        observation, action, old_log_prob, advantage, target = rows
        logits, value = network.apply(params, observation)
        log_probs = jax.nn.log_softmax(logits)
        log_prob = jnp.take_along_axis(log_probs, action[:, None], axis=-1)[:, 0]
        ratio = jnp.exp(log_prob - old_log_prob)
        advantage = (advantage - jnp.mean(advantage)) / (jnp.std(advantage) + 1e-8)
        surrogate = jnp.minimum(ratio * advantage, jnp.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
        return -jnp.mean(surrogate) + 0.5 * jnp.mean(jnp.square(value - target))

    def update(state, rollout, key):
        params, opt_state = state
        observation, action, log_prob, reward, discount = rollout  # observation [T + 1, N, 4]
        _, values = network.apply(params, observation)
        td = reward + DISCOUNT * discount * values[1:] - values[:-1]

        def accumulate(following, step):
            td_t, discount_t = step
            following = td_t + DISCOUNT * LAMBDA * discount_t * following
            return following, following

        _, advantage = jax.lax.scan(accumulate, jnp.zeros(NUM_ENVS), (td, discount), reverse=True)
        rows = (observation[:-1], action, log_prob, advantage, advantage + values[:-1])
        rows = jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), rows)

        def minibatch_step(carry, indices):
            params, opt_state = carry
            minibatch = jax.tree.map(lambda leaf: leaf[indices], rows)
            loss, gradients = jax.value_and_grad(loss_fn)(params, minibatch)
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), loss

        key, key_shuffle = jax.random.split(key)
        keys = jax.random.split(key_shuffle, NUM_EPOCHS)
        order = jax.lax.map(lambda one: jax.random.permutation(one, NUM_ENVS * NUM_STEPS), keys)
        state, losses = jax.lax.scan(minibatch_step, (params, opt_state), order.reshape(-1, MINIBATCH))
        return state, key, jnp.mean(losses)

    def compiled(function):
        return jax.jit(function, compiler_options=ideal_loop.compiler_options())

    return compiled(init), compiled(policy), compiled(update)


def run(num_steps: int, *, measure_from: int, seed: int = 0) -> dict[str, Any]:
    """Runs the loop and returns environment steps per second from step `measure_from` on.

    An environment is reset at once when its episode ends. At a time limit the last observation is lost and the value of
    the next episode's first one stands in for it, as in many a short script; it costs the same.
    """
    environments = [gymnasium.make("CartPole-v1") for _ in range(NUM_ENVS)]
    init, policy, update = make_functions()
    state = init(jax.random.key(seed))
    key, key_update = jax.random.split(jax.random.PRNGKey(seed + 1))  # raw words: key arrays cost Python at every call
    shape = (NUM_STEPS, NUM_ENVS)
    observations = np.empty((NUM_STEPS + 1, NUM_ENVS, 4), np.float32)
    actions, log_probs = np.empty(shape, np.int32), np.empty(shape, np.float32)
    rewards, discounts = np.empty(shape, np.float32), np.empty(shape, np.float32)
    observation = np.stack([one.reset(seed=seed + index)[0] for index, one in enumerate(environments)])
    start, started, step = 0.0, 0, 0
    returns: list[float] = []
    episode_returns = np.zeros(NUM_ENVS)
    while step < num_steps:
        if not start and step >= measure_from:
            start, started = time.perf_counter(), step
        for t in range(NUM_STEPS):
            action, log_prob, key = policy(state[0], observation, key)
            observations[t], actions[t], log_probs[t] = observation, action, log_prob
            observation = np.empty((NUM_ENVS, 4), np.float32)
            for index, (one, choice) in enumerate(zip(environments, actions[t].tolist(), strict=True)):
                row, rewards[t, index], terminated, truncated, _ = one.step(choice)
                discounts[t, index] = 1.0 - terminated
                episode_returns[index] += 1.0
                if terminated or truncated:
                    returns.append(episode_returns[index])
                    episode_returns[index] = 0.0
                    row, _ = one.reset()
                observation[index] = row
        observations[NUM_STEPS] = observation
        step += NUM_STEPS * NUM_ENVS
        state, key_update, _ = update(state, (observations, actions, log_probs, rewards, discounts), key_update)
    jax.block_until_ready(state)
    rate = (step - started) / (time.perf_counter() - start)
    return {"steps_per_second": rate, "returns": returns}
