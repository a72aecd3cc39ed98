"""Running statistics against NumPy's over all rows at once, and what is normalised."""

import jax
import numpy as np
import pytest

from acme_lite import specs
from acme_lite.networks import running_statistics

SPEC = {
    "position": specs.Array((2,), np.float32),
    "image": specs.BoundedArray((4, 4, 1), np.uint8, 0, 255),
    "button": specs.DiscreteArray(3),
    "action_mask": specs.BoundedArray((3,), np.float32, 0, 1),
}
POSITION = "['position']"


def make_rows(rng, shape):
    return {
        "position": rng.normal([100.0, -3.0], [5.0, 0.1], (*shape, 2)).astype(np.float32),
        "image": rng.integers(256, size=(*shape, 4, 4, 1)).astype(np.uint8),
        "button": rng.integers(3, size=shape).astype(np.int32),
        "action_mask": np.ones((*shape, 3), np.float32),
    }


def test_batches_one_after_the_other_give_the_moments_of_all_rows_together():
    rng = np.random.default_rng(0)
    statistics = running_statistics.init_statistics(SPEC)
    assert list(statistics) == [POSITION]
    seen = []
    for shape in ((3, 5), (1, 1), (40,), (2, 3, 4)):
        rows, mask = make_rows(rng, shape), rng.random(shape) < 0.7
        rows["position"][~mask] = 1e6  # rows that do not count
        statistics = jax.jit(running_statistics.update_statistics)(statistics, rows, mask)
        seen.append(rows["position"][mask])
        together = np.concatenate(seen)
        np.testing.assert_allclose(statistics[POSITION].num_rows, len(together))
        np.testing.assert_allclose(statistics[POSITION].mean, together.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(statistics[POSITION].variance, together.var(axis=0), rtol=1e-3)


def test_floats_alone_are_normalised():
    rng = np.random.default_rng(1)
    rows, mask = make_rows(rng, (1_000,)), np.ones(1_000, bool)
    statistics = running_statistics.update_statistics(running_statistics.init_statistics(SPEC), rows, mask)
    normalized = running_statistics.normalize(statistics, rows)
    np.testing.assert_allclose(normalized["position"].mean(axis=0), 0, atol=1e-3)
    np.testing.assert_allclose(normalized["position"].std(axis=0), 1, atol=1e-3)
    for name in ("image", "button", "action_mask"):
        np.testing.assert_array_equal(normalized[name], rows[name])
    rows["position"][0] = 1e6
    np.testing.assert_array_equal(running_statistics.normalize(statistics, rows)["position"][0], 10)


def test_before_the_first_row_nothing_changes():
    rows = {"position": np.array([[3.0, -4.0]], np.float32)}
    statistics = running_statistics.init_statistics({"position": SPEC["position"]})
    np.testing.assert_array_equal(running_statistics.normalize(statistics, rows)["position"], rows["position"])
    without = running_statistics.update_statistics(statistics, rows, np.zeros(1, bool))
    jax.tree.map(np.testing.assert_array_equal, without, statistics)


def test_a_constant_is_finite():
    rows = np.full((10, 2), 7.0, np.float32)
    statistics = running_statistics.init_statistics(SPEC["position"])
    statistics = running_statistics.update_statistics(statistics, rows, np.ones(10, bool))
    np.testing.assert_allclose(running_statistics.normalize(statistics, rows), 0, atol=1e-3)


def test_nothing_to_normalise_is_an_error():
    with pytest.raises(ValueError, match="needs an array of floats to normalise, got"):
        running_statistics.init_statistics({"image": SPEC["image"], "action_mask": SPEC["action_mask"]})
