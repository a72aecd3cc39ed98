"""Schedules over learner steps that stand in configs."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np


class LinearSchedule:
    """Goes from `initial` to `final` in `num_steps` learner steps and stays there.

    It is written `initial:final:num_steps`, such as `1.0:0.05:10000`, on command lines and in a run's config.
    """

    __slots__ = ("final", "initial", "num_steps")

    def __init__(self, initial: float, final: float, num_steps: int):
        """Makes a schedule.

        Args:
            initial: value at step 0.
            final: value from step `num_steps` on.
            num_steps: a whole number of at least 1.

        Raises:
            ValueError: `num_steps` is no such number.
        """
        if isinstance(num_steps, bool) or not isinstance(num_steps, (int, np.integer)) or num_steps < 1:
            raise ValueError(f"LinearSchedule.num_steps must be a whole number of at least 1, got {num_steps!r}.")
        self.initial, self.final = _as_float(initial), _as_float(final)
        self.num_steps = int(num_steps)

    @classmethod
    def parse(cls, text: str) -> LinearSchedule:
        """Returns the schedule that is written so.

        Raises:
            ValueError: the text is not of this form.
        """
        try:
            initial, final, num_steps = text.split(":")
            return cls(float(initial), float(final), int(num_steps))
        except ValueError as error:
            raise ValueError(f"A schedule must be written initial:final:num_steps, got {text!r}.") from error

    def __str__(self) -> str:
        return f"{self.initial}:{self.final}:{self.num_steps}"

    def __repr__(self) -> str:
        return f"LinearSchedule({self})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, LinearSchedule) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    def __call__(self, step: jax.Array | int) -> jax.Array:
        """Returns the value at a learner step."""
        fraction = jnp.minimum(step / float(self.num_steps), 1.0)  # as an integer it may have more than 32 bits
        return self.initial + fraction * (self.final - self.initial)


def _as_float(value: float) -> float:
    """Returns a number as a float, so that equal schedules are written alike; whoever takes others refuses them."""
    is_number = isinstance(value, (int, np.number)) and not isinstance(value, bool)
    return float(value) if is_number else value


def value_at(schedule: float | LinearSchedule, step: jax.Array) -> jax.Array:
    """Returns the value of a number or schedule at a learner step, float32."""
    return jnp.asarray(schedule(step) if callable(schedule) else schedule, jnp.float32)
