"""The table of agents, and the checks of `acme_lite.testing` on each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import dm_env
import pytest

from acme_lite import core, environments, learning, testing
from acme_lite.agents import builders, d4pg, dqn, impala, mpo, ppo, r2d2, sac, td3
from tests.agents import mixed_environment


def cart_pole(seed: int) -> dm_env.Environment:
    return environments.make("gym:CartPole-v1", seed=seed)


def pendulum(seed: int) -> dm_env.Environment:
    return environments.make("gym:Pendulum-v1", seed=seed)


# Small: what matters is that learning begins within the few hundred steps of a check. All that a row varies is set
# here, whatever the defaults are.
_DQN = dqn.DQNConfig(
    n_step=1,
    hidden_sizes=(16,),
    learning_rate=5e-4,
    batch_size=16,
    samples_per_insert=8.0,
    min_replay_size=32,
    max_replay_size=500,
    epsilon=0.1,
    num_steps_per_call=1,
    overlap=False,
)
_R2D2 = r2d2.R2D2Config(
    n_step=2,
    burn_in_length=1,
    trace_length=3,
    period=2,
    hidden_sizes=(16,),
    core="lstm",
    core_size=8,
    batch_size=16,
    samples_per_insert=8.0,
    min_replay_size=32,
    max_replay_size=500,
    priority_exponent=0.9,
    num_steps_per_call=1,
    overlap=False,
)
_D4PG = d4pg.D4PGConfig(
    n_step=3,
    policy_hidden_sizes=(16,),
    critic_hidden_sizes=(16,),
    num_atoms=11,
    max_gradient_norm=40.0,
    batch_size=16,
    samples_per_insert=8.0,
    min_replay_size=32,
    max_replay_size=500,
    overlap=False,
)
_DMPO = mpo.MPOConfig(
    critic="distributional",
    per_dimension=True,
    action_penalty=True,
    max_gradient_norm=40.0,
    n_step=3,
    num_samples=4,
    policy_hidden_sizes=(16,),
    critic_hidden_sizes=(16,),
    num_atoms=11,
    batch_size=16,
    samples_per_insert=8.0,
    min_replay_size=32,
    max_replay_size=500,
)
_PPO = ppo.PPOConfig(hidden_sizes=(16,), unroll_length=8, batch_size=2, num_epochs=2, minibatch_size=8)
_IMPALA = impala.IMPALAConfig(
    sequence_length=4,
    batch_size=4,
    queue_size=8,
    core="none",
    hidden_sizes=(16,),
    learning_rate=2e-3,
    overlap=False,
)
# What SAC and TD3 have in common.
_CONTINUOUS = dict(
    hidden_sizes=(16,), batch_size=16, samples_per_insert=8.0, min_replay_size=32, max_replay_size=500, overlap=False
)


def _dqn(**settings) -> core.Builder:
    return dqn.DQNBuilder(dataclasses.replace(_DQN, **settings))


def _r2d2(**settings) -> core.Builder:
    return r2d2.R2D2Builder(dataclasses.replace(_R2D2, **settings))


def _impala(**settings) -> core.Builder:
    return impala.IMPALABuilder(dataclasses.replace(_IMPALA, **settings))


def _d4pg(**settings) -> core.Builder:
    return d4pg.D4PGBuilder(dataclasses.replace(_D4PG, **settings))


def _ppo(**settings) -> core.Builder:
    return ppo.PPOBuilder(dataclasses.replace(_PPO, **settings))


SEVERAL = (testing.check_run_with_several_environments,)

# name -> builder and environment: a new agent is one more row.
AGENTS: dict[str, tuple[core.Builder, Callable[[int], dm_env.Environment]]] = {
    "d4pg_overlap": (_d4pg(overlap=True), pendulum),
    "d4pg_ddpg": (_d4pg(critic="scalar", num_atoms=101, num_steps_per_call=2), pendulum),
    "dqn": (_dqn(), cart_pole),
    "dqn_prioritised_n_step": (_dqn(priority_exponent=0.6, n_step=3), testing.MemoryEnvironment),
    "dqn_duelling_schedule": (
        _dqn(duelling=True, epsilon=learning.LinearSchedule(1.0, 0.1, 50)),
        testing.MemoryEnvironment,
    ),
    "dqn_two_steps_per_call": (_dqn(num_steps_per_call=2), cart_pole),
    "dqn_overlap": (
        _dqn(overlap=True, priority_exponent=0.6, num_steps_per_call=2),
        testing.MemoryEnvironment,
    ),
    "dqn_rainbow_duelling": (
        _dqn(**dqn.VARIANTS["rainbow"], duelling=True, num_atoms=11),
        testing.MemoryEnvironment,
    ),
    "dqn_quantile": (_dqn(distribution="quantile", num_atoms=11), cart_pole),
    "dqn_munchausen": (_dqn(munchausen=True, double_q=False), testing.MemoryEnvironment),
    "r2d2": (_r2d2(), testing.MemoryEnvironment),
    "r2d2_no_core_uniform_overlap": (
        _r2d2(core="none", core_size=64, burn_in_length=0, priority_exponent=0.0, num_steps_per_call=2, overlap=True),
        cart_pole,
    ),
    "impala": (_impala(), cart_pole),
    "impala_gru_rmsprop": (_impala(core="gru", core_size=8, optimizer="rmsprop"), testing.MemoryEnvironment),
    "impala_lstm_overlap": (_impala(core="lstm", core_size=8, overlap=True), testing.MemoryEnvironment),
    "mpo_dmpo_overlap": (mpo.MPOBuilder(_DMPO), pendulum),
    "mpo_two_steps_per_call": (
        mpo.MPOBuilder(dataclasses.replace(_DMPO, critic="scalar", num_atoms=51, num_steps_per_call=2, overlap=False)),
        pendulum,
    ),
    "ppo": (_ppo(), cart_pole),
    "ppo_continuous": (_ppo(normalize_observations=True, value_clip=0.2), pendulum),
    "ppo_mixed": (
        _ppo(normalize_observations=True, clip_epsilon=learning.LinearSchedule(0.2, 0.1, 50)),
        mixed_environment.MixedEnvironment,
    ),
    "r2d2_normalized": (builders.NormalizedBuilder(_r2d2()), testing.MemoryEnvironment),
    "sac": (sac.SACBuilder(sac.SACConfig(**_CONTINUOUS)), pendulum),
    "sac_normalized_two_steps_per_call": (
        builders.NormalizedBuilder(sac.SACBuilder(sac.SACConfig(num_steps_per_call=2, **_CONTINUOUS))),
        pendulum,
    ),
    "td3": (td3.TD3Builder(td3.TD3Config(**_CONTINUOUS)), pendulum),
}


# Settings whose agents have another row: compiling them takes minutes in all.
SLOW = {
    "dqn_two_steps_per_call",
    "dqn_duelling_schedule",
    "dqn_prioritised_n_step",
    "dqn_quantile",
    "dqn_munchausen",
    "r2d2_no_core_uniform_overlap",
    "impala",
    "impala_gru_rmsprop",
    "ppo_continuous",
    "d4pg_ddpg",
    "mpo_two_steps_per_call",
    "sac_normalized_two_steps_per_call",
}


@pytest.fixture(
    scope="module",
    params=[pytest.param(row, id=name, marks=[pytest.mark.slow] * (name in SLOW)) for name, row in AGENTS.items()],
)
def agent(request):
    return testing.make_agent(*request.param)


@pytest.mark.parametrize("check", [check for check in testing.CHECKS if check not in SEVERAL])
def test_contract(check, agent):
    check(agent)


# What several members change is the library's part: one agent without a state and one with a state show it, one with
# continuous actions, and one whose batch of two windows is no multiple of three members.
@pytest.mark.parametrize("check", SEVERAL)
@pytest.mark.parametrize("name", ["dqn_prioritised_n_step", "impala_lstm_overlap", "ppo", "r2d2", "sac"])
def test_contract_with_several_environments(check, name):
    check(testing.make_agent(*AGENTS[name]))
