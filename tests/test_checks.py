"""Checks of a config's fields: what they let through, and the words they refuse with."""

import dataclasses
import math
from typing import Any

import numpy as np
import pytest

from acme_lite import checks, learning


@dataclasses.dataclass(frozen=True)
class Config:
    field: Any = 1
    other: Any = 2


SCHEDULE = learning.LinearSchedule(1.0, 0.5, 3)


@pytest.mark.parametrize("value", [1, 0.5, np.float32(2)])
def test_positive_numbers_pass(value):
    checks.positive(Config(value), "field")
    checks.positive_or_none(Config(value), "field")


@pytest.mark.parametrize("value", [0, -1.0, math.inf, math.nan, True, "1", (1, 2), (), SCHEDULE])
def test_what_is_not_positive_is_refused(value):
    with pytest.raises(ValueError, match=r"Config.field must be a finite number greater than 0, got "):
        checks.positive(Config(value), "field")
    with pytest.raises(ValueError, match=r"Config.field must be a finite number greater than 0, or None, got "):
        checks.positive_or_none(Config(value), "field")


@pytest.mark.parametrize("value", [0, (1, 2), learning.LinearSchedule(0, 1, 3)])
def test_schedules_and_tuples_pass_where_they_may_be(value):
    checks.positive(Config(SCHEDULE, learning.LinearSchedule(0.1, 0.0, 3)), "field", "other", schedules=True)
    checks.in_range(Config(SCHEDULE, (0.5, 1)), 0, 1, "field", "other", schedules=True, tuples=True)
    with pytest.raises(ValueError, match=r"must be a finite number greater than 0, or a schedule of such, .* 0, got "):
        checks.positive(Config(value), "field", schedules=True)
    with pytest.raises(ValueError, match=r"must be in \[0.5, 1\], or a schedule or a tuple of such, got "):
        checks.in_range(Config(value), 0.5, 1, "field", schedules=True, tuples=True)


@pytest.mark.parametrize("value", [64, [64, 64], (), (64, 0), (64.0,), (True,), None])
def test_sizes_are_tuples_of_whole_numbers(value):
    checks.sizes(Config((64,), (np.int64(1), 2)), "field", "other")
    with pytest.raises(ValueError, match=r"Config.field must be a tuple of whole numbers of at least 1, got "):
        checks.sizes(Config(value), "field")


@pytest.mark.parametrize("value", ["no", None, 1])
def test_booleans_are_true_or_false(value):
    checks.booleans(Config(True, np.bool_(False)), "field", "other")
    with pytest.raises(ValueError, match=r"Config.field must be True or False, got "):
        checks.booleans(Config(value), "field")


def test_none_is_positive_only_where_it_may_be():
    checks.positive_or_none(Config(None), "field")
    with pytest.raises(ValueError, match=r"Config.field must be a finite number greater than 0, got None\."):
        checks.positive(Config(None), "field")


@pytest.mark.parametrize("value", [1.0, True, None, 0, (3, 4), SCHEDULE, "1"])
def test_at_least_takes_whole_numbers_alone(value):
    checks.at_least(Config(1, np.int64(2)), 1, "field", "other")
    with pytest.raises(ValueError, match=r"Config.field must be a whole number of at least 1, got "):
        checks.at_least(Config(value), 1, "field")


@pytest.mark.parametrize("value", [-1, 2**32, 10**400, 1.0, True, None, (1, 2), "1"])
def test_seeds_have_32_bits(value):
    checks.seeds(Config(0, np.int64(2**32 - 1)), "field", "other")
    with pytest.raises(ValueError, match=r"Config.field must be a whole number in \[0, 2\*\*32\), got "):
        checks.seeds(Config(value), "field")


@pytest.mark.parametrize("value", [-0.1, 1.5, math.nan, None, (0, 1), SCHEDULE])
def test_in_range_refuses_what_lies_outside(value):
    checks.in_range(Config(0, 1), 0, 1, "field", "other")
    with pytest.raises(ValueError, match=r"Config.field must be in \[0, 1\], got "):
        checks.in_range(Config(value), 0, 1, "field")


def test_fields_that_belong_together():
    checks.increasing(Config(), "field", "other")
    with pytest.raises(ValueError, match=r"Config: other < field must hold for finite numbers, got \[2, 1\]"):
        checks.increasing(Config(), "other", "field")
    checks.left_at_default(Config(), "without what uses them", "field", "other")
    with pytest.raises(ValueError, match=r"Config.other must be 2 without what uses them, got 3"):
        checks.left_at_default(Config(other=3), "without what uses them", "field", "other")
    with pytest.raises(ValueError, match=r"Config.field must be one of 'a', None, got 1"):
        checks.one_of(Config(), ("a", None), "field")
