"""What someone hears who has not installed Reverb."""

from __future__ import annotations

import sys

import pytest

from acme_lite.replay import reverb_server


def test_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "reverb", None)
    with pytest.raises(ImportError, match=r"pip install '\.\[distributed\]'"):
        reverb_server.import_reverb.__wrapped__()
