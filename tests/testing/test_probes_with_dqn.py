"""DQN learns what the probes state but for the one that needs a memory, and a broken one does not."""

import numpy as np
import pytest

from acme_lite import experiments, learning, loggers, specs, testing
from acme_lite.agents import dqn

CONFIG = dqn.DQNConfig(
    discount=0.6,
    n_step=1,
    hidden_sizes=(16,),
    learning_rate=learning.LinearSchedule(1e-2, 1e-3, 500),
    batch_size=32,
    target_update_period=20,
    samples_per_insert=32.0,
    min_replay_size=64,
    max_replay_size=1_000,
    epsilon=0.3,
    num_steps_per_call=4,
    overlap=False,
)


def learn(builder, make_probe, directory):
    """Returns what was learned: `(observation [B, 1]) -> [B]` values of the best actions, and the policy."""
    result = experiments.run_experiment(
        experiments.ExperimentConfig(
            builder,
            make_probe,
            max_num_actor_steps=600,
            evaluation=None,
            directory=directory,
            logger_factory=lambda label: loggers.InMemoryLogger(),
        ),
        quiet=True,
    )
    network = builder.make_networks(specs.make_environment_spec(make_probe()))
    params = result.variables["policy"]["params"]
    return lambda observation: np.max(network.apply(params, observation), axis=-1), experiments.load_policy(directory)


@pytest.mark.parametrize("make_probe", testing.PROBES[:-1], ids=lambda probe: probe.__name__)
def test_dqn_learns_the_values_and_actions(make_probe, tmp_path):
    value_fn, policy = learn(dqn.DQNBuilder(CONFIG), make_probe, tmp_path / "run")
    testing.check_values(value_fn, make_probe(), discount=CONFIG.discount, tolerance=0.1)
    testing.check_actions(policy, make_probe())


def test_without_a_memory_the_values_behind_the_cue_are_not_found(tmp_path):
    value_fn, policy = learn(dqn.DQNBuilder(CONFIG), testing.memory_probe, tmp_path / "run")
    with pytest.raises(AssertionError, match=r"memory_probe: the value of observation -1 is .* where 0\.600 is right"):
        testing.check_values(value_fn, testing.memory_probe(), discount=CONFIG.discount)
    with pytest.raises(AssertionError, match=r"memory_probe: the action at observation 0 after -?1 is"):
        testing.check_actions(policy, testing.memory_probe())


def without_bootstrap(params, target_params, batch, apply, *, config):
    return dqn.q_learning_loss(params, target_params, batch._replace(discount=0 * batch.discount), apply, config=config)


def test_a_loss_that_never_bootstraps_is_found(tmp_path):
    value_fn, _ = learn(dqn.DQNBuilder(CONFIG, loss_fn=without_bootstrap), testing.discount_probe, tmp_path / "run")
    with pytest.raises(AssertionError, match=r"discount_probe: the value of observation 0 is -?0\.0\d\d where 0\.600"):
        testing.check_values(value_fn, testing.discount_probe(), discount=CONFIG.discount)
