"""RateLimiter against limiters of all kinds, on a clock that is only counted."""

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.llm.rate_limit.fixed import FixedRateLimit
from llm2llm.components.shared.llm.rate_limit.in_flight import START
from llm2llm.components.shared.llm.rate_limit.limiter import RateLimiter

LATENCY = 0.2


class Bucket:
    """`rate` requests a second, `depth` at once."""

    def __init__(self, rate: float, depth: float) -> None:
        self.rate, self.depth, self.left, self.at = rate, depth, depth, 0.0

    def __call__(self, now: float) -> bool:
        self.left, self.at = min(self.depth, self.left + (now - self.at) * self.rate), now
        passes = self.left >= 1
        self.left -= passes
        return passes


class Window:
    """`rate` requests in each second of the clock."""

    def __init__(self, rate: int) -> None:
        self.rate, self.second, self.count = rate, -1, 0

    def __call__(self, now: float) -> bool:
        if int(now) != self.second:
            self.second, self.count = int(now), 0
        self.count += 1
        return self.count <= self.rate


class Sliding:
    """`rate` requests in any second."""

    def __init__(self, rate: int) -> None:
        self.rate, self.passed = rate, deque[float]()

    def __call__(self, now: float) -> bool:
        while self.passed and self.passed[0] <= now - 1:
            self.passed.popleft()
        if len(self.passed) == self.rate:
            return False
        self.passed.append(now)
        return True


@dataclass
class Seen:
    answered: list[float] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    most_in_flight: int = 0
    in_flight: list[int] = field(default_factory=list)

    def rate(self, after: float, until: float) -> float:
        return sum(after < at <= until for at in self.answered) / (until - after)

    def refused_share(self, after: float) -> float:
        refused, answered = (sum(at > after for at in times) for times in (self.refused, self.answered))
        return refused / (refused + answered)


def simulate(
    passes: Callable[[float], bool],
    seconds: float,
    rate_limiter: RateLimiter,
    latency: Callable[[], float] = lambda: LATENCY,
    slots: int = 0,
    retry_after: float | None = None,
) -> Seen:
    """What comes of an endless queue of requests. With `slots`, so many are worked on at once and the others wait."""
    random.seed(0)
    seen, now, events, free = Seen(), 0.0, list[tuple[float, int, bool, object]](), [0.0] * slots
    while now < seconds:
        while events and events[0][0] <= now:
            at, _, answered, sent = heapq.heappop(events)
            if answered:
                rate_limiter.answered(sent, at)
                seen.answered.append(at)
            else:
                rate_limiter.refused(sent, at, retry_after)
                seen.refused.append(at)
        wait = rate_limiter.wait(now)
        if wait > 0:
            # Timers are late, by a millisecond or so.
            woken = now + wait + random.random() * 0.001
            now = max(min(woken, events[0][0] if events else math.inf), now + 1e-6)
            continue
        sent = rate_limiter.sent(now, 1)
        seen.most_in_flight = max(seen.most_in_flight, rate_limiter.in_flight)
        seen.in_flight.append(rate_limiter.in_flight)
        arrives = now + random.random() * 0.002
        if not passes(arrives):
            heapq.heappush(events, (arrives + 0.003, len(seen.in_flight), False, sent))
            continue
        starts = arrives
        if slots:
            place = free.index(min(free))
            starts = max(arrives, free[place])
        ends = starts + latency()
        if slots:
            free[place] = ends
        heapq.heappush(events, (ends, len(seen.in_flight), True, sent))
    return seen


@pytest.mark.parametrize("rate", [50, 500])
@pytest.mark.parametrize("kind", ["bucket", "deep bucket", "window", "sliding"])
@pytest.mark.parametrize("retry_after", [None, 1.0])
def test_what_an_endpoint_accepts_is_found_within_five_seconds_and_kept_to(
    rate: int, kind: str, retry_after: float | None
) -> None:
    limiter = {
        "bucket": lambda: Bucket(rate, rate / 10),
        "deep bucket": lambda: Bucket(rate, rate),
        "window": lambda: Window(rate),
        "sliding": lambda: Sliding(rate),
    }[kind]()
    seen = simulate(limiter, 30, RateLimiter(512), retry_after=retry_after)
    assert seen.rate(5, 30) >= 0.95 * rate
    assert seen.refused_share(5) <= 0.01


