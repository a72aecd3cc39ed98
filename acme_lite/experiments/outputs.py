"""What a run leaves: its logs, and at the end variables, learning curve, policy and result."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from typing import Any

from acme_lite import acting, core, loggers, specs
from acme_lite.experiments import config, policies, run_directory


class Logs:
    """The loggers of a run, which are saved and closed together."""

    def __init__(self, make_logger: loggers.LoggerFactory):
        self._make_logger = make_logger
        self._loggers: dict[str, loggers.Logger] = {}

    def make(self, label: str) -> loggers.Logger:
        """Makes a logger."""
        self._loggers[label] = self._make_logger(label)
        return self._loggers[label]

    def save(self) -> dict[str, Any]:
        return {label: core.save(logger) for label, logger in self._loggers.items()}

    def restore(self, state: dict[str, Any]) -> None:
        for label, logger in self._loggers.items():
            core.restore(logger, state[label])

    def close(self) -> None:
        with contextlib.ExitStack() as stack:
            for logger in self._loggers.values():
                stack.callback(logger.close)


def write_curve(result: config.ExperimentResult, training: tuple[list[int], list[float]], title: str) -> pathlib.Path:
    """Writes the variables and the learning curve; returns the curve's path."""
    policies.save_variables(result.directory, result.variables)
    curve = result.directory / "learning_curve.png"
    evaluations = [(one.actor_steps, one.mean_return, one.returns) for one in result.evaluations]
    loggers.plot_learning_curve(evaluations, training, curve, title=title)
    return curve


def write_result(result: config.ExperimentResult, policy: acting.ActorCore, spec: specs.EnvironmentSpec) -> None:
    """Writes the evaluation policy and, last, what marks the run as finished."""
    policies.save_policy(result.directory, policy, result.variables["policy"], spec)
    if result.finished:
        description = {
            "counts": result.counts,
            "evaluations": [dataclasses.asdict(one) for one in result.evaluations],
            "seconds": result.seconds,
        }
        run_directory.write_json(result.directory / run_directory.RESULT_FILE, description)


def summary(result: config.ExperimentResult, curve: pathlib.Path) -> str:
    """Returns what is printed at the end."""
    steps, total = result.counts.get("actor_steps", 0), result.seconds["total"]
    ending = "Finished" if result.finished else "Interrupted"
    lines = [f"{ending} after {steps:,} environment steps in {total:.1f} s."]
    if not result.counts.get("learner_steps"):
        lines.append(
            "No learner steps: the run ended before the replay gave a batch (see the agent's min_replay_size)."
        )
    shares = [f"{name} {value / total:.0%}" for name, value in result.seconds.items() if name != "total"]
    if shares:
        lines.append(f"Time: {', '.join(shares)}.")
    if result.evaluations:
        last = result.evaluations[-1]
        lines.append(
            f"Last evaluation, at step {last.actor_steps:,}: mean return {last.mean_return:.1f} over "
            f"{len(last.returns)} episodes."
        )
    return "\n".join([*lines, f"Learning curve: {curve}"])
