"""Declarations of replay tables. They name no backend; `LocalReplay` and `ReverbReplay` both build from them."""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
from typing import Any

import jax
import numpy as np

from acme_lite import checks, specs, types
from acme_lite.replay import rate_limiters

DEFAULT_TABLE = "replay"
"""Name of an agent's table where it needs no other; that adders write to unless they are told another one."""

_MOST_RAISED = 1e290


@dataclasses.dataclass(frozen=True)
class Uniform:
    """Every item is equally likely."""


@dataclasses.dataclass(frozen=True)
class Prioritized:
    """Items are drawn with probability p_i^exponent / sum_j p_j^exponent (Schaul et al., 2016, equation 1)."""

    exponent: float = 0.6

    def __post_init__(self):
        if not (math.isfinite(self.exponent) and self.exponent >= 0):
            raise ValueError(f"Prioritized.exponent must be a finite number >= 0, got {self.exponent}.")

    @functools.cached_property
    def max_priority(self) -> float:
        """The largest priority, at most 1e290 once raised to the exponent, so that sums of many stay finite."""
        most = math.log(_MOST_RAISED) / self.exponent if self.exponent else math.inf
        return math.exp(min(most, math.log(sys.float_info.max)))


@dataclasses.dataclass(frozen=True)
class Fifo:
    """The oldest item is drawn."""


@dataclasses.dataclass(frozen=True)
class Lifo:
    """The newest item is drawn."""


Sampler = Uniform | Prioritized | Fifo | Lifo


@dataclasses.dataclass(frozen=True)
class Transitions:
    """Items are pairs of rows of one stream, sampled as `types.Transition` `[B, ...]`.

    Attributes:
        n_step: most rows between the two, at least 1.
    """

    n_step: int = 1

    def __post_init__(self):
        checks.at_least(self, 1, "n_step")

    @property
    def window(self) -> int:
        """Rows of a stream that must be kept so that any item can be created."""
        return self.n_step + 1


@dataclasses.dataclass(frozen=True)
class Sequences:
    """Items are windows of rows of one stream, sampled as `types.Sequence` `[B, T, ...]` with T = `length`.

    Attributes:
        length: rows of a window, at least 1; shorter ones are padded with zeros.
        period: rows from the start of one window to the start of the next, used to compute how many rows the table
            takes; in [1, length].
        start: spec tree of what an item holds beside its rows, for the first of them alone: the `values` of
            `Writer.create_items`, sampled as `types.Sequence.start` `[B, ...]`.
    """

    length: int
    period: int
    start: types.SpecTree = ()

    def __post_init__(self):
        checks.at_least(self, 1, "length", "period")
        if self.period > self.length:
            raise ValueError(f"Sequences.period must be in [1, length={self.length}], got {self.period}.")

    @property
    def window(self) -> int:
        """Rows of a stream that must be kept so that any item can be created."""
        return self.length + self.period


@dataclasses.dataclass(frozen=True)
class Signature:
    """What one row holds.

    Attributes:
        observation: spec tree, known when the row is opened.
        fields: mapping of names to spec trees, known one step later: `action`, and `extras` where the policy gives
            any; for sequences also `reward`, `discount` and `mask`.
    """

    observation: types.SpecTree
    fields: dict[str, types.SpecTree]


