"""Evaluates the policy of a finished run, without the agent's code.

uv run examples/evaluate.py runs/<run> --env gym:CartPole-v1
"""

import dataclasses
import statistics

import tyro

from acme_lite import environments, experiments


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """What to evaluate."""

    directory: tyro.conf.Positional[str]
    """The run's directory."""
    env: str
    """Environment as suite:task, the one that the agent was trained in."""
    episodes: int = 20
    """Episodes to play."""
    seed: int = 1_000
    """Seed of the environment."""

    def __post_init__(self):
        if self.episodes < 1:
            raise ValueError(f"episodes must be at least 1, got {self.episodes}.")


def main(args: Evaluate) -> None:
    policy = experiments.load_policy(args.directory)
    environment = environments.make(args.env, seed=args.seed)
    returns = []
    for _ in range(args.episodes):
        policy.reset()
        timestep = environment.reset()
        total = 0.0
        while not timestep.last():
            timestep = environment.step(policy(timestep.observation))
            total += float(timestep.reward)
        returns.append(total)
    spread = statistics.pstdev(returns)
    print(
        f"Mean return {statistics.mean(returns):.1f} ± {spread:.1f} (standard deviation) over {len(returns)} episodes."
    )


if __name__ == "__main__":
    main(tyro.cli(Evaluate, description=__doc__))
