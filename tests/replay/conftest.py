from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from acme_lite import replay


class Backend(NamedTuple):
    """A replay, and where the contract is narrower for it (docstring of `replay.ReverbReplay`).

    Attributes:
        make: from declarations, and a stack that closes all there is to close, to a replay.
        keys_grow: newer items have greater keys.
        asks_limiter_per_item: the limiter is asked for each item of a batch, also for its least size.
        close_drops_pending: closing a writer drops what the limiter holds back.
        draws_when_asked: nothing is drawn ahead, so counts of samples are exact, and new items and priorities show in
            the next sample.
        knows_what_is_due: a dataset says at once whether a sample is ready or due; otherwise it is when it has arrived.
    """

    make: Callable[[Any, contextlib.ExitStack], Any]
    keys_grow: bool = True
    asks_limiter_per_item: bool = False
    close_drops_pending: bool = True
    draws_when_asked: bool = True
    knows_what_is_due: bool = True


def make_local(tables, stack):
    return stack.enter_context(contextlib.closing(replay.LocalReplay(tables)))


def make_reverb(tables, stack, **settings):
    return stack.enter_context(contextlib.closing(replay.ReverbReplay(tables, **settings)))


def make_reverb_client(tables, stack):
    """Returns a replay that knows of its server nothing but the address."""
    return make_reverb(tables, stack, address=make_reverb(tables, stack).address)


BACKENDS = {"local": Backend(make_local)}
if importlib.util.find_spec("reverb") is not None:
    # Its wheels exist for Python 3.10 on x86-64 Linux alone.
    on_demand = Backend(
        functools.partial(make_reverb, prefetch=False),
        keys_grow=False,
        asks_limiter_per_item=True,
        close_drops_pending=False,
    )
    BACKENDS["reverb"] = on_demand
    BACKENDS["reverb_prefetching"] = on_demand._replace(
        make=functools.partial(make_reverb, prefetch=True), draws_when_asked=False
    )
    BACKENDS["reverb_client"] = on_demand._replace(
        make=make_reverb_client, draws_when_asked=False, knows_what_is_due=False
    )


def pytest_generate_tests(metafunc):
    """Runs a test on all backends that have what it `needs`."""
    if "backend" in metafunc.fixturenames:
        needs = [mark.args[0] for mark in metafunc.definition.iter_markers("needs")]
        names = [name for name, backend in BACKENDS.items() if all(getattr(backend, need) for need in needs)]
        metafunc.parametrize("backend", names, indirect=True)


@pytest.fixture
def backend(request):
    return BACKENDS[request.param]


@pytest.fixture
def make_replay(backend):
    """Returns a function from declarations to a replay of the backend, closed after the test."""
    with contextlib.ExitStack() as stack:
        yield lambda *tables: backend.make(tables, stack)
