"""Rate limiters: when items may be inserted and sampled.

A limiter is a declaration and a pure function of four counts: `inserts` and `samples` since the start, `size` now, and
`inserts_at_sample`, the inserts there had been at the last sample. Counts are of items, not of batches.

Reference: Cassirer et al., Reverb: A Framework for Experience Replay (2021), section 3.2.
"""

from __future__ import annotations

import dataclasses
import math
from typing import NamedTuple, Protocol

from acme_lite import checks


class Counts(NamedTuple):
    """What a limiter decides on.

    Attributes:
        inserts: items inserted since the start.
        samples: items sampled since the start.
        size: items in the table.
        inserts_at_sample: `inserts` when the last sample was drawn.
    """

    inserts: int = 0
    samples: int = 0
    size: int = 0
    inserts_at_sample: int = 0


class Limiter(Protocol):
    """When items may be inserted and sampled."""

    @property
    def min_size_to_sample(self) -> int:
        """Items that must be in the table before the first sample."""

    def can_insert(self, counts: Counts, num_items: int) -> bool:
        """Whether so many more items may be inserted."""

    def can_sample(self, counts: Counts, num_items: int) -> bool:
        """Whether so many items may be sampled."""

    def due(self, counts: Counts, num_items: int) -> bool:
        """Whether a single-threaded runner should sample so many: up to the middle of the window.

        True only where `can_sample` is.
        """

    def inserts_until_due(self, counts: Counts, num_items: int) -> int:
        """Returns how many more inserts there must be, at the least, before so many are `due`, which they are not."""

    def check(self, num_items: int, max_size: int) -> None:
        """Raises ValueError if a table of this size could never give so many items at once."""

    def widened(self, num_items: int) -> Limiter:
        """Returns a limiter that also takes a burst of so many inserts without a sample between."""


@dataclasses.dataclass(frozen=True)
class MinSize:
    """Samples wait for a number of items; inserts never wait.

    Attributes:
        min_size: at least 1.
    """

    min_size: int = 1

    def __post_init__(self):
        checks.at_least(self, 1, "min_size")

    @property
    def min_size_to_sample(self) -> int:
        return self.min_size

    def can_insert(self, counts: Counts, num_items: int) -> bool:
        return True

    def can_sample(self, counts: Counts, num_items: int) -> bool:
        return counts.size >= self.min_size

    def due(self, counts: Counts, num_items: int) -> bool:
        """Once per insertion: without a ratio, a single-threaded runner alternates."""
        return counts.size >= self.min_size and counts.inserts > counts.inserts_at_sample

    def inserts_until_due(self, counts: Counts, num_items: int) -> int:
        return max(1, self.min_size - counts.size)

    def check(self, num_items: int, max_size: int) -> None:
        pass

    def widened(self, num_items: int) -> MinSize:
        return self


