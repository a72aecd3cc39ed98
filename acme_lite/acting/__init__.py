"""Acting: policies as pure functions, and the shell that runs them."""

from acme_lite.acting.actor_core import ActorCore, extras_spec, feed_forward, initial_state
from acme_lite.acting.exploration import epsilon_greedy
from acme_lite.acting.normalization import normalize_observations
from acme_lite.acting.policy_actor import PolicyActor

__all__ = [
    "ActorCore",
    "PolicyActor",
    "epsilon_greedy",
    "extras_spec",
    "feed_forward",
    "initial_state",
    "normalize_observations",
]
