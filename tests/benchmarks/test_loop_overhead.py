"""The ideal loops beside the library: SGD steps alike, transitions and the report by hand, and (slow) learning."""

import importlib
import pathlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import specs, types

BENCHMARKS = pathlib.Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def loop_overhead():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(BENCHMARKS))
        yield importlib.import_module("loop_overhead")


def test_the_ideal_loops_have_no_library_in_them():
    scripts = sorted(BENCHMARKS.glob("ideal_*.py"))
    assert len(scripts) == 5
    for script in scripts:
        assert not re.search(r"(import|from) acme_lite", script.read_text()), script


def skip_without_environment(name):
    if name == "D4PG":
        pytest.importorskip("dm_control", reason="the control suite needs the extra 'envs'")


def random_transitions(task, spec):
    """Returns transitions as the ideal loop and as the library have them."""
    rng = np.random.default_rng(0)
    o_tm1, o_t = rng.normal(size=(2, task.batch, task.observation_size)).astype(np.float32)
    if isinstance(spec.action, specs.DiscreteArray):
        a_tm1 = rng.integers(spec.action.num_values, size=task.batch).astype(np.int32)
    else:
        shape = (task.batch, *spec.action.shape)
        a_tm1 = rng.uniform(spec.action.minimum, spec.action.maximum, shape).astype(np.float32)
    r_t, discount_t = rng.random((2, task.batch)).astype(np.float32)
    leaves, structure = jax.tree.flatten(spec.observation)
    ends = np.cumsum([leaf.shape[0] for leaf in leaves])[:-1]
    before, after = (structure.unflatten(np.split(rows, ends, axis=-1)) for rows in (o_tm1, o_t))
    return (o_tm1, a_tm1, r_t, discount_t, o_t), types.Transition(before, a_tm1, r_t, discount_t, after)


@pytest.mark.parametrize("name", ["A1", *(pytest.param(name, marks=pytest.mark.slow) for name in ("B", "D4PG"))])
def test_an_sgd_step_of_the_ideal_loop_is_that_of_the_library(loop_overhead, name):
    skip_without_environment(name)
    workload = loop_overhead.WORKLOADS[name]
    task = workload.ideal
    core, spec = loop_overhead.make_core(workload)
    batch, transitions = random_transitions(task, spec)
    leaves, structure = jax.tree.flatten(jax.jit(task.init)(jax.random.key(0)))
    # With parameters so great, D4PG's gradients are beyond their limits; at step 500 targets are copied.
    leaves = [{"float32": 6 * leaf, "int32": leaf + 499}.get(str(leaf.dtype), leaf) for leaf in leaves]
    state = structure.unflatten(leaves)
    # The library's state has the same order; DQN's has the exploration rate at its end, too.
    library_leaves, library_structure = jax.tree.flatten(jax.eval_shape(core.init, jax.random.key(0)))
    assert [leaf.shape for leaf in library_leaves[: len(leaves)]] == [leaf.shape for leaf in leaves]
    assert len(library_leaves) - len(leaves) == (name == "A1")
    library_state = library_structure.unflatten(leaves + [jnp.zeros(())] * (len(library_leaves) - len(leaves)))
    state, _ = jax.jit(task.update)(state, batch)
    library_state, _ = jax.jit(core.update)(library_state, loop_overhead.make_sample(transitions))
    for own, other in zip(jax.tree.leaves(state), jax.tree.leaves(library_state), strict=False):
        # Not each element: where a gradient is nearly 0, Adam divides its rounding by it.
        distance = np.linalg.norm(np.subtract(own, other, dtype=np.float64))
        assert distance <= 5e-3 * np.linalg.norm(own), (own.shape, distance)