@dataclasses.dataclass(frozen=True)
class SampleToInsertRatio:
    """Keeps `samples_per_insert` items sampled per item inserted, within an error buffer.

    With diff = inserts * samples_per_insert - samples and offset = min_size * samples_per_insert, inserts keep
    diff <= offset + error_buffer and samples keep diff >= offset - error_buffer.

    Attributes:
        samples_per_insert: items sampled per item inserted, greater than 0.
        min_size: items before the first sample, at least 1.
        error_buffer: in sampled items; at least 2 * max(1, samples_per_insert), so that neither side blocks for ever.
    """

    samples_per_insert: float
    min_size: int
    error_buffer: float

    def __post_init__(self):
        if not (math.isfinite(self.samples_per_insert) and self.samples_per_insert > 0):
            raise ValueError(
                f"SampleToInsertRatio.samples_per_insert must be a finite number > 0, got {self.samples_per_insert}."
            )
        checks.at_least(self, 1, "min_size")
        least = 2 * max(1.0, self.samples_per_insert)
        if not self.error_buffer >= least:
            raise ValueError(
                f"SampleToInsertRatio.error_buffer must be at least 2 * max(1, samples_per_insert) = {least}, got "
                f"{self.error_buffer}."
            )

    @property
    def min_size_to_sample(self) -> int:
        return self.min_size

    def balance(self, counts: Counts) -> float:
        """Items by which samples lag behind the ratio; 0 is the middle of the window, negative where they lead."""
        return (counts.inserts - self.min_size) * self.samples_per_insert - counts.samples

    def can_insert(self, counts: Counts, num_items: int) -> bool:
        if counts.inserts + num_items <= self.min_size:
            return True
        return self.balance(counts) + num_items * self.samples_per_insert <= self.error_buffer

    def can_sample(self, counts: Counts, num_items: int) -> bool:
        return counts.size >= self.min_size and self.balance(counts) - num_items >= -self.error_buffer

    def due(self, counts: Counts, num_items: int) -> bool:
        return counts.size >= self.min_size and self.balance(counts) >= num_items

    def inserts_until_due(self, counts: Counts, num_items: int) -> int:
        lag = (num_items - self.balance(counts)) / self.samples_per_insert
        # One less than computed, since the quotient is rounded.
        return max(1, self.min_size - counts.size, math.ceil(lag) - 1)

    def check(self, num_items: int, max_size: int) -> None:
        if num_items > self.error_buffer:
            raise ValueError(
                f"SampleToInsertRatio.error_buffer must be at least the {num_items} items that one call samples, got "
                f"{self.error_buffer}."
            )

    def widened(self, num_items: int) -> SampleToInsertRatio:
        return dataclasses.replace(self, error_buffer=max(self.error_buffer, num_items * self.samples_per_insert))


@dataclasses.dataclass(frozen=True)
class Queue:
    """Inserts wait while `size` items have not been sampled, samples wait for items.

    A table must have the sampler `Fifo` and `max_times_sampled` 1 beside it: every item is sampled once, in order.

    Attributes:
        size: most items waiting, at least 1.
    """

    size: int

    def __post_init__(self):
        checks.at_least(self, 1, "size")

    @property
    def min_size_to_sample(self) -> int:
        return 1

    def can_insert(self, counts: Counts, num_items: int) -> bool:
        return counts.inserts + num_items - counts.samples <= self.size

    def can_sample(self, counts: Counts, num_items: int) -> bool:
        return counts.inserts - counts.samples >= num_items

    def due(self, counts: Counts, num_items: int) -> bool:
        return self.can_sample(counts, num_items)

    def inserts_until_due(self, counts: Counts, num_items: int) -> int:
        return max(1, num_items - (counts.inserts - counts.samples))

    def check(self, num_items: int, max_size: int) -> None:
        if num_items > min(self.size, max_size):
            raise ValueError(
                f"Queue.size and max_size must be at least the {num_items} items that one call samples, got "
                f"{self.size} and {max_size}."
            )

    def widened(self, num_items: int) -> Queue:
        # As many more as a burst has beyond its first item: whenever that is let in, so are the others. With less, a
        # rest too small for a batch could leave too little room for the next burst, and both sides would wait.
        return dataclasses.replace(self, size=self.size + num_items - 1)


def from_samples_per_insert(
    samples_per_insert: float, *, min_size: int, items_per_call: int, tolerance: float = 0.1
) -> SampleToInsertRatio:
    """Returns the limiter of an agent that draws `items_per_call` (batch size times updates per call) at a time.

    Its error buffer is min_size * tolerance * samples_per_insert, but never less than one call draws, nor than the
    least that a limiter can work with.
    """
    least = max(items_per_call, 2 * max(1.0, samples_per_insert))
    error_buffer = max(min_size * tolerance * samples_per_insert, least)
    return SampleToInsertRatio(samples_per_insert=samples_per_insert, min_size=min_size, error_buffer=error_buffer)
