"""The rate that an endpoint accepts, estimated from its refusals."""

import math
from collections import deque

from llm2llm.components.shared.llm.rate_limit.in_flight import HANGOVER, SLACK, Epoch, Sent

LATE = 0.1
"""`SLACK` for a busy machine: so much is made up for, at 1.25 times the rate."""


class RateEstimate:
    """How many requests a second an endpoint accepts, found from which of them it refuses.

    Requests leave at even gaps, slowly at first and then twice as fast with each round trip. Once some are refused,
    what is accepted of a stretch that was too fast is the endpoint's own rate; from then on they stay 2% below it, and
    a rare small step up looks for more. Refusals whose share does not fall with the rate have another cause, such as
    faults or other clients, and are no reason to go slower, up to `MOST_NOISE`.
    """

    START = 75.0
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
