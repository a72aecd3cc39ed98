"""Torsos: which observations are images, those that no torso takes, and how bytes are scaled."""

import haiku as hk
import jax
import numpy as np
import pytest

from acme_lite import networks, specs
from acme_lite.agents import dqn, impala, ppo, r2d2, sac

BUILDERS = [dqn.DQNBuilder(), r2d2.R2D2Builder(), ppo.PPOBuilder(), impala.IMPALABuilder()]
ACTION = specs.DiscreteArray(2)
MASK = specs.BoundedArray((2,), np.int8, 0, 1)


def environment_spec(observation, action=ACTION):
    return specs.EnvironmentSpec(
        observation, action, specs.Array((), np.float32), specs.BoundedArray((), np.float32, 0, 1)
    )


def image(*shape):
    return specs.BoundedArray(shape, np.uint8, 0, 255)


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize(
    "observation",
    [
        image(4, 84, 84),  # as Gymnasium's FrameStackObservation gives frames
        image(3, 84, 84),
        image(84, 84),
        specs.FrameStack((4, 84, 84, 3), np.uint8, 0, 255),
        {"pixels": image(3, 84, 84), "speed": specs.Array((2,), np.float32)},
    ],
)
def test_images_that_no_torso_takes_are_refused(builder, observation):
    with pytest.raises(ValueError, match=r"An image must be .* \[H, W, C\], or \[stack, H, W\] .*, got "):
        builder.make_networks(environment_spec(observation))


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("more", [{}, {"action_mask": MASK}])
def test_an_image_in_a_dict_is_an_image(builder, more):
    observation = {"pixels": image(84, 84, 3), **more}
    params = jax.eval_shape(builder.make_networks(environment_spec(observation)).init, jax.random.key(0))
    assert any("conv" in name for name in params)


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("agent_has_mask", [False, True])
def test_images_beside_other_arrays_are_each_convolved(builder, agent_has_mask):
    observation = {
        "camera": image(40, 40, 3),
        "frames": specs.FrameStack((2, 36, 36), np.uint8, 0, 255),
        "speed": specs.Array((5,), np.float64),
        **({"action_mask": MASK} if agent_has_mask else {}),
    }
    params = jax.eval_shape(builder.make_networks(environment_spec(observation)).init, jax.random.key(0))
    convolutions = [name for name in params if "conv" in name]
    assert len(convolutions) == 2 * (15 if "impala" in type(builder).__module__ else 3)
    # One perceptron takes the features of both images and the five numbers.
    features = 2 * (256 if "impala" in type(builder).__module__ else 512)
    assert [params[name]["w"].shape[0] for name in params if name == "mlp/~/linear_0"] == [features + 5]


def test_features_depend_on_every_part_of_an_observation():
    spec = {"image": image(36, 36, 3), "vector": specs.Array((5,), np.float32), "which": specs.DiscreteArray(3)}
    torso = hk.without_apply_rng(hk.transform(networks.default_torso(spec, (16,), jax.numpy.tanh)))
    rng = np.random.default_rng(0)
    observation = {
        "image": rng.integers(256, size=(2, 36, 36, 3)).astype(np.uint8),
        "vector": rng.normal(size=(2, 5)).astype(np.float32),
        "which": np.array([0, 1], np.int32),
    }
    params, apply = torso.init(jax.random.key(0), observation), jax.jit(torso.apply)
    features = np.asarray(apply(params, observation))
    assert features.shape == (2, 16)
    for name, other in (("image", 255 - observation["image"]), ("vector", -observation["vector"]), ("which", [2, 2])):
        changed = apply(params, observation | {name: np.asarray(other, observation[name].dtype)})
        assert np.all(np.abs(changed - features).max(axis=-1) > 1e-3), name


@pytest.mark.parametrize("builder", BUILDERS)
@pytest.mark.parametrize("observation", [{}, {"action_mask": MASK}])
def test_an_observation_without_an_array_is_refused(builder, observation):
    with pytest.raises(ValueError, match="must have an array beside its action mask"):
        builder.make_networks(environment_spec(observation))


def test_continuous_control_refuses_an_observation_without_an_array():
    action = specs.BoundedArray((2,), np.float32, -1, 1)
    with pytest.raises(ValueError, match="must have an array"):
        sac.SACBuilder().make_networks(environment_spec({}, action))


def test_a_small_image_of_bytes_is_to_the_perceptron_what_its_floats_are():
    """Unscaled, its numbers up to 255 saturate the perceptron, and the agent learns nothing."""
    byte_spec, float_spec = image(32, 32, 3), specs.BoundedArray((32, 32, 3), np.float32, 0, 1)
    images = np.random.default_rng(0).integers(256, size=(4, 32, 32, 3)).astype(np.uint8)
    of_bytes, of_floats = (
        hk.without_apply_rng(hk.transform(networks.default_torso(spec, (8,), jax.numpy.tanh)))
        for spec in (byte_spec, float_spec)
    )
    params = of_floats.init(jax.random.key(0), images.astype(np.float32) / 255)
    features = of_bytes.apply(params, images)
    np.testing.assert_allclose(features, of_floats.apply(params, images.astype(np.float32) / 255), rtol=1e-5)
    assert np.abs(features).max() < 0.99


@pytest.mark.parametrize(
    ("spec", "greatest"),
    [
        (image(2, 3), 255),
        (specs.Array((2, 3), np.uint8), 255),
        (specs.FrameStack((4, 2, 2), np.uint8, 0, 255), 255),
        (specs.BoundedArray((2, 3), np.uint8, 0, 10), 10),
        (specs.BoundedArray((2,), np.uint8, [0, 0], [4, 8]), 8),
        # These stay as they are.
        (specs.BoundedArray((2, 3), np.uint8, 0, 1), 1),
        (specs.BoundedArray((2, 3), np.uint8, 0, 0), 1),
        (specs.BoundedArray((0,), np.uint8, 0, 255), 1),
        (specs.Array((3,), np.uint8), 1),
        (specs.BoundedArray((2, 3), np.int32, 0, 10), 1),
        (specs.BoundedArray((2, 3), np.float32, 0, 255), 1),
    ],
)
def test_bytes_are_divided_by_the_greatest_of_their_spec(spec, greatest):
    ones = np.ones((2, *spec.shape), spec.dtype)
    expected = np.ones((2, ones[0].size)) / greatest
    np.testing.assert_allclose(networks.concatenate(ones, spec), expected, rtol=1e-6)
    np.testing.assert_array_equal(networks.concatenate(ones), np.ones(expected.shape))


def test_one_of_so_many_bytes_is_one_hot():
    np.testing.assert_array_equal(
        networks.concatenate(np.array([1], np.uint8), specs.DiscreteArray(3, np.uint8)), [[0, 1, 0]]
    )
