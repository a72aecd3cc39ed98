"""The ideal loop: environment, jitted policy, NumPy ring buffer, jitted update, and no library between them.

It is the floor that `loop_overhead.py` holds the library against. What one algorithm has of its own is a `Task`; the
tasks of `ideal_dqn.py`, `ideal_sac.py` and `ideal_d4pg.py` have the networks, batch sizes, optimisers, losses and XLA
settings (`compiler_options`) of the library's agents, but the activations of JAX.
"""

from __future__ import annotations

import collections
import functools
import time
import timeit
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

Options = dict[str, bool | str]
NEWER_RUNTIME: Options = {"xla_cpu_enable_concurrency_optimized_scheduler": False}
MIN_SIZE, DISCOUNT = 1_000, 0.99
"""Environment steps before the first SGD step, and the discount factor."""


class Task(NamedTuple):
    """An algorithm as pure functions, and what it is run on.

    Attributes:
        make_environment: `(seed) -> (reset, step)`, where `reset() -> observation [D]` (float32) and
            `step(action) -> (observation, reward, terminated, truncated, info)`.
        init: `(key) -> state`; its first element is the policy's parameters.
        policy: `(params, observation [1, D], key) -> (action [1, ...], key)`.
        update: `(state, batch) -> (state, loss)`, one SGD step; the batch has o_tm1, a_tm1, r_t, discount_t and o_t,
            each `[B, ...]`.
        observation_size: D.
        action: an action, for its shape and dtype.
        batch: B.
        capacity: most transitions kept.
        steps_per_update: environment steps per SGD step.
        n_step: steps that a transition spans; fewer where an episode begins or ends.
    """

    make_environment: Callable[[int], tuple[Callable[[], np.ndarray], Callable[[Any], tuple]]]
    init: Callable[[jax.Array], Any]
    policy: Callable[[Any, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]
    update: Callable[[Any, Any], tuple[Any, jax.Array]]
    observation_size: int
    action: np.ndarray
    batch: int
    capacity: int
    steps_per_update: int
    n_step: int = 1


def compiler_options(state: Any = ()) -> Options:
    """Returns the options that the library compiles with, on one device: an update by the numbers in its state."""
    if jax.__version_info__ < (0, 7) and sum(leaf.size for leaf in jax.tree.leaves(state)) <= 500_000:
        disabled = "onednn-contraction-rewriter"
        return NEWER_RUNTIME | {"xla_cpu_use_thunk_runtime": False, "xla_disable_hlo_passes": disabled}
    return NEWER_RUNTIME


def compiled(function: Callable[..., Any], options: Options | None = None) -> Callable[..., Any]:
    """Returns the function, compiled with the options (those of the library unless given)."""
    return jax.jit(function, compiler_options=compiler_options() if options is None else options)


def compiled_update(
    update: Callable[[Any, Any], tuple[Any, Any]], state: Any, num_updates: int, options: Options | None = None
) -> Callable[[Any, Any], tuple[Any, Any]]:
    """Returns `num_updates` SGD steps in one compiled call; if there are several, batches have them as first axis."""
    step = update if num_updates == 1 else functools.partial(jax.lax.scan, update)
    return compiled(step, compiler_options(state) if options is None else options)


def apply_gradients(
    optimizer: optax.GradientTransformation, gradients: Any, params: Any, opt_state: Any
) -> tuple[Any, Any]:
    """Returns the new parameters and the new state of the optimiser."""
    updates, opt_state = optimizer.update(gradients, opt_state, params)
    return optax.apply_updates(params, updates), opt_state


def batch_shape(task: Task, num_updates: int) -> tuple[int, ...]:
    """Returns `[B]`, or `[K, B]` where K = `num_updates` is more than 1."""
    return (task.batch,) if num_updates == 1 else (num_updates, task.batch)


def make_columns(task: Task, shape: Sequence[int]) -> tuple[np.ndarray, ...]:
    """Returns o_tm1, a_tm1, r_t, discount_t and o_t of so many transitions, all zero."""
    observation_shape = (*shape, task.observation_size)
    return (
        np.zeros(observation_shape, np.float32),
        np.zeros((*shape, *task.action.shape), task.action.dtype),
        np.zeros(shape, np.float32),
        np.zeros(shape, np.float32),
        np.zeros(observation_shape, np.float32),
    )


def n_step_transitions(history: collections.deque, newest: tuple, ended: bool) -> Iterator[tuple]:
    """Yields the transition over the last n steps, and where an episode ends those over its last n - 1, ..., 1 steps.

    With k the number of steps that a transition (o, a, R, D, o') spans:

        R = sum_{i<k} DISCOUNT^i (prod_{j<i} d_j) r_i
        D = DISCOUNT^{k-1} prod_{i<k} d_i, so the update applies the last discount factor

    Args:
        history: the episode's last n - 1 or fewer transitions (o, a, r, d, o') of one step; the newest is added.
        newest: a transition of one step.
        ended: whether the episode ends with it; the history is empty then.
    """
    history.append(newest)
    while history:
        total, alive = 0.0, 1.0
        for index, (_, _, reward, discount, _) in enumerate(history):
            total += DISCOUNT**index * alive * reward
            alive *= discount
        yield *history[0][:2], total, DISCOUNT ** (len(history) - 1) * alive, newest[-1]
        if not ended:
            break
        history.popleft()


def run(
    task: Task,
    num_steps: int,
    *,
    num_updates: int,
    measure_from: int,
    seed: int = 0,
    options: Options | None = None,
) -> dict[str, Any]:
    """Runs the loop and returns environment steps per second from step `measure_from` on, and the episodes' returns."""
    reset, make_step = task.make_environment(seed)
    rng = np.random.default_rng(seed)
    policy, state = compiled(task.policy, options), compiled(task.init, options)(jax.random.key(seed))
    update = compiled_update(task.update, state, num_updates, options)
    key = jax.random.PRNGKey(seed + 1)  # raw words: key arrays cost a check in Python at every call
    capacity, single_steps = task.capacity, task.n_step == 1
    columns = make_columns(task, (capacity,))
    o_tm1s, actions, rewards, discounts, o_ts = columns
    history: collections.deque[tuple] = collections.deque(maxlen=task.n_step)
    shape, period, num_rows = batch_shape(task, num_updates), task.steps_per_update * num_updates, 0
    observation = reset()
    start, returns, episode_return = 0.0, [], 0.0
    for step in range(num_steps):
        if step == measure_from:
            start = time.perf_counter()
        action, key = policy(state[0], observation[None], key)
        action = np.asarray(action)[0]
        next_observation, reward, terminated, truncated, _ = make_step(action)
        ended = terminated or truncated
        transition = (observation, action, reward, 1.0 - terminated, next_observation)
        # Nothing is called where a transition has one step: a script for such an algorithm would not, either.
        for row in [transition] if single_steps else n_step_transitions(history, transition, ended):
            index = num_rows % capacity
            o_tm1s[index], actions[index], rewards[index], discounts[index], o_ts[index] = row
            num_rows += 1
        episode_return += float(reward)
        observation = next_observation
        if ended:
            returns.append(episode_return)
            episode_return = 0.0
            observation = reset()
        if step >= MIN_SIZE and step % period == 0:
            rows = rng.integers(min(num_rows, capacity), size=shape)
            state, _ = update(state, tuple([column[rows] for column in columns]))
    jax.block_until_ready(state)
    rate = (num_steps - measure_from) / (time.perf_counter() - start)
    return {"steps_per_second": rate, "returns": returns}


def time_update(task: Task, num_updates: int, options: Options | None = None) -> float:
    """Returns the seconds of an SGD step alone, `num_updates` of them in one call."""
    rng = np.random.default_rng(0)
    zeros = make_columns(task, batch_shape(task, num_updates))
    batch = tuple([rng.random(column.shape).astype(column.dtype) for column in zeros])
    state = compiled(task.init, options)(jax.random.key(0))
    return seconds_per_call(compiled_update(task.update, state, num_updates, options), state, batch) / num_updates


def seconds_per_call(update: Callable[[Any, Any], tuple[Any, jax.Array]], state: Any, batch: Any) -> float:
    """Returns the seconds of a call in a tight loop, the best of seven; each is on the same state and batch."""

    def call():
        update(state, batch)[1].block_until_ready()

    call()  # compiles
    timer = timeit.Timer(call)
    num_calls, _ = timer.autorange()
    return min(timer.repeat(7, num_calls)) / num_calls
