"""Counts of what has been done: steps, episodes, updates.

Names are `<who>_<what>`, for example `actor_steps`, `actor_episodes`, `learner_steps`, `evaluator_episodes`.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping


class Counter:
    """A node of a tree of counters that all share one set of counts. Safe from several threads.

    A child puts its prefix before the names that it is given; whoever asks, at any node, sees all counts of the tree
    under their full names.

    >>> root = Counter()
    >>> actor = Counter(root, prefix="actor")
    >>> actor.increment(steps=2, episodes=1)
    {'actor_steps': 2, 'actor_episodes': 1}
    >>> root.increment(learner_steps=1)
    {'actor_steps': 2, 'actor_episodes': 1, 'learner_steps': 1}
    """

    def __init__(self, parent: Counter | None = None, prefix: str = ""):
        """Makes a counter.

        Args:
            parent: the counter that this one counts in; None begins a new tree, with no counts.
            prefix: put before each name, with `_` between, behind the parent's own prefix; "" for none.
        """
        self._counts: dict[str, int] = {} if parent is None else parent._counts
        self._lock: threading.Lock = threading.Lock() if parent is None else parent._lock
        own = f"{prefix}_" if prefix else ""
        self._prefix: str = own if parent is None else parent._prefix + own

    def increment(self, **counts: int) -> dict[str, int]:
        """Adds to the counts of these names (a new name begins at 0) and returns all counts of the tree."""
        totals, prefix = self._counts, self._prefix
        with self._lock:
            for name, count in counts.items():
                full_name = prefix + name
                totals[full_name] = totals.get(full_name, 0) + count
            return totals.copy()

    def get_counts(self) -> dict[str, int]:
        """Returns all counts of the tree."""
        with self._lock:
            return self._counts.copy()

    def save(self) -> dict[str, int]:
        """Returns all counts of the tree, for `restore`."""
        return self.get_counts()

    def restore(self, state: Mapping[str, int]) -> None:
        """Replaces all counts of the tree by those that `save` returned."""
        with self._lock:
            self._counts.clear()
            self._counts.update(state)
