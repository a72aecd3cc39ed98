"""R2D2 learns what the probe states that needs a memory, and one whose values it reaches by bootstrapping."""

import jax
import numpy as np
import pytest

from acme_lite import experiments, loggers, specs, testing
from acme_lite.agents import r2d2

CONFIG = r2d2.R2D2Config(
    discount=0.6,
    n_step=1,
    rescaling_epsilon=None,
    burn_in_length=0,
    trace_length=2,
    period=2,
    hidden_sizes=(16,),
    core_size=16,
    learning_rate=1e-2,
    batch_size=32,
    target_update_period=20,
    samples_per_insert=32.0,
    min_replay_size=64,
    max_replay_size=1_000,
    num_steps_per_call=4,
    overlap=False,
)


@pytest.mark.parametrize("make_probe", [testing.discount_probe, testing.memory_probe], ids=lambda probe: probe.__name__)
def test_r2d2_learns_the_values_and_actions(make_probe, tmp_path):
    builder = r2d2.R2D2Builder(CONFIG)
    experiment = experiments.ExperimentConfig(
        builder,
        make_probe,
        max_num_actor_steps=600,
        evaluation=None,
        directory=tmp_path / "run",
        logger_factory=lambda label: loggers.InMemoryLogger(),
    )
    result = experiments.run_experiment(experiment, quiet=True)
    network = builder.make_networks(specs.make_environment_spec(make_probe()))

    def value_fn(observation):
        start = jax.tree.map(lambda leaf: leaf[None], network.initial_state())
        no_reset = np.zeros(observation.shape[:2], bool)
        values, _ = network.unroll(result.variables["policy"]["params"], observation, start, no_reset)
        return np.max(values[:, -1], axis=-1)

    testing.check_values(value_fn, make_probe(), discount=CONFIG.discount, recurrent=True)
    testing.check_actions(experiments.load_policy(tmp_path / "run"), make_probe())
