"""An OpenAI-compatible endpoint on loopback that answers from real rows, and misbehaves at random.

    with misbehaving(rows, Faults.of(0.1), seed=1) as server:      in a thread
        settings = {"model": MODEL, "url": server.url}
        server.stats()["delivered"]                                {request's hash: complete answers}

    python -m tests.support.misbehaving_server ROWS.json --faults 0.1     in a process: prints its URL

It writes what the request's JSON schema asks for, filled from the rows: a property that a row has by its name, a value
of an enum, lists as long as the schema wants. The same request always meets the same row. Which fault a request meets
is drawn from the seed, the request and how often it came, so it does not depend on the order in which requests come.

It counts every complete answer by the hash of the request, and as billed whatever it generated, delivered or not.
"""

import argparse
import asyncio
import dataclasses
import hashlib
import json
import random
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path
from typing import Any

from aiohttp import web

MODEL = "teacher-8b"


@dataclass(frozen=True, kw_only=True)
class Faults:
    """How likely each fault is; each is drawn for itself, and the first that is drawn happens."""

    busy_retry_after: float = 0.0
    """429 with Retry-After, in seconds or as a date."""
    busy: float = 0.0
    """429 without."""
    error: float = 0.0
    """500."""
    dropped: float = 0.0
    """The connection breaks, before the answer or in the middle of it."""
    stalled: float = 0.0
    """Nothing comes until the client gives up."""
    truncated: float = 0.0
    """JSON that ends in the middle."""
    wrong: float = 0.0
    """The answer of another row."""
    copy: float = 0.0
    """The question that was shown."""
    refusal: float = 0.0
    slow: float = 0.0
    """A right answer, 2 s late."""

    @classmethod
    def of(cls, share: float) -> "Faults":
        """Each fault with the same likelihood."""
        return cls(**{field.name: share for field in dataclasses.fields(cls)})