def test_the_ideal_loop_keeps_n_step_transitions(loop_overhead):
    drawn = []
    time = 0

    def make_environment(seed):
        # Episodes of three steps with rewards 1, 2 and 4; the observation is the time.
        def reset():
            nonlocal time
            time = 0
            return np.zeros(1, np.float32)

        def step(action):
            nonlocal time
            time += 1
            return np.full(1, time, np.float32), 2.0 ** (time - 1), time == 3, False, {}

        return reset, step

    def update(state, batch):
        jax.debug.callback(lambda rows: drawn.append(jax.device_get(rows)), batch)
        return state, jnp.zeros(())

    task = loop_overhead.ideal_loop.Task(
        make_environment,
        init=lambda key: (jnp.zeros(()),),
        policy=lambda params, observation, key: (observation + 10, key),
        update=update,
        observation_size=1,
        action=np.zeros(1, np.float32),
        batch=64,
        capacity=100,
        steps_per_update=2,
        n_step=2,
    )
    result = loop_overhead.ideal_loop.run(task, 1_010, num_updates=2, measure_from=1_000)
    jax.effects_barrier()
    assert result["returns"] == [7.0] * (1_010 // 3)
    assert len(drawn) == 2 * 3  # at steps 1,000, 1,004 and 1,008
    rows = [row for batch in drawn for row in zip(*batch, strict=True)]
    rows = {tuple(np.concatenate(row, axis=None).astype(float).round(4).tolist()) for row in rows}
    # (o, a, R, D, o') with the discount factor 0.99: 1 + 0.99 * 2 = 2.98 and 2 + 0.99 * 4 = 5.96.
    assert rows == {(0, 10, 1, 1, 1), (0, 10, 2.98, 0.99, 2), (1, 11, 5.96, 0, 3), (2, 12, 4, 0, 3)}


@pytest.mark.parametrize(("name", "num_updates", "num_returns"), [("A4", 2, None), ("B", 2, 5), ("D4PG", 1, 1)])
def test_the_ideal_loops_run_in_their_environments(loop_overhead, name, num_updates, num_returns):
    skip_without_environment(name)
    task = loop_overhead.WORKLOADS[name].ideal._replace(update=lambda state, batch: (state, jnp.mean(batch[2])))
    result = loop_overhead.ideal_loop.run(task, 1_050, num_updates=num_updates, measure_from=1_000)
    assert result["steps_per_second"] > 0 and np.isfinite(result["returns"]).all()
    assert num_returns in (None, len(result["returns"]))


def test_the_report_by_hand(loop_overhead, capsys):
    def measured(*rates, update):
        return [{"steps_per_second": rate, "peak_megabytes": 100.0, "update_seconds": update / rate} for rate in rates]

    library = measured(500.0, 900.0, 800.0, update=0.36)
    library[-1]["split"] = {"acting": 0.25, "learning": 0.5}
    overlap = [{"steps_per_second": 1_500.0, "peak_megabytes": 120.0}]
    results = {("ideal", 1): measured(1_000.0, update=0.2), ("library", 1): library, ("overlap", 1): overlap}
    loop_overhead.report("B", results)
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "B K=1 ideal 1,000 (1,000 to 1,000) 1.00 x ideal, peak 100 MB",
        "B K=1 library 800 (500 to 900) 0.80 x ideal, peak 100 MB",
        "time split: acting 25%, learning 50%, rest 25%",
        "B K=1 overlap 1,500 (1,500 to 1,500) 1.50 x ideal, peak 120 MB",
        # The least of each: 0.2 / 1,000 and 0.36 / 900 seconds.
        "B K=1 ideal SGD step alone 200 us 1.00 x ideal's time",
        "B K=1 library SGD step alone 400 us 2.00 x ideal's time",
    ]


def test_too_few_steps_for_a_workload_are_refused(loop_overhead):
    loop_overhead.Benchmark(steps=8_000, workloads=("D4PG",))
    with pytest.raises(ValueError, match="steps must be such that B takes more than the 3000 of the warm-up, got 8000"):
        loop_overhead.Benchmark(steps=8_000, workloads=("D4PG", "B"))


def test_sgd_steps_alone_are_timed(loop_overhead):
    workload = loop_overhead.WORKLOADS["A1"]
    assert 0 < loop_overhead.ideal_loop.time_update(workload.ideal, 2) < 1
    assert 0 < loop_overhead.time_library_update(workload, 2) < 1


@pytest.mark.slow
@pytest.mark.parametrize(("name", "num_steps", "least"), [("A1", 20_000, 150), ("B", 6_000, -300)])
def test_the_ideal_loops_learn(loop_overhead, name, num_steps, least):
    result = loop_overhead.ideal_loop.run(loop_overhead.WORKLOADS[name].ideal, num_steps, num_updates=1, measure_from=0)
    assert np.mean(result["returns"][-5:]) > least
