"""Adders that are saved in the middle of episodes, and go on in another replay."""

import numpy as np
import pytest

from acme_lite import adders, core, replay
from tests.adders import recorded, test_with_local_replay

NUM_STREAMS, LENGTH = 3, 4

KINDS = {
    "n_step": lambda writer: adders.NStepTransitionAdder(writer, n_step=3, discount=0.9),
    "episodes": lambda writer: adders.EpisodeAdder(writer, max_length=10),
    **{
        kind.value: lambda writer, kind=kind: adders.SequenceAdder(writer, length=LENGTH, period=3, end_of_episode=kind)
        for kind in adders.EndOfEpisode
    },
}


def make_replay(kind):
    if kind == "n_step":
        items, signature = replay.Transitions(3), adders.transition_signature
    else:
        items = replay.Sequences(10, 10) if kind == "episodes" else replay.Sequences(LENGTH, 3)
        signature = adders.sequence_signature
    return test_with_local_replay.make_replay(signature(recorded.SPEC, recorded.EXTRAS_SPEC), items)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("stop", [1, 7, 20, 33])
def test_an_adder_goes_on_where_it_was(kind, stop):
    whole = make_replay(kind)
    adder = KINDS[kind](whole.writer(NUM_STREAMS))
    recorded.drive(adder, test_with_local_replay.members(), 60)

    first = make_replay(kind)
    writer = first.writer(NUM_STREAMS)
    adder = KINDS[kind](writer)
    members = test_with_local_replay.members()
    recorded.drive(adder, members, stop)
    contents, state = first.save(), core.save(adder)
    second = make_replay(kind)
    adder = KINDS[kind](second.writer(NUM_STREAMS))
    second.restore(contents)
    assert core.restore(adder, state)
    for _ in range(60 - stop):
        recorded.step(adder, members)

    expected, found = (test_with_local_replay.draw_all(one) for one in (whole, second))
    assert len(found.reward) > 25
    for name in found._fields:
        if name not in ("extras", "observation", "next_observation"):
            np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)
    np.testing.assert_array_equal(found.observation["id"], expected.observation["id"])
    np.testing.assert_array_equal(found.extras["log_prob"], expected.extras["log_prob"])


def test_an_adder_whose_writer_saves_nothing_begins_anew():
    adder = KINDS["n_step"](recorded.RecordingWriter(NUM_STREAMS, 4))
    recorded.drive(adder, test_with_local_replay.members(), 5)
    assert core.save(adder) is None
    assert not core.restore(adder, None)
