"""Teacher `openai`: any OpenAI-compatible chat endpoint (a cloud API, vLLM, TGI, Ollama), asked by many calls at once.

    dispatch -> reserve -> send -> settle -> store
       ^                    |
       '------ retry <------'     429, 5xx, silence, broken connections: here and nowhere else

`rate_limit` decides how many calls are in flight and how fast they leave. A call keeps its place until its answer is in
the ledger, so that a process that is killed loses no more answers than it has places.

The HTTP client is aiohttp itself: beside the `openai` package's client on top of it, a request costs an eighth of the
processor time, answers can be cut off, and a connection that was never made is told from one that broke.
"""

import asyncio
import heapq
import json
import os
import random
import signal
import threading
import urllib.request
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.base.progress import Progress
from llm2llm.components.shared.data.jsonl import parse_json
from llm2llm.components.shared.llm.backends.in_process import schema_in_words
from llm2llm.components.shared.llm.budget import Reservation, SpendTracker, most_input_tokens
from llm2llm.components.shared.llm.client import Send
from llm2llm.components.shared.llm.rate_limit.in_flight import Sent
from llm2llm.components.shared.llm.rate_limit.limiter import RateLimiter
from llm2llm.components.shared.llm.requests import (
    LLMRequest,
    LLMResponse,
    read_completion,
    request_key,
    without_control_tokens,
)
from llm2llm.components.shared.llm.settings import ModelSettings, api_key

MAX_ANSWER = 2**20
"""Bytes of one answer that are read; one that is longer is cut off."""
DETAIL = 500
"""Characters of what went wrong that are kept."""
FIRST_WAIT, LONGEST_WAIT = 0.5, 60.0
"""Seconds before the second try, and before any, at most: doubled with each try, and drawn at random below that."""
LONGEST_RETRY_AFTER = 600.0
"""Seconds for which a Retry-After is believed."""
BREAKER_CALLS, BREAKER_TRIES = 5, 20
"""When so many calls in a row failed for good, after so many tries, with no answer in between, nothing works."""
MODERATED = 10
"""One in so many requests may well be refused by moderation, and for this alone."""
GRACE = 5.0
"""Seconds for the calls in flight when the process is told to end."""
STORES = 16
"""Answers written to the ledger at once."""
KEEP_ALIVE = 4.0
"""Seconds for which an idle connection is used again; common servers close theirs after 5."""

BUSY = {429, 503, 529}
"""HTTP statuses of an endpoint that has too much to do."""
RETRIED = {408, 409, 425}
"""Others after which the same request may succeed, besides all from 500 on."""
HOPELESS = {401, 402, 404, 407}
"""After these no request will."""
FORBIDDEN = 403
"""The key is refused, or, by some gateways, what this one request says (moderation)."""


@contextmanager
def opened(settings: ModelSettings) -> Iterator[Send]:
    """The backend. What it learns about the endpoint it keeps from one batch of requests to the next."""
    endpoint = _Endpoint(settings)

    def send(requests: Sequence[LLMRequest], settings: ModelSettings, tracker: SpendTracker) -> list[LLMResponse]:
        return asyncio.run(_Sending(endpoint, tracker, requests).all())

    yield send


def send(requests: Sequence[LLMRequest], settings: ModelSettings, tracker: SpendTracker) -> list[LLMResponse]:
    """Asks the endpoint; see `teacher.Send`. A call that fails in all its tries is an answer with outcome `failed`.

    Raises:
        UserError: Nothing can succeed: the endpoint cannot be reached, refuses the key, does not know the model, or
            fails call after call; or the ledger cannot be written to. What was answered until then is in the ledger.
        SystemExit: With code 143, after SIGTERM; the calls in flight were waited for, `GRACE` seconds at most.
    """
    with opened(settings) as send_now:
        return send_now(requests, settings, tracker)


