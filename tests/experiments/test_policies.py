"""Policies that are not exported as usual; the usual way is tested where runs are."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import acting, experiments, specs, testing
from acme_lite.agents import dqn
from acme_lite.experiments import policies

SPEC = specs.make_environment_spec(testing.MemoryEnvironment())
OBSERVATION = testing.MemoryEnvironment().reset().observation


def call_python(values):
    shape = jax.ShapeDtypeStruct(values.shape, values.dtype)
    return jax.pure_callback(np.asarray, shape, values)


def make_networks(spec):
    """Networks that call Python, which no exported policy can."""
    network = dqn.make_networks(spec, hidden_sizes=(8,))

    def apply(params, observation):
        return network.apply(params, observation | {"cue": call_python(observation["cue"])})

    return network._replace(apply=apply)


def run(directory, **settings):
    config = dqn.DQNConfig(hidden_sizes=(8,), batch_size=8, min_replay_size=20, evaluation_epsilon=0.5, overlap=False)
    experiment = experiments.ExperimentConfig(
        builder=dqn.DQNBuilder(config),
        environment_factory=testing.MemoryEnvironment,
        max_num_actor_steps=40,
        directory=directory,
        **settings,
    )
    return experiments.run_experiment(experiment, quiet=True)


def test_a_policy_that_cannot_be_exported_does_not_cost_the_run_its_result(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        result = run(tmp_path / "run", network_factory=make_networks)
    assert result.finished and (result.directory / "result.json").exists()
    assert "policy.bin is not written: the policy could not be exported (" in caplog.text
    with pytest.raises(
        FileNotFoundError, match=r"no policy\.bin: the policy could not be exported \(.*callback"
    ) as error:
        experiments.load_policy(result.directory)
    assert "its parameters are in variables.npz" in str(error.value)
    assert (result.directory / "variables.npz").exists()


@pytest.mark.parametrize("implementation", ["rbg", "threefry2x32"])
def test_a_policy_runs_with_the_keys_of_its_run(tmp_path, implementation):
    with jax.default_prng_impl(implementation):
        result = run(tmp_path / "run")
    policy = experiments.load_policy(result.directory, seed=3)
    assert {int(policy(OBSERVATION)) for _ in range(30)} == {0, 1}


def test_a_policy_for_one_platform_says_so(tmp_path, caplog):
    def select_action(params, observation, key):
        # JAX has this decomposition for CPUs and, since lately, for NVIDIA's GPUs.
        largest = jnp.max(jnp.linalg.eigvals(params).real)
        return jnp.full(len(observation["query"]), largest, jnp.int32)

    core = acting.feed_forward(select_action)
    with caplog.at_level(logging.WARNING):
        assert policies.save_policy(tmp_path, core, np.diag(np.float32([1, 3])), SPEC) == tmp_path / "policy.bin"
    assert f"The exported policy runs on {jax.default_backend()} alone" in caplog.text
    assert experiments.load_policy(tmp_path)(OBSERVATION) == 3


def test_a_policy_that_is_written_after_all_takes_the_place_of_the_reason(tmp_path):
    def make_core(function):
        return acting.feed_forward(lambda params, observation, key: function(observation["query"]))

    good, bad = make_core(lambda query: query), make_core(call_python)
    assert policies.save_policy(tmp_path, good, {}, SPEC) is not None
    assert policies.save_policy(tmp_path, bad, {}, SPEC) is None
    with pytest.raises(FileNotFoundError, match="could not be exported"):
        experiments.load_policy(tmp_path)
    policies.save_policy(tmp_path, good, {}, SPEC)
    assert [path.name for path in tmp_path.iterdir()] == ["policy.bin"]
    assert experiments.load_policy(tmp_path)(OBSERVATION) == OBSERVATION["query"]


class Pair(NamedTuple):
    second: Any
    first: Any


def test_named_tuples_are_dicts_to_a_policy_that_was_saved(tmp_path):
    def select_action(params, observation, key):
        (pair,) = observation["pairs"]
        return Pair(first=pair.first, second=pair.second.first)

    array = specs.Array((), np.float32)
    spec = SPEC._replace(observation={"pairs": [Pair(Pair(array, array), array)]})
    assert policies.save_policy(tmp_path, acting.feed_forward(select_action), {}, spec) is not None
    policy = experiments.load_policy(tmp_path)
    one, two, three = np.float32([1, 2, 3])
    for pair in (Pair(Pair(one, two), three), {"first": three, "second": {"first": two, "second": one}}):
        assert policy({"pairs": [pair]}) == {"first": 3, "second": 2}


def test_keys_and_numbers_that_numpy_has_no_type_for_come_back(tmp_path):
    key = jax.random.key(3)

    def select_action(params, observation, state, _):
        noise = jax.random.uniform(params["key"]) + jax.vmap(jax.random.uniform)(state["key"])
        return params["bias"] + state["count"] + noise, (), {"key": state["key"], "count": state["count"] + 1}

    core = acting.ActorCore(lambda: {"key": key, "count": jnp.bfloat16(1)}, select_action)
    params = {"bias": jnp.bfloat16(2.5), "key": key}
    noise = 2 * float(jax.random.uniform(key))
    assert policies.save_policy(tmp_path, core, params, SPEC) is not None
    policy = experiments.load_policy(tmp_path)
    np.testing.assert_allclose([policy(OBSERVATION) for _ in range(2)], [3.5 + noise, 4.5 + noise], rtol=1e-6)
    with np.load(policies.save_variables(tmp_path, {"policy": params})) as variables:
        bias, words = variables["['policy']['bias']"], variables["['policy']['key']"]
    assert bias.dtype == np.float32 and bias == 2.5
    np.testing.assert_array_equal(words, jax.random.key_data(key))


def save_and_load(directory, spec):
    core = acting.feed_forward(lambda params, observation, key: jnp.zeros(len(jax.tree.leaves(observation)[0])))
    policies.save_policy(directory, core, {}, SPEC._replace(observation=spec))
    return experiments.load_policy(directory)


@pytest.mark.parametrize(
    ("observation", "got"),
    [
        (np.zeros(6, np.float32), "float32[6]"),
        (np.zeros((1, 4)), "float64[1, 4]"),
        (np.zeros(4, np.int32), "int32[4]"),
        (np.array(["a", "b", "c", "d"]), "<U1[4]"),
        ([0.5, 1.5], "[0] float64[], [1] float64[]"),
        ([0.5] * 84, "a list of 84 arrays"),
        ({"joints": np.zeros(4)}, "['joints'] float64[4]"),
        (None, "None"),
    ],
)
def test_an_observation_of_another_environment_is_refused_in_one_sentence(tmp_path, observation, got):
    policy = save_and_load(tmp_path, specs.Array((4,), np.float32))
    with pytest.raises(ValueError) as error:
        policy(observation)
    assert str(error.value) == f"The policy takes observations float32[4], got {got}."
    assert policy(np.zeros(4)) == 0  # of 64 bits, which do


@pytest.mark.parametrize(
    ("observation", "sentence"),
    [
        (
            {"camera": np.zeros((2, 3), np.uint8), "joints": Pair(np.zeros(3), np.zeros(1))},
            "whose ['joints']['second'] is float32[2], got float64[3]",
        ),
        (
            {"camera": np.zeros((2, 3)), "joints": {"first": np.zeros(1), "second": np.zeros(2)}},
            "whose ['camera'] is uint8[2, 3], got float64[2, 3]",
        ),
        (
            {"camera": np.zeros((2, 3), np.uint8)},
            "['camera'] uint8[2, 3], ['joints']['first'] float32[1], ['joints']['second'] float32[2], got ['camera'] "
            "uint8[2, 3]",
        ),
    ],
)
def test_of_a_tree_the_array_is_named_that_does_not_fit(tmp_path, observation, sentence):
    joints = Pair(specs.Array((2,), np.float32), specs.Array((1,), np.float32))
    policy = save_and_load(tmp_path, {"camera": specs.Array((2, 3), np.uint8), "joints": joints})
    with pytest.raises(ValueError) as error:
        policy(observation)
    assert str(error.value) == f"The policy takes observations {sentence}."


def test_other_errors_of_a_policy_are_its_own(tmp_path):
    policy = save_and_load(tmp_path, specs.Array((4,), np.float32))

    def fail(*arguments):
        raise ValueError("out of memory")

    policy._function = fail
    with pytest.raises(ValueError, match="out of memory"):
        policy(np.zeros(4, np.float32))
