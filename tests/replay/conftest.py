from __future__ import annotations

import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from acme_lite import replay


class Backend(NamedTuple):
    """A replay, and where the contract is narrower for it (docstring of `replay.ReverbReplay`).

    Attributes:
        make: from declarations to a replay.
        keys_grow: newer items have greater keys.
        asks_limiter_per_item: the limiter is asked for each item of a batch, also for its least size.
        close_drops_pending: closing a writer drops what the limiter holds back.
    """

    make: Callable[..., Any]
    keys_grow: bool = True
    asks_limiter_per_item: bool = False
    close_drops_pending: bool = True


BACKENDS = {"local": Backend(replay.LocalReplay)}
if importlib.util.find_spec("reverb") is not None:
    # Its wheels exist for Python 3.10 on x86-64 Linux alone.
    BACKENDS["reverb"] = Backend(
        functools.partial(replay.ReverbReplay, prefetch=False),
        keys_grow=False,
        asks_limiter_per_item=True,
        close_drops_pending=False,
    )


@pytest.fixture(params=sorted(BACKENDS))
def backend(request):
    return BACKENDS[request.param]


@pytest.fixture
def make_replay(backend):
    """Returns a function from declarations to a replay of the backend, closed after the test."""
    made = []

    def make(*tables):
        made.append(backend.make(tables))
        return made[-1]

    yield make
    for each in made:
        each.close()
