"""The table of agents, and the checks of `acme_lite.testing` on each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import dm_env
import pytest

from acme_lite import core, environments, learning, testing
from acme_lite.agents import dqn
from tests.agents import memory_environment, probe_recurrent


def cart_pole(seed: int) -> dm_env.Environment:
    return environments.make("gym:CartPole-v1", seed=seed)


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
_PROBE = probe_recurrent.RecurrentProbeConfig(min_replay_size=32, samples_per_insert=8.0)


def _dqn(**settings) -> core.Builder:
    return dqn.DQNBuilder(dataclasses.replace(_DQN, **settings))


SEVERAL = (testing.check_run_with_several_environments,)

# name -> builder and environment: a new agent is one more row.
AGENTS: dict[str, tuple[core.Builder, Callable[[int], dm_env.Environment]]] = {
    "dqn": (_dqn(), cart_pole),
    "dqn_prioritised_n_step": (_dqn(priority_exponent=0.6, n_step=3), memory_environment.MemoryEnvironment),
    "dqn_duelling_schedule": (
        _dqn(duelling=True, epsilon=learning.LinearSchedule(1.0, 0.1, 50)),
        memory_environment.MemoryEnvironment,
    ),
    "dqn_two_steps_per_call": (_dqn(num_steps_per_call=2), cart_pole),
    "dqn_overlap": (
        _dqn(overlap=True, priority_exponent=0.6, num_steps_per_call=2),
        memory_environment.MemoryEnvironment,
    ),
    "recurrent_probe": (
        probe_recurrent.RecurrentProbeBuilder(_PROBE),
        memory_environment.MemoryEnvironment,
    ),
}


@pytest.fixture(scope="module", params=AGENTS.values(), ids=AGENTS.keys())
def agent(request):
    return testing.make_agent(*request.param)


@pytest.mark.parametrize("check", [check for check in testing.CHECKS if check not in SEVERAL])
def test_contract(check, agent):
    check(agent)


# What several members change is the library's part: one agent without a state and one with a state show it.
@pytest.mark.parametrize("check", SEVERAL)
@pytest.mark.parametrize("name", ["dqn_prioritised_n_step", "recurrent_probe"])
def test_contract_with_several_environments(check, name):
    check(testing.make_agent(*AGENTS[name]))