def test_an_endpoint_that_refuses_nothing_is_used_with_every_place() -> None:
    seen = simulate(lambda now: True, 10, RateLimiter(256))
    assert seen.most_in_flight == 256
    assert seen.rate(5, 10) >= 0.95 * 256 / LATENCY


def test_it_begins_with_few() -> None:
    seen = simulate(lambda now: True, 0.19, RateLimiter(256))
    assert seen.most_in_flight <= START


def test_a_limit_that_rises_is_found_and_so_is_one_that_falls() -> None:
    bucket = Bucket(100, 10)
    changes = {20.0: 150.0, 140.0: 60.0}

    def passes(now: float) -> bool:
        bucket.rate = next((rate for at, rate in reversed(changes.items()) if now > at), 100.0)
        return bucket(now)

    seen = simulate(passes, 180, RateLimiter(512))
    assert seen.rate(10, 20) == pytest.approx(100, rel=0.05)
    assert seen.rate(130, 140) > 130
    assert seen.rate(160, 180) == pytest.approx(60, rel=0.05)


def test_refusals_at_random_do_not_slow_it_down() -> None:
    seen = simulate(lambda now: random.random() > 0.2, 30, RateLimiter(64), latency=lambda: 0.05)
    assert seen.rate(20, 30) > 0.5 * 64 / 0.05


@pytest.mark.parametrize("slots", [1, 8, 64])
def test_places_that_would_only_queue_are_given_back(slots: int) -> None:
    seen = simulate(lambda now: True, 60, RateLimiter(512), latency=lambda: 0.1, slots=slots)
    assert seen.rate(20, 60) >= 0.95 * slots / 0.1
    assert max(seen.in_flight[len(seen.in_flight) // 2 :]) <= 6 * slots + 3 * START


def test_when_most_break_fewer_are_sent() -> None:
    rate_limiter, now = RateLimiter(512), 0.0
    for _ in range(600):
        now += 1.0
        rate_limiter.broke(rate_limiter.sent(now, 1), now)
    assert rate_limiter.places == 1


def test_a_long_retry_after_for_all_is_kept_by_all() -> None:
    seen = simulate(lambda now: False, 20, RateLimiter(64), retry_after=60.0)
    assert max(seen.refused) < 2.5


@given(
    limit=st.floats(1, 10_000),
    sizes=st.lists(st.floats(0.01, 1.0), min_size=2, max_size=200),
    delays=st.lists(st.floats(0, 2), min_size=200, max_size=200),
)
def test_no_minute_holds_more_than_the_users_limit(limit: float, sizes: list[float], delays: list[float]) -> None:
    spacing, now, sent = FixedRateLimit(limit), 0.0, list[tuple[float, float]]()
    for size, delay in zip(sizes, delays, strict=False):
        now += delay
        now += spacing.wait(now, size * limit)
        spacing.sent(now, size * limit)
        sent.append((now, size * limit))
    for start, _ in sent:
        assert sum(size for at, size in sent if start <= at <= start + 60) <= limit * (1 + 1e-9)


@pytest.mark.parametrize("limit", [1, 2, 60, 3000])
def test_the_users_limit_is_used(limit: int) -> None:
    seen = simulate(lambda now: True, 600, RateLimiter(512, requests_per_minute=limit))
    assert 0.97 * 9 * limit <= len(seen.in_flight) <= 10 * limit


def test_tokens_that_were_not_used_are_given_back() -> None:
    spacing = FixedRateLimit(6000)
    for at in range(60):
        assert spacing.wait(at, 1000) == 0
        spacing.give_back(spacing.sent(at, 1000), 950)
