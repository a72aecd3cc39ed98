"""The benchmark that makes learning curves: its statistics by hand, its files, and (slow) runs that go on."""

import concurrent.futures
import importlib.util
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from acme_lite import learning

SCRIPT = pathlib.Path(__file__).parents[2] / "benchmarks" / "learning_curves.py"
TASK = "gym:CartPole-v1"
SHOW_THREADS = """
import os
import numpy as np
print(os.sched_getaffinity(0), len(os.listdir("/proc/self/task")))
"""


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
    for statistic in (learning_curves.interquartile_mean, learning_curves.mean):
        low, high = learning_curves.bootstrap_interval(values, statistic)
        assert ((low < statistic(values)) & (statistic(values) < high)).all()
        few_low, few_high = learning_curves.bootstrap_interval(values[:5], statistic)
        assert (few_high - few_low > high - low).all()
        constant = learning_curves.bootstrap_interval(np.full((4, 2), 3.0), statistic)
        np.testing.assert_array_equal(constant, np.full((2, 2), 3.0))


def test_a_step_has_the_returns_of_all_seeds_that_were_evaluated_there(learning_curves):
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
    returns = learning_curves.returns_by_step(rows)
    assert list(returns) == [100, 200, 300]
    np.testing.assert_array_equal(returns[100], [1, 5])
    np.testing.assert_array_equal(returns[200], [2, 7])
    np.testing.assert_array_equal(returns[300], [9])


def test_a_plot_says_where_the_number_of_seeds_changes(learning_curves):
    from matplotlib.figure import Figure

    axes = Figure().add_subplot()
    returns = {100: np.array([1.0, 3.0]), 200: np.array([2.0, 4.0]), 300: np.array([5.0])}
    learning_curves._draw(axes, "dqn", returns, "black")
    np.testing.assert_array_equal(axes.lines[0].get_xydata(), [[100, 2], [200, 3], [300, 5]])
    assert axes.lines[0].get_label() == "dqn, 2 seeds"
    assert [(text.get_text(), text.xy) for text in axes.texts] == [("n = 1", (300, 5.0))]


def test_means_are_compared_with_the_published_ones_at_their_steps_alone(learning_curves, tmp_path, capsys):
    path = tmp_path / "dm-control-cartpole-swingup_d4pg-acme.csv"
    lines = ["0,100000,640,5,1", "1,100000,600,5,1", "0,240000,900,5,1", "0,500000,800,5,1"]
    path.write_text("\n".join([",".join(learning_curves.FIELDS), *lines]) + "\n")
    learning_curves.summarise(tmp_path, ())
    table = (tmp_path / "summary.md").read_text()
    assert table == capsys.readouterr().out
    task = "dm_control:cartpole:swingup"
    # Two seeds, resampled: both the lower one, one of each, or both the higher one. 0.95 * 670 = 636.5.
    assert table.splitlines()[-2:] == [
        f"| {task} | d4pg:acme | 100,000 | 2 | 620.0 | 600.0 to 640.0 | 670 | 636.5 | yes |",
        f"| {task} | d4pg:acme | 500,000 | 1 | 800.0 | 800.0 to 800.0 | 875 | 831.2 | no |",
    ]
    assert "jax" in table and "250,000" not in table
    learning_curves.summarise(tmp_path, ("n_step=3",))
    assert not (tmp_path / "summary_n-step=3.md").exists()


def test_logs_of_runs_become_rows_and_rows_of_other_seeds_and_steps_stay(learning_curves, tmp_path):
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
    path.write_text("seed,steps,mean_return,episodes,seconds\n1,100,4.00,2,1\n3,100,0.00,2,1\n3,9000,7.00,2,60\n")
    learning_curves.report([run], curves)
    assert path.read_text().split() == [
        "seed,steps,mean_return,episodes,seconds",
        "1,100,4.00,2,1",
        "3,100,1.50,2,1",
        "3,200,5.50,2,3",
        "3,9000,7.00,2,60",
    ]
    assert (tmp_path / "results" / "gym-CartPole-v1.png").stat().st_size > 0