class _Endpoint:
    """What is known about an endpoint."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.url = settings.url.rstrip("/")
        self.identity = settings.identity("openai")
        self.proxy = _proxy(self.url)
        self.rate_limiter = RateLimiter(settings.concurrency, settings.requests_per_minute, settings.tokens_per_minute)
        self.models_checked = False
        self.takes_schema = settings.structured != "words"
        """Until it has refused a JSON schema and taken the same request without one."""
        self.limit_name = "max_tokens"
        """Newer models of some providers take only `max_completion_tokens`."""
        self.forbidden = 0
        """How often in a row it has answered with `FORBIDDEN`, since it last answered a request."""
        # Servers in a cluster often need no key, and some insist on seeing one.
        self.key = api_key(settings) or "none"

    def without_key(self, text: str) -> str:
        """Some servers and proxies repeat the key in what they answer."""
        return text.replace(self.key, "***") if len(self.key) >= 8 else text  # shorter is a word: "none", "EMPTY"

    def cleaned(self, value: Any) -> Any:
        """A JSON value without the key."""
        if isinstance(value, str):
            return self.without_key(value)
        if isinstance(value, list):
            return [self.cleaned(item) for item in value]
        if isinstance(value, dict):
            return {self.without_key(name): self.cleaned(item) for name, item in value.items()}
        return value


@dataclass(slots=True, eq=False)
class _Call:
    """An ask on its way to its answer."""

    place: int
    request: LLMRequest
    tries: int = 0
    """How often it was sent."""
    failures: int = 0
    """How many of these count against `ModelSettings.tries`."""
    answers_before: int = 0
    """How many answers had come from the endpoint when it was sent last."""
    in_words: bool = False
    """Whether the endpoint refused it with a schema."""
    detail: str = ""
    """What went wrong last."""


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    headers: Mapping[str, str]
    body: bytes
    cut: bool
    """Whether the body was longer than `MAX_ANSWER`."""


class _NotSent(Exception):
    """The request never reached the endpoint."""


class _Lost(Exception):
    """It was sent, and no answer came: it may be on the bill."""


class _Sending:
    """One batch of requests. `all` hands out the calls; each runs as a task of its own."""

    def __init__(self, endpoint: _Endpoint, tracker: SpendTracker, requests: Sequence[LLMRequest]) -> None:
        self.endpoint, self.settings, self.rate_limiter = endpoint, endpoint.settings, endpoint.rate_limiter
        self.tracker = tracker
        self.answers: list[LLMResponse | None] = [None] * len(requests)
        self.fresh = deque(_Call(place, request) for place, request in enumerate(requests))
        self.later: list[tuple[float, int, _Call]] = []
        """What is tried again, by when: a heap."""
        self.tasks: set[asyncio.Task[None]] = set()
        self.changed = asyncio.Event()
        self.problem: BaseException | None = None
        """Why nothing more is sent."""
        self.ends = float("inf")
        """When the calls in flight are given up, on the loop's clock."""
        self.done = 0
        self.answered = 0
        self.failed_calls = 0
        self.failed_tries = 0
        """Both since the last answer."""
        self.progress = Progress("teacher", len(requests), "calls")

    async def all(self) -> list[LLMResponse]:
        self.loop = asyncio.get_running_loop()
        connections = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE)
        headers = {"Authorization": f"Bearer {self.endpoint.key}", "Accept-Encoding": "identity"}
        with ThreadPoolExecutor(STORES, thread_name_prefix="ledger") as self.threads, self._until_told_to_end():
            async with aiohttp.ClientSession(
                connector=connections, headers=headers, timeout=aiohttp.ClientTimeout(total=None)
            ) as self.session:
                try:
                    await self._dispatch()
                except asyncio.CancelledError as problem:
                    self.problem, self.ends = self.problem or problem, self.loop.time() + GRACE
                except BaseException as problem:
                    self.problem = self.problem or problem
                await self._end()
        if self.problem is not None:
            raise self.problem
        assert all(answer is not None for answer in self.answers), "a call without an answer"
        return [answer for answer in self.answers if answer is not None]

    # handing out

    async def _dispatch(self) -> None:
        while self.problem is None and (self.fresh or self.later or self.tasks):
            self.changed.clear()
            now = self.loop.time()
            retry = bool(self.later) and self.later[0][0] <= now
            if not retry and not self.fresh:
                await self._wait(self.later[0][0] - now if self.later else float("inf"))
                continue
            call = self.later[0][2] if retry else self.fresh[0]
            limited = self.settings.tokens_per_minute is not None
            most = most_input_tokens(call.request) + call.request.max_tokens if limited else 0
            if (seconds := self.rate_limiter.wait(now, most)) > 0:
                await self._wait(seconds)
                continue
            reservation = self.tracker.reserve(call.request, self.settings.model)
            if reservation is None and self.tracker.reserved:
                # What is set aside for others may come free.
                await self._wait(1.0)
                continue
            if retry:
                heapq.heappop(self.later)
            else:
                self.fresh.popleft()
            if reservation is None:
                self._over_budget(call)
                continue
            if not self.endpoint.models_checked:
                try:
                    await self._check_models()
                except BaseException:
                    self.tracker.release(reservation)
                    raise
                self.endpoint.models_checked = True
            sent = self.rate_limiter.sent(self.loop.time(), most)
            task = self.loop.create_task(self._try(call, reservation, sent))
            self.tasks.add(task)
            task.add_done_callback(self._ended)

    async def _wait(self, seconds: float) -> None:
        """Until something changes, or so many seconds have passed."""
        if self.later:
            seconds = min(seconds, max(0.0, self.later[0][0] - self.loop.time()))
        try:
            async with asyncio.timeout(None if seconds == float("inf") else seconds):
                await self.changed.wait()
        except TimeoutError:
            pass

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        self.changed.set()
        if not task.cancelled() and (problem := task.exception()) is not None:
            self.problem = self.problem or problem

    async def _end(self) -> None:
        """Waits for the calls in flight: they are paid for."""
        while self.tasks:
            self.changed.clear()
            left = self.ends - self.loop.time()
            if left <= 0:
                for task in self.tasks:
                    task.cancel()
                await asyncio.wait(self.tasks)
            else:
                await self._wait(left)

    @contextmanager
    def _until_told_to_end(self) -> Iterator[None]:
        """SIGTERM and an interrupt end the sending in order; a second one at once."""

        def end(number: signal.Signals) -> None:
            again = isinstance(self.problem, SystemExit | KeyboardInterrupt)
            self.ends = self.loop.time() + (0.0 if again else GRACE)
            self.problem = SystemExit(143) if number == signal.SIGTERM else KeyboardInterrupt()
            self.changed.set()
            print(f"teacher: told to end; waiting for {len(self.tasks)} calls in flight", flush=True)

        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            for number in before:
                self.loop.add_signal_handler(number, end, number)
            yield
        finally:
            for number, handler in before.items():
                self.loop.remove_signal_handler(number)
                signal.signal(number, handler)

    # one try

    async def _try(self, call: _Call, reservation: Reservation, sent: Sent) -> None:
        call.tries += 1
        call.answers_before = self.answered
        body = self._body(call)
        try:
            response = await self._exchange("POST", "/chat/completions", body)
        except _NotSent as problem:
            self.tracker.release(reservation)
            self.rate_limiter.broke(sent, self.loop.time())
            self._failed(call, str(problem))
            return
        except _Lost as problem:
            self.tracker.settle(reservation, None)
            self.rate_limiter.broke(sent, self.loop.time())
            self._failed(call, str(problem))
            return
        except BaseException:
            self.tracker.settle(reservation, None)
            self.rate_limiter.given_up(sent)
            raise
        if response.status == 200:
            await self._came(call, reservation, sent, body, response)
            return
        self.tracker.release(reservation)
        now = self.loop.time()
        wait = _retry_after(response.headers)
        detail = self._said(response)
        if response.status in BUSY and "insufficient_quota" not in detail:
            self.rate_limiter.refused(sent, now, wait)
            # It has too much to do, and not with this call: as long as it answers others, this one is not failing.
            self._failed(call, detail, wait, counts=self.answered == call.answers_before)
        elif response.status >= 500 or response.status in RETRIED:
            self.rate_limiter.broke(sent, now)
            self._failed(call, detail, wait)
        else:
            self.rate_limiter.given_up(sent)
            self._refused(call, body, response, detail)

    def _refused(self, call: _Call, body: Mapping[str, Any], response: _Response, detail: str) -> None:
        """The request will not be answered as it is."""
        if response.status in HOPELESS or response.status < 400 or response.status == 429:
            raise self._hopeless(response, detail)
        if response.status == FORBIDDEN:
            self._forbidden(call, response, detail)
            return
        self.failed_calls = self.failed_tries = 0  # it works, and says no
        if "max_tokens" in body and "max_completion_tokens" in detail:
            self.endpoint.limit_name = "max_completion_tokens"
        elif "response_format" in body and self.settings.structured == "auto":
            call.in_words = True
        else:
            self._done(call, self._failure(call, detail))
            return
        call.detail = detail
        self._again(call, 0.0)

    def _forbidden(self, call: _Call, response: _Response, detail: str) -> None:
        """The call has failed; when all are refused, it is the key."""
        endpoint = self.endpoint
        endpoint.forbidden += 1
        answers = self.tracker.answers_of(endpoint.identity)
        # A refusal comes faster than an answer: the calls in flight have the time to show that the key is right. And
        # where most answers come from the ledger, those that are moderated are what is left to ask for.
        most = max(BREAKER_CALLS, answers // MODERATED) if answers else 0
        if endpoint.forbidden >= most + len(self.tasks):
            if not answers:
                raise self._hopeless(response, detail)
            raise UserError(
                f"teacher {self.settings.url}: refused {endpoint.forbidden} calls in a row ({detail}); see whether the "
                f"key in {self.settings.api_key_env} is still valid, and whether the endpoint declines such requests. "
                "What it answered before is in the ledger"
            )
        self._done(call, self._failure(call, detail))

    async def _came(
        self, call: _Call, reservation: Reservation, sent: Sent, body: Mapping[str, Any], response: _Response
    ) -> None:
        raw, answer = self._read(call, response)
        if answer is None:
            self.tracker.settle(reservation, None)
            self.rate_limiter.broke(sent, self.loop.time())
            self._failed(call, f"what came is no chat completion: {self._said(response)}")
            return
        self.tracker.settle(reservation, answer)
        used = (answer.input_tokens or reservation.input_tokens) + (answer.output_tokens or reservation.output_tokens)
        self.answered += 1
        self.failed_calls = self.failed_tries = self.endpoint.forbidden = 0
        if call.in_words and self.endpoint.takes_schema:
            self.endpoint.takes_schema = False
            print(f"teacher: {self.settings.url} takes no JSON schema; the form is asked for in words", flush=True)
        try:
            # What is paid for is stored even when this task is cancelled.
            stored = await asyncio.shield(
                self.loop.run_in_executor(self.threads, lambda: self._store(answer, body, raw))
            )
        finally:
            self.rate_limiter.answered(
                sent, self.loop.time(), max(0, reservation.input_tokens + reservation.output_tokens - used)
            )
        self._done(call, stored)

    def _store(self, answer: LLMResponse, body: Mapping[str, Any], raw: Any) -> LLMResponse:
        return self.tracker.store(self.endpoint.identity, answer, sent=body, raw=raw)

    def _failed(self, call: _Call, detail: str, wait: float | None = None, counts: bool = True) -> None:
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
        longest = min(LONGEST_WAIT, FIRST_WAIT * 2 ** max(0, call.failures - 1))
        drawn = random.uniform(0, longest)
        self._again(call, drawn if wait is None else wait + min(drawn, 0.1 * wait))

    def _again(self, call: _Call, seconds: float) -> None:
        heapq.heappush(self.later, (self.loop.time() + seconds, call.place, call))

    def _failure(self, call: _Call, detail: str) -> LLMResponse:
        return self._answer(call, outcome="failed", detail=detail)

    def _over_budget(self, call: _Call) -> None:
        if call.tries:
            self._done(call, self._failure(call, f"{call.detail}; the budget has no room for another try"))
        else:
            self._done(call, self._answer(call, outcome="over_budget", detail="the budget has no room for it"))

    def _answer(self, call: _Call, **fields: Any) -> LLMResponse:
        key = request_key(self.endpoint.identity, call.request)
        return LLMResponse(request=call.request, key=key, model=self.settings.model, attempts=call.tries, **fields)

    def _done(self, call: _Call, answer: LLMResponse) -> None:
        self.answers[call.place] = answer
        self.done += 1
        self.progress.show(self.done)

    # what is sent, and what comes

    def _body(self, call: _Call) -> dict[str, Any]:
        request = call.request
        messages = [
            {"role": message["role"], "content": without_control_tokens(message["content"])}
            for message in request.messages
        ]
        body: dict[str, Any] = {
            "model": self.settings.model,
            "messages": messages,
            "temperature": request.temperature,
            self.endpoint.limit_name: request.max_tokens,
        }
        if request.schema is not None and self.endpoint.takes_schema and not call.in_words:
            form = {"name": "answer", "schema": request.schema, "strict": True}
            body["response_format"] = {"type": "json_schema", "json_schema": form}
        elif request.schema is not None:
            body["messages"] = schema_in_words(messages, request.schema)
        return body

    async def _exchange(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> _Response:
        """One request and its answer.

        Raises:
            _NotSent, _Lost: See there.
            UserError: No connection is possible with these settings.
        """
        url = self.endpoint.url
        data = None if body is None else json.dumps(body).encode()
        headers = {} if data is None else {"Content-Type": "application/json"}
        try:
            async with (
                asyncio.timeout(self.settings.timeout),
                self.session.request(
                    method, url + path, data=data, headers=headers, allow_redirects=False, proxy=self.endpoint.proxy
                ) as response,
            ):
                came = bytearray()
                async for chunk in response.content.iter_chunked(2**16):
                    came += chunk
                    if len(came) > MAX_ANSWER:
                        response.close()
                        break
                return _Response(response.status, response.headers, bytes(came[:MAX_ANSWER]), len(came) > MAX_ANSWER)
        except TimeoutError:
            raise _Lost(f"no answer within {self.settings.timeout:g} s") from None
        except aiohttp.InvalidURL:
            raise UserError(f"teacher {self.settings.url}: this is no URL") from None
        except aiohttp.ClientSSLError as problem:
            raise UserError(
                f"teacher {self.settings.url}: no secure connection ({problem.os_error}); if the certificate is of an "
                "authority of your own, set SSL_CERT_FILE to its file"
            ) from None
        except aiohttp.ClientHttpProxyError as problem:  # its own words hold the proxy's password
            raise _NotSent(f"the proxy refuses to connect (HTTP {problem.status})") from None
        except aiohttp.ClientConnectorError as problem:
            raise _NotSent(f"cannot connect ({_reason(problem.os_error)})") from None
        except (aiohttp.ClientError, OSError, ValueError) as problem:
            raise _Lost(f"the connection broke ({self.endpoint.without_key(_reason(problem))[:DETAIL]})") from None

    def _read(self, call: _Call, response: _Response) -> tuple[Any, LLMResponse | None]:
        """(what came, the answer in it); None where it is no chat completion."""
        if response.cut:
            detail = f"the answer is larger than {MAX_ANSWER:,} bytes"
            return {"cut": True}, self._answer(call, outcome="answered", truncated=True, detail=detail)
        try:
            raw = self.endpoint.cleaned(parse_json(response.body.decode("utf-8")))
            return raw, self._answer(call, outcome="answered", **read_completion(raw))
        except (ValueError, RecursionError):
            return None, None

    def _said(self, response: _Response) -> str:
        """What an answer that is none says, on one line and without the key."""
        text = response.body.decode("utf-8", "replace")
        try:
            error = parse_json(text)["error"]
            if isinstance(error, dict):
                said = [str(error[name]) for name in ("message", "code", "type") if error.get(name)]
                text = f"{said[0]} ({', '.join(said[1:])})" if len(said) > 1 else said[0]
            else:
                text = str(error)
        except (KeyError, IndexError, TypeError, ValueError, RecursionError):
            pass  # it is shown as it came
        text = " ".join(self.endpoint.without_key(text).split())
        return f"HTTP {response.status}{': ' if text else ''}{text}"[:DETAIL]

    # before anything is paid for

    async def _check_models(self) -> None:
        """Asks for the list of models."""
        url, tries = self.settings.url, 0
        while True:
            tries += 1
            wait = None
            try:
                response = await self._exchange("GET", "/models")
                if response.status == 501 or (response.status < 500 and response.status not in RETRIED | BUSY):
                    break
                problem, wait = self._said(response), _retry_after(response.headers)
            except (_NotSent, _Lost) as broken:
                problem = str(broken)
            if tries >= self.settings.tries:
                raise UserError(f"teacher {url}: {problem}; is it up, is the URL right?")
            await self._wait(wait or random.uniform(0, min(LONGEST_WAIT, FIRST_WAIT * 2 ** (tries - 1))))
            if self.problem is not None:
                raise self.problem
        if response.status in (401, 402, 407) or 300 <= response.status < 400:
            raise self._hopeless(response, self._said(response))
        if response.status != 200:
            return  # some servers have no list, and some keys may not see it; the first call will show
        try:
            models = self.endpoint.cleaned(parse_json(response.body.decode("utf-8")))["data"] or []
            known = sorted(str(model["id"]) for model in models)
        except (AttributeError, KeyError, TypeError, ValueError, RecursionError):
            raise UserError(
                f"teacher {url}: what it answers is no list of models; check the url (it usually ends in /v1)"
            ) from None
        if known and self.settings.model not in known and f"models/{self.settings.model}" not in known:
            shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            hint = did_you_mean(self.settings.model, known)
            raise UserError(f"model: {url} has no model {self.settings.model!r}{hint}; it has {shown}")

    def _hopeless(self, response: _Response, detail: str) -> UserError:
        """Why nothing can succeed: one line that names the endpoint and the fix, and never the key."""
        start, status = f"teacher {self.settings.url}:", response.status
        if status in (401, FORBIDDEN):
            return UserError(
                f"{start} refuses the key ({detail}); set the environment variable {self.settings.api_key_env}"
            )
        if status == 404:
            return UserError(
                f"{start} HTTP 404 for model {self.settings.model!r}; check url (it usually ends in /v1) and model"
            )
        if status == 407:
            return UserError(f"{start} the proxy wants a user name and password (HTTP 407); set them in HTTP_PROXY")
        if status < 400:
            where = self.endpoint.without_key(response.headers.get("Location", "elsewhere"))[:DETAIL]
            return UserError(f"{start} sends requests on to {where} (HTTP {status}); set url to where it really is")
        return UserError(f"{start} the account cannot pay ({detail})")


def _proxy(url: str) -> str | None:
    """The proxy for a URL by HTTP_PROXY, HTTPS_PROXY and NO_PROXY. (aiohttp would look it up for each request.)"""
    parts = urlsplit(url)
    if parts.hostname is None or urllib.request.proxy_bypass(parts.hostname):
        return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme) or proxies.get("all")
    return f"http://{proxy}" if proxy and "://" not in proxy else proxy


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that an endpoint asks to be left alone for; it may give them in three ways."""
    for name, scale in (("Retry-After-Ms", 1000.0), ("Retry-After", 1.0)):
        try:
            return min(LONGEST_RETRY_AFTER, max(0.0, float(headers[name]) / scale))
        except (KeyError, ValueError):
            continue
    try:
        date = parsedate_to_datetime(headers["Retry-After"])
    except (KeyError, ValueError, OverflowError):
        return None
    seconds = (date if date.tzinfo else date.replace(tzinfo=UTC)) - datetime.now(UTC)
    return min(LONGEST_RETRY_AFTER, max(0.0, seconds.total_seconds()))


def _reason(problem: Exception) -> str:
    """What the operating system says; aiohttp's own words where it says nothing."""
    if isinstance(problem, OSError) and problem.errno is not None:
        return os.strerror(problem.errno) if problem.errno > 0 else str(problem.strerror)
    return str(problem) or type(problem).__name__
