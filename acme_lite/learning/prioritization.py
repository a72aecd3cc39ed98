"""The correction of losses for prioritised sampling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from acme_lite import replay


def sample_weights(info: replay.SampleInfo | tuple, exponent: jax.Array) -> Float[Array, " B"]:
    """Returns the `importance_weights` of a sample, also of one from `replay.mix_datasets`.

    There a batch holds so many items of each table, and the size of each table counts: w_i is the smaller, the more
    often item i is drawn than it would be uniformly from its own table.

    Args:
        info: `replay.Sample.info`.
        exponent: as in `importance_weights`.
    """
    if isinstance(info, replay.SampleInfo):
        return importance_weights(jnp.asarray(info.probabilities), exponent)
    return importance_weights(jnp.concatenate([one.probabilities * one.table_size for one in info]), exponent)


def importance_weights(probabilities: Float[Array, " B"], exponent: jax.Array) -> Float[Array, " B"]:
    """Returns w_i = (min_j p_j / p_i)^exponent, at most 1.

    The table's size in w_i = (1 / (size * p_i))^exponent cancels in the division by the batch's greatest weight.

    Args:
        probabilities: `[B]` with which the items were drawn, greater than 0, or multiples of these.
        exponent: scalar in [0, 1]; 1 corrects for all of the bias.

    Reference: Schaul et al., Prioritized Experience Replay (2016), section 3.4.
    """
    return (jnp.min(probabilities) / probabilities) ** exponent
