"""Plots of a run. Matplotlib is imported at the first plot (1 to 2 seconds), without pyplot's global state."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from acme_lite.loggers import atomic

if TYPE_CHECKING:
    import matplotlib.axes

_TRAINING_COLOUR = "#7f8c9b"
_EVALUATION_COLOUR = "#c8501e"


def plot_learning_curve(
    evaluations: Sequence[tuple[int, float, Sequence[float]]],
    training: tuple[Sequence[int], Sequence[float]],
    path: str | os.PathLike[str],
    *,
    title: str = "",
) -> None:
    """Writes a PNG of returns over environment steps.

    Args:
        evaluations: (actor steps, mean return, return of each episode) of each evaluation, in the order of the steps.
        training: `[M]` actor steps at which the training episodes ended, and `[M]` their returns.
        path: the file; it is replaced at once, and its folder is made if there is none.
        title: names agent, environment and seed.

    Raises:
        ValueError: the two halves of `training` have different lengths.
    """
    steps, returns = np.asarray(training[0], np.float64), np.asarray(training[1], np.float64)
    if steps.shape != returns.shape:
        raise ValueError(f"training must hold as many steps as returns, got {len(steps)} and {len(returns)}.")
    from matplotlib import ticker
    from matplotlib.backends import backend_agg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.8), layout="constrained")
    axes = figure.add_subplot()
    if steps.size:
        _draw_training(axes, steps, returns)
    if evaluations:
        _draw_evaluations(axes, evaluations)
    axes.set_title(title, loc="left", fontsize=13, fontweight="bold")
    axes.set_xlabel("environment steps", fontsize=11)
    axes.set_ylabel("episode return", fontsize=11)
    axes.xaxis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))
    axes.set_xlim(left=0)
    axes.margins(y=0.08)
    axes.grid(color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(frameon=True, framealpha=0.9, edgecolor="none", fontsize=10)
    pathlib.Path(path).parent.mkdir(parents=True, exist_ok=True)
    with atomic.replacing(path) as temporary:
        backend_agg.FigureCanvasAgg(figure).print_figure(temporary, dpi=120, format="png")


def running_mean(values: np.ndarray, window: int) -> np.ndarray:
    """Returns `[M]` means of the last `window` values (of all so far where there are fewer) for `[M]` values.

    A mean over a value that is not finite is NaN.
    """
    values = np.asarray(values, np.float64)
    finite = np.isfinite(values)
    sums, counts = (np.cumsum([0, *each]) for each in (np.where(finite, values, 0), finite))
    ends = np.arange(1, len(sums))
    starts = np.maximum(ends - window, 0)
    means = (sums[ends] - sums[starts]) / (ends - starts)
    return np.where(counts[ends] - counts[starts] == ends - starts, means, np.nan)


def _draw_training(axes: matplotlib.axes.Axes, steps: np.ndarray, returns: np.ndarray) -> None:
    """Draws every episode as a faint dot and the running mean as a line."""
    window = int(np.clip(len(returns) // 20, 1, 100))
    axes.plot(steps, returns, ".", color=_TRAINING_COLOUR, alpha=0.45, markersize=5, markeredgewidth=0)
    label = "training" if window == 1 else f"training, mean of the last {window} episodes"
    marker = "o" if len(returns) == 1 else None  # a line of one point would not be seen
    axes.plot(steps, running_mean(returns, window), color=_TRAINING_COLOUR, linewidth=1.8, marker=marker, label=label)


def _draw_evaluations(axes: matplotlib.axes.Axes, evaluations: Sequence[tuple[int, float, Sequence[float]]]) -> None:
    """Draws the mean of each evaluation, and the range of its episodes as a band."""
    steps = [evaluation[0] for evaluation in evaluations]
    means = [evaluation[1] for evaluation in evaluations]
    episodes = [list(evaluation[2]) or [evaluation[1]] for evaluation in evaluations]
    low, high = [min(returns) for returns in episodes], [max(returns) for returns in episodes]
    label = "evaluation, mean and range of its episodes"
    axes.fill_between(steps, low, high, color=_EVALUATION_COLOUR, alpha=0.15, linewidth=0)
    axes.plot(steps, means, "o-", color=_EVALUATION_COLOUR, linewidth=2.2, markersize=4.5, label=label)