def request_hash(body: Mapping[str, Any]) -> str:
    """What a request is counted by."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class Bucket:
    """Lets `rate` requests pass in a second, and `depth` at once."""

    def __init__(self, rate: float, depth: float) -> None:
        self.rate, self.depth, self.left, self.at = rate, depth, depth, time.monotonic()

    def passes(self) -> bool:
        now = time.monotonic()
        self.left = min(self.depth, self.left + self.rate * (now - self.at))
        self.at = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Server:
    """The application. Times are in seconds."""

    def __init__(
        self,
        rows: Sequence[Mapping[str, Any]],
        faults: Faults,
        seed: int = 0,
        latency: float = 0.0,
        rate: float = 0.0,
        echo_key: bool = False,
    ) -> None:
        self.rows, self.faults, self.seed, self.latency, self.echo_key = rows, faults, seed, latency, echo_key
        self.bucket = Bucket(rate, max(1.0, rate / 10)) if rate else None
        self.came: Counter[str] = Counter()
        self.delivered: Counter[str] = Counter()
        self.met: Counter[str] = Counter()
        self.billed = {"calls": 0, "input_tokens": 0, "output_tokens": 0}
        self.seconds: list[tuple[float, int]] = []
        """(since the first request, status) of each answer, while a rate is kept."""
        self.started = 0.0
        self.in_flight = self.most_in_flight = 0
        self.ended = asyncio.Event()

    def application(self) -> web.Application:
        application = web.Application()
        application.router.add_get("/v1/models", self.models)
        application.router.add_post("/v1/chat/completions", self.complete)
        application.router.add_get("/stats", self.stats)
        return application

    async def models(self, request: web.Request) -> web.Response:
        ids = [MODEL, request.headers["Authorization"]] if self.echo_key else [MODEL]
        return web.json_response({"object": "list", "data": [{"id": name, "object": "model"} for name in ids]})

    async def stats(self, request: web.Request) -> web.Response:
        return web.json_response(
            {
                "requests": self.came.total(),
                "came": self.came,
                "delivered": self.delivered,
                "met": self.met,
                "billed": self.billed,
                "most_in_flight": self.most_in_flight,
                "seconds": self.seconds,
                "cpu_seconds": time.process_time(),
            }
        )

    async def complete(self, request: web.Request) -> web.StreamResponse:
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._complete(request)
        finally:
            self.in_flight -= 1

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        data = await request.read()
        self.started = self.started or time.monotonic()
        if self.bucket is not None and not self.bucket.passes():
            self.seconds.append((time.monotonic() - self.started, 429))
            return self._error(request, 429, "slow down")
        body = json.loads(data)
        key = request_hash(body)
        draw = random.Random(f"{self.seed} {key} {self.came[key]}")
        self.came[key] += 1
        fault = next((f.name for f in dataclasses.fields(Faults) if draw.random() < getattr(self.faults, f.name)), "")
        self.met[fault or "none"] += 1
        if self.latency:
            await asyncio.sleep(self.latency)
        if fault == "busy_retry_after":
            later = draw.choice(["0", "1", formatdate(time.time() + 1, usegmt=True)])
            return self._error(request, 429, "slow down", {"Retry-After": later})
        if fault == "busy":
            return self._error(request, 429, "slow down")
        if fault == "error":
            return self._error(request, 500, "oh")
        answer = self._answer(request, body, key, fault, draw)
        self.billed["calls"] += 1
        for name, counted in (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens")):
            self.billed[name] += answer["usage"][counted]
        return await self._deliver(request, key, json.dumps(answer).encode(), fault, draw)

    async def _deliver(
        self, request: web.Request, key: str, content: bytes, fault: str, draw: random.Random
    ) -> web.StreamResponse:
        if fault == "slow":
            await asyncio.sleep(2.0)
        response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": str(len(content))})
        if fault in ("dropped", "stalled"):
            if draw.random() < 0.5:
                await response.prepare(request)
                await response.write(content[: len(content) // 2])
            transport = request.transport
            while fault == "stalled" and transport is not None and not transport.is_closing():
                await asyncio.sleep(0.1)
            if transport is not None:
                transport.abort()
            return response
        await response.prepare(request)
        await response.write(content)
        await response.write_eof()
        self.delivered[key] += 1
        if self.bucket is not None:
            self.seconds.append((time.monotonic() - self.started, 200))
        return response

    def _error(
        self, request: web.Request, status: int, text: str, headers: dict[str, str] | None = None
    ) -> web.Response:
        if self.echo_key:
            text += f", {request.headers['Authorization']}"
        return web.json_response({"error": {"message": text}}, status=status, headers=headers)

    def _answer(
        self, request: web.Request, body: dict[str, Any], key: str, fault: str, draw: random.Random
    ) -> dict[str, Any]:
        schema = schema_of(body)
        start = int(key[:8], 16)
        row = dict(self.rows[start % len(self.rows)])
        if fault == "wrong":
            row["answer"] = self.rows[(start + 1) % len(self.rows)]["answer"]
        if fault == "copy":
            row["question"] = shown_question(body) or row["question"]
        if self.echo_key:
            row["question"] = f"{request.headers['Authorization']} {row['question']}"
        content = json.dumps(fill(schema, row, draw), ensure_ascii=False) if schema else str(row["answer"])
        finish, refusal = "stop", None
        if fault == "truncated":
            content, finish = content[: draw.randrange(max(1, len(content)))], draw.choice(["stop", "length"])
        if fault == "refusal":
            content, refusal = "", "I cannot help with that."
        usage = {
            "prompt_tokens": sum(len(m["content"]) for m in body["messages"]) // 4 + 3,
            "completion_tokens": min(limit_of(body), len(content) // 4 + 1),
        }
        message = {"role": "assistant", "content": content, "refusal": refusal}
        return {
            "id": f"chatcmpl-{key[:12]}",
            "object": "chat.completion",
            "created": 0,
            "model": MODEL,
            "choices": [{"index": 0, "finish_reason": finish, "message": message}],
            "usage": usage,
        }


def limit_of(body: Mapping[str, Any]) -> int:
    return int(body.get("max_tokens") or body.get("max_completion_tokens") or 10**6)


def schema_of(body: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON schema that a request asks for, as a parameter or in words."""
    form = body.get("response_format") or {}
    if form.get("type") == "json_schema":
        schema: dict[str, Any] = form["json_schema"]["schema"]
        return schema
    for message in body["messages"]:
        _, found, rest = message["content"].partition("JSON schema:\n")
        if found:
            return dict(json.JSONDecoder().raw_decode(rest)[0])
    return None


