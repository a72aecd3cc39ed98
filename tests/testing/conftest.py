from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def without_curves(no_curves):
    """What checks find is looked at here; runs and their curves have tests of their own."""
