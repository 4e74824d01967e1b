"""Throughput against an endpoint that lets R requests pass in a second and answers the others with 429.

    python -m tests.bench.teachers              R = 50, 500 and 1,000, 30 s each, an answer takes 200 ms
    python -m tests.bench.teachers --seconds 60 --rate 200

Beside the teacher `openai`, with its ledger on the local disk and every answer read and checked, stands the plain
`openai` client with a thread pool of 10, as in the reference implementation of LLM2LLM. The endpoint is a process of
its own, and all figures are as it counted them. `share of R` is of the whole run, from the first request to the last
answer; the teacher is not told R.
"""

import argparse
import json
import resource
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.requests import LLMRequest
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.shared.tasks import teacher_schema
from llm2llm.components.shared.tasks.task import Task
from llm2llm.components.teacher_augment.checks import PASSED, failed_check, usual
from llm2llm.components.teacher_augment.parsing import read_drafts
from tests.support.builders import example
from tests.support.misbehaving_server import MODEL, misbehaving_process

LATENCY = 0.2
FIRST_SECONDS = 5.0
ROWS = [
    {
        "question": f"How many are {n} and {n + 1}? " + "Show how. " * 20,
        "rationale": f"{n} + {n + 1} = {2 * n + 1}",
        "answer": str(2 * n + 1),
    }
    for n in range(200)
]
TASK = Task(name="sums", form="numeric", rationale=True)
SEEDS = [example(**row) for row in ROWS]


def requests(count: int) -> list[LLMRequest]:
    """Requests of about 1,000 characters, all different."""
    system = {"role": "system", "content": "Write one example like the one that is shown. " * 12}
    shown = [json.dumps({"question": f"{number}: {ROWS[number % len(ROWS)]['question']}"}) for number in range(count)]
    schema = teacher_schema(TASK, 1)
    return [
        LLMRequest(messages=[system, {"role": "user", "content": text}], schema=schema, temperature=0.7, max_tokens=512)
        for text in shown
    ]


def teacher(url: str, count: int, ledger: str) -> None:
    """The teacher `openai` as a stage uses it: with a ledger, and every answer read and put through all checks."""
    settings = ModelSettings(model=MODEL, url=url, concurrency=512)
    with open_teacher(settings, "openai", SpendTracker(run="bench", ledger=ledger)) as answer:
        answers = answer(requests(count))
    assert all(one.outcome == "answered" for one in answers), "calls failed"
    bounds = usual(SEEDS)
    for one in answers:
        (draft,), _ = read_drafts(one, TASK, 1)
        assert draft.rationale, "the steps are checked too"
        row = replace(SEEDS[0], question=draft.question, answer=draft.answer, rationale=draft.rationale)
        assert failed_check(row, SEEDS[0], TASK, bounds, list(PASSED)) is None, "a row that is right was not kept"


def plain_client(url: str, count: int, ledger: str) -> None:
    """The `openai` client as it is, in ten threads; it keeps no ledger."""
    import openai

    client = openai.OpenAI(base_url=url, api_key="none")

    def request(one: LLMRequest) -> bool:
        try:
            client.chat.completions.create(model=MODEL, messages=list(one.messages), max_tokens=one.max_tokens)
        except openai.APIError:
            return False
        return True

    with ThreadPoolExecutor(10) as threads:
        failed = list(threads.map(request, requests(count))).count(False)
    if failed:
        print(f"plain client: {failed} of {count} calls failed")


def measure(name: str, run: Callable[[str, int, str], None], rate: float, count: int, folder: Path) -> None:
    rows = folder / "rows.json"
    rows.write_text(json.dumps(ROWS), encoding="utf-8")
    with misbehaving_process(rows, rate=rate, latency=LATENCY) as server:
        before = resource.getrusage(resource.RUSAGE_SELF)
        run(server.url, count, str(folder / f"ledger-{rate:g}"))
        after_it = resource.getrusage(resource.RUSAGE_SELF)
        stats = server.stats()
    own, system = after_it.ru_utime - before.ru_utime, after_it.ru_stime - before.ru_stime
    seconds = stats["seconds"]
    answered = [at for at, status in seconds if status == 200]
    late = [status for at, status in seconds if at > FIRST_SECONDS]
    late_answers = [at for at in answered if at > FIRST_SECONDS]
    whole = len(answered) / max(answered)
    after = len(late_answers) / (max(answered) - FIRST_SECONDS) if late_answers else float("nan")
    refused = late.count(429) / len(late) if late else float("nan")
    print(
        f"R {rate:5g}  {name:<14} {whole:7.1f} answers/s, {whole / rate:6.1%} of R ({after / rate:6.1%} after 5 s), "
        f"{len(seconds) - len(answered):5d} refused, {refused:6.2%} after 5 s, "
        f"{1000 * (own + system) / count:.2f} ms CPU per answer ({1000 * own / count:.2f} of it in Python, the rest in "
        f"the kernel; the endpoint: {1000 * stats['cpu_seconds'] / len(seconds):.2f})",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--rate", type=float, nargs="*", default=[50.0, 500.0, 1000.0])
    given = parser.parse_args()
    # One folder for all, and removed at the end: ext4 looks past each inode that was freed in the last minutes when it
    # makes a file, so that removing one ledger would slow down the next.
    with tempfile.TemporaryDirectory() as folder:
        for rate in given.rate:
            measure("teacher", teacher, rate, int(rate * given.seconds), Path(folder))
            plain = int(min(rate, 10 / LATENCY) * given.seconds)
            measure("openai client", plain_client, rate, plain, Path(folder))


if __name__ == "__main__":
    main()
