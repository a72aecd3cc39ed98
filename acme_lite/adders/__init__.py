"""Adders: turn the steps of N streams into rows and items of a replay."""

from acme_lite.adders.episodes import EpisodeAdder
from acme_lite.adders.interface import Adder
from acme_lite.adders.sequences import EndOfEpisode, SequenceAdder
from acme_lite.adders.signatures import sequence_signature, split_extras, transition_signature
from acme_lite.adders.transitions import NStepTransitionAdder

__all__ = [
    "Adder",
    "EndOfEpisode",
    "EpisodeAdder",
    "NStepTransitionAdder",
    "SequenceAdder",
    "sequence_signature",
    "split_extras",
    "transition_signature",
]
