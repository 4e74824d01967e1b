"""Limits the number of requests in flight."""

import math
from collections import deque
from statistics import median

from llm2llm.components.shared.llm.rate_limit.in_flight import START, Sent

WINDOW = 30
"""Responses from which it is told whether they came slower."""


class ConcurrencyLimit:
    """How many requests may be in flight.

    Doubles with each round trip until answers break or queue; then grows by a tenth in each. More in flight that only
    makes answers slower, with no more of them, is taken back, and so is half when most break.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(min(START, most))
        self._doubling = True
        self._baseline = math.inf
        """The typical time of an answer when few are in flight."""
        self._took: list[float] = []
        self._broke = 0
        self._full = 0
        self._since = -math.inf
        self._wanted: float = START
        """How many outcomes the stretch that is looked at next has."""
        self._history: deque[tuple[float, float]] = deque(maxlen=20)
        """(limit, answers a second) of stretches in which every place was taken."""
        self._queued = False

    def answered(self, sent: Sent, now: float) -> None:
        self._begin(sent)
        self._took.append(now - sent.at)
        if sent.full:
            self._full += 1
            self.limit += 1.0 if self._doubling else max(1.0, 0.1 * self.limit) / self.limit
            self.limit = min(self.limit, self.most)
        self._judge(now)

    def broke(self, sent: Sent, now: float) -> None:
        """A request that ended without an answer, and without being refused for its number."""
        self._begin(sent)
        self._broke += 1
        self._judge(now)

    def _begin(self, sent: Sent) -> None:
        if not self._took and not self._broke:
            self._since = max(self._since, sent.at)

    def _judge(self, now: float) -> None:
        answers = len(self._took)
        if answers + self._broke < self._wanted:
            return
        if self._broke > 2 * answers:
            self._shrink(0.5)
        elif answers and self._full > answers / 2:
            self._look_for_a_queue(median(self._took), answers / max(now - self._since, 1e-9))
        self._took, self._broke, self._full, self._since = [], 0, 0, now
        self._wanted = max(WINDOW, self.limit)

    def _look_for_a_queue(self, typical: float, throughput: float) -> None:
        self._baseline = min(1.002 * self._baseline, typical)
        # As many were answered when fewer were in flight: the others only wait.
        no_more = any(limit <= 0.9 * self.limit and 1.05 * then >= throughput for limit, then in self._history)
        self._history.append((self.limit, throughput))
        queues = no_more and typical > 1.5 * self._baseline
        if queues and (self._queued or self._doubling):
            self._shrink(max(0.5, 1.3 * self._baseline / typical))
        self._queued = queues

    def _shrink(self, factor: float) -> None:
        self._doubling = False
        self.limit = max(1.0, factor * self.limit)
