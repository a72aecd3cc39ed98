"""Networks of R2D2: action values `[B, A]` from an observation and a recurrent state."""

from __future__ import annotations

from collections.abc import Sequence

import jax

from acme_lite import networks, specs, types


def make_networks(
    spec: specs.EnvironmentSpec,
    *,
    hidden_sizes: Sequence[int] = (64,),
    core: str = "lstm",
    core_size: int = 64,
    duelling: bool = True,
) -> networks.RecurrentNetwork:
    """Returns a recurrent network from observations to action values `[B, A]`.

    Images (`networks.is_image`) get the convolutional torso of Mnih et al. (2015); all else is concatenated, with their
    features where there are both, and goes through a multi-layer perceptron with tanh. Behind it come the core and a
    linear head.
    """
    num_actions = networks.check_discrete(spec, agent="R2D2").num_values
    observation_spec, _ = networks.split_action_mask(spec.observation)
    observation_torso = networks.default_torso(observation_spec, hidden_sizes, networks.tanh)

    def torso(observation: types.ArrayTree) -> jax.Array:
        return observation_torso(networks.split_action_mask(observation)[0])

    def head(features: jax.Array) -> jax.Array:
        return networks.action_values(features, num_actions, duelling=duelling)

    return networks.from_haiku_recurrent(torso, head, spec.observation, core=core, hidden_size=core_size)
