"""Acting: policies as pure functions, and the shell that runs them."""

from acme_lite.acting.actor_core import ActorCore, extras_spec, feed_forward, initial_state
from acme_lite.acting.exploration import epsilon_greedy, epsilon_ladder
from acme_lite.acting.normalization import normalize_observations
from acme_lite.acting.policy_actor import PolicyActor
from acme_lite.acting.variable_client import VariableClient

__all__ = [
    "ActorCore",
    "PolicyActor",
    "VariableClient",
    "epsilon_greedy",
    "epsilon_ladder",
    "extras_spec",
    "feed_forward",
    "initial_state",
    "normalize_observations",
]
