"""The task of D4PG on the control suite's cartpole:swingup for the ideal loop, and no library.

Networks and settings are those of Hoffman et al., Acme (2020), as in the library: a policy of 256-256-256 and a critic
of 512-512-256 with 51 atoms, whose first layers are normalised, five-step transitions and a batch of 256.
"""

from __future__ import annotations

import os

import haiku as hk
import ideal_loop
import jax
import jax.numpy as jnp
import numpy as np
import optax

POLICY_SIZES, CRITIC_SIZES = (256, 256, 256), (512, 512, 256)
V_MAX, NUM_ATOMS = 150.0, 51
ATOMS = np.linspace(-V_MAX, V_MAX, NUM_ATOMS, dtype=np.float32)
NOISE_STD, LEARNING_RATE, TARGET_PERIOD = 0.3, 1e-4, 100
MAX_NORM, MAX_ACTION_NORM = 40.0, 1.0
OPTIMIZER = optax.chain(optax.clip_by_global_norm(MAX_NORM), optax.adam(LEARNING_RATE))


def make_environment(seed):
    os.environ.setdefault("MUJOCO_GL", "disabled")  # physics alone must not look for a display
    from dm_control import suite

    environment = suite.load("cartpole", "swingup", task_kwargs={"random": seed})

    def flat(timestep):
        return np.concatenate(list(timestep.observation.values()), dtype=np.float32)

    def step(action):
        timestep = environment.step(action)
        return flat(timestep), timestep.reward, timestep.discount == 0, timestep.last(), {}

    return lambda: flat(environment.reset()), step


def layer_norm_mlp(features, sizes):
    w_init = hk.initializers.VarianceScaling(0.333, "fan_out", "uniform")
    first = hk.LayerNorm(axis=-1, create_scale=True, create_offset=True)(hk.Linear(sizes[0], w_init=w_init)(features))
    rest = hk.nets.MLP(sizes[1:], w_init=w_init, activation=jax.nn.elu, activate_final=True)
    return rest(jnp.tanh(first))


def action(observation):
    features = layer_norm_mlp(observation, POLICY_SIZES)
    return jnp.tanh(hk.Linear(1, w_init=hk.initializers.VarianceScaling(1e-4), name="policy")(features))


def logits(observation, action):
    features = layer_norm_mlp(jnp.concatenate([observation, action], axis=-1), CRITIC_SIZES)
    return hk.Linear(NUM_ATOMS, name="value")(features)


actor: hk.Transformed = hk.without_apply_rng(hk.transform(action))
critic: hk.Transformed = hk.without_apply_rng(hk.transform(logits))


def init(key):
    key_policy, key_critic = jax.random.split(key)
    observation, action = jnp.zeros((1, 5)), jnp.zeros((1, 1))
    params = actor.init(key_policy, observation), critic.init(key_critic, observation, action)
    return *params, *params, OPTIMIZER.init(params[0]), OPTIMIZER.init(params[1]), jnp.int32(0)


def policy(params, observation, key):
    key, use = jax.random.split(key)
    action = actor.apply(params, observation)
    return jnp.clip(action + NOISE_STD * jax.random.normal(use, action.shape), -1, 1), key


def project(returns, probabilities):
    """Returns `[B, N]` probabilities of the atoms, of those of the returns `[B, N]`.

    Reference: Bellemare et al., A Distributional Perspective on Reinforcement Learning (2017), equation 7.
    """
    distances = jnp.abs(jnp.clip(returns, -V_MAX, V_MAX)[:, None, :] - ATOMS[:, None]) / (ATOMS[1] - ATOMS[0])
    return jnp.sum(jnp.clip(1 - distances, 0, 1) * probabilities[:, None, :], axis=-1)


def critic_loss(critic_params, observation, action, target):
    log_probs = jax.nn.log_softmax(critic.apply(critic_params, observation, action))
    return -jnp.mean(jnp.sum(target * log_probs, axis=-1))


def policy_loss(policy_params, critic_params, observation):
    """Returns a loss whose gradient is that of the mean value, with the limit on an action's gradient."""
    action = actor.apply(policy_params, observation)

    def total_value(action):
        return jnp.sum(jax.nn.softmax(critic.apply(critic_params, observation, action)) @ ATOMS)

    gradient = jax.grad(total_value)(jax.lax.stop_gradient(action))
    norm = jnp.linalg.norm(gradient, axis=-1, keepdims=True)
    return -jnp.mean(jnp.sum(gradient * jnp.minimum(1, MAX_ACTION_NORM / norm) * action, axis=-1))


def update(state, batch):
    policy_params, critic_params, target_policy_params, target_critic_params, policy_opt, critic_opt, steps = state
    o_tm1, a_tm1, r_t, discount_t, o_t = batch
    logits = critic.apply(target_critic_params, o_t, actor.apply(target_policy_params, o_t))
    returns = r_t[:, None] + ideal_loop.DISCOUNT * discount_t[:, None] * ATOMS
    target = project(returns, jax.nn.softmax(logits))
    loss, critic_gradients = jax.value_and_grad(critic_loss)(critic_params, o_tm1, a_tm1, target)
    policy_gradients = jax.grad(policy_loss)(policy_params, critic_params, o_tm1)
    critic_params, critic_opt = ideal_loop.apply_gradients(OPTIMIZER, critic_gradients, critic_params, critic_opt)
    policy_params, policy_opt = ideal_loop.apply_gradients(OPTIMIZER, policy_gradients, policy_params, policy_opt)
    steps += 1
    params, targets = (policy_params, critic_params), (target_policy_params, target_critic_params)
    targets = optax.periodic_update(params, targets, steps, TARGET_PERIOD)
    return (*params, *targets, policy_opt, critic_opt, steps), loss


TASK = ideal_loop.Task(
    make_environment,
    init,
    policy,
    update,
    observation_size=5,
    action=np.zeros(1, np.float32),
    batch=256,
    capacity=1_000_000,
    steps_per_update=8,
    n_step=5,
)
