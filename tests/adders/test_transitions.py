"""The n-step adder against a reference that follows the definition item by item."""

import numpy as np
import pytest

from acme_lite import adders
from acme_lite.replay import tables
from tests.adders import recorded


def reference_items(stream, episodes, n_step, discount):
    """The items of one stream: (source, destination, action, R, D), in the order in which they arise."""
    items = []
    for number, (episode, ended) in enumerate(episodes):
        for end in range(1, len(episode) + 1):
            starts = [max(0, end - n_step)]
            if ended and end == len(episode):
                starts = range(max(0, end - n_step), end)
            for start in starts:
                reward = 0.0
                for i in range(end - start):
                    factor = np.prod(episode.discounts[start : start + i])
                    reward += discount**i * factor * episode.rewards[start + i]
                product = discount ** (end - start - 1) * np.prod(episode.discounts[start:end])
                items.append(((stream, number, start), (stream, number, end), episode.actions[start], reward, product))
    return items


def written_items(writer, stream):
    return [
        (
            writer.observation(stream, start),
            writer.observation(stream, start + length),
            writer.field(stream, start, "action"),
            *values,
        )
        for start, length, values in writer.items_of(stream)
    ]


def assert_items_equal(written, expected):
    assert [item[:2] for item in written] == [item[:2] for item in expected]
    np.testing.assert_allclose([item[2:] for item in written], [item[2:] for item in expected], rtol=1e-6, atol=1e-12)


def make(num_streams, n_step, discount):
    writer = recorded.RecordingWriter(num_streams, window=tables.Transitions(n_step).window)
    return writer, adders.NStepTransitionAdder(writer, n_step=n_step, discount=discount)


@pytest.mark.parametrize("num_streams", [1, 2, 5])
@pytest.mark.parametrize("n_step", [1, 2, 3, 4, 5])
def test_items_follow_the_definition_for_episodes_of_every_length(n_step, num_streams):
    rng = np.random.default_rng(10 * n_step + num_streams)
    lengths = np.arange(1, 3 * n_step + 1)
    num_steps = 2 * int((lengths + 1).sum()) + 1
    members = recorded.random_members(rng, num_streams, lengths, num_steps)
    writer, adder = make(num_streams, n_step, discount=0.7)
    recorded.drive(adder, members, num_steps)
    for member in members:
        expected = reference_items(member.stream, member.seen(), n_step, discount=0.7)
        assert len(expected) > num_steps / 2
        assert_items_equal(written_items(writer, member.stream), expected)
    assert writer.table == "replay"


@pytest.mark.parametrize("discount", [0.0, 1.0])
def test_the_ends_of_the_range_of_discount(discount):
    rng = np.random.default_rng(3)
    members = recorded.random_members(rng, 2, [1, 3, 9], num_steps=40)
    writer, adder = make(2, n_step=3, discount=discount)
    recorded.drive(adder, members, 40)
    for member in members:
        assert_items_equal(
            written_items(writer, member.stream), reference_items(member.stream, member.seen(), 3, discount)
        )


@pytest.mark.parametrize("num_streams", [1, 3])
@pytest.mark.parametrize(("last_discount", "expected_last"), [(0.0, [0.0, 0.0, 0.0]), (1.0, [0.04, 0.2, 1.0])])
def test_a_hand_computed_episode(num_streams, last_discount, expected_last):
    # n = 3, discount factor 0.4, environment discounts 0.5, rewards 1: R = 1, 1 + 0.4*0.5 = 1.2, 1.2 + 0.4^2*0.5^2 =
    # 1.24; D = 0.5, 0.4*0.5^2 = 0.1, 0.4^2*0.5^3 = 0.02. A truncated end: 0.16*0.25, 0.4*0.5, 1.
    episode = recorded.Episode([1.0] * 5, [1.0] * 5, [0.5] * 4 + [last_discount])
    members = [recorded.Member(stream, [episode]) for stream in range(num_streams)]
    writer, adder = make(num_streams, n_step=3, discount=0.4)
    recorded.drive(adder, members, 5)
    for stream in range(num_streams):
        items = writer.items_of(stream)
        assert [item[:2] for item in items] == [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3), (3, 2), (4, 1)]
        np.testing.assert_allclose([item[2][0] for item in items], [1.0, 1.2, 1.24, 1.24, 1.24, 1.2, 1.0])
        np.testing.assert_allclose([item[2][1] for item in items], [0.5, 0.1, 0.02, 0.02, *expected_last])


def test_extras_stand_beside_the_action_only_where_there_are_any():
    episode = recorded.Episode([1.0, 2.0], [1.0, 1.0], [1.0, 1.0])
    writer, adder = make(1, n_step=1, discount=0.9)
    recorded.drive(adder, [recorded.Member(0, [episode])], 1)
    assert writer.fields[0]["extras"]["log_prob"].tolist() == [2.0]
    member = recorded.Member(0, [episode])
    writer, adder = make(1, n_step=1, discount=0.9)
    adder.add_first(recorded.timestep([member.first()]))
    adder.add(np.ones((1, 2)), recorded.timestep([member.next()]))
    assert set(writer.fields[0]) == {"action"}


@pytest.mark.parametrize("explicit", [True, False])
def test_reset_drops_the_unfinished_episode(explicit):
    rng = np.random.default_rng(0)
    episodes = [recorded.random_episode(rng, 6) for _ in range(2)]
    writer, adder = make(2, n_step=3, discount=0.9)
    recorded.drive(adder, [recorded.Member(stream, episodes) for stream in range(2)], 4)
    before = len(writer.items)
    if explicit:
        adder.reset()
        adder.reset()
    members = [recorded.Member(stream, episodes) for stream in range(2)]
    recorded.drive(adder, members, 6)
    assert writer.ends[4].all()
    for member in members:
        written = written_items(writer, member.stream)
        expected = reference_items(member.stream, member.seen(), 3, 0.9)
        assert_items_equal(written[before // 2 :], expected)
        assert all(start > 4 for start, _, _ in writer.items_of(member.stream)[before // 2 :])


def test_a_loop_may_call_add_first_for_every_episode():
    rng = np.random.default_rng(1)
    episodes = [recorded.random_episode(rng, length) for length in (3, 1, 5)]
    writer, adder = make(1, n_step=2, discount=0.9)
    expected = []
    for episode in episodes:
        member = recorded.Member(0, [episode])
        recorded.drive(adder, [member], len(episode))
        expected += reference_items(0, member.seen(), 2, 0.9)
    assert_items_equal(written_items(writer, 0), expected)


@pytest.mark.parametrize(("n_step", "discount"), [(0, 0.9), (1, -0.1), (1, 1.1), (1, float("nan"))])
def test_settings_out_of_range(n_step, discount):
    with pytest.raises(ValueError, match=r"n_step must be a whole number of at least 1|discount must be in \[0, 1\]"):
        make(1, n_step, discount)
