"""What all adders share: signatures, and the checks of what they are given."""

import numpy as np
import pytest

from acme_lite import adders
from acme_lite.replay import tables
from tests.adders import recorded

ADDERS = {
    "transitions": lambda writer: adders.NStepTransitionAdder(writer, n_step=2, discount=0.9),
    "sequences": lambda writer: adders.SequenceAdder(writer, length=3, period=2),
    "episodes": lambda writer: adders.EpisodeAdder(writer, max_length=9),
}


@pytest.fixture(params=sorted(ADDERS))
def make_adder(request):
    return ADDERS[request.param]


def first(num_streams, step_type=recorded.FIRST):
    return recorded.timestep([(step_type, 0.0, 1.0, (stream, 0, 0)) for stream in range(num_streams)])


def started(make_adder, num_streams=2):
    adder = make_adder(recorded.RecordingWriter(num_streams, window=20))
    adder.add_first(first(num_streams))
    return adder


def test_signatures():
    transition = adders.transition_signature(recorded.SPEC, recorded.EXTRAS_SPEC)
    assert isinstance(transition, tables.Signature)
    assert transition.observation == recorded.SPEC.observation
    assert transition.fields == {"action": recorded.SPEC.action, "extras": recorded.EXTRAS_SPEC}
    assert set(adders.transition_signature(recorded.SPEC, ()).fields) == {"action"}

    sequence = adders.sequence_signature(recorded.SPEC, ())
    assert set(sequence.fields) == {"action", "reward", "discount", "mask"}
    assert sequence.fields["mask"].dtype == bool
    assert sequence.fields["mask"].shape == ()
    assert adders.sequence_signature(recorded.SPEC, recorded.EXTRAS_SPEC).fields["extras"] == recorded.EXTRAS_SPEC


def test_add_before_add_first(make_adder):
    adder = make_adder(recorded.RecordingWriter(2, window=20))
    with pytest.raises(ValueError, match="add_first must be called before add"):
        adder.add(np.zeros((2, 2)), first(2, recorded.MID))
    adder.reset()
    adder.add_first(first(2))
    adder.add(np.zeros((2, 2)), first(2, recorded.MID))
    adder.reset()
    with pytest.raises(ValueError, match="add_first must be called before add"):
        adder.add(np.zeros((2, 2)), first(2, recorded.MID))


def test_wrong_number_of_streams(make_adder):
    adder = make_adder(recorded.RecordingWriter(2, window=20))
    with pytest.raises(ValueError, match=r"shape \(2,\), as the writer has 2 streams, got \(3,\)"):
        adder.add_first(first(3))
    wrong = first(2)._replace(observation={"id": np.zeros((3, 3))})
    with pytest.raises(ValueError, match=r"timestep.observation must have a leading axis of 2.* got shape \(3, 3\)"):
        adder.add_first(wrong)

    next_timestep = first(2, recorded.MID)
    with pytest.raises(ValueError, match=r"got shape \(3, 2\)"):
        started(make_adder).add(np.zeros((3, 2)), next_timestep)
    with pytest.raises(ValueError, match=r"got \(3,\)"):
        started(make_adder).add(np.zeros((2, 2)), first(3, recorded.MID))
    with pytest.raises(ValueError, match=r"got shape \(3,\)"):
        started(make_adder).add(np.zeros((2, 2)), next_timestep, {"log_prob": np.zeros(3)})
    for name in ("reward", "discount"):
        with pytest.raises(ValueError, match=r"must have|leading axis"):
            started(make_adder).add(np.zeros((2, 2)), next_timestep._replace(**{name: np.zeros((2, 1, 1))[:1]}))

    adder = started(make_adder)
    for _ in range(2):
        adder.add(np.zeros((2, 2)), next_timestep)
    with pytest.raises(ValueError, match="as the writer has 2 streams"):
        adder.add(np.zeros((3, 2)), first(3, recorded.MID))


def test_steps_that_do_not_follow_one_another(make_adder):
    adder = make_adder(recorded.RecordingWriter(2, window=20))
    with pytest.raises(ValueError, match=r"timestep.step_type must be FIRST \(0\) in every stream, got \[1, 1\]"):
        adder.add_first(first(2, recorded.MID))
    adder = started(make_adder)
    adder.add(np.zeros((2, 2)), first(2, recorded.MID))
    with pytest.raises(ValueError, match="got 0 in stream 0, whose step before was not LAST"):
        adder.add(np.zeros((2, 2)), first(2))
    adder.add(np.zeros((2, 2)), first(2, recorded.LAST))
    with pytest.raises(ValueError, match="got 1 in stream 0, whose step before was LAST"):
        adder.add(np.zeros((2, 2)), first(2, recorded.MID))
