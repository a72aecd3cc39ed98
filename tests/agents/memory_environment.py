"""The task that only a memory solves, under the name that tests of agents use."""

from acme_lite.testing import MemoryEnvironment

__all__ = ["MemoryEnvironment"]
