"""DQN's variants learn a small task; run by hand with -m slow."""

import pytest

from acme_lite import environments, experiments
from acme_lite.agents import dqn

VARIANTS = {
    "plain": dqn.DQNConfig(),
    "categorical": dqn.DQNConfig(distribution="categorical"),
    "quantile": dqn.DQNConfig(distribution="quantile"),
    "munchausen": dqn.variant_config("munchausen"),
    "rainbow": dqn.variant_config("rainbow"),
}


@pytest.mark.slow
@pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
def test_catch(config, tmp_path):
    experiment = experiments.ExperimentConfig(
        builder=dqn.DQNBuilder(config),
        environment_factory=lambda seed: environments.make("bsuite:catch/0", seed=seed),
        max_num_actor_steps=20_000,
        seed=0,
        evaluation=experiments.EvaluationConfig(every_steps=20_000, num_episodes=20),
        directory=str(tmp_path / "run"),
    )
    result = experiments.run_experiment(experiment, quiet=True)
    assert result.evaluations[-1].mean_return >= 0.95
