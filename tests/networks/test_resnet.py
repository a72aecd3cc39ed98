"""The deep residual torso: its size, and what it does to images."""

from __future__ import annotations

import haiku as hk
import jax
import numpy as np

from acme_lite import networks, specs

STACK = specs.FrameStack((4, 84, 84), np.uint8, 0, 255)


def make(spec, **settings):
    torso = hk.without_apply_rng(hk.transform(networks.residual_torso(spec, **settings)))
    params = jax.eval_shape(torso.init, jax.random.key(0), specs.zeros(spec, (1,)))
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), params), torso.apply


def test_it_has_the_parameters_of_the_paper():
    params, _ = make(STACK)
    sizes = [leaf.size for leaf in jax.tree.leaves(params)]
    first = (9 * 4 + 1) * 16 + 4 * (9 * 16 + 1) * 16
    second = (9 * 16 + 1) * 32 + 4 * (9 * 32 + 1) * 32
    third = 5 * (9 * 32 + 1) * 32
    # 84 -> 42 -> 21 -> 11
    layer = (11 * 11 * 32 + 1) * 256
    assert sum(sizes) == first + second + third + layer
    assert len([leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 4]) == 15


def test_frame_stacks_and_images_are_the_same_to_it():
    image_spec = specs.BoundedArray((12, 10, 3), np.uint8, 0, 255)
    stack_spec = specs.FrameStack((3, 12, 10), np.uint8, 0, 255)
    settings = {"channels": (4, 8), "num_blocks": 1, "hidden_size": 5}
    params, apply = make(image_spec, **settings)
    _, apply_to_stack = make(stack_spec, **settings)
    image = np.random.default_rng(0).integers(256, size=(2, 12, 10, 3)).astype(np.uint8)
    features = apply(params, image)
    assert features.shape == (2, 5) and (features > 0).any()
    np.testing.assert_allclose(features, apply_to_stack(params, np.moveaxis(image, -1, 1)), rtol=1e-6)


def test_blocks_add_to_what_they_get():
    spec = specs.BoundedArray((8, 8, 1), np.uint8, 0, 255)
    params, apply = make(spec, channels=(2,), num_blocks=3, hidden_size=4)
    _, apply_without = make(spec, channels=(2,), num_blocks=0, hidden_size=4)
    # With zeros in the blocks, what is left is the convolution, the pooling and the layer.
    blocks = [f"conv2_d_{i}" for i in range(1, 7)]
    assert set(params) == {"conv2_d", "linear", *blocks}
    zeroed = {
        name: jax.tree.map(lambda leaf: 0 * leaf, params[name]) if name in blocks else params[name] for name in params
    }
    image = np.random.default_rng(0).integers(256, size=(2, 8, 8, 1)).astype(np.uint8)
    expected = apply_without({name: params[name] for name in ("conv2_d", "linear")}, image)
    np.testing.assert_allclose(apply(zeroed, image), expected, rtol=1e-6)
    assert np.abs(apply(params, image) - expected).max() > 1e-3
