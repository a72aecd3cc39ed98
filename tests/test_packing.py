"""Small arrays of a state as one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import packing


def make_tree():
    rng = np.random.default_rng(0)
    return {
        "large": rng.normal(size=(packing.LARGEST_PACKED + 1,)).astype(np.float32),
        "weights": rng.normal(size=(3, 5)).astype(np.float32),
        "none": (),
        "empty": np.zeros((0, 2), np.float32),
        "biases": [rng.normal(size=(5,)).astype(np.float32), np.float32(7)],
        "counts": (np.int32(3), np.array([4, 5], np.int32)),
        "flag": np.array(True),
    }


def test_a_tree_comes_back_whole_from_few_arrays():
    tree = make_tree()
    packer = packing.Packing(tree, "state")
    packed = packer.pack(tree)
    # Float32, int32, the flag, which is alone, and the large one.
    assert sorted(array.shape for array in packed) == [(), (3,), (21,), (packing.LARGEST_PACKED + 1,)]
    for arrays in (packed, jax.device_get(packed)):
        again = packer.unpack(arrays)
        assert jax.tree.structure(again) == jax.tree.structure(tree)
        for leaf, before in zip(jax.tree.leaves(again), jax.tree.leaves(tree), strict=True):
            assert leaf.shape == np.shape(before) and leaf.dtype == before.dtype
            np.testing.assert_array_equal(leaf, before)


def test_keys_stay_as_they_are():
    tree = {"key": jax.random.key(0), "other": jax.random.key(1), "step": 0, "learner_step": 1}
    packer = packing.Packing(tree, "state")
    again = packer.unpack(packer.pack(tree))
    assert jax.random.bits(again["other"]) == jax.random.bits(tree["other"])
    assert (again["step"], again["learner_step"]) == (0, 1)


def test_what_has_changed_is_named():
    packer = packing.Packing(make_tree(), "state")
    tree = make_tree()
    tree["biases"][1] = np.int32(7)
    with pytest.raises(ValueError, match=r"state\['biases'\]\[1\] must keep .*, \(\) and float32, got \(\) and int32"):
        packer.pack(tree)
    tree = make_tree() | {"weights": jnp.zeros((5, 3))}
    with pytest.raises(ValueError, match=r"state\['weights'\] must keep .*, \(3, 5\) and float32, got \(5, 3\)"):
        packer.pack(tree)
    with pytest.raises(ValueError, match="must keep its structure"):
        packer.pack(make_tree() | {"none": None})
