"""One attempt of a request to an OpenAI-compatible endpoint, and its outcome.

reserved -> sent -> answered: settled, stored
                 -> refused: asked without what was refused, or failed
                 -> broken, busy: tried again later, or failed
"""

import asyncio
import heapq
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.progress import Progress
from llm2llm.components.shared.llm.backends.openai_endpoint import DETAIL, FORBIDDEN, Endpoint
from llm2llm.components.shared.llm.backends.openai_http import (
    MAX_ANSWER,
    Lost,
    NotSent,
    Response,
    exchange,
    retry_after,
)
from llm2llm.components.shared.llm.backends.openai_stores import Store
from llm2llm.components.shared.llm.budget import Reservation, SpendTracker
from llm2llm.components.shared.llm.chat_completion import (
    ErrorInside,
    decode_body,
    error_in,
    read_completion,
    read_logprobs,
    tokens_in,
)
from llm2llm.components.shared.llm.rate_limit.in_flight import Sent
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, request_key

FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second try, and before any, at most: doubled with each try, and drawn at random below that."""
SAID_WAIT = 5.0
"""Seconds; what a longer wait is for is said."""
BREAKER_CALLS, BREAKER_TRIES = 5, 20
"""When so many calls in a row failed for good, after so many tries, with no answer in between, nothing works."""
MODERATED = 10
"""One in so many requests may well be refused by moderation, and for this alone."""

BUSY = {429, 503, 529}
"""HTTP statuses of an endpoint that has too much to do."""
RETRIED = {408, 409, 425}
"""Others after which the same request may succeed, besides all from 500 on."""
HOPELESS = {401, 402, 404, 407}
"""After these no request will."""


@dataclass(slots=True, eq=False)
class OpenCall:
    """A request on its way to its answer."""

    place: int
    request: LLMRequest
    tries: int = 0
    """How often it was sent."""
    failures: int = 0
    """How many of these count against `ModelSettings.tries`."""
    answers_before: int = 0
    """How many answers had come from the endpoint when it was sent last."""
    in_words: bool = False
    """Whether the endpoint refused it, or failed on it, with a schema."""
    broke_on_schema: bool = False
    """Whether that was a failure, HTTP 500, which may have another cause."""
    detail: str = ""
    """What went wrong last."""


def backoff(failures: int) -> float:
    """Seconds before the next try, drawn at random."""
    return random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, failures - 1)))


class Attempts:
    """The tries of one batch of requests."""

    loop: asyncio.AbstractEventLoop
    session: aiohttp.ClientSession
    store: Store

    def __init__(self, endpoint: Endpoint, tracker: SpendTracker, requests: Sequence[LLMRequest]) -> None:
        self.endpoint, self.settings, self.rate_limiter = endpoint, endpoint.settings, endpoint.rate_limiter
        self.tracker = tracker
        self.responses: list[LLMResponse | None] = [None] * len(requests)
        self.later: list[tuple[float, int, OpenCall]] = []
        """What is tried again, by when: a heap."""
        self.tasks: set[asyncio.Task[None]] = set()
        """The tries in flight."""
        self.done = 0
        self.answered = 0
        self.failed_calls = 0
        self.failed_tries = 0
        """Both since the last answer."""
        self.progress = Progress("teacher", len(requests), "calls")

    async def attempt(self, call: OpenCall, reservation: Reservation, sent: Sent) -> None:
        call.tries += 1
        call.answers_before = self.answered
        body = self.endpoint.body(call.request, call.in_words)
        try:
            response = await self.exchange("POST", self.endpoint.chat_url, body)
        except NotSent as problem:
            self.tracker.release(reservation)
            self.rate_limiter.broke(sent, self.loop.time())
            self._failed(call, str(problem))
            return
        except Lost as problem:
            self.tracker.settle(reservation, None)
            self.rate_limiter.broke(sent, self.loop.time())
            self._failed(call, str(problem))
            return
        except BaseException:
            self.tracker.settle(reservation, None)
            self.rate_limiter.given_up(sent)
            raise
        if 200 <= response.status < 300:
            raw, answer, error = self._read(call, response)
            if answer is not None:
                await self._came(call, reservation, sent, body, raw, answer)
                return
            if error is None:
                await self._unreadable(call, reservation, sent, response, raw)
                return
            came, response = response.status, Response(error.status, response.headers, response.body)
            detail = f"HTTP {came} with an error inside: {error.text}"[:DETAIL]
        else:
            detail = self.endpoint.said(response)
        self.tracker.release(reservation)
        now = self.loop.time()
        wait = self.retry_after(response)
        if response.status in BUSY and "insufficient_quota" not in detail:
            self.rate_limiter.refused(sent, now, wait)
            # It has too much to do, and not with this call: as long as it answers others, this one is not failing.
            self._failed(call, detail, wait, counts=self.answered == call.answers_before)
        elif response.status >= 500 or response.status in RETRIED:
            self.rate_limiter.broke(sent, now)
            if response.status >= 500:
                # Some servers break on a JSON schema. Which it is shows when the next try, in words, is answered.
                call.in_words = call.broke_on_schema = self.endpoint.may_drop_schema(body)
            self._failed(call, detail, wait)
        else:
            self.rate_limiter.given_up(sent)
            self._refused(call, body, response, detail)

    async def _unreadable(
        self, call: OpenCall, reservation: Reservation, sent: Sent, response: Response, raw: Any
    ) -> None:
        """A status of success, and neither a chat completion nor an error."""
        if response.is_web_page:  # of something before the endpoint, which charges nothing
            self.tracker.release(reservation)
            if not self.tracker.answers_of(self.endpoint.identity):
                self.rate_limiter.given_up(sent)
                raise self.endpoint.hopeless(response, "")
        else:
            self.tracker.settle(reservation, self._answer(call, outcome="failed", **tokens_in(raw)))
        self.rate_limiter.broke(sent, self.loop.time())
        self._failed(call, f"what came is no chat completion: {self.endpoint.said(response)}")

    def retry_after(self, response: Response) -> float | None:
        wait = retry_after(response.headers)
        return None if wait is None else min(wait, self.settings.longest_wait)

    def _refused(self, call: OpenCall, body: Mapping[str, Any], response: Response, detail: str) -> None:
        """The request will not be answered as it is."""
        endpoint = self.endpoint
        if response.status in HOPELESS or response.status < 400 or response.status == 429:
            raise endpoint.hopeless(response, detail)
        if response.status == FORBIDDEN:
            self._forbidden(call, response, detail)
            return
        self.failed_calls = self.failed_tries = 0  # it works, and says no
        if (unfit := endpoint.refused_logprobs(body, detail)) is not None:
            raise unfit
        if not endpoint.adapt(body, detail):
            if "response_format" in body and self.settings.structured == "auto":
                call.in_words, call.broke_on_schema = True, False
            elif endpoint.hint and "model" in detail.lower() and not self.tracker.answers_of(endpoint.identity):
                raise endpoint.hopeless(response, detail)
            else:
                self._done(call, self._failure(call, detail))
                return
        call.detail = detail
        self._again(call, 0.0)

    def _forbidden(self, call: OpenCall, response: Response, detail: str) -> None:
        """The call has failed; when all are refused, it is the key."""
        endpoint = self.endpoint
        endpoint.forbidden += 1
        answers = self.tracker.answers_of(endpoint.identity)
        # A refusal comes faster than an answer: the calls in flight have the time to show that the key is right. And
        # where most answers come from the ledger, those that are moderated are what is left to ask for.
        most = max(BREAKER_CALLS, answers // MODERATED) if answers else 0
        if endpoint.forbidden >= most + len(self.tasks):
            if not answers:
                raise endpoint.hopeless(response, detail)
            raise UserError(
                f"teacher {self.settings.url}: refused {endpoint.forbidden} calls in a row ({detail}); see whether the "
                f"key in {self.settings.api_key_env} is still valid, and whether the endpoint declines such requests. "
                "What it answered before is in the ledger"
            )
        self._done(call, self._failure(call, detail))

    async def _came(
        self,
        call: OpenCall,
        reservation: Reservation,
        sent: Sent,
        body: Mapping[str, Any],
        raw: Any,
        answer: LLMResponse,
    ) -> None:
        self.tracker.settle(reservation, answer)
        if "logprobs" in body and answer.logprobs is None and answer.text.strip() and not answer.refusal:
            # Kept in the ledger it would answer the same request for good, without what it was asked for.
            self.rate_limiter.given_up(sent)
            raise self.endpoint.no_logprobs("answers without them")
        used = (answer.input_tokens or reservation.input_tokens) + (answer.output_tokens or reservation.output_tokens)
        self.answered += 1
        self.failed_calls = self.failed_tries = 0
        self.endpoint.answered(body, answer, call.broke_on_schema)
        try:
            stored = await self.store(lambda: self.tracker.store(self.endpoint.identity, answer, sent=body, raw=raw))
        finally:
            self.rate_limiter.answered(
                sent, self.loop.time(), max(0, reservation.input_tokens + reservation.output_tokens - used)
            )
        self._done(call, stored)

    def _failed(self, call: OpenCall, detail: str, wait: float | None = None, counts: bool = True) -> None:
        """A try that came to nothing; the call is tried again later, or has failed."""
        call.detail = detail
        if counts:
            call.failures += 1
            self.failed_tries += 1
        if call.failures >= self.settings.tries:
            self.failed_calls += 1
            self._done(call, self._failure(call, detail))
            if self.failed_calls >= BREAKER_CALLS and self.failed_tries >= BREAKER_TRIES:
                raise UserError(
                    f"teacher {self.settings.url}: {self.failed_calls} calls in a row failed, after "
                    f"{self.failed_tries} tries; the last: {detail}; see whether it is up. What it answered before is "
                    "in the ledger"
                )
            return
        drawn = backoff(call.failures)
        seconds = drawn if wait is None else wait + min(drawn, 0.1 * wait)
        if seconds >= SAID_WAIT and not self.answered:
            self.endpoint.waits(seconds, detail)
        self._again(call, seconds)

    def _again(self, call: OpenCall, seconds: float) -> None:
        heapq.heappush(self.later, (self.loop.time() + seconds, call.place, call))

    def _failure(self, call: OpenCall, detail: str) -> LLMResponse:
        return self._answer(call, outcome="failed", detail=detail)

    def over_budget(self, call: OpenCall) -> None:
        if call.tries:
            self._done(call, self._failure(call, f"{call.detail}; the budget has no room for another try"))
        else:
            self._done(call, self._answer(call, outcome="over_budget", detail="the budget has no room for it"))

    def _answer(self, call: OpenCall, **fields: Any) -> LLMResponse:
        key = request_key(self.endpoint.identity, call.request)
        return LLMResponse(request=call.request, key=key, model=self.settings.model, attempts=call.tries, **fields)

    def _done(self, call: OpenCall, answer: LLMResponse) -> None:
        self.responses[call.place] = answer
        self.done += 1
        self.progress.show(self.done)

    async def exchange(self, method: str, url: str, body: Mapping[str, Any] | None = None) -> Response:
        """See `exchange`; what went wrong is said without the key."""
        try:
            return await exchange(
                self.session, method, url, body, timeout=self.settings.timeout, proxy=self.endpoint.proxy
            )
        except Lost as problem:
            raise Lost(self.endpoint.without_key(str(problem))) from None

    def _read(self, call: OpenCall, response: Response) -> tuple[Any, LLMResponse | None, ErrorInside | None]:
        """(what came, the answer in it, the error in it); neither of these where it is no chat completion."""
        if response.cut:
            detail = f"the answer is larger than {MAX_ANSWER:,} bytes"
            return {"cut": True}, self._answer(call, outcome="answered", truncated=True, detail=detail), None
        raw = None
        try:
            raw = self.endpoint.cleaned(decode_body(response.body, response.charset))
            if error := error_in(raw):
                return raw, None, error
            told = {"logprobs": read_logprobs(raw)} if call.request.top_logprobs else {}
            return raw, self._answer(call, outcome="answered", **read_completion(raw), **told), None
        except (ValueError, RecursionError):
            return raw, None, None