def test_settings_change_a_named_config_and_wrong_names_fail(learning_curves):
    config = learning_curves.make_config("mpo:dmpo", ["n_step=3", "policy_hidden_sizes=(8, 8)"])
    assert (config.critic, config.n_step, config.policy_hidden_sizes) == ("distributional", 3, (8, 8))
    schedule = learning.LinearSchedule(1e-3, 0, 60)
    assert learning_curves.make_config("ppo", ["learning_rate=0.001:0:60"]).learning_rate == schedule
    with pytest.raises(ValueError, match="There is no agent 'mpo:no'; there are mpo, mpo:acme, mpo:dmpo"):
        learning_curves.make_config("mpo:no", [])
    with pytest.raises(ValueError, match="got 'n_stepp=3'"):
        learning_curves.make_config("mpo", ["n_stepp=3"])


def test_what_changes_a_curve_stands_in_the_names(learning_curves):
    curves = learning_curves.Curves(settings=("n_step=3",), num_envs=8, evaluate_every=1_000, steps=9_000)
    assert curves.variant == ("n_step=3", "num_envs=8")
    assert learning_curves.Curves(normalize=True).variant == ("normalize=True",)
    fractions = learning_curves.Curves(settings=("learning_rate=0.001:0:60",))
    logs = {learning_curves.Run("ppo", TASK, seed, fractions).log.name for seed in (0, 1)}
    assert logs == {f"gym-CartPole-v1_ppo_learning-rate=0.001-0-60_seed{seed}_100000.log" for seed in (0, 1)}
    name = learning_curves.Run("dqn", TASK, 2, curves).directory.name
    assert name == "gym-CartPole-v1_dqn_n-step=3_num-envs=8_evaluate-every=1000_seed2_9000"
    plain = learning_curves.Run("dqn", TASK, 2, learning_curves.Curves())
    assert (plain.curves.variant, plain.directory.name) == ((), "gym-CartPole-v1_dqn_seed2_100000")


@pytest.mark.parametrize("settings", [{"at_once": 0}, {"at_once": 2, "cores": (0,)}])
def test_runs_at_once_are_refused_where_they_make_no_sense(learning_curves, settings):
    with pytest.raises(ValueError, match="at_once must be at least 1, and 1 where cores are given"):
        learning_curves.Curves(**settings)


def test_a_run_on_a_core_has_one_thread_for_linear_algebra(learning_curves, tmp_path, monkeypatch):
    script = tmp_path / "show_threads.py"
    script.write_text(SHOW_THREADS)
    monkeypatch.setattr(learning_curves, "__file__", str(script))
    curves = learning_curves.Curves(agents=("dqn",), directory=str(tmp_path / "runs"))
    runs = [learning_curves.Run("dqn", TASK, seed, curves) for seed in (0, 1)]
    cores = sorted(os.sched_getaffinity(0))
    workers = learning_curves.Workers(runs)
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        list(threads.map(workers.work, [cores[0], cores[-1]]))
    assert not workers.failed and set(cores) == os.sched_getaffinity(0)
    logs = [run.directory.with_suffix(".log").read_text() for run in runs]
    # NumPy's BLAS makes its threads when it is imported, so a process that pins itself is too late.
    assert sorted(logs) == sorted(f"{{{core}}} 1\n" for core in (cores[0], cores[-1]))


@pytest.mark.slow
def test_runs_that_were_stopped_go_on_and_finished_ones_are_not_run_again(tmp_path):
    command = [sys.executable, str(SCRIPT), "--agents", "dqn", "--tasks", TASK, "--steps", "30000"]
    command += ["--evaluate-every", "1000", "--evaluation-episodes", "1"]
    command += ["--directory", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    run = "gym-CartPole-v1_dqn_evaluate-every=1000_evaluation-episodes=1_seed0_30000"
    csv_file = tmp_path / "runs" / run / "logs" / "evaluator.csv"
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
