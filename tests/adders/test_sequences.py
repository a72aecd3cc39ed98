"""The sequence adder against a reference that lays the windows out episode by episode."""

import numpy as np
import pytest

from acme_lite import adders
from acme_lite.replay import tables
from tests.adders import recorded

MODES = list(adders.EndOfEpisode)


def episode_rows(stream, number, episode, ended):
    """The complete rows of an episode: (observation, action, reward, discount, mask)."""
    rows = [
        ((stream, number, t), episode.actions[t], episode.rewards[t], episode.discounts[t], 1.0)
        for t in range(len(episode))
    ]
    if ended:
        rows.append(((stream, number, len(episode)), 0.0, 0.0, 0.0, 0.0))
    return rows


def reference_windows(stream, episodes, length, period, mode):
    """The windows of one stream, each a list of rows."""
    per_episode = [
        (episode_rows(stream, number, episode, ended), ended) for number, (episode, ended) in enumerate(episodes)
    ]
    if mode is adders.EndOfEpisode.CONTINUE:
        per_episode = [([row for rows, _ in per_episode for row in rows], False)]
    windows = []
    for rows, ended in per_episode:
        start = 0
        while start + length <= len(rows):
            windows.append(rows[start : start + length])
            start += period
        if ended and not (windows and windows[-1][-1] == rows[-1]):
            if mode is adders.EndOfEpisode.WRITE:
                if len(rows) >= length:
                    windows.append(rows[-length:])
            else:
                windows.append(rows[start:])
    return [window for window in windows if any(row[4] for row in window)]


def written_windows(writer, stream):
    def row(index):
        names = ("action", "reward", "discount", "mask")
        return (writer.observation(stream, index), *(writer.field(stream, index, name) for name in names))

    return [[row(start + i) for i in range(length)] for start, length, _ in writer.items_of(stream)]


def assert_windows_equal(written, expected):
    assert [[row[0] for row in window] for window in written] == [[row[0] for row in window] for window in expected]
    for window, expected_window in zip(written, expected, strict=True):
        np.testing.assert_allclose([row[1:] for row in window], [row[1:] for row in expected_window], rtol=1e-6)


def make(num_streams, length, period, mode, **settings):
    writer = recorded.RecordingWriter(num_streams, window=tables.Sequences(length, period).window)
    return writer, adders.SequenceAdder(writer, length=length, period=period, end_of_episode=mode, **settings)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("num_streams", [1, 3])
@pytest.mark.parametrize(("length", "period"), [(1, 1), (2, 1), (2, 2), (3, 2), (4, 1), (4, 3), (4, 4), (5, 2)])
def test_windows_follow_the_definition_for_episodes_of_every_length(length, period, num_streams, mode):
    rng = np.random.default_rng(100 * length + 10 * period + num_streams)
    lengths = np.arange(1, 3 * length + 1)
    num_steps = 2 * int((lengths + 1).sum()) + 2
    members = recorded.random_members(rng, num_streams, lengths, num_steps)
    writer, adder = make(num_streams, length, period, mode)
    recorded.drive(adder, members, num_steps)
    for member in members:
        expected = reference_windows(member.stream, member.seen(), length, period, mode)
        assert len(expected) > 5
        assert_windows_equal(written_windows(writer, member.stream), expected)


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        # 7 steps make 8 rows; the grid of windows of 4 every 3 begins at 0, 3, 6.
        (adders.EndOfEpisode.WRITE, [(0, 4), (3, 4), (4, 4)]),
        (adders.EndOfEpisode.TRUNCATE, [(0, 4), (3, 4), (6, 2)]),
        (adders.EndOfEpisode.ZERO_PAD, [(0, 4), (3, 4), (6, 2)]),
        (adders.EndOfEpisode.CONTINUE, [(0, 4), (3, 4), (6, 4)]),
    ],
)
def test_a_hand_laid_episode(mode, expected):
    rng = np.random.default_rng(0)
    member = recorded.Member(0, [recorded.random_episode(rng, length) for length in (7, 4)])
    writer, adder = make(1, 4, 3, mode)
    recorded.drive(adder, [member], 10)  # 7 steps, the resetting one, 2 of the next episode
    assert [item[:2] for item in writer.items_of(0)] == expected
    masks = [writer.field(0, row, "mask") for row in range(10)]
    assert masks == [1.0] * 7 + [0.0] + [1.0] * 2


@pytest.mark.parametrize("mode", MODES)
def test_windows_of_too_few_rows_are_left_out(mode):
    rng = np.random.default_rng(0)
    members = recorded.random_members(rng, 2, np.arange(1, 16), 300)
    writer, adder = make(2, 5, 3, mode, min_length=4)
    recorded.drive(adder, members, 300)
    for member in members:
        windows = reference_windows(member.stream, member.seen(), 5, 3, mode)
        shorter = {len(window) for window in windows} - {5}
        assert shorter == ({2, 3, 4} if mode.value in ("truncate", "zero_pad") else set())
        expected = [window for window in windows if len(window) >= 4]
        assert_windows_equal(written_windows(writer, member.stream), expected)


@pytest.mark.parametrize("mode", MODES)
def test_an_episode_that_ends_with_a_regular_window_has_no_other(mode):
    rng = np.random.default_rng(0)
    writer, adder = make(1, 4, 2, mode)
    recorded.drive(adder, [recorded.Member(0, [recorded.random_episode(rng, 5)])], 5)
    assert [item[:2] for item in writer.items_of(0)] == [(0, 4), (2, 4)]


@pytest.mark.parametrize("mode", MODES)
def test_reset_drops_the_unfinished_episode(mode):
    rng = np.random.default_rng(2)
    writer, adder = make(2, 4, 2, mode)
    episodes = [[recorded.random_episode(rng, 9)], [recorded.random_episode(rng, 3), recorded.random_episode(rng, 9)]]
    recorded.drive(adder, [recorded.Member(stream, episodes[stream]) for stream in range(2)], 5)
    before = [len(writer.items_of(stream)) for stream in range(2)]
    adder.reset()
    members = [recorded.Member(stream, episodes[stream]) for stream in range(2)]
    recorded.drive(adder, members, 9)
    for member in members:
        expected = reference_windows(member.stream, member.seen(), 4, 2, mode)
        assert_windows_equal(written_windows(writer, member.stream)[before[member.stream] :], expected)


def test_windows_continue_where_a_loop_calls_add_first_for_every_episode():
    rng = np.random.default_rng(4)
    episodes = [recorded.random_episode(rng, length) for length in (3, 5, 2, 6)]
    writer, adder = make(1, 4, 3, adders.EndOfEpisode.CONTINUE)
    for episode in episodes:
        recorded.drive(adder, [recorded.Member(0, [episode])], len(episode))
    # 4 + 6 + 3 + 7 = 20 rows.
    assert [item[:2] for item in writer.items_of(0)] == [(0, 4), (3, 4), (6, 4), (9, 4), (12, 4), (15, 4)]


@pytest.mark.parametrize(("length", "period", "min_length"), [(0, 1, 2), (3, 0, 2), (3, 4, 2), (3, 2, 1), (3, 2, 4)])
def test_settings_out_of_range(length, period, min_length):
    writer = recorded.RecordingWriter(1, window=8)
    with pytest.raises(ValueError, match="must be"):
        adders.SequenceAdder(writer, length=length, period=period, min_length=min_length)
