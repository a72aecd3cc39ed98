"""Networks as pairs of pure functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import haiku as hk
import jax

from acme_lite import specs, types


class FeedForwardNetwork(NamedTuple):
    """A network as pure functions.

    Attributes:
        init: `(key) -> params`; the key is consumed.
        apply: `(params, observation [B, ...]) -> output [B, ...]`.
    """

    init: Callable[[jax.Array], types.Params]
    apply: Callable[[types.Params, types.ArrayTree], Any]


def from_haiku(function: Callable[[types.ArrayTree], Any], observation_spec: types.SpecTree) -> FeedForwardNetwork:
    """Returns the network of a function that uses Haiku modules.

    Args:
        function: `(observation [B, ...]) -> output [B, ...]`; may call Haiku modules, and uses no randomness.
        observation_spec: spec tree of one observation.
    """
    transformed: hk.Transformed = hk.without_apply_rng(hk.transform(function))

    def init(key: jax.Array) -> types.Params:
        return transformed.init(key, specs.zeros(observation_spec, batch_shape=(1,)))

    return FeedForwardNetwork(init=init, apply=transformed.apply)
