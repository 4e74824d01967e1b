"""How many requests an endpoint is sent at once, and how fast: learned from what it answers, within the user's limits.

    Spacing   the user's requests and tokens per minute: even gaps, and never more than the limit in any minute
    Rate      the endpoint's own limit, learned from its 429s
    Places    how many may be in flight: more until they only queue, fewer when it slows down or breaks

All times are seconds on one clock that the caller reads, so that a test can run an hour in an instant.
"""

import math
from collections import deque
from dataclasses import dataclass
from statistics import median

MINUTE = 60.001
"""Seconds; the endpoint's clock may run a little differently."""
START = 16
"""Requests in flight to begin with."""
WINDOW = 30
"""Answers from which it is told whether they came slower."""
HANGOVER = 1.0
"""Seconds for which an endpoint that counts by the second may still refuse because of what came too fast before."""
SLACK = 0.02
"""Seconds by which a request may be late without those after it being late as well: timers are not exact."""
LATE = 0.1
"""The same for a busy machine: so much is made up for, at 1.25 times the rate."""


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


class Spacing:
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


class Rate:
    """How many requests a second an endpoint accepts, found from which of them it refuses.

    Requests leave at even gaps, slowly at first and then twice as fast with each round trip. Once some are refused,
    what is accepted of a stretch that was too fast is the endpoint's own rate; from then on they stay 2% below it, and
    a rare small step up looks for more. Refusals whose share does not fall with the rate have another cause, such as
    faults or other clients, and are no reason to go slower, up to `MOST_NOISE`.
    """

    START = 50.0
    BELOW = 0.98
    MOST_NOISE = 0.3
    PRECISE = 100
    """Accepted requests from which the endpoint's rate is known to about 1%."""

    def __init__(self) -> None:
        self.limit = self.START
        """Requests a second."""
        self.epoch = Epoch(0.0)
        self._next = self._earliest = -math.inf
        self._closed: Epoch | None = None
        self._refusal_takes = 0.1
        self._doubling = True
        self._answered: deque[float] = deque()
        """When the answers of the last second came, while doubling."""
        self._too_high = math.inf
        """A rate of which some was refused; between it and what is accepted the endpoint's rate is searched for."""
        self._clean = 0.0
        """The last rate of which nothing was refused, during the search."""
        self._known = False
        """Whether the search is over."""
        self._probe_at = 0.0
        """When to look for more, once it is."""
        self._calm = 5.0
        self._step = 0.02
        self._good: float | None = None
        """What to go back to when the step up that is being tried is refused."""
        self._noise = 0.0
        self._suspected = 0.0
        """Noise that was seen before, and is not certain now."""
        self._cut: tuple[float, float] | None = None
        """(rate, refused share) before the last cut, when nothing but refusals has been seen since."""
        self._cuts = 0
        """How many there were in a row."""

    def wait(self, now: float) -> float:
        return max(0.0, self._next - now, self._earliest - now)

    def sent(self, now: float) -> Epoch:
        self._next = max(self._next, now - LATE) + 1 / self.limit
        self._earliest = max(self._earliest, now - SLACK) + 0.8 / self.limit
        if now < self.epoch.start:
            return Epoch(now)
        if self.epoch.sent == 0:
            self.epoch.start = now
        self.epoch.sent += 1
        return self.epoch

    def answered(self, now: float) -> None:
        if not self._doubling:
            return
        self._answered.append(now)
        while self._answered[0] < now - 1:
            self._answered.popleft()
        # No further than is made use of, or there would be no gaps left.
        if self.limit < self.START + 4 * len(self._answered):
            self.limit += 5

    def refused(self, sent: Sent, now: float) -> None:
        self._refusal_takes += 0.2 * (now - sent.at - self._refusal_takes)
        sent.epoch.refused += 1
        if self._doubling and self._noise == 0.0:
            self._end_doubling(now)

    def _end_doubling(self, now: float) -> None:
        self._doubling = False
        self._answered.clear()
        self._set(self.limit, now)

    def look(self, now: float) -> None:
        """Judges what is known by now; to be called often."""
        if self._closed is not None and now >= self._closed.end + 2 * self._refusal_takes:
            closed, self._closed = self._closed, None
            self._judge(closed, now)
        epoch = self.epoch
        if self._closed is None and self._long_enough(epoch, now):
            epoch.end = now
            self._closed, self.epoch = epoch, Epoch(now)

    def _long_enough(self, epoch: Epoch, now: float) -> bool:
        """Whether an epoch tells enough. Some endpoints count by the second, so it lasts whole ones."""
        seconds = now - epoch.start
        if self._good is not None and epoch.refused > self._tolerated(epoch) + 5:
            return True  # a step up that is clearly one too many
        if epoch.sent == 0 or seconds < epoch.lasts:
            return False
        wanted = 1.1 * self.PRECISE if self._known and not self._far_too_fast(epoch) else 20
        if epoch.sent >= wanted or (seconds >= 10 and epoch.sent >= 5):
            return True
        epoch.lasts += 1.0
        return False

    def _far_too_fast(self, epoch: Epoch) -> bool:
        return epoch.sent >= 40 and epoch.refused > self._tolerated(epoch) + 0.05 * epoch.sent

    def _tolerated(self, epoch: Epoch) -> float:
        """Refused requests that say nothing against the rate: half a percent, and noise with twice its spread."""
        spread = math.sqrt(epoch.sent * self._noise * (1 - self._noise))
        return (self._noise + 0.005) * epoch.sent + 2 * spread

    def _judge(self, epoch: Epoch, now: float) -> None:
        seconds = epoch.end - epoch.start
        if epoch.refused > self._tolerated(epoch):
            if self._doubling:
                self._end_doubling(now)
            else:
                self._too_fast(epoch, now)
            return
        self._noise = min(self._noise, 0.7 * self._noise + 0.3 * epoch.share)
        self._cut, self._cuts, self._suspected = None, 0, 0.0
        if not self._doubling and epoch.sent / seconds > 0.8 * self.limit:
            self._accepted(now)

    def _too_fast(self, epoch: Epoch, now: float) -> None:
        if self._good is not None:
            self._set(self._good, now + HANGOVER)
            self._calm, self._step, self._good = min(2 * self._calm, 120.0), 0.02, None
            self._probe_at = now + self._calm
            return
        seconds = epoch.end - epoch.start
        accepted = (epoch.sent - epoch.refused) / seconds
        if self._known and epoch.sent > 1.02 * self.limit * seconds and accepted > 0.97 * self.limit:
            return  # this side was late and made up for it too fast, which says nothing about the rate
        self._cuts += 1
        if self._cut is not None and epoch.share <= self.MOST_NOISE and (epoch.share >= 0.1 or self._cuts > 3):
            before, share = self._cut
            if epoch.share >= 0.7 * min(share, self._suspected or share):
                # Slower, and refused as often as before.
                self._noise, self._cut, self._cuts = epoch.share, None, 0
                if self._suspected:
                    self._found(accepted / (1 - self._noise), now)
                else:
                    self._doubling, self._known, self._too_high, self._clean = epoch.share >= 0.1, False, math.inf, 0.0
                    self._set(before, now)
                self._suspected = self._noise
                return
        self._cut, self._suspected, self._noise = (self.limit, epoch.share), max(self._suspected, self._noise), 0.0
        if epoch.sent - epoch.refused >= self.PRECISE or accepted <= 1.05 * self._clean:
            self._found(accepted, now)
        else:
            self._known, self._too_high = False, self.limit
            self._set(max(accepted, 0.2 * self.limit, 0.2), now + HANGOVER)

    def _found(self, rate: float, now: float) -> None:
        """The endpoint's rate is known."""
        self._known, self._probe_at = True, now + self._calm
        self._set(max(self.BELOW * rate, 0.2 * self.limit), now + HANGOVER)

    def _accepted(self, now: float) -> None:
        if self._good is not None:
            self._calm, self._step, self._good = max(5.0, self._calm / 2), min(2 * self._step, 0.1), None
            self._probe_at = now + self._calm
        elif not self._known:
            # What was accepted of a stretch that was too fast is about right, so the first step from it is small.
            step = 1.5 if self._clean else 1.1
            self._clean = self.limit
            if self._too_high > 1.05 * self.limit:
                self._set(min(step * self.limit, (self.limit + self._too_high) / 2), now)
            else:
                self._known, self._probe_at = True, now + self._calm
        elif now >= self._probe_at:
            self._good = self.limit
            self._set((1 + self._step) * self.limit, now)

    def _set(self, rate: float, start: float) -> None:
        """Goes on at another rate, which is judged by what is sent from `start` on."""
        self.limit = rate
        self.epoch, self._closed = Epoch(start), None


class Places:
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


class Pacing:
    """When the next request may be sent.

    Args:
        concurrency: The most in flight.
        requests_per_minute, tokens_per_minute: The user's limits; None: none.
    """

    def __init__(
        self, concurrency: int, requests_per_minute: float | None = None, tokens_per_minute: float | None = None
    ) -> None:
        self.in_flight = 0
        self._requests = Spacing(requests_per_minute)
        self._tokens = Spacing(tokens_per_minute)
        self._rate = Rate()
        self._places = Places(concurrency)
        self._pause_until = -math.inf
        self._refused_in_a_row = 0
        self._refused_since = math.inf

    @property
    def places(self) -> int:
        """How many may be in flight now."""
        return int(self._places.limit)

    @property
    def requests_per_second(self) -> float:
        """What the endpoint is believed to accept; infinite while it has refused nothing."""
        return self._rate.limit

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
