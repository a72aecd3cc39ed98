"""Torsos: which observations are images, and those that no torso takes."""

import jax
import numpy as np
import pytest

from acme_lite import specs
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
        {"pixels": image(84, 84, 3), "speed": specs.Array((2,), np.float32)},
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
@pytest.mark.parametrize("observation", [{}, {"action_mask": MASK}])
def test_an_observation_without_an_array_is_refused(builder, observation):
    with pytest.raises(ValueError, match="must have an array beside its action mask"):
        builder.make_networks(environment_spec(observation))


def test_continuous_control_refuses_an_observation_without_an_array():
    action = specs.BoundedArray((2,), np.float32, -1, 1)
    with pytest.raises(ValueError, match="must have an array"):
        sac.SACBuilder().make_networks(environment_spec({}, action))