@dataclasses.dataclass(frozen=True)
class Table:
    """One table of a replay; the oldest item is removed when it is full.

    Attributes:
        name: the table's name, unique in its replay.
        max_size: most items, at least 1.
        signature: what one row holds; tables with equal signatures share their rows.
        items: what an item is.
        sampler: how items are drawn.
        limiter: when items are let in and drawn.
        max_times_sampled: an item is removed after having been drawn so often; 0 means never.
    """

    name: str
    max_size: int
    signature: Signature
    items: Transitions | Sequences
    sampler: Sampler = dataclasses.field(default_factory=Uniform)
    limiter: rate_limiters.Limiter = dataclasses.field(default_factory=lambda: rate_limiters.MinSize(1))
    max_times_sampled: int = 0

    def __post_init__(self):
        checks.at_least(self, 1, "max_size")
        checks.at_least(self, 0, "max_times_sampled")
        if isinstance(self.limiter, rate_limiters.SampleToInsertRatio) and self.max_times_sampled:
            self._check_ratio(self.limiter)
        if isinstance(self.limiter, rate_limiters.Queue):
            self._check_queue(self.limiter)
        if self.limiter.min_size_to_sample > self.max_size:
            raise ValueError(
                f"Table {self.name!r} could never be sampled: its limiter waits for {self.limiter.min_size_to_sample} "
                f"items and max_size is {self.max_size}."
            )

    def _check_ratio(self, limiter: rate_limiters.SampleToInsertRatio) -> None:
        ratio = limiter.samples_per_insert
        # Where both are equal, an item that the full table drops before its last draw is never made up for.
        needed = math.ceil(ratio * limiter.min_size + limiter.error_buffer) if self.max_times_sampled == ratio else 0
        if self.max_times_sampled < ratio or self.max_size < needed:
            at_least = f" and max_size {self.max_size}, which must be at least {needed}" if needed else ""
            raise ValueError(
                f"Table {self.name!r} would come to a halt: samples_per_insert is {ratio}, max_times_sampled "
                f"{self.max_times_sampled}{at_least}."
            )

    def _check_queue(self, limiter: rate_limiters.Queue) -> None:
        if not isinstance(self.sampler, Fifo) or self.max_times_sampled != 1:
            raise ValueError(
                f"Table {self.name!r} must have the sampler Fifo() and max_times_sampled 1, as its limiter is a Queue, "
                f"got {self.sampler} and {self.max_times_sampled}."
            )
        if limiter.size > self.max_size:
            raise ValueError(
                f"Table {self.name!r} would lose items before they are sampled: Queue.size is {limiter.size} and "
                f"max_size is {self.max_size}."
            )

    def source(self, owner: object) -> tuple[int, str] | None:
        """Returns what is the same for all datasets of this table of a replay's `owner`, its store or link.

        None where there never are items for one dataset and not for two.
        """
        unlimited = isinstance(self.limiter, rate_limiters.MinSize) and not self.max_times_sampled
        return None if unlimited else (id(owner), self.name)

    def check_dataset(self, num_items: int) -> None:
        """Raises ValueError if the table could never give so many items at once."""
        self.limiter.check(num_items, self.max_size)
        if self.max_times_sampled and self.max_size * self.max_times_sampled < num_items:
            raise ValueError(
                f"Table {self.name!r} could never give {num_items} items at once: max_size * max_times_sampled is "
                f"{self.max_size} * {self.max_times_sampled}."
            )

    def check_priorities(self, priorities: np.ndarray) -> np.ndarray:
        """Returns priorities as float64.

        Raises:
            ValueError: one is negative, infinite or NaN, or too large for the exponent of `Prioritized`.
        """
        checked = np.asarray(priorities, np.float64)
        most = self.sampler.max_priority if isinstance(self.sampler, Prioritized) else sys.float_info.max
        # Written so that NaN fails, and for one or two calls at any size.
        if checked.size == 1:
            fine = 0 <= checked.item(0) <= most
        else:
            fine = not checked.size or (
                np.minimum.reduce(checked, None) >= 0 and np.maximum.reduce(checked, None) <= most
            )
        if not fine:
            bad = checked[~((checked >= 0) & (checked <= most))]
            raise ValueError(
                f"priorities of table {self.name!r} must be finite and not negative, with {self.sampler} at most "
                f"{most:.3g}, got {bad[0]}."
            )
        return checked

    def check_values(self, values: types.ArrayTree, num_items: int) -> None:
        """Raises ValueError unless the values of so many transitions are a pair of arrays `[num_items]`."""
        pair: Any = values
        try:  # of arrays: half a microsecond less
            reward, discount = pair
            fits = reward.shape == discount.shape == (num_items,)
        except (AttributeError, TypeError, ValueError):
            fits = isinstance(pair, (tuple, list)) and [np.shape(one) for one in pair] == [(num_items,)] * 2
        if not fits:
            raise ValueError(
                f"values must be the pair (reward, discount) of transitions of table {self.name!r}, each of shape "
                f"[{num_items}], got shapes {jax.tree.map(np.shape, values)}."
            )

    def start_leaves(self, values: types.ArrayTree, num_items: int) -> list[np.ndarray]:
        """Returns the leaves of the start values of so many sequences.

        Raises:
            ValueError: they are not the declared spec tree with leaves `[num_items, ...]`.
        """
        spec: Any = getattr(self.items, "start", ())
        leaves = [np.asarray(leaf) for leaf in jax.tree.leaves(values)]
        shapes = [(num_items, *leaf.shape) for leaf in jax.tree.leaves(spec)]
        structures: list[Any] = [jax.tree.structure(values), jax.tree.structure(spec)]
        if structures[0] != structures[1] or [leaf.shape for leaf in leaves] != shapes:
            raise ValueError(
                f"values must be like Sequences.start of table {self.name!r}, {specs.describe(spec)}, with leaves "
                f"of shape [{num_items}, ...], got shapes {jax.tree.map(np.shape, values)}."
            )
        return leaves

    def widened(self, num_items: int) -> Table:
        """Returns a table that also takes a burst of so many inserts without a sample between."""
        limiter = self.limiter.widened(num_items)
        size = limiter.size if isinstance(limiter, rate_limiters.Queue) else 0
        return dataclasses.replace(self, limiter=limiter, max_size=max(self.max_size, size))
