from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def without_curves(no_curves):
    """What agents learn is looked at here; runs and their curves have tests of their own."""
