"""Specs in words, as messages have them."""

import re

import numpy as np
import pytest

from acme_lite import specs
from acme_lite.agents import dqn, impala, ppo, sac

IMAGE = specs.BoundedArray((40, 40, 3), np.uint8, np.zeros((40, 40, 3)), np.full((40, 40, 3), 255), "camera")


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (IMAGE, "BoundedArray 'camera' uint8[40, 40, 3] in [0, 255]"),
        (specs.Array((), np.float32), "Array float32[]"),
        (specs.BoundedArray((2,), np.float32, -np.inf, 0.1), "BoundedArray float32[2] in [-inf, 0.1]"),
        (specs.BoundedArray((2,), np.int8, 0, [1, 2]), "BoundedArray int8[2] with bounds for each element"),
        (
            specs.BoundedArray((0,), np.int8, np.zeros(0), np.zeros(0)),
            "BoundedArray int8[0] with bounds for each element",
        ),
        (specs.FrameStack((4, 8, 8), np.uint8, 0, 255, "x"), "FrameStack 'x' uint8[4, 8, 8] in [0, 255]"),
        (specs.DiscreteArray(3), "DiscreteArray int32[] of 3 values"),
        (
            {"a": specs.Array((2,), np.int64), "b": [IMAGE]},
            "['a'] Array int64[2], ['b'][0] " + "BoundedArray 'camera' uint8[40, 40, 3] in [0, 255]",
        ),
        ({}, "{}"),
        ((), "()"),
        ("what is no spec", "'what is no spec'"),
    ],
)
def test_a_spec_in_words(spec, words):
    assert specs.describe(spec) == words


@pytest.mark.parametrize("make_builder", [dqn.DQNBuilder, ppo.PPOBuilder, impala.IMPALABuilder, sac.SACBuilder])
def test_messages_do_not_print_the_bounds_of_each_element(make_builder):
    """A message about one image had 1,400 characters on a hundred lines."""
    frames = specs.BoundedArray((3, 40, 40), np.uint8, np.zeros((3, 40, 40)), np.full((3, 40, 40), 255), "camera")
    action = specs.BoundedArray((2,), np.float32, -1, 1) if make_builder is sac.SACBuilder else specs.DiscreteArray(2)
    spec = specs.EnvironmentSpec(frames, action, specs.Array((), np.float32), specs.BoundedArray((), np.float32, 0, 1))
    with pytest.raises(ValueError, match=re.escape("BoundedArray 'camera' uint8[3, 40, 40] in [0, 255]")) as error:
        make_builder().make_networks(spec)
    assert len(str(error.value)) < 500 and "\n" not in str(error.value)
