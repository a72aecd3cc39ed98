"""The correction of losses for prioritised sampling."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def importance_weights(probabilities: Float[Array, " B"], exponent: jax.Array) -> Float[Array, " B"]:
    """Returns w_i = (min_j p_j / p_i)^exponent, at most 1.

    The table's size in w_i = (1 / (size * p_i))^exponent cancels in the division by the batch's greatest weight.

    Args:
        probabilities: `[B]` in (0, 1] with which the items were drawn.
        exponent: scalar in [0, 1]; 1 corrects for all of the bias.

    Reference: Schaul et al., Prioritized Experience Replay (2016), section 3.4.
    """
    return (jnp.min(probabilities) / probabilities) ** exponent
