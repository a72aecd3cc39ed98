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
    """Whether an observation is an image for the convolutional torso, and nothing else.

    That is one array of bytes with three axes, a `FrameStack` or height, width and colour, of at least 36 x 36.
    """
    if not (isinstance(spec, specs.Array) and len(spec.shape) == 3 and spec.dtype == np.uint8):
        return False
    height_and_width = spec.shape[1:] if isinstance(spec, specs.FrameStack) else spec.shape[:2]
    return min(height_and_width) >= _LEAST_IMAGE_SIZE


def has_image(observation_spec: types.SpecTree) -> bool:
    """Whether any of an observation's arrays is an image for the convolutional torso."""
    return any(is_image(leaf) for leaf in jax.tree.leaves(observation_spec))


def array_specs(observation_spec: types.SpecTree) -> list[specs.Array]:
    """Returns the specs of an observation's arrays.

    Raises:
        ValueError: there is none.
    """
    leaves = jax.tree.leaves(observation_spec)
    if not leaves:
        raise ValueError(
            "An observation must have an array beside its action mask, got the spec "
            f"{specs.describe(observation_spec)}."
        )
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
    image_torso: Callable[[specs.Array], Torso] = atari_torso,
) -> Torso:
    """Returns the image torso for an image alone and a multi-layer perceptron for everything else.

    Of several arrays each image gets an image torso of its own, whose features go into the perceptron together with the
    other arrays, put together as in `concatenate`.

    Args:
        observation_spec: of the observation, without its action mask.
        hidden_sizes: layers of the perceptron.
        activation: of the perceptron.
        image_torso: `(spec) -> torso` of one image.

    Raises:
        ValueError: an array of bytes looks like an image and is not one that `is_image` knows, or there is no array.
    """
    leaf_specs = array_specs(observation_spec)
    for spec in leaf_specs:
        large = spec.dtype == np.uint8 and sum(size >= _LEAST_IMAGE_SIZE for size in spec.shape) >= 2
        if large and not is_image(spec):
            raise ValueError(
                f"An image must be of bytes and be [H, W, C], or [stack, H, W] with a FrameStack spec, got "
                f"{specs.describe(spec)}. Put environments.FrameStack around an environment of grey frames [H, W], "
                "transpose frames whose colours come first, or give the agent a network of your own (network_factory)."
            )
    is_alone = len(leaf_specs) == 1 and is_image(leaf_specs[0])

    def torso(observation: types.ArrayTree) -> jax.Array:
        features = [
            image_torso(spec)(leaf) if is_image(spec) else _flatten(leaf, spec)
            for leaf, spec in zip(jax.tree.leaves(observation), leaf_specs, strict=True)
        ]
        if is_alone:
            return features[0]
        network = hk.nets.MLP(hidden_sizes, activation=activation, activate_final=True)
        return network(jnp.concatenate(features, axis=-1))

    return torso