def shown_question(body: Mapping[str, Any]) -> str:
    """The first value called `question` in what the teacher was shown."""
    text = body["messages"][-1]["content"]
    place = text.find('"question": ')
    return str(json.JSONDecoder().raw_decode(text, place + len('"question": '))[0]) if place >= 0 else ""


def fill(schema: Mapping[str, Any], row: Mapping[str, Any], draw: random.Random, name: str = "question") -> Any:
    """A value that is valid under a schema, taken from a row where the row has it."""
    if options := schema.get("enum"):
        return row[name] if row.get(name) in options else draw.choice(options)
    if "const" in schema:
        return schema["const"]
    if variants := schema.get("anyOf"):
        return fill(variants[0], row, draw, name)
    kind = schema.get("type", "string")
    if kind == "object":
        return {key: fill(inner, row, draw, key) for key, inner in schema.get("properties", {}).items()}
    value = row.get(name)
    if kind == "array":
        if isinstance(value, list):
            return value
        return [fill(schema["items"], row, draw, name) for _ in range(max(1, schema.get("minItems", 1)))]
    if kind == "boolean":
        return draw.random() < 0.5
    if kind in ("integer", "number"):
        return value if isinstance(value, int | float) else schema.get("minimum", 0)
    return str(value if value is not None else row["question"])


class Running:
    """A server that runs."""

    def __init__(self, base: str) -> None:
        self.base = base
        self.url = f"{base}/v1"

    def stats(self) -> dict[str, Any]:
        with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{self.base}/stats") as response:
            return dict(json.load(response))


async def _serve(server: Server, started: Any) -> None:
    runner = web.AppRunner(server.application(), access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=1024)
    await site.start()
    started(f"http://127.0.0.1:{runner.addresses[0][1]}")
    try:
        await server.ended.wait()
    finally:
        await runner.cleanup()


@contextmanager
def misbehaving(rows: Sequence[Mapping[str, Any]], faults: Faults | None = None, **options: Any) -> Iterator[Running]:
    """The server in a thread of this process; options are those of `Server`."""
    urls: list[str] = []
    up = threading.Event()
    loop = asyncio.new_event_loop()
    server = Server(rows, faults or Faults(), **options)

    def run() -> None:
        def started(url: str) -> None:
            urls.append(url)
            up.set()

        loop.run_until_complete(_serve(server, started))
        loop.close()

    thread = threading.Thread(target=run, daemon=True, name="misbehaving server")
    thread.start()
    assert up.wait(30), "the server did not start"
    try:
        yield Running(urls[0])
    finally:
        loop.call_soon_threadsafe(server.ended.set)
        thread.join(30)


@contextmanager
def misbehaving_process(rows: Path, **options: Any) -> Iterator[Running]:
    """The server in a process of its own; options are those of the command line."""
    arguments = [text for name, value in options.items() for text in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "tests.support.misbehaving_server", str(rows), *arguments]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        try:
            assert process.stdout is not None
            base = process.stdout.readline().strip()
            assert base.startswith("http://"), f"the server did not start: {base!r}"
            yield Running(base)
        finally:
            process.kill()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "rows", help="JSON: a list of rows with `question`, `answer` and what else a schema may ask for"
    )
    parser.add_argument("--faults", type=float, default=0.0, help="the likelihood of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--latency", type=float, default=0.0, help="seconds until an answer")
    parser.add_argument("--rate", type=float, default=0.0, help="requests answered in a second; others get 429; 0: all")
    given = parser.parse_args()
    rows = json.loads(Path(given.rows).read_text(encoding="utf-8"))
    server = Server(rows, Faults.of(given.faults), given.seed, given.latency, given.rate)
    asyncio.run(_serve(server, lambda url: print(url, flush=True)))


if __name__ == "__main__":
    main()
