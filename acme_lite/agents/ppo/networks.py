"""Networks of PPO: a policy and a value."""

from __future__ import annotations

from collections.abc import Sequence

import haiku as hk

from acme_lite import networks, specs, types


def make_networks(
    spec: specs.EnvironmentSpec, *, hidden_sizes: Sequence[int] = (64, 64), initial_log_std: float = 0.0
) -> networks.FeedForwardNetwork:
    """Returns a network from observations to `networks.PolicyValue`.

    Policy and value have a perceptron with tanh each (Andrychowicz et al., 2021, section 3.2). Where there are images
    (`networks.is_image`) they share the features: those of the convolutional torso of Mnih et al. (2015), or of one
    perceptron over these and the other arrays of the observation.

    Raises:
        ValueError: there is no distribution over such actions, or an action mask does not fit them.
    """
    distribution = networks.make_action_distribution(spec.action)
    networks.check_action_mask(spec.observation, distribution)
    observation_spec, _ = networks.split_action_mask(spec.observation)
    torso = networks.default_torso(observation_spec, hidden_sizes, networks.tanh)

    def policy_and_value(observation: types.ArrayTree) -> networks.PolicyValue:
        observation, _ = networks.split_action_mask(observation)
        policy_features = value_features = torso(observation)
        if not networks.has_image(observation_spec):
            with hk.name_scope("critic"):
                value_features = torso(observation)
        policy = networks.policy_parameters(policy_features, distribution, initial_log_std=initial_log_std)
        return networks.PolicyValue(policy, networks.state_value(value_features))

    return networks.from_haiku(policy_and_value, spec.observation)
