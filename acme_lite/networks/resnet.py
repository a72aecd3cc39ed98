"""The deep residual torso for images of Espeholt et al. (2018)."""

from __future__ import annotations

from collections.abc import Sequence

import haiku as hk
import jax

from acme_lite import specs
from acme_lite.networks import torsos


def residual_torso(
    observation_spec: specs.Array,
    *,
    channels: Sequence[int] = (16, 32, 32),
    num_blocks: int = 2,
    hidden_size: int = 256,
) -> torsos.Torso:
    """Returns the deep residual torso: sections of a convolution, a max pooling and residual blocks, then a layer.

    With the defaults it has 15 convolutions of 3 x 3 and halves height and width (rounded up) three times.

    Takes bytes `[B, stack, H, W]` (a `FrameStack`) or `[B, H, W, C]` and scales them to [0, 1]. Call it inside a Haiku
    transform.

    Args:
        observation_spec: of one image.
        channels: channels of each section.
        num_blocks: residual blocks of a section.
        hidden_size: of the layer behind the last section.

    Reference: Espeholt et al., IMPALA: Scalable Distributed Deep-RL with Importance Weighted Actor-Learner
    Architectures (2018), figure 3, right.
    """

    def torso(observation: jax.Array) -> jax.Array:
        x = torsos.to_unit_interval(observation, observation_spec)
        for size in channels:
            x = hk.Conv2D(size, 3)(x)
            x = hk.max_pool(x, window_shape=(3, 3, 1), strides=(2, 2, 1), padding="SAME")
            for _ in range(num_blocks):
                x = x + hk.Conv2D(size, 3)(jax.nn.relu(hk.Conv2D(size, 3)(jax.nn.relu(x))))
        return jax.nn.relu(hk.Linear(hidden_size)(hk.Flatten()(jax.nn.relu(x))))

    return torso
