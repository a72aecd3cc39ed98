"""Trains DQN with a loss of one's own: conservative Q-learning's penalty on top of the usual loss.

A loss is a pure function of parameters and a batch. Everything else (replay, acting, logging) stays as it is.

    uv run examples/custom_learner.py
"""

import jax
import jax.numpy as jnp
import tyro

from acme_lite import environments, experiments
from acme_lite.agents import dqn

PENALTY = 0.01


def conservative_loss(params, target_params, batch, apply, *, config):
    """Returns the Q-learning losses `[B]` plus a penalty on the values of actions not taken, priorities, and metrics.

    penalty = log sum_a exp q(o, a) - q(o, a_taken)

    Reference: Kumar et al., Conservative Q-Learning for Offline Reinforcement Learning (2020), equation 4.
    """
    losses, priorities, metrics = dqn.q_learning_loss(params, target_params, batch, apply, config=config)
    q = apply(params, batch.observation)  # [B, A]
    taken = jnp.take_along_axis(q, batch.action[:, None], axis=-1)[:, 0]
    penalty = jax.nn.logsumexp(q, axis=-1) - taken
    return losses + PENALTY * penalty, priorities, metrics | {"penalty": jnp.mean(penalty)}


def main(steps: int = 50_000, seed: int = 0, directory: str | None = None) -> None:
    """Trains on CartPole.

    Args:
        steps: environment steps.
        seed: seed of everything random.
        directory: where the run's files go; below runs/ unless given.
    """
    experiment = experiments.ExperimentConfig(
        builder=dqn.DQNBuilder(dqn.DQNConfig(), loss_fn=conservative_loss),
        environment_factory=lambda seed: environments.make("gym:CartPole-v1", seed=seed),
        max_num_actor_steps=steps,
        seed=seed,
        directory=directory,
    )
    experiments.run_experiment(experiment)


if __name__ == "__main__":
    tyro.cli(main)
