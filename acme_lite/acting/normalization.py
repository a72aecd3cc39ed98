"""Normalisation of observations as a wrapper of any policy."""

from __future__ import annotations

from acme_lite.acting import actor_core
from acme_lite.networks import running_statistics


def normalize_observations(core: actor_core.ActorCore) -> actor_core.ActorCore:
    """Returns the policy with observations normalised by the statistics that its variable holds.

    Its twin, `learning.normalize_observations`, makes the variable: `{"inner": ..., "statistics": ...}`.
    """

    def select_action(params, observation, state, key):
        observation = running_statistics.normalize(params["statistics"], observation)
        return core.select_action(params["inner"], observation, state, key)

    return actor_core.ActorCore(core.init, select_action)
