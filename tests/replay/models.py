"""Slow and obvious models of what a replay must do."""

from __future__ import annotations

from acme_lite import replay


class LimiterModel:
    """Items let in and drawn one at a time, in order of creation."""

    def __init__(self, table, *, asks_limiter_per_item=False):
        self.table = table
        self.asks_limiter_per_item = asks_limiter_per_item
        self.waiting = []
        self.items = []
        self.times = {}
        self.inserts = 0
        self.samples = 0

    def balance(self):
        limiter = self.table.limiter
        return (self.inserts - limiter.min_size) * limiter.samples_per_insert - self.samples

    def may_insert(self, num=1):
        limiter = self.table.limiter
        if isinstance(limiter, replay.Queue):
            return self.inserts + num - self.samples <= limiter.size
        if isinstance(limiter, replay.SampleToInsertRatio):
            below_min = self.inserts + num <= limiter.min_size
            return below_min or self.balance() + num * limiter.samples_per_insert <= limiter.error_buffer
        return True

    def may_sample(self, num):
        limiter = self.table.limiter
        most = self.table.max_times_sampled
        if most and self.asks_limiter_per_item:
            # How often items can still be drawn is not known there either: each draw may take one away.
            if len(self.items) - num + 1 < self.table.limiter.min_size_to_sample:
                return False
        elif not self.items or (most and sum(most - self.times[item] for item in self.items) < num):
            return False
        if isinstance(limiter, replay.Queue):
            return self.inserts - self.samples >= num
        if len(self.items) < limiter.min_size:
            return False
        if isinstance(limiter, replay.SampleToInsertRatio):
            return self.balance() - num >= -limiter.error_buffer
        return True

    def create(self, items):
        self.waiting += items
        self.admit()

    def admit(self):
        while self.waiting and self.may_insert():
            if len(self.items) == self.table.max_size:
                self.items.pop(0)
            item = self.waiting.pop(0)
            self.items.append(item)
            self.times[item] = 0
            self.inserts += 1

    def draw(self, num, chosen=None):
        """Draws what `Fifo` and `Lifo` draw, or counts what was chosen."""
        drawn = []
        for i in range(num):
            if chosen is not None:
                item = chosen[i]
            else:
                item = self.items[0 if isinstance(self.table.sampler, replay.Fifo) else -1]
            assert item in self.items
            self.times[item] += 1
            if self.times[item] == self.table.max_times_sampled:
                self.items.remove(item)
            drawn.append(item)
        self.samples += num
        self.admit()
        return drawn
