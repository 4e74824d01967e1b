"""Makes the files of a finished run, of any size, without a student or a teacher: for the tests and the benchmark.

Every third seed is answered wrong in each iteration, the teacher writes a row from each wrong one, every fourth of
these is rejected as a near copy. The seed of place p, written from in iteration i, has the row `generated(p, i)`.
"""

import hashlib
import itertools
import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.journal import Journal, Spending, write_journal
from llm2llm.components.shared.data.parquet import write_rows
from llm2llm.components.shared.data.schemas import (
    Call,
    Decision,
    Example,
    Prediction,
    Reject,
    Split,
    StudentError,
)
from llm2llm.components.shared.data.splits import write_splits
from llm2llm.components.shared.lineage.embedded import can_hold, content_hash, embed_record
from llm2llm.components.shared.llm.ledger import Entry, request_of, write_entry
from llm2llm.components.shared.llm.requests import LLMRequest, request_key
from tests.support import builders

IDENTITY = "openai:https://teacher.example/v1:big"
PARTS = ["mor", "tan", "vel", "kis", "dro", "pel", "sum", "ran", "bil", "gof", "hut", "jek"]
WORDS = [a + b + c for a in PARTS for b in ("a", "e", "i", "o") for c in PARTS]
Rows = tuple[str, Sequence[Any]]
"""Their kind, and they."""
Splits = Mapping[Split, Sequence[Example]]
JOURNAL_BEFORE = {
    "prepare": {"rejects": "rejects"},
    "teacher_augment": {"rejects": "rejects", "calls": "calls"},
    "dedupe": {"all_rejects": "rejects"},
    "filter_errors": {"errors": "errors", "decisions": "decisions"},
}
# As in a language, a few words are frequent: the word of rank r is drawn with a weight of 1 / r.
WEIGHTS = list(itertools.accumulate(1 / rank for rank in range(1, len(WORDS) + 1)))


def text(kind: str, number: int) -> str:
    """Some twenty words, the same for the same arguments."""
    draw = random.Random(f"{kind} {number}")
    return f"{kind} {number}: " + " ".join(draw.choices(WORDS, cum_weights=WEIGHTS, k=20))


def example(kind: str, number: int, **fields: Any) -> Example:
    return builders.example(text(kind, number), str(number % 7), **fields)


def seed(place: int) -> Example:
    """The seed of a place."""
    return example("seed", place, source=f"seeds.jsonl:{place + 1}", source_id=f"ticket-{place}")


def request(place: int, iteration: int) -> LLMRequest:
    """What the teacher was asked about a seed."""
    message = {"role": "user", "content": f"Write one like this: {seed(place).question}"}
    return LLMRequest(
        messages=[message],
        temperature=0.7,
        max_tokens=200,
        sample=iteration,
        purpose="write",
        parent_id=seed(place).id,
    )


def generated(place: int, iteration: int) -> Example:
    """The row that was written from a seed in an iteration."""
    return example(
        f"new {iteration}",
        place,
        source="teacher",
        parent_id=seed(place).id,
        iteration=iteration,
        strategy="llm2llm",
        teacher="openai",
        call_key=request_key(IDENTITY, request(place, iteration)),
        checks=["valid answer", "length"],
        confidence=0.75,
    )


