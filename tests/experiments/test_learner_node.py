"""How the learner's node decides, without processes."""

from __future__ import annotations

import pytest

from acme_lite import _runtime

_runtime.load_python_library()
pytest.importorskip("launchpad", reason="programs need the extra 'distributed'")

from acme_lite.experiments import nodes  # noqa: E402  # after the check for Launchpad


class Replay:
    """Has a clock, and answers after so many seconds."""

    def __init__(self, *, has_more):
        self.now, self.has_more, self.answers_after = 0.0, has_more, 0.0

    def clock(self):
        return self.now

    def can_sample(self):
        self.now += self.answers_after
        return self.has_more


def idle(replay):
    return nodes.Idleness(replay.can_sample, replay.clock)


def test_a_learner_ends_soon_where_the_limiter_gives_no_more(capsys):
    replay = Replay(has_more=False)
    idleness = idle(replay)
    assert not idleness.ends()
    replay.now += 2.0
    assert idleness.ends()
    assert capsys.readouterr().out == ""


def test_a_learner_waits_a_minute_for_samples_that_the_limiter_would_give_and_says_so(capsys):
    replay = Replay(has_more=True)
    idleness = idle(replay)
    replay.now += 50.0
    assert not idleness.ends()
    idleness.begin()
    replay.now += 60.0
    assert not idleness.ends()
    replay.now += 1.0
    assert idleness.ends()
    assert "none have come for 61 s" in capsys.readouterr().out


def test_the_minute_begins_when_a_replay_that_was_away_is_back():
    replay = Replay(has_more=True)
    idleness = idle(replay)
    replay.now, replay.answers_after = 5.0, 100.0
    assert not idleness.ends()
    replay.answers_after = 0.0
    assert not idleness.ends()
    replay.now += 61.0
    assert idleness.ends()
