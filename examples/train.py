"""Trains an agent in an environment, and says where its learning curve is.

uv run examples/train.py dqn --env gym:CartPole-v1
uv run examples/train.py dqn:rainbow --env bsuite:catch/0
uv run examples/train.py dqn --help
"""

import dataclasses
from typing import Literal

from acme_lite import checks, command_line, core, environments, experiments, launching
from acme_lite.agents import builders


@dataclasses.dataclass(frozen=True)
class Run:
    """What to run."""

    env: str
    """Environment as suite:task, such as gym:CartPole-v1, bsuite:catch/0, atari:Pong, dm_control:cartpole:swingup."""
    steps: int = 100_000
    """Environment steps in all."""
    num_envs: int = 1
    """Environments that are stepped together (in each actor)."""
    num_actors: int = 0
    """Actors in processes of their own, around a Reverb server and a learner; 0 runs everything in one process."""
    seed: int = 0
    """Seed of everything random."""
    evaluate_every: int = 10_000
    """Environment steps from one evaluation to the next."""
    evaluation_episodes: int = 20
    """Episodes of one evaluation."""
    checkpoint_every: int = 50_000
    """Environment steps from one checkpoint to the next; a run that is started again goes on from the last."""
    replay: Literal["local", "reverb"] | None = None
    """Where one process keeps experience: in its memory (local, unless given), or in a Reverb server."""
    replay_in_learner: bool = True
    """Whether the Reverb server of several actors runs in the learner's process, or in one of its own."""
    normalize: bool = False
    """Whether observations get mean 0 and variance 1, by their running statistics (ppo has a setting of its own)."""
    directory: str | None = None
    """Where the run's files go; below runs/ unless given."""

    def __post_init__(self):
        checks.at_least(self, 1, "steps", "num_envs", "evaluate_every", "evaluation_episodes", "checkpoint_every")
        checks.at_least(self, 0, "num_actors")
        checks.seeds(self, "seed")
        if self.num_actors and self.replay is not None:
            raise ValueError("--replay is for runs in one process: with --num-actors there is always a Reverb server.")
        try:
            environments.make(self.env).close()
        except (ImportError, ValueError) as error:
            raise ValueError(f"--env {self.env}: {error}") from error


def train(builder: core.Builder, run: Run) -> None:
    experiment = experiments.ExperimentConfig(
        builder=builders.NormalizedBuilder(builder) if run.normalize else builder,
        environment_factory=lambda seed: environments.make(run.env, seed=seed),
        num_envs=run.num_envs,
        max_num_actor_steps=run.steps,
        seed=run.seed,
        evaluation=experiments.EvaluationConfig(run.evaluate_every, run.evaluation_episodes),
        checkpointing=experiments.CheckpointConfig(every_steps=run.checkpoint_every),
        directory=run.directory,
    )
    if run.num_actors:
        program = experiments.make_distributed_experiment(
            experiment, run.num_actors, replay_in_learner=run.replay_in_learner
        )
        launching.launch(program)
    else:
        result = experiments.run_experiment(experiment, replay=run.replay or "local")
        if not result.finished:
            raise SystemExit(130)  # Ctrl-C: what comes after it in a script must not go on


if __name__ == "__main__":
    command_line.run(train, Run, description=__doc__)
