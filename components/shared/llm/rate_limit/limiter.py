"""When the next request may be sent."""

import math

from llm2llm.components.shared.llm.rate_limit.concurrency import ConcurrencyLimit
from llm2llm.components.shared.llm.rate_limit.estimate import RateEstimate
from llm2llm.components.shared.llm.rate_limit.fixed import FixedRateLimit
from llm2llm.components.shared.llm.rate_limit.in_flight import HANGOVER, START, Sent


class RateLimiter:
    """When the next request may be sent.

    Args:
        concurrency: The most in flight.
        requests_per_minute, tokens_per_minute: The user's limits; None: none.
    """

    def __init__(
        self, concurrency: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self.in_flight = 0
        self._requests = FixedRateLimit(requests_per_minute)
        self._tokens = FixedRateLimit(tokens_per_minute)
        self._rate = RateEstimate()
        self._places = ConcurrencyLimit(concurrency)
        self._pause_until = -math.inf
        self._refused_in_a_row = 0
        self._refused_since = math.inf

    @property
    def places(self) -> int:
        """How many may be in flight now."""
        return int(self._places.limit)

    def wait(self, now: float, tokens: int = 0) -> float:
        """Seconds until a request of so many tokens may be sent; infinite when every place is taken."""
        if self.in_flight >= self.places:
            return math.inf
        self._rate.look(now)
        users = max(self._requests.wait(now, 1), self._tokens.wait(now, tokens))
        return max(users, self._rate.wait(now), self._pause_until - now)

    def sent(self, now: float, tokens: int) -> Sent:
        """A request leaves. `tokens`: the most that it and its answer can be."""
        self.in_flight += 1
        self._requests.sent(now, 1)
        entry = self._tokens.sent(now, tokens)
        return Sent(now, self._rate.sent(now), entry, self.in_flight > 0.8 * self.places)

    def answered(self, sent: Sent, now: float, spare_tokens: int = 0) -> None:
        """An answer came, with so many tokens less than it could have had."""
        self.in_flight -= 1
        self._refused_in_a_row = 0
        self._tokens.give_back(sent.tokens, spare_tokens)
        self._places.answered(sent, now)
        self._rate.answered(now)
        self._rate.look(now)

    def refused(self, sent: Sent, now: float, retry_after: float | None) -> None:
        """The endpoint is too busy (429, 503); `retry_after` is how long it asked to be left alone."""
        self.in_flight -= 1
        if self._refused_in_a_row == 0:
            self._refused_since = now
        self._refused_in_a_row += 1
        self._rate.refused(sent, now)
        self._rate.look(now)
        if retry_after is not None and self._refused_in_a_row >= START and now - self._refused_since >= HANGOVER:
            # It answers nobody: then the wait that one was told is meant for all.
            self._pause_until = max(self._pause_until, now + retry_after)

    def broke(self, sent: Sent, now: float) -> None:
        """The connection broke or timed out, or the endpoint failed."""
        self.in_flight -= 1
        self._places.broke(sent, now)

    def given_up(self, sent: Sent) -> None:
        """The request was ended from this side, which says nothing about the endpoint."""
        self.in_flight -= 1
