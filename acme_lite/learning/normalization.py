"""Normalisation of observations as a wrapper of any learning algorithm; `acting.normalize_observations` is its twin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from acme_lite import replay, types
from acme_lite.learning import learner_core
from acme_lite.networks import running_statistics


class NormalizedState(NamedTuple):
    """The state of a core with normalised observations.

    Attributes:
        inner: the core's own state.
        statistics: of the observations in the samples so far.
    """

    inner: Any
    statistics: running_statistics.Statistics


def normalize_observations(
    core: learner_core.LearnerCore, observation_spec: types.SpecTree
) -> learner_core.LearnerCore:
    """Returns the core with its samples' observations normalised by their running mean and variance.

    The core sees observations normalised by the statistics that the policy had when the update began; the sample's own
    observations are added after it. The variable `"policy"` becomes `{"inner": ..., "statistics": ...}`, so actors
    normalise by the learner's numbers, and the statistics are saved with the learner's state. Rows that a sequence's
    mask leaves out do not count; a row that is sampled twice counts twice.

    Args:
        core: learns from samples whose data is a `types.Transition` or a `types.Sequence`.
        observation_spec: spec tree of one observation.

    Raises:
        ValueError: the observation has no array of floats.
    """
    start = running_statistics.init_statistics(observation_spec)

    def init(key: jax.Array) -> NormalizedState:
        return NormalizedState(core.init(key), start)

    def update(state: NormalizedState, sample: replay.Sample) -> tuple[NormalizedState, learner_core.LearnerOutput]:
        data = sample.data
        normalized = {
            name: running_statistics.normalize(state.statistics, getattr(data, name))
            for name in ("observation", "next_observation")
            if hasattr(data, name)
        }
        inner, output = core.update(state.inner, sample._replace(data=data._replace(**normalized)))
        mask = data.mask if isinstance(data, types.Sequence) else jnp.ones(jnp.shape(data.reward), bool)
        statistics = running_statistics.update_statistics(state.statistics, data.observation, mask)
        return NormalizedState(inner, statistics), output

    def variables(state: NormalizedState) -> Mapping[str, types.ArrayTree]:
        served = dict(core.variables(state.inner))
        return served | {"policy": {"inner": served["policy"], "statistics": state.statistics}}

    return learner_core.LearnerCore(init, update, variables)
