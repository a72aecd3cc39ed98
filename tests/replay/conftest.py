from __future__ import annotations

import pytest

from acme_lite import replay

BACKENDS = {"local": replay.LocalReplay}


@pytest.fixture(params=sorted(BACKENDS))
def make_replay(request):
    """Returns a function from declarations to a replay of the backend, closed after the test."""
    made = []

    def make(*tables):
        made.append(BACKENDS[request.param](tables))
        return made[-1]

    yield make
    for each in made:
        each.close()