def make_run(
    folder: Path,
    seeds: int = 12,
    iterations: int = 2,
    held_out: int = 4,
    in_cluster: bool = False,
    config: dict[str, Any] | None = None,
    ledger: bool = True,
    before: bool = False,
    summary: dict[str, Any] | None = None,
) -> Path:
    """Writes a run's files and returns the folder.

    Args:
        folder: Where.
        seeds: How many.
        iterations: After iteration 0.
        held_out: Rows of validation and of test each.
        in_cluster: As Kubeflow lays them out, `<task>/<id>/<output>`, rather than an output folder.
        config: Settings in place of or beside those of the run's config.
        ledger: Whether the teacher's answers are in a ledger beside it.
        summary: Each report's; default: an empty one.
        before: As a run of llm2llm 0.1 left it: each kind of rows is a file of its own, and no file holds a record.
    """
    events: list[dict[str, Any]] = []
    stages: list[dict[str, Any]] = []

    def put(stage: str, iteration: int | None, outputs: Mapping[str, Rows | Splits | Journal | str]) -> None:
        number = 1 if iteration is None else iteration + (stage not in ("teacher_augment", "dedupe"))
        task = stage.replace("_", "-") + (f"-{number}" if number > 1 else "")
        if in_cluster and not before and (stage, iteration) == ("report", iterations):
            task = "report-end"  # the loop has ended
        uuid = hashlib.md5(task.encode(), usedforsecurity=False).hexdigest()
        place = folder / task / uuid if in_cluster else folder / "artifacts" / "colours-2026" / task
        where = {"stage": stage, "iteration": iteration, "fold": None}
        if before:
            outputs = _as_before(stage, outputs)
        hashes = {}
        for output, content in outputs.items():
            _write(place / output, content)
            if not before and can_hold(place / output):
                embed_record(place / output, {"version": 2, **where, "shard": None, "output": output, "outputs": {}})
            hashes[output] = content_hash(place / output)
        paths = {output: str(place / output) for output in hashes}
        events.append({"event": "finished", **where, "seconds": 1.0, "outputs": paths, "sha256": hashes})
        stages.append({**where, "outputs": {name: {"sha256": sha256} for name, sha256 in hashes.items()}})

    settings = {
        "name": "colours",
        "student": "tiny",
        "teacher_augment": {"teacher": "openai", "ledger": str(folder / "ledger"), "cache": True},
        "filter_errors": {"retire_after": 3},
        **(config or {}),
    }
    put("configure", None, {"config": json.dumps(settings)})
    all_seeds = [seed(place) for place in range(seeds)]
    validation = [example("validation", number) for number in range(held_out)]
    test = [example("test", number) for number in range(held_out)]
    splits: Splits = {"seeds": all_seeds, "validation": validation, "test": test}
    journal = Journal(spent=Spending(usd=0.5, tokens=1000, calls=3))
    no_rows: Rows = ("examples", [])
    prepared: dict[str, Any] = {"splits": splits, "training_set": ("examples", all_seeds), "pool_set": no_rows}
    put("prepare", None, {**prepared, "replay_set": no_rows, "journal": journal})
    training = list(all_seeds)
    for iteration in range(iterations + 1):
        if iteration > 0:
            written = [generated(place, iteration) for place in range(0, seeds, 3)]
            for number, row in enumerate(written):
                place = 3 * number
                journal = journal.with_more(calls=[_call(row, place, iteration)])
                if ledger and seeds <= 100:
                    write_entry(str(folder / "ledger"), _entry(place, iteration, row))
            put("teacher_augment", iteration, {"candidates": ("candidates", written), "journal": journal})
            journal = journal.with_more(rejects=[_reject(row, all_seeds[1], iteration) for row in written[1::4]])
            training = [*training, *(row for number, row in enumerate(written) if number % 4 != 1)]
            put("dedupe", iteration, {"next_training_set": ("examples", training), "journal": journal})
        put("train", iteration, {"model": f"weights of iteration {iteration}"})
        answers = [
            *(_prediction(row, "seeds", iteration, place % 3 == 0) for place, row in enumerate(all_seeds)),
            *(_prediction(row, "validation", iteration, n > iteration) for n, row in enumerate(validation)),
            *(_prediction(row, "test", iteration, n > iteration) for n, row in enumerate(test)),
        ]
        put("evaluate", iteration, {"predictions": ("predictions", answers), "journal": journal})
        decision = Decision(
            iteration=iteration, selection="wrong", errors=len(all_seeds[::3]), go_on=iteration < iterations,
            reason="limit", best_iteration=iteration,
        )  # fmt: skip
        errors = [_error(row, iteration) for row in all_seeds[::3]]
        journal = journal.with_more(errors=errors, decisions=[decision])
        put("filter_errors", iteration, {"journal": journal})
        manifest = {"schema_version": 1, "stages": list(stages), "code": ["0.1.0+abc"], "libraries": {"numpy": ["2.0"]}}
        put("report", iteration, {"summary": json.dumps(summary or {}), "manifest": json.dumps(manifest)})
    if not in_cluster:
        write_text(folder / "events.jsonl", "".join(json.dumps(event) + "\n" for event in events))
        write_text(folder / "run.json", json.dumps({"run_id": "run-1"}))
    return folder


def _write(path: Path, content: Rows | Splits | Journal | str) -> None:
    match content:
        case str():
            write_text(path, content)
        case Journal():
            write_journal(LocalArtifact(str(path)), content)
        case Mapping():
            write_splits(LocalArtifact(str(path)), content)
        case (kind, rows):
            write_rows(path, kind, rows)


def _as_before(
    stage: str, outputs: Mapping[str, Rows | Splits | Journal | str]
) -> dict[str, Rows | Splits | Journal | str]:
    """What a stage left when each kind of rows was an artifact of its own."""
    found: dict[str, Rows | Splits | Journal | str] = {}
    for output, content in outputs.items():
        if isinstance(content, Journal):
            found |= {name: (kind, getattr(content, kind)) for name, kind in JOURNAL_BEFORE.get(stage, {}).items()}
        elif isinstance(content, Mapping):
            found |= {f"{split}_set": ("examples", rows) for split, rows in content.items()}
        elif output != "training_set":
            found[output] = content
    return found


def _call(row: Example, place: int, iteration: int) -> Call:
    return Call(key=str(row.call_key), iteration=iteration, parent_id=row.parent_id, strategy="llm2llm",
                teacher="openai", model="big", outcome="answered", attempts=1, input_tokens=100 + place,
                output_tokens=20, usd=0.0012)  # fmt: skip


def _entry(place: int, iteration: int, row: Example) -> Entry:
    asked = request(place, iteration)
    return Entry(key=str(row.call_key), identity=IDENTITY, model="big", request=request_of(asked), purpose="write",
                 parent_id=row.parent_id, text=f'{{"question": "{row.question}"}}', input_tokens=100 + place,
                 output_tokens=20, run="run-1", written_at="2026-11-21T10:00:00.000+00:00")  # fmt: skip


def _reject(row: Example, neighbour: Example, iteration: int) -> Reject:
    return Reject(iteration=iteration, stage="dedupe", reason="near_copy", detail="ROUGE-L 0.970", score=0.97,
                  neighbour_id=neighbour.id, neighbour=neighbour.question, id=row.id, question=row.question,
                  answer=row.answer, parent_id=row.parent_id, strategy=row.strategy, teacher=row.teacher,
                  call_key=row.call_key)  # fmt: skip


def _prediction(row: Example, split: Split, iteration: int, wrong: bool) -> Prediction:
    return builders.prediction(
        row, "no idea" if wrong else row.answer, split, iteration, samples_correct=int(not wrong)
    )


def _error(row: Example, iteration: int) -> StudentError:
    return builders.student_error(row, iteration, f"no idea {iteration}", parsed="no idea")
