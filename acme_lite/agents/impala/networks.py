"""Networks of IMPALA: logits and a value from one torso, with or without a recurrent core."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import haiku as hk
import jax

from acme_lite import networks, specs
from acme_lite.networks import distributions

IMAGE_TORSOS = ("residual", "convolutional")


class PolicyAndValue(NamedTuple):
    """What the network gives for one observation.

    Attributes:
        logits: `[..., P]` parameters of the distribution over actions, before illegal ones are masked.
        value: `[...]` estimate of the discounted return.
    """

    logits: jax.Array
    value: jax.Array


def make_distribution(spec: specs.EnvironmentSpec) -> distributions.ActionDistribution:
    """Returns the family of distributions over the actions.

    Raises:
        ValueError: the actions are not discrete, or the action mask does not fit them.
    """
    try:
        distribution = distributions.make_action_distribution(spec.action)
    except ValueError:
        distribution = None
    if distribution is None or not distribution.is_discrete:
        raise ValueError(
            "IMPALA needs discrete actions (DiscreteArray specs, bounded arrays of integers, or a tree of them), got "
            f"{specs.describe(spec.action)}. {distributions.agents_for(spec.action)} A wrapper around the environment "
            "can also offer a choice of them."
        )
    _, mask = networks.split_action_mask(spec.observation)
    if mask is not None and mask.shape != (distribution.num_params,):
        raise ValueError(
            f"The observation's {networks.ACTION_MASK!r} must have shape ({distribution.num_params},), one entry for "
            f"each value of each part of the action, got {mask.shape}."
        )
    return distribution


def make_networks(
    spec: specs.EnvironmentSpec,
    *,
    core: str = "none",
    core_size: int = 256,
    hidden_sizes: Sequence[int] = (64, 64),
    image_torso: str = "residual",
) -> networks.RecurrentNetwork:
    """Returns a network from observations to `PolicyAndValue`.

    Images (`networks.is_image`) get the torso that `image_torso` names; all else is concatenated, with their features
    where there are both, and goes through a multi-layer perceptron with tanh.

    Args:
        spec: of the environment.
        core: one of `networks.CORES`.
        core_size: of the core.
        hidden_sizes: layers of the perceptron.
        image_torso: `"residual"`, the deep network of Espeholt et al. (2018), or `"convolutional"`, that of Mnih et al.
            (2015).

    Raises:
        ValueError: the agent cannot act in such an environment, or a setting is none of those allowed.
    """
    num_logits = make_distribution(spec).num_params
    observation_spec, _ = networks.split_action_mask(spec.observation)
    if image_torso not in IMAGE_TORSOS:
        raise ValueError(f"image_torso must be one of {', '.join(IMAGE_TORSOS)}, got {image_torso!r}.")
    make_image_torso = networks.residual_torso if image_torso == "residual" else networks.atari_torso
    torso = networks.default_torso(observation_spec, hidden_sizes, networks.tanh, make_image_torso)

    def head(features: jax.Array) -> PolicyAndValue:
        logits = hk.Linear(num_logits, name="policy")(features)
        return PolicyAndValue(logits, hk.Linear(1, name="value")(features)[..., 0])

    return networks.from_haiku_recurrent(
        lambda observation: torso(networks.split_action_mask(observation)[0]),
        head,
        spec.observation,
        core=core,
        hidden_size=core_size,
    )
