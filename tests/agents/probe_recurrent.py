"""A small recurrent agent, for tests: Q-learning with a GRU from stored states (after Kapturowski et al., 2019).

It uses whatever a recurrent agent needs of the library: windows with masks and padding, extras, prioritised sequences,
and a policy that carries a state.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import haiku as hk
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from acme_lite import acting, adders, core, counting, learning, loggers, networks, replay, specs, types


class RecurrentNetwork(NamedTuple):
    """A recurrent network of action values, as pure functions.

    Attributes:
        init: `(key) -> params`; the key is consumed.
        apply: `(params, observation [B, ...], state [B, D]) -> (action values [B, A], state [B, D])`.
        initial_state: `() -> state [D]` at an episode's start.
    """

    init: Callable[[jax.Array], types.Params]
    apply: Callable[[types.Params, types.ArrayTree, jax.Array], tuple[jax.Array, jax.Array]]
    initial_state: Callable[[], jax.Array]


class TrainingState(NamedTuple):
    """All that learning carries along; `steps` counts learner steps, int32 scalar."""

    params: types.Params
    target_params: types.Params
    opt_state: optax.OptState
    steps: jax.Array


@dataclasses.dataclass(frozen=True)
class RecurrentProbeConfig:
    """Settings of the probe; without `recurrent`, the state is zeroed before every use."""

    recurrent: bool = True
    hidden_size: int = 16
    discount: float = 0.9
    epsilon: float = 0.2
    learning_rate: float = 5e-3
    target_update_period: int = 20
    length: int = 5
    period: int = 2
    batch_size: int = 32
    samples_per_insert: float = 16.0
    min_replay_size: int = 64
    max_replay_size: int = 2_000
    priority_exponent: float = 0.6


def make_network(spec: specs.EnvironmentSpec, config: RecurrentProbeConfig) -> RecurrentNetwork:
    """Returns a GRU with a linear head."""

    def forward(observation: types.ArrayTree, state: jax.Array) -> tuple[jax.Array, jax.Array]:
        state = state if config.recurrent else jnp.zeros_like(state)
        features, state = hk.GRU(config.hidden_size)(networks.concatenate(observation), state)
        return networks.action_values(features, spec.action.num_values), state

    transformed = hk.without_apply_rng(hk.transform(forward))

    def initial_state() -> jax.Array:
        return jnp.zeros(config.hidden_size)

    def init(key: jax.Array) -> types.Params:
        return transformed.init(key, specs.zeros(spec.observation, (1,)), initial_state()[None])

    return RecurrentNetwork(init, transformed.apply, initial_state)


def unroll(
    network: RecurrentNetwork, params: types.Params, observation: types.ArrayTree, state: Float[Array, "B D"]
) -> tuple[Float[Array, "B T A"], Float[Array, "B T D"]]:
    """Returns the action values of a window, and the state before each of its steps.

    Args:
        network: the network.
        params: its parameters.
        observation: `[B, T, ...]` tree.
        state: `[B, D]`, the state before the first step.
    """

    def step(state: jax.Array, observation: types.ArrayTree) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        values, next_state = network.apply(params, observation, state)
        return next_state, (values, state)

    time_major = jax.tree.map(lambda leaf: jnp.swapaxes(leaf, 0, 1), observation)
    _, (values, states) = jax.lax.scan(step, state, time_major)
    return jnp.swapaxes(values, 0, 1), jnp.swapaxes(states, 0, 1)


def loss_fn(
    params: types.Params,
    target_params: types.Params,
    batch: types.Sequence,
    *,
    network: RecurrentNetwork,
    discount: float,
) -> tuple[jax.Array, Float[Array, " B"]]:
    """Returns the mean squared temporal difference over the real steps, and the mean of its size in each window `[B]`.

    td = r_t + discount * discount_t * max_a q_target(o_t, a) - q(o_tm1, a_tm1), zero where the mask is False, which
    leaves out an episode's last observation and all padding. The last row of a window has no next one and only
    bootstraps. No gradient flows to the target. Every window begins with a real step, so no sum is empty.
    """
    state = batch.extras["state"][:, 0]
    values, _ = unroll(network, params, batch.observation, state)
    target_values, _ = unroll(network, target_params, batch.observation, state)
    q_tm1 = jnp.take_along_axis(values[:, :-1], batch.action[:, :-1, None], axis=-1)[..., 0]
    v_t = jnp.max(target_values[:, 1:], axis=-1)
    target = batch.reward[:, :-1] + discount * batch.discount[:, :-1] * jax.lax.stop_gradient(v_t)
    mask = batch.mask[:, :-1]
    td = jnp.where(mask, target - q_tm1, 0.0)
    priorities = jnp.sum(jnp.abs(td), axis=1) / jnp.sum(mask, axis=1)
    return jnp.sum(jnp.square(td)) / jnp.sum(mask), priorities


def make_core(config: RecurrentProbeConfig, network: RecurrentNetwork) -> learning.LearnerCore:
    """Returns the probe's learning as pure functions."""
    optimizer = learning.make_optimizer(config.learning_rate, max_gradient_norm=10.0)

    def batch_loss(*args: Any) -> tuple[jax.Array, jax.Array]:
        return loss_fn(*args, network=network, discount=config.discount)

    def init(key: jax.Array) -> TrainingState:
        params = network.init(key)
        return TrainingState(params, params, optimizer.init(params), jnp.int32(0))

    def update(state: TrainingState, sample: replay.Sample) -> tuple[TrainingState, learning.LearnerOutput]:
        params, opt_state, priorities, metrics = learning.gradient_step(
            batch_loss, optimizer, state.params, state.opt_state, state.target_params, sample.data
        )
        steps = state.steps + 1
        target_params = optax.periodic_update(params, state.target_params, steps, config.target_update_period)
        return TrainingState(params, target_params, opt_state, steps), learning.LearnerOutput(metrics, priorities)

    return learning.LearnerCore(init, update, lambda state: {"policy": state.params})


