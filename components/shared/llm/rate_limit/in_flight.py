"""The parts that all limits share: a request in flight, and the period that it was sent in."""

import math
from dataclasses import dataclass

START = 16
"""Requests in flight to begin with."""
HANGOVER = 1.0
"""Seconds for which an endpoint that counts by the second may still refuse because of what came too fast before."""
SLACK = 0.02
"""Seconds by which a request may be late without those after it being late as well: timers are not exact."""


@dataclass(slots=True, eq=False)
class Sent:
    """A request that is on its way."""

    at: float
    epoch: "Epoch"
    tokens: list[float]
    full: bool
    """Whether nearly every place was taken when it left."""


@dataclass(slots=True, eq=False)
class Epoch:
    """A stretch of time at one rate, and what became of the requests that were sent in it."""

    start: float
    sent: int = 0
    refused: int = 0
    end: float = math.inf
    lasts: float = 1.0

    @property
    def share(self) -> float:
        """How many were refused, in [0, 1]."""
        return self.refused / self.sent if self.sent else 0.0
