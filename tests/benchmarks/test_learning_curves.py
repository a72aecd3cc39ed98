"""The benchmark that makes learning curves: its statistics by hand, its files, and (slow) runs that go on."""

import importlib.util
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "learning_curves.py"
TASK = "gym:CartPole-v1"


@pytest.fixture(scope="module")
def learning_curves():
    spec = importlib.util.spec_from_file_location("learning_curves", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_interquartile_means_by_hand(learning_curves):
    mean = learning_curves.interquartile_mean
    assert mean(np.array([40.0, 1, 3, 2])) == 2.5  # the middle two of four
    # Of five, the middle half is the third and three quarters of its neighbours: (0.75 * 1 + 2 + 0.75 * 3) / 2.5.
    np.testing.assert_allclose(mean(np.array([100.0, 3, 2, 1, 0])), 2)
    np.testing.assert_allclose(mean(np.array([[1.0, 5], [3, 5]])), [2, 5])
    assert mean(np.array([7.0])) == 7


def test_the_bootstrap_interval_holds_the_mean_and_shrinks_with_more_seeds(learning_curves):
    values = np.random.default_rng(0).normal(size=(40, 3))
    low, high = learning_curves.bootstrap_interval(values)
    assert (
        (low < learning_curves.interquartile_mean(values)) & (learning_curves.interquartile_mean(values) < high)
    ).all()
    few_low, few_high = learning_curves.bootstrap_interval(values[:5])
    assert (few_high - few_low > high - low).all()
    np.testing.assert_array_equal(learning_curves.bootstrap_interval(np.full((4, 2), 3.0)), np.full((2, 2), 3.0))


def test_curves_of_seeds_are_compared_where_all_were_evaluated(learning_curves):
    rows = [
        dict(zip(learning_curves.FIELDS, row, strict=True))
        for row in [
            (1, 200, 7.0, 1, 0),
            (0, 100, 1.0, 1, 0),
            (0, 200, 2.0, 1, 0),
            (1, 100, 5.0, 1, 0),
            (1, 300, 9.0, 1, 0),
        ]
    ]
    steps, returns = learning_curves.aligned(rows)
    np.testing.assert_array_equal(steps, [100, 200])
    np.testing.assert_array_equal(returns, [[1, 2], [5, 7]])


def test_logs_of_runs_become_rows_and_rows_of_other_seeds_stay(learning_curves, tmp_path):
    curves = learning_curves.Curves(
        agents=("dqn",), tasks=(TASK,), directory=str(tmp_path / "runs"), results=str(tmp_path / "results")
    )
    run = learning_curves.Run("dqn", TASK, 3, curves)
    logs = run.directory / "logs"
    logs.mkdir(parents=True)
    # The evaluation at 300 has not ended: its time is missing.
    (logs / "evaluator.csv").write_text("actor_steps,episode_return\n100,1\n100,2\n200,5\n200,6\n300,9\n")
    (logs / "time_split.csv").write_text("actor_steps,total_seconds\n100,1.4\n200,2.6\n")
    path = tmp_path / "results" / "gym-CartPole-v1_dqn.csv"
    path.parent.mkdir()
    path.write_text("seed,steps,mean_return,episodes,seconds\n1,100,4.00,2,1\n3,100,0.00,2,1\n")
    learning_curves.report([run], curves)
    assert path.read_text().split() == [
        "seed,steps,mean_return,episodes,seconds",
        "1,100,4.00,2,1",
        "3,100,1.50,2,1",
        "3,200,5.50,2,3",
    ]
    assert (tmp_path / "results" / "gym-CartPole-v1.png").stat().st_size > 0


def test_settings_change_a_named_config_and_wrong_names_fail(learning_curves):
    config = learning_curves.make_config("mpo:dmpo", ["n_step=3", "policy_hidden_sizes=(8, 8)"])
    assert (config.critic, config.n_step, config.policy_hidden_sizes) == ("distributional", 3, (8, 8))
    with pytest.raises(ValueError, match="There is no agent 'mpo:no'; there are mpo, mpo:dmpo"):
        learning_curves.make_config("mpo:no", [])
    with pytest.raises(ValueError, match="got 'n_stepp=3'"):
        learning_curves.make_config("mpo", ["n_stepp=3"])


@pytest.mark.slow
def test_runs_that_were_stopped_go_on_and_finished_ones_are_not_run_again(tmp_path):
    command = [sys.executable, str(SCRIPT), "--agents", "dqn", "--tasks", TASK, "--steps", "30000"]
    command += ["--evaluate-every", "1000", "--evaluation-episodes", "1"]
    command += ["--directory", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    csv_file = tmp_path / "runs" / "gym-CartPole-v1_dqn_seed0_30000" / "logs" / "evaluator.csv"
    process = subprocess.Popen(command)
    try:
        deadline = time.monotonic() + 200
        while not (csv_file.exists() and "2000," in csv_file.read_text()) and time.monotonic() < deadline:
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=200) == 0
    finally:
        process.kill()
    rows = (tmp_path / "results" / "gym-CartPole-v1_dqn.csv").read_text()
    assert "0,2000," in rows and "0,30000," not in rows
    subprocess.run(command, check=True, timeout=250)
    more = (tmp_path / "results" / "gym-CartPole-v1_dqn.csv").read_text()
    assert "0,30000," in more and more.splitlines()[:3] == rows.splitlines()[:3]
    again = subprocess.run(command, check=True, timeout=200, capture_output=True, text=True)
    assert "writes to" not in again.stdout
