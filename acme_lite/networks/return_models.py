"""How a critic models returns: by their mean, or by a categorical distribution over fixed atoms.

Both are the same four functions, so that a loss is written once for either kind of critic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import haiku as hk
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from acme_lite import _runtime, checks
from acme_lite.networks import heads


class ReturnModel(NamedTuple):
    """A way to model returns; a critic's output is `[..., *O]`, with O nothing for means and N for logits of N atoms.

    Attributes:
        head: `(features [B, D]) -> output [B, *O]`; call it inside a Haiku transform.
        mean: `(output [..., *O]) -> [...]`, values in units of return.
        mixture: `(outputs [K, B, *O]) -> output [B, *O]`, the model of a return that is one of K with equal
            probability.
        losses: `(output_tm1 [B, *O], reward [B], discount [B], output_t [B, *O]) -> [B]`, how far `output_tm1` is from
            reward + discount * the return at t. No gradient flows to `output_t`.
    """

    head: Callable[[jax.Array], jax.Array]
    mean: Callable[[jax.Array], jax.Array]
    mixture: Callable[[jax.Array], jax.Array]
    losses: Callable[[jax.Array, jax.Array, jax.Array, jax.Array], jax.Array]


def scalar_returns() -> ReturnModel:
    """Returns the model of returns by their mean, whose loss is (reward + discount * v_t - v_tm1)^2 / 2.

    The head's weights begin a hundred times smaller than usual, so that the first values are near 0.
    """

    def head(features: Float[Array, "B D"]) -> Float[Array, " B"]:
        return hk.Linear(1, w_init=hk.initializers.VarianceScaling(1e-4), name="value")(features)[..., 0]

    def losses(
        value_tm1: Float[Array, " B"],
        reward: Float[Array, " B"],
        discount: Float[Array, " B"],
        value_t: Float[Array, " B"],
    ) -> Float[Array, " B"]:
        return 0.5 * jnp.square(jax.lax.stop_gradient(reward + discount * value_t) - value_tm1)

    return ReturnModel(head, lambda value: value, lambda values: jnp.mean(values, axis=0), losses)


def categorical_returns(v_min: float, v_max: float, num_atoms: int) -> ReturnModel:
    """Returns the model of returns as N evenly spaced atoms from `v_min` to `v_max`; outputs are logits.

    The loss is KL(target || softmax(logits_tm1)), where the target is the distribution of reward + discount * Z with
    Z ~ softmax(logits_t), projected on the atoms.

    Reference: Bellemare et al., A Distributional Perspective on Reinforcement Learning (2017), algorithm 1; its loss is
    the cross-entropy, which has the same gradient and a least value that is not 0.
    """
    rlax = _runtime.import_rlax()
    atoms = jnp.linspace(v_min, v_max, num_atoms)

    def head(features: Float[Array, "B D"]) -> Float[Array, "B N"]:
        return hk.Linear(num_atoms, name="value")(features)

    def mixture(logits: Float[Array, "K B N"]) -> Float[Array, "B N"]:
        return jax.nn.logsumexp(jax.nn.log_softmax(logits), axis=0) - jnp.log(logits.shape[0])

    def loss(
        logits_tm1: Float[Array, " N"], reward: Float[Array, ""], discount: Float[Array, ""], logits_t: jax.Array
    ) -> Float[Array, ""]:
        target = rlax.categorical_l2_project(reward + discount * atoms, jax.nn.softmax(logits_t), atoms)
        target = jax.lax.stop_gradient(target)
        # x log x of a probability of 0 is 0, and has no gradient that counts: the target gets none.
        entropy = -jnp.sum(jax.scipy.special.xlogy(target, target))
        return -jnp.sum(target * jax.nn.log_softmax(logits_tm1)) - entropy

    return ReturnModel(head, lambda logits: heads.categorical_mean(logits, atoms), mixture, jax.vmap(loss))


class CriticConfig(Protocol):
    """The settings that say how a critic models returns."""

    @property
    def critic(self) -> Literal["distributional", "scalar"]:
        """Whether by a distribution or by their mean."""

    @property
    def num_atoms(self) -> int:
        """Atoms of the distribution."""

    @property
    def v_min(self) -> float:
        """Least return that the distribution knows."""

    @property
    def v_max(self) -> float:
        """Greatest return that the distribution knows."""


def check(config: CriticConfig) -> None:
    """Checks the settings.

    Raises:
        ValueError: one is out of range, or is set and has no effect; names it, its value and what is allowed.
    """
    checks.one_of(config, ("distributional", "scalar"), "critic")
    checks.increasing(config, "v_min", "v_max")
    checks.at_least(config, 2, "num_atoms")
    if config.critic == "scalar":
        # Not `num_atoms`: named configs have other ones, and any of them may be given a scalar critic.
        checks.left_at_default(config, "with a scalar critic", "v_min", "v_max")


def from_config(config: CriticConfig) -> ReturnModel:
    """Returns how the config's critic models returns."""
    if config.critic == "scalar":
        return scalar_returns()
    return categorical_returns(config.v_min, config.v_max, config.num_atoms)
