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
import gc
import heapq
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import aiohttp

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.backends.openai_attempts import BUSY, RETRIED, SAID_WAIT, Attempts, OpenCall, backoff
from llm2llm.components.shared.llm.backends.openai_endpoint import Endpoint
from llm2llm.components.shared.llm.backends.openai_http import Lost, NotSent
from llm2llm.components.shared.llm.backends.openai_stores import store_threads
from llm2llm.components.shared.llm.budget import SpendTracker, most_input_tokens
from llm2llm.components.shared.llm.client import Send
from llm2llm.components.shared.llm.json_answers import holds_json
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse
from llm2llm.components.shared.llm.settings import ModelSettings

GRACE = 5.0
"""Seconds for the calls in flight when the process is told to end."""
TICK = 0.005
"""Seconds; the dispatcher sleeps no shorter, and sends what is due together: each wake-up costs as much as a send."""
KEEP_ALIVE = 4.0
"""Seconds for which an idle connection is used again; common servers close theirs after 5."""


@contextmanager
def opened(settings: ModelSettings) -> Iterator[Send]:
    """The backend. What it learns about the endpoint it keeps from one batch of requests to the next."""
    endpoint = Endpoint(settings)

    def send(requests: Sequence[LLMRequest], settings: ModelSettings, tracker: SpendTracker) -> list[LLMResponse]:
        with _rarer_collections():
            return asyncio.run(_Batch(endpoint, tracker, requests).all())

    yield send


@contextmanager
def _rarer_collections() -> Iterator[None]:
    """The garbage collector looks for cycles 50 times more rarely: requests and responses have none, and looking at
    them again and again took a fifth of a call's time."""
    before = gc.get_threshold()
    if before[0]:  # 0: it is off
        gc.set_threshold(50 * before[0], *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def send(requests: Sequence[LLMRequest], settings: ModelSettings, tracker: SpendTracker) -> list[LLMResponse]:
    """Asks the endpoint; see `teacher.Send`. A call that fails in all its tries is an answer with outcome `failed`.

    Raises:
        UserError: Nothing can succeed: the endpoint cannot be reached, refuses the key, does not know the model, or
            fails call after call; or the ledger cannot be written to. What was answered until then is in the ledger.
        SystemExit: With code 143, after SIGTERM; the calls in flight were waited for, `GRACE` seconds at most.
    """
    with opened(settings) as send_now:
        return send_now(requests, settings, tracker)


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What one question shows about an endpoint."""

    response: LLMResponse
    """The answer in the end."""
    schema_use: str
    """What it does with a JSON schema: `taken`, `refused`, `ignored`, `breaks` or `not sent`; empty: not known."""
    notes: list[str]
    """What a person should know, a line each."""


def probe(settings: ModelSettings, request: LLMRequest, tracker: SpendTracker) -> Probe:
    """Asks one question as a run would, and once more in words where the answer is none for want of a schema.

    Raises:
        UserError: As `send`.
    """
    endpoint = Endpoint(settings)
    (response,) = asyncio.run(_Batch(endpoint, tracker, [request]).all())
    if endpoint.schema_use == "ignored" and response.outcome == "answered" and not holds_json(response.answer):
        (response,) = asyncio.run(_Batch(endpoint, tracker, [replace(request, attempt=1)]).all())
    return Probe(response=response, schema_use=endpoint.schema_use, notes=endpoint.notes)


class _Batch(Attempts):
    """One batch of requests. `all` hands out the calls; each runs as a task of its own."""

    def __init__(self, endpoint: Endpoint, tracker: SpendTracker, requests: Sequence[LLMRequest]) -> None:
        super().__init__(endpoint, tracker, requests)
        self.fresh = deque(OpenCall(place, request) for place, request in enumerate(requests))
        self.changed = asyncio.Event()
        self.in_gap = False
        """Whether the dispatcher waits for a time, and for no other call to end."""
        self.problem: BaseException | None = None
        """Why nothing more is sent."""
        self.ends = float("inf")
        """When the calls in flight are given up, on the loop's clock."""

    async def all(self) -> list[LLMResponse]:
        self.loop = asyncio.get_running_loop()
        connections = aiohttp.TCPConnector(limit=0, keepalive_timeout=KEEP_ALIVE)
        with store_threads() as self.store, self._until_told_to_end():
            async with aiohttp.ClientSession(
                connector=connections,
                headers=self.endpoint.headers,
                timeout=aiohttp.ClientTimeout(total=None),
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
        assert all(answer is not None for answer in self.responses), "a call without an answer"
        return [answer for answer in self.responses if answer is not None]

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
                # An answer brings a gap between two requests no nearer, unless it used fewer tokens than it might have.
                self.in_gap = not limited and seconds < float("inf")
                await self._wait(max(seconds, TICK))
                self.in_gap = False
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
                self.over_budget(call)
                continue
            if not self.endpoint.models_checked:
                try:
                    await self._look_at_models()
                except BaseException:
                    self.tracker.release(reservation)
                    raise
                self.endpoint.models_checked = True
            sent = self.rate_limiter.sent(self.loop.time(), most)
            task = self.loop.create_task(self.attempt(call, reservation, sent))
            self.tasks.add(task)
            task.add_done_callback(self._ended)

    async def _wait(self, seconds: float) -> None:
        """Until something changes, or so many seconds have passed."""
        if self.later:
            seconds = min(seconds, max(0.0, self.later[0][0] - self.loop.time()))
        timer = None if seconds == float("inf") else self.loop.call_later(seconds, self.changed.set)
        try:
            await self.changed.wait()
        finally:
            if timer is not None:
                timer.cancel()
            self.changed.clear()  # it may have been the timer; who waited looks at everything again

    def _ended(self, task: asyncio.Task[None]) -> None:
        self.tasks.discard(task)
        if not task.cancelled() and (problem := task.exception()) is not None:
            self.problem = self.problem or problem
        if not self.in_gap or self.problem is not None:
            self.changed.set()

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

    async def _look_at_models(self) -> None:
        """Asks for the list of models: whether the endpoint is there, and takes the key."""
        endpoint, tries = self.endpoint, 0
        while True:
            tries += 1
            wait = None
            try:
                response = await self.exchange("GET", endpoint.models_url)
                if response.status == 501 or (response.status < 500 and response.status not in RETRIED | BUSY):
                    break
                problem, wait = endpoint.said(response), self.retry_after(response)
            except (NotSent, Lost) as broken:
                problem = str(broken)
            if tries >= self.settings.tries:
                raise UserError(f"teacher {self.settings.url}: {problem}; is it up, is the URL right?")
            wait = wait or backoff(tries)
            if wait >= SAID_WAIT:
                endpoint.waits(wait, problem)
            await self._wait(wait)
            if self.problem is not None:
                raise self.problem
        if response.status in (401, 402, 407) or 300 <= response.status < 400:
            raise endpoint.hopeless(response, endpoint.said(response))
        if response.status == 200:  # some servers have no list, and some keys may not see it
            endpoint.look_at_models(response)
