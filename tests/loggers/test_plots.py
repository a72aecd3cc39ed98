"""Tests of the plots: the figures behind them and the files."""

import os
import sys

import numpy as np
import pytest

from acme_lite import loggers
from acme_lite.loggers import plots


def test_running_mean_by_hand():
    # (1)/1, (1 + 3)/2, (1 + 3 + 8)/3, (3 + 8 + 1)/3
    np.testing.assert_allclose(plots.running_mean(np.array([1, 3, 8, 1]), 3), [1, 2, 4, 4])


def test_running_mean_goes_on_behind_what_is_not_finite():
    values = np.array([1, np.nan, 3, 5, np.inf, 7, 9])
    np.testing.assert_allclose(plots.running_mean(values, 2), [1, np.nan, np.nan, 4, np.nan, np.nan, 8])


def test_running_mean_of_nothing_is_empty():
    assert plots.running_mean(np.array([]), 5).shape == (0,)


@pytest.fixture
def axes_drawn(monkeypatch):
    """Returns a list that gets the axes of each plot."""
    from matplotlib import figure

    drawn = []
    add_subplot = figure.Figure.add_subplot

    def keep(self, *args, **kwargs):
        drawn.append(add_subplot(self, *args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(figure.Figure, "add_subplot", keep)
    return drawn


def test_the_curve_shows_what_it_was_given(tmp_path, axes_drawn):
    evaluations = [(100, 2.0, [1.0, 3.0]), (200, 5.0, [4.0, 6.0])]
    training = (np.arange(1, 41) * 5, np.arange(40.0))
    path = tmp_path / "plots" / "curve.png"
    loggers.plot_learning_curve(evaluations, training, path, title="dqn on CartPole-v1, seed 0")

    (axes,) = axes_drawn
    assert axes.get_title(loc="left") == "dqn on CartPole-v1, seed 0"
    assert axes.get_xlabel() == "environment steps"
    assert axes.get_ylabel() == "episode return"
    episodes, mean, evaluation = axes.get_lines()
    np.testing.assert_array_equal(episodes.get_ydata(), training[1])
    np.testing.assert_allclose(mean.get_ydata()[[0, 1, 39]], [0, 0.5, 38.5])  # windows of 40 // 20 = 2
    np.testing.assert_array_equal(evaluation.get_xdata(), [100, 200])
    np.testing.assert_array_equal(evaluation.get_ydata(), [2, 5])
    legend = [text.get_text() for text in axes.get_legend().get_texts()]
    assert legend == ["training, mean of the last 2 episodes", "evaluation, mean and range of its episodes"]
    assert path.read_bytes().startswith(b"\x89PNG")
    assert os.listdir(path.parent) == ["curve.png"]
    assert "matplotlib.pyplot" not in sys.modules


@pytest.mark.parametrize("evaluations", [[], [(10, 1.0, [1.0])], [(10, 1.0, [])]])
@pytest.mark.parametrize("training", [([], []), ([7], [1.5])])
def test_short_runs_have_a_plot_too(tmp_path, evaluations, training):
    path = tmp_path / "curve.png"
    loggers.plot_learning_curve(evaluations, training, path)
    assert path.stat().st_size > 1000


def test_training_is_checked(tmp_path):
    with pytest.raises(ValueError, match="training must hold as many steps as returns, got 2 and 1"):
        loggers.plot_learning_curve([], ([1, 2], [1.0]), tmp_path / "curve.png")
