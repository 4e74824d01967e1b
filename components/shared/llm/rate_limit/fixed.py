"""The user's own limit on requests or tokens per minute."""

import math
from collections import deque

from llm2llm.components.shared.llm.rate_limit.in_flight import SLACK

MINUTE = 60.001
"""Seconds; the endpoint's clock may run a little differently."""


class FixedRateLimit:
    """The user's limit: even gaps, and never more than `limit` in any 60 seconds. What is larger goes alone."""

    def __init__(self, limit: float | None) -> None:
        self.limit = math.inf if limit is None else limit
        self._next = -math.inf
        self._log: deque[list[float]] = deque()
        """[when, how much] of the last minute."""
        self._sum = 0.0

    def wait(self, now: float, amount: float) -> float:
        """Seconds until so much may be sent."""
        if self.limit == math.inf:
            return 0.0
        while self._log and self._log[0][0] < now - MINUTE:
            self._sum -= self._log.popleft()[1]
        at, over = self._next, self._sum + amount - self.limit
        for when, much in self._log:
            if over <= 0:
                break
            at, over = max(at, when + MINUTE), over - much
        return max(0.0, at - now)

    def sent(self, now: float, amount: float) -> list[float]:
        """So much is sent; returns what `give_back` wants."""
        entry = [now, amount]
        if self.limit < math.inf:
            self._next = max(self._next, now - SLACK) + 60 * amount / self.limit
            self._log.append(entry)
            self._sum += amount
        return entry

    def give_back(self, entry: list[float], amount: float) -> None:
        """Less was used than was reckoned with."""
        if self.limit < math.inf:
            self._next -= 60 * amount / self.limit
            entry[1] -= amount
            if self._log and entry[0] >= self._log[0][0]:
                self._sum -= amount
