"""Sharing out the environment steps of a run among its actors."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from acme_lite import counting


class StepBudget:
    """Leases blocks of environment steps to actors, so that all of them together make `num_steps`.

    An actor makes the steps of its lease, counting them by and by, and only then asks for the next one. Asking again
    gives back what was left of the last lease: an actor that died and was started again makes the steps that its
    predecessor did not count. A lease that no sign of its actor has followed for `lease_seconds` goes to others, since
    the actor may never come back. Safe from several threads.
    """

    def __init__(
        self,
        num_steps: int,
        counter: counting.Counter,
        *,
        lease_seconds: float = 300.0,
        clock: Callable[[], float] = time.monotonic,
    ):
        """Makes a budget.

        Args:
            num_steps: environment steps of the run, at least 1.
            counter: counts `actor_steps`; what it has counted already is spent.
            lease_seconds: how long a lease lasts from one `renew` to the next, greater than 0.
            clock: returns the time in seconds.

        Raises:
            ValueError: an argument is out of its range.
        """
        if num_steps < 1:
            raise ValueError(f"num_steps must be at least 1, got {num_steps}.")
        if not lease_seconds > 0:
            raise ValueError(f"lease_seconds must be greater than 0, got {lease_seconds}.")
        self._num_steps = num_steps
        self._counter = counter
        self._lease_seconds = lease_seconds
        self._clock = clock
        # actor -> (steps that are left of it, when it was last renewed)
        self._leases: dict[int, tuple[int, float]] = {}
        self._lock = threading.Lock()

    def lease(self, actor: int, num_steps: int) -> int | None:
        """Returns how many steps the actor may make now, at most `num_steps`; None once all steps are made.

        0 means that the rest is leased to others: ask again, since one of them may die.
        """
        now = self._clock()
        with self._lock:
            self._leases.pop(actor, None)
            left = self._num_steps - self._counter.get_counts().get("actor_steps", 0)
            if left <= 0:
                return None
            leased = sum(steps for steps, renewed in self._leases.values() if now - renewed < self._lease_seconds)
            granted = min(num_steps, max(left - leased, 0))
            if granted:
                self._leases[actor] = (granted, now)
            return granted

    def renew(self, actor: int, num_steps: int) -> None:
        """Takes note that the actor has counted so many steps of its lease, 0 too, and is alive."""
        with self._lock:
            if actor in self._leases:
                steps, _ = self._leases[actor]
                self._leases[actor] = (max(steps - num_steps, 0), self._clock())
