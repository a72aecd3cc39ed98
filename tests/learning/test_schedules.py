"""Schedules: their values, how they are written, and which numbers of steps they have."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from acme_lite import learning


def test_values_by_hand():
    schedule = learning.LinearSchedule(1.0, 0.0, 4)
    # 1 - step / 4, and 0 from step 4 on.
    np.testing.assert_allclose([schedule(step) for step in (0, 1, 3, 4, 9)], [1.0, 0.75, 0.25, 0.0, 0.0])


def test_schedules_may_be_longer_than_32_bits_can_count():
    schedule = learning.LinearSchedule(1.0, 0.0, 4_000_000_000)
    value = jax.jit(lambda step: learning.value_at(schedule, step))(jnp.int32(2_000_000_000))
    np.testing.assert_allclose(value, 0.5)


def test_what_is_written_can_be_parsed():
    schedule = learning.LinearSchedule(1.0, 0.1, np.int64(10_000))
    assert learning.LinearSchedule.parse(str(schedule)) == schedule


@pytest.mark.parametrize("num_steps", [0, 1e4, float("nan"), True, "10"])
def test_numbers_of_steps_are_whole(num_steps):
    with pytest.raises(ValueError, match="num_steps must be a whole number of at least 1, got "):
        learning.LinearSchedule(1.0, 0.1, num_steps)


def test_equal_schedules_are_equal_and_written_alike():
    schedule, other = learning.LinearSchedule(1, 0, 10), learning.LinearSchedule(1.0, np.float32(0), 10)
    assert schedule == other and hash(schedule) == hash(other) and str(schedule) == str(other) == "1.0:0.0:10"
    assert schedule != learning.LinearSchedule(1, 0, 11)