@dataclasses.dataclass(frozen=True)
class RecurrentProbeBuilder:
    """Makes the parts of the probe."""

    config: RecurrentProbeConfig = dataclasses.field(default_factory=RecurrentProbeConfig)

    def make_networks(self, spec: specs.EnvironmentSpec) -> RecurrentNetwork:
        return make_network(spec, self.config)

    def init_variables(
        self, networks: RecurrentNetwork, spec: specs.EnvironmentSpec, key: jax.Array
    ) -> Mapping[str, types.ArrayTree]:
        return {"policy": networks.init(key)}

    def make_policy(
        self,
        networks: RecurrentNetwork,
        spec: specs.EnvironmentSpec,
        *,
        evaluation: bool = False,
        actor: core.ActorId = core.ActorId(),
    ) -> acting.ActorCore:
        num_actions, dtype = spec.action.num_values, spec.action.dtype

        def select_action(params, observation, state, key):
            values, next_state = networks.apply(params, observation, state)
            action = jnp.argmax(values, axis=-1).astype(dtype)
            if not evaluation:
                uniform = jax.random.uniform(key, (2, *action.shape))
                explored = jnp.floor(uniform[1] * num_actions).astype(dtype)
                action = jnp.where(uniform[0] < self.config.epsilon, explored, action)
            return action, {"state": state}, next_state

        return acting.ActorCore(networks.initial_state, select_action)

    def make_tables(self, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree) -> Sequence[replay.Table]:
        config = self.config
        limiter = replay.rate_limiters.from_samples_per_insert(
            config.samples_per_insert, min_size=config.min_replay_size, items_per_call=config.batch_size
        )
        signature = adders.sequence_signature(spec, extras_spec)
        items = replay.Sequences(config.length, config.period)
        sampler = replay.Prioritized(config.priority_exponent)
        return [replay.Table("replay", config.max_replay_size, signature, items, sampler, limiter)]

    def make_adder(
        self, writer: replay.Writer, spec: specs.EnvironmentSpec, extras_spec: types.SpecTree
    ) -> adders.Adder:
        return adders.SequenceAdder(
            writer,
            length=self.config.length,
            period=self.config.period,
            end_of_episode=adders.EndOfEpisode.ZERO_PAD,
        )

    def make_dataset(self, replay: replay.Replay, *, seed: int) -> replay.Dataset:
        return replay.dataset("replay", self.config.batch_size, seed=seed)

    def make_learner(
        self,
        networks: RecurrentNetwork,
        spec: specs.EnvironmentSpec,
        dataset: replay.Dataset,
        *,
        key: jax.Array,
        counter: counting.Counter,
        logger: loggers.Logger,
    ) -> core.Learner:
        return learning.SGDLearner(make_core(self.config, networks), dataset, key=key, counter=counter, logger=logger)

    def make_actor(
        self,
        policy: acting.ActorCore,
        variables: core.VariableSource,
        adder: adders.Adder | None,
        *,
        key: jax.Array,
        num_envs: int,
    ) -> core.Actor:
        return acting.PolicyActor(policy, variables, adder, key=key, num_envs=num_envs)
