"""IMPALA: an actor-critic that corrects for the age of its experience with V-trace (Espeholt et al., 2018)."""

from acme_lite.agents.impala.builder import IMPALABuilder, IMPALAConfig
from acme_lite.agents.impala.learning import TrainingState, impala_loss, make_core, masked_vtrace
from acme_lite.agents.impala.networks import PolicyAndValue, make_networks

__all__ = [
    "IMPALABuilder",
    "IMPALAConfig",
    "PolicyAndValue",
    "TrainingState",
    "impala_loss",
    "make_core",
    "make_networks",
    "masked_vtrace",
]
