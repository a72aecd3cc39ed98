"""Networks shared by the agents: torsos and heads in Haiku, and their wrapping as pure functions."""

from acme_lite.networks.activations import elu, tanh
from acme_lite.networks.continuous import (
    ActionScaling,
    ActorCriticNetworks,
    Critic,
    SquashedGaussian,
    actor_critic_from_haiku,
    critic_ensemble,
    critic_from_haiku,
    deterministic_head,
    layer_norm_mlp,
    make_action_scaling,
    observation_encoder,
    squashed_gaussian_head,
    squashed_log_prob,
    squashed_mode,
    squashed_sample,
)
from acme_lite.networks.distributions import ActionDistribution, make_action_distribution
from acme_lite.networks.feed_forward import FeedForwardNetwork, from_haiku
from acme_lite.networks.heads import action_values, categorical_mean, check_discrete, check_output
from acme_lite.networks.legal_actions import ACTION_MASK, mask_illegal, split_action_mask
from acme_lite.networks.policy_heads import (
    PolicyValue,
    check_action_mask,
    mask_illegal_parameters,
    policy_parameters,
    state_value,
)
from acme_lite.networks.recurrent import (
    CORES,
    RecurrentNetwork,
    episode_starts,
    from_haiku_recurrent,
    reset_where,
)
from acme_lite.networks.resnet import residual_torso
from acme_lite.networks.torsos import Torso, atari_torso, concatenate, default_torso, has_image, is_image, mlp_torso

__all__ = [
    "ACTION_MASK",
    "CORES",
    "ActionDistribution",
    "ActionScaling",
    "ActorCriticNetworks",
    "Critic",
    "FeedForwardNetwork",
    "PolicyValue",
    "RecurrentNetwork",
    "SquashedGaussian",
    "Torso",
    "action_values",
    "actor_critic_from_haiku",
    "atari_torso",
    "categorical_mean",
    "check_action_mask",
    "check_discrete",
    "check_output",
    "concatenate",
    "critic_ensemble",
    "critic_from_haiku",
    "default_torso",
    "deterministic_head",
    "elu",
    "episode_starts",
    "from_haiku",
    "from_haiku_recurrent",
    "has_image",
    "is_image",
    "layer_norm_mlp",
    "make_action_distribution",
    "make_action_scaling",
    "mask_illegal",
    "mask_illegal_parameters",
    "mlp_torso",
    "observation_encoder",
    "policy_parameters",
    "reset_where",
    "residual_torso",
    "split_action_mask",
    "squashed_gaussian_head",
    "squashed_log_prob",
    "squashed_mode",
    "squashed_sample",
    "state_value",
    "tanh",
]
