"""Recurrent networks: the unroll of a window against one step after the other."""

from __future__ import annotations

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import networks, specs

B, T, HIDDEN_SIZE = 3, 6, 5
SPEC = {"position": specs.Array((2,), np.float32), "kind": specs.DiscreteArray(3)}


def make_network(core):
    return networks.from_haiku_recurrent(
        networks.mlp_torso((4,), observation_spec=SPEC),
        lambda features: {"logits": hk.Linear(2)(features), "value": hk.Linear(1)(features)[..., 0]},
        SPEC,
        core=core,
        hidden_size=HIDDEN_SIZE,
    )


def make_window(seed=0):
    rng = np.random.default_rng(seed)
    return {
        "position": rng.normal(size=(B, T, 2)).astype(np.float32),
        "kind": rng.integers(3, size=(B, T)).astype(np.int32),
    }


def random_state(network, seed=1):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=(B, *leaf.shape)), leaf.dtype), network.initial_state()
    )


def step_by_step(network, params, window, state, reset):
    """Returns outputs `[B, T]` and last states `[B]` of rows that are stepped alone, each with a state of its own."""
    outputs, states = [], []
    for b in range(B):
        row = jax.tree.map(lambda leaf, b=b: leaf[b : b + 1], state)
        for t in range(T):
            if reset[b, t]:
                row = jax.tree.map(lambda leaf: leaf[None], network.initial_state())
            output, row = network.apply(params, {name: leaf[b : b + 1, t] for name, leaf in window.items()}, row)
            outputs.append(output)
        states.append(row)
    stacked = jax.tree.map(lambda *leaves: np.reshape(np.stack(leaves), (B, T, *leaves[0].shape[1:])), *outputs)
    return stacked, jax.tree.map(lambda *leaves: np.concatenate(leaves), *states)


@pytest.mark.parametrize("core", networks.CORES)
def test_unroll_gives_what_single_steps_give(core):
    network = make_network(core)
    params = network.init(jax.random.key(0))
    window, state = make_window(), random_state(network)
    reset = np.zeros((B, T), bool)
    reset[0, 2] = reset[1, 0] = reset[2, 4] = reset[2, 5] = True
    output, last_state = jax.jit(network.unroll)(params, window, state, reset)
    expected, expected_state = step_by_step(network, params, window, state, reset)
    assert output["logits"].shape == (B, T, 2) and output["value"].shape == (B, T)
    for one, other in zip(
        jax.tree.leaves((output, last_state)), jax.tree.leaves((expected, expected_state)), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("core", ["gru", "lstm"])
def test_a_reset_cuts_the_past_off_and_only_the_past(core):
    network = make_network(core)
    params = network.init(jax.random.key(0))
    window, reset = make_window(), np.zeros((B, T), bool)
    reset[0, 3] = True
    changed = {"position": window["position"].copy(), "kind": window["kind"]}
    changed["position"][:, 1] += 1
    one, other = (
        jax.jit(network.unroll)(params, each, random_state(network), reset)[0]["value"] for each in (window, changed)
    )
    differs = np.abs(np.asarray(one) - np.asarray(other)) > 1e-6
    assert not differs[:, 0].any()
    assert differs[0, 1:3].all() and not differs[0, 3:].any()
    assert differs[1:, 1:].all()


def test_episodes_start_behind_rows_that_are_not_real():
    mask = np.array(
        [[True, True, False, True, False], [False, True, True, True, True], [True, False, False, False, True]]
    )
    expected = [[0, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 1]]
    np.testing.assert_array_equal(networks.episode_starts(jnp.asarray(mask)), np.array(expected, bool))


def test_cores_have_the_states_of_their_kind():
    assert make_network("none").initial_state() == ()
    assert make_network("gru").initial_state().shape == (HIDDEN_SIZE,)
    state = make_network("lstm").initial_state()
    assert state.hidden.shape == state.cell.shape == (HIDDEN_SIZE,)


@pytest.mark.parametrize(("settings", "message"), [({"core": "rnn"}, "core.*'rnn'"), ({"hidden_size": 0}, "size.*0")])
def test_bad_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        networks.from_haiku_recurrent(lambda x: x, lambda x: x, specs.Array((2,), np.float32), **settings)
