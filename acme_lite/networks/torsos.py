"""Torsos: from observations to features `[B, D]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import haiku as hk
import jax
import jax.numpy as jnp
import numpy as np

from acme_lite import specs, types

Torso = Callable[[types.ArrayTree], jax.Array]


def concatenate(observation: types.ArrayTree) -> jax.Array:
    """Returns all leaves of a `[B, ...]` tree, each flattened, as one float `[B, D]`."""
    leaves = [jnp.reshape(leaf, (leaf.shape[0], -1)).astype(jnp.float32) for leaf in jax.tree.leaves(observation)]
    return leaves[0] if len(leaves) == 1 else jnp.concatenate(leaves, axis=-1)


def is_image(spec: types.SpecTree) -> bool:
    """Whether an observation is one array of bytes with three axes: a stack of frames, or height, width and colour."""
    return isinstance(spec, specs.Array) and len(spec.shape) == 3 and spec.dtype == np.uint8


def mlp_torso(hidden_sizes: Sequence[int], activation: Callable[[jax.Array], jax.Array] = jax.nn.relu) -> Torso:
    """Returns a multi-layer perceptron over the concatenated leaves of the observation.

    Call it inside a Haiku transform.
    """

    def torso(observation: types.ArrayTree) -> jax.Array:
        network = hk.nets.MLP(hidden_sizes, activation=activation, activate_final=True)
        return network(concatenate(observation))

    return torso


def atari_torso(observation_spec: specs.Array, hidden_size: int = 512) -> Torso:
    """Returns the convolutional torso of Mnih et al. (2015), extended data table 1.

    Takes bytes `[B, stack, H, W]` (a `FrameStack`) or `[B, H, W, C]` and scales them to [0, 1].
    """
    frames_first = isinstance(observation_spec, specs.FrameStack)

    def torso(observation: jax.Array) -> jax.Array:
        # The stack is transposed here, in the compiled call: NumPy would take ten times as long.
        image = jnp.moveaxis(observation, 1, -1) if frames_first else observation
        x = image.astype(jnp.float32) / 255
        for channels, kernel, stride in ((32, 8, 4), (64, 4, 2), (64, 3, 1)):
            x = jax.nn.relu(hk.Conv2D(channels, kernel, stride, padding="VALID")(x))
        return jax.nn.relu(hk.Linear(hidden_size)(hk.Flatten()(x)))

    return torso


def default_torso(
    observation_spec: types.SpecTree,
    hidden_sizes: Sequence[int],
    activation: Callable[[jax.Array], jax.Array] = jax.nn.relu,
) -> Torso:
    """Returns the convolutional torso for images and a multi-layer perceptron for everything else."""
    return atari_torso(observation_spec) if is_image(observation_spec) else mlp_torso(hidden_sizes, activation)
