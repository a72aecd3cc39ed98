"""ε-greedy: frequencies with fixed seeds, with and without masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import acting

NUM_DRAWS = 20_000
# Five times the greatest standard deviation of a frequency, sqrt(1/4 / 20,000) = 0.0035.
TOLERANCE = 0.018


def frequencies(values, epsilon, action_mask=None, seed=0):
    """Returns how often each action was drawn in many rows of the same values."""
    values = jnp.broadcast_to(jnp.asarray(values, jnp.float32), (NUM_DRAWS, len(values)))
    mask = None if action_mask is None else jnp.broadcast_to(jnp.asarray(action_mask), values.shape)
    actions = acting.epsilon_greedy(jax.random.key(seed), values, epsilon, action_mask=mask)
    assert actions.shape == (NUM_DRAWS,) and actions.dtype == jnp.int32
    return np.bincount(actions, minlength=values.shape[1]) / NUM_DRAWS


def test_all_random_is_uniform():
    np.testing.assert_allclose(frequencies([3.0, 1.0, 2.0, 0.0, 5.0], 1.0), np.full(5, 0.2), atol=TOLERANCE)


def test_a_part_is_random():
    # 1 - 0.4 + 0.4 / 4 for the best action, 0.4 / 4 for each other one.
    np.testing.assert_allclose(frequencies([3.0, 7.0, 2.0, 0.0], 0.4), [0.1, 0.7, 0.1, 0.1], atol=TOLERANCE)


def test_random_actions_are_uniform_over_the_legal_ones():
    mask = np.array([0, 1, 0, 1, 1, 0], np.int8)
    drawn = frequencies([9.0, 1.0, 8.0, 2.0, 3.0, 7.0], 1.0, mask)
    np.testing.assert_array_equal(drawn[mask == 0], 0)
    np.testing.assert_allclose(drawn[mask == 1], np.full(3, 1 / 3), atol=TOLERANCE)


def test_greedy_actions_are_the_best_legal_ones():
    mask = np.array([False, True, False, True, True, False])
    drawn = frequencies([9.0, 1.0, 8.0, 2.0, 3.0, 7.0], 0.3, mask)
    np.testing.assert_allclose(drawn, [0, 0.1, 0, 0.1, 0.8, 0], atol=TOLERANCE)
    np.testing.assert_array_equal(drawn[~mask], 0)


def test_a_mask_of_its_own_for_each_row():
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 2, size=(NUM_DRAWS, 7)).astype(np.int8)
    mask[np.arange(NUM_DRAWS), rng.integers(7, size=NUM_DRAWS)] = 1
    values = rng.normal(size=(NUM_DRAWS, 7)).astype(np.float32)
    actions = np.asarray(acting.epsilon_greedy(jax.random.key(0), values, 0.5, action_mask=mask))
    assert (mask[np.arange(NUM_DRAWS), actions] == 1).all()
    greedy = np.argmax(np.where(mask == 1, values, -np.inf), axis=-1)
    expected = 0.5 + 0.5 * np.mean(1 / mask.sum(axis=-1))
    assert np.mean(actions == greedy) == pytest.approx(expected, abs=TOLERANCE)


def test_one_legal_action_is_always_taken():
    np.testing.assert_array_equal(frequencies([5.0, -1.0, 2.0], 0.5, [0, 1, 0]), [0, 1, 0])


@pytest.mark.parametrize("epsilon", [0, 0.0, np.float32(0), jnp.float32(0)])
def test_zero_is_greedy(epsilon):
    np.testing.assert_array_equal(frequencies([1.0, 4.0, 2.0], epsilon), [0, 1, 0])
    np.testing.assert_array_equal(frequencies([1.0, 4.0, 2.0], epsilon, [1, 0, 1]), [0, 0, 1])


def test_epsilon_may_be_one_per_row():
    epsilon = jnp.where(jnp.arange(NUM_DRAWS) < NUM_DRAWS // 2, 0.0, 1.0)
    values = jnp.broadcast_to(jnp.array([0.0, 1.0]), (NUM_DRAWS, 2))
    actions = np.asarray(acting.epsilon_greedy(jax.random.key(0), values, epsilon))
    assert (actions[: NUM_DRAWS // 2] == 1).all()
    assert np.mean(actions[NUM_DRAWS // 2 :]) == pytest.approx(0.5, abs=2 * TOLERANCE)


def test_keys_decide():
    values = jnp.zeros((50, 4))
    one, other = (acting.epsilon_greedy(jax.random.key(seed), values, 1.0) for seed in (0, 1))
    again = acting.epsilon_greedy(jax.random.key(0), values, 1.0)
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)
