"""What a `LocalReplay` samples after adders have written into it, against the rows and items that they wrote."""

import numpy as np
import pytest

from acme_lite import adders, replay, specs
from tests.adders import recorded

LENGTH, N_STEP, NUM_STREAMS, NUM_STEPS = 4, 3, 3, 90


def make_replay(signature, items):
    table = replay.Table("replay", 1000, signature, items, sampler=replay.Fifo(), max_times_sampled=1)
    return replay.LocalReplay([table])


def members():
    return recorded.random_members(np.random.default_rng(0), NUM_STREAMS, np.arange(1, 10), NUM_STEPS)


def draw_all(local):
    return next(local.dataset("replay", local.info().tables["replay"].size, timeout_seconds=1.0)).data


def test_transitions():
    items = replay.Transitions(N_STEP)
    local = make_replay(adders.transition_signature(recorded.SPEC, recorded.EXTRAS_SPEC), items)
    writer = recorded.RecordingWriter(NUM_STREAMS, items.window)
    for target in (writer, local.writer(NUM_STREAMS)):
        adder = adders.NStepTransitionAdder(target, n_step=N_STEP, discount=0.9)
        recorded.drive(adder, members(), NUM_STEPS)
    data = draw_all(local)
    assert len(data.reward) == len(writer.items) > 200
    for i, (stream, start, length, (reward, discount)) in enumerate(writer.items):
        assert tuple(data.observation["id"][i].astype(int)) == writer.observation(stream, start)
        assert tuple(data.next_observation["id"][i].astype(int)) == writer.observation(stream, start + length)
        assert data.observation["flag"][i] == stream
        action = writer.field(stream, start, "action")
        np.testing.assert_allclose(data.action[i], [action, action])
        np.testing.assert_allclose(data.extras["log_prob"][i], 2 * action)
        np.testing.assert_allclose([data.reward[i], data.discount[i]], [reward, discount], rtol=1e-5)


@pytest.mark.parametrize("kind", [*adders.EndOfEpisode, "episodes"])
def test_sequences(kind):
    length, period = (10, 10) if kind == "episodes" else (LENGTH, 3)
    items = replay.Sequences(length, period)
    local = make_replay(adders.sequence_signature(recorded.SPEC, recorded.EXTRAS_SPEC), items)
    writer = recorded.RecordingWriter(NUM_STREAMS, items.window)
    for target in (writer, local.writer(NUM_STREAMS)):
        if kind == "episodes":
            adder = adders.EpisodeAdder(target, max_length=length)
        else:
            adder = adders.SequenceAdder(target, length=length, period=period, end_of_episode=kind)
        recorded.drive(adder, members(), NUM_STEPS)
    data = draw_all(local)
    assert data.mask.dtype == bool
    assert data.reward.shape == (len(writer.items), length)
    for i, (stream, start, item_length, _) in enumerate(writer.items):
        rows = range(start, start + item_length)
        names = [tuple(row) for row in data.observation["id"][i, :item_length].astype(int)]
        assert names == [writer.observation(stream, row) for row in rows]
        for name in ("reward", "discount", "mask"):
            values = [writer.field(stream, row, name) for row in rows]
            np.testing.assert_allclose(getattr(data, name)[i], [*values, *[0.0] * (length - item_length)], rtol=1e-6)
        actions = [writer.field(stream, row, "action") for row in rows]
        np.testing.assert_allclose(data.action[i, :item_length, 1], actions)
        np.testing.assert_allclose(data.extras["log_prob"][i, :item_length], 2 * np.array(actions))
        assert not data.observation["id"][i, item_length:].any()
        assert not data.action[i, item_length:].any()


def test_truncate_and_zero_pad_sample_the_same_batch():
    batches = []
    for mode in (adders.EndOfEpisode.TRUNCATE, adders.EndOfEpisode.ZERO_PAD):
        local = make_replay(
            adders.sequence_signature(recorded.SPEC, recorded.EXTRAS_SPEC), replay.Sequences(LENGTH, LENGTH)
        )
        adder = adders.SequenceAdder(local.writer(NUM_STREAMS), length=LENGTH, period=LENGTH, end_of_episode=mode)
        recorded.drive(adder, members(), NUM_STEPS)
        batches.append(draw_all(local))
    np.testing.assert_array_equal(batches[0].observation["id"], batches[1].observation["id"])
    np.testing.assert_array_equal(batches[0].mask, batches[1].mask)
    assert not batches[0].mask.all()


def core_state(members):
    """A state that names the observation it stands before."""
    names = np.array([(member.stream, member.episode, member.step) for member in members], np.float32)
    return {"core_state": (names, {"step": names[:, 2].astype(np.int32)})}


@pytest.mark.parametrize("mode", adders.EndOfEpisode)
@pytest.mark.parametrize("period", [1, 3, LENGTH])
def test_start_extras_are_those_of_each_windows_first_row(mode, period):
    extras_spec = {
        "core_state": (specs.Array((3,), np.float32), {"step": specs.Array((), np.int32)}),
        **recorded.EXTRAS_SPEC,
    }
    rest, start = adders.split_extras(extras_spec, ("core_state",))
    assert rest == recorded.EXTRAS_SPEC and set(start) == {"core_state"}
    local = make_replay(adders.sequence_signature(recorded.SPEC, rest), replay.Sequences(LENGTH, period, start))
    adder = adders.SequenceAdder(
        local.writer(NUM_STREAMS), length=LENGTH, period=period, end_of_episode=mode, start_extras=("core_state",)
    )
    recorded.drive(adder, members(), NUM_STEPS, core_state)
    data = draw_all(local)
    names, step = data.start["core_state"][0], data.start["core_state"][1]["step"]
    assert names.dtype == np.float32 and step.dtype == np.int32 and len(names) > 50
    np.testing.assert_array_equal(names, data.observation["id"][:, 0])
    np.testing.assert_array_equal(step, data.observation["id"][:, 0, 2])
    assert data.mask[:, 0].all() == (mode is not adders.EndOfEpisode.CONTINUE)
    assert set(data.extras) == {"log_prob"}


def test_start_extras_of_a_policy_without_a_state():
    extras_spec = {"core_state": (), **recorded.EXTRAS_SPEC}
    rest, start = adders.split_extras(extras_spec, ("core_state",))
    local = make_replay(adders.sequence_signature(recorded.SPEC, rest), replay.Sequences(LENGTH, LENGTH, start))
    adder = adders.SequenceAdder(local.writer(NUM_STREAMS), length=LENGTH, period=LENGTH, start_extras=("core_state",))
    recorded.drive(adder, members(), NUM_STEPS, lambda members: {"core_state": ()})
    assert draw_all(local).start == {"core_state": ()}


def test_start_extras_that_are_unknown_are_an_error():
    assert adders.split_extras({"state": 1}, ("state",)) == ((), {"state": 1})
    assert adders.split_extras((), ()) == ((), ())
    for extras in ({"log_prob": 1}, ()):
        with pytest.raises(ValueError, match=r"start_extras must be some of the extras .*, got \['state'\]"):
            adders.split_extras(extras, ("state",))


def test_extras_that_the_table_does_not_expect_are_an_error():
    local = make_replay(adders.transition_signature(recorded.SPEC, ()), replay.Transitions(1))
    adder = adders.NStepTransitionAdder(local.writer(1), n_step=1, discount=0.9)
    with pytest.raises(ValueError, match=r"fields must hold \['action'\], got \['action', 'extras'\]"):
        recorded.drive(adder, members()[:1], 1)
