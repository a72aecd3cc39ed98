"""Torsos: from observations to features `[B, D]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from acme_lite import specs, types

Torso = Callable[[types.ArrayTree], jax.Array]


_LEAST_IMAGE_SIZE = 36  # the least height and width that the three convolutions leave something of


def concatenate(observation: types.ArrayTree, spec: types.SpecTree | None = None) -> jax.Array:
    """Returns all leaves of a `[B, ...]` tree, each flattened, as one float `[B, D]`.

    Where the spec tree is given, leaves that are one of so many values (`DiscreteArray`) become one-hot, and bytes are
    divided by the greatest of them that the spec allows, so that they are in [0, 1]; of vectors of bytes only those
    that have bounds.
    """
    leaves = jax.tree.leaves(observation)
    leaf_specs = [None] * len(leaves) if spec is None else jax.tree.leaves(spec)
    flat = [_flatten(leaf, leaf_spec) for leaf, leaf_spec in zip(leaves, leaf_specs, strict=True)]
    return flat[0] if len(flat) == 1 else jnp.concatenate(flat, axis=-1)


def _flatten(leaf: jax.Array, spec: specs.Array | None) -> jax.Array:
    if isinstance(spec, specs.DiscreteArray):
        return jax.nn.one_hot(leaf, spec.num_values)
    flat = jnp.reshape(leaf, (leaf.shape[0], -1)).astype(jnp.float32)
    greatest = _greatest_byte(spec)
    return flat if greatest is None else flat / greatest


def _greatest_byte(spec: specs.Array | None) -> int | None:
    """Returns the greatest number of a spec of bytes that are quantities; None where they stay as they are."""
    if spec is None or spec.dtype != np.uint8:
        return None
    if isinstance(spec, specs.BoundedArray):
        return int(np.max(spec.maximum, initial=1))
    # A vector without bounds may hold flags, which would vanish.
    return 255 if len(spec.shape) >= 2 else None


def is_image(spec: types.SpecTree) -> bool:
    """Whether an observation is an image for the convolutional torso.

    That is one array of bytes with three axes, a `FrameStack` or height, width and colour, of at least 36 x 36.
    """
    if not (isinstance(spec, specs.Array) and len(spec.shape) == 3 and spec.dtype == np.uint8):
        return False
    height_and_width = spec.shape[1:] if isinstance(spec, specs.FrameStack) else spec.shape[:2]
    return min(height_and_width) >= _LEAST_IMAGE_SIZE


def array_specs(observation_spec: types.SpecTree) -> list[specs.Array]:
    """Returns the specs of an observation's arrays.

    Raises:
        ValueError: there is none.
    """
    leaves = jax.tree.leaves(observation_spec)
    if not leaves:
        raise ValueError(f"An observation must have an array beside its action mask, got the spec {observation_spec}.")
    return leaves


def mlp_torso(
    hidden_sizes: Sequence[int],
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
    observation_spec: types.SpecTree | None = None,
) -> Torso:
    """Returns a multi-layer perceptron over the leaves of the observation, put together as in `concatenate`.

    Call it inside a Haiku transform.
    """

    def torso(observation: types.ArrayTree) -> jax.Array:
        network = hk.nets.MLP(hidden_sizes, activation=activation, activate_final=True)
        return network(concatenate(observation, observation_spec))

    return torso


def to_unit_interval(observation: jax.Array, observation_spec: specs.Array) -> jax.Array:
    """Returns images `[B, H, W, C]` in [0, 1] of bytes `[B, H, W, C]`, or `[B, stack, H, W]` for a `FrameStack`."""
    # The stack is transposed here, in the compiled call: NumPy would take ten times as long.
    frames_first = isinstance(observation_spec, specs.FrameStack)
    image = jnp.moveaxis(observation, 1, -1) if frames_first else observation
    return image.astype(jnp.float32) / 255


def atari_torso(observation_spec: specs.Array, hidden_size: int = 512) -> Torso:
    """Returns the convolutional torso of Mnih et al. (2015), extended data table 1.

    Takes bytes `[B, stack, H, W]` (a `FrameStack`) or `[B, H, W, C]` and scales them to [0, 1].
    """

    def torso(observation: jax.Array) -> jax.Array:
        x = to_unit_interval(observation, observation_spec)
        for channels, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = jax.nn.relu(hk.Conv2D(channels, kernel, stride, padding="VALID")(x))
        return jax.nn.relu(hk.Linear(hidden_size)(hk.Flatten()(x)))

    return torso


def default_torso(
    observation_spec: types.SpecTree,
    hidden_sizes: Sequence[int],
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
) -> Torso:
    """Returns the convolutional torso for images and a multi-layer perceptron for everything else.

    Raises:
        ValueError: an array of bytes looks like an image and is not one that `is_image` knows, or there is no array.
    """
    if is_image(observation_spec):
        return atari_torso(observation_spec)
    for leaf in array_specs(observation_spec):
        if leaf.dtype == np.uint8 and sum(size >= _LEAST_IMAGE_SIZE for size in leaf.shape) >= 2:
            raise ValueError(
                "An image must be the only array of an observation (beside its action mask), of bytes, and be [H, W, "
                f"C], or [stack, H, W] with a FrameStack spec, got {leaf}. Put environments.FrameStack around an "
                "environment of grey frames [H, W], transpose frames whose colours come first, or give the agent a "
                "network of your own (network_factory)."
            )
    return mlp_torso(hidden_sizes, activation, observation_spec)
