"""What tests of agents use of the contract; the checks themselves stand in `acme_lite.testing`."""

from __future__ import annotations

from acme_lite import environments, testing, types
from acme_lite.testing import FixedVariables

__all__ = ["FixedVariables", "any_differs", "assert_equal", "make_vector_environment"]


def make_vector_environment(
    environment_factory: testing.EnvironmentFactory, num_envs: int
) -> environments.SyncVectorEnvironment:
    return environments.SyncVectorEnvironment([environment_factory(seed) for seed in range(num_envs)], seed=0)


def assert_equal(one: types.ArrayTree, other: types.ArrayTree) -> None:
    """Checks that two trees are equal, bit for bit."""
    assert testing.value_difference(one, other) is None


def any_differs(one: types.ArrayTree, other: types.ArrayTree) -> bool:
    """Whether any leaves of two trees of one structure differ."""
    return testing.value_difference(one, other) is not None
