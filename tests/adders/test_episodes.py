"""The episode adder."""

import numpy as np
import pytest

from acme_lite import adders
from acme_lite.replay import tables
from tests.adders import recorded


def make(num_streams, max_length):
    writer = recorded.RecordingWriter(num_streams, window=tables.Sequences(max_length, max_length).window)
    return writer, adders.EpisodeAdder(writer, max_length=max_length)


@pytest.mark.parametrize("num_streams", [1, 4])
def test_each_episode_is_one_item_of_all_its_rows(num_streams):
    rng = np.random.default_rng(num_streams)
    members = recorded.random_members(rng, num_streams, np.arange(1, 8), num_steps=80)
    writer, adder = make(num_streams, max_length=8)
    recorded.drive(adder, members, 80)
    for member in members:
        finished = [episode for episode, ended in member.seen() if ended]
        items = writer.items_of(member.stream)
        assert [length for _, length, _ in items] == [len(episode) + 1 for episode in finished]
        for number, (start, length, _) in enumerate(items):
            rows = range(start, start + length)
            assert [writer.observation(member.stream, row) for row in rows] == [
                (member.stream, number, t) for t in range(length)
            ]
            rewards = [writer.field(member.stream, row, "reward") for row in rows]
            np.testing.assert_allclose(rewards, [*finished[number].rewards, 0.0])
            assert [writer.field(member.stream, row, "mask") for row in rows] == [1.0] * (length - 1) + [0.0]


def test_an_episode_that_does_not_fit_is_an_error_before_anything_is_written():
    rng = np.random.default_rng(0)
    lengths = ([2, 5, 4], [4, 4, 4])
    members = [recorded.Member(i, [recorded.random_episode(rng, n) for n in lengths[i]]) for i in range(2)]
    writer, adder = make(2, max_length=5)
    recorded.drive(adder, members, 7)  # stream 0 has shown 5 rows of its second episode
    assert writer.items == [(0, 0, 3, ()), (1, 0, 5, ())]
    with pytest.raises(ValueError, match="stream 0 has more rows than max_length=5"):
        recorded.step(adder, members)
    assert len(writer.observations) == 8
    adder.reset()
    recorded.drive(adder, [recorded.Member(i, [recorded.random_episode(rng, 4)]) for i in range(2)], 4)
    assert writer.items[2:] == [(0, 8, 5, ()), (1, 8, 5, ())]


def test_settings_out_of_range():
    with pytest.raises(ValueError, match="max_length must be at least 2, got 1"):
        make(1, max_length=1)
