"""Rows of a run for a person to look at, and the person's answers back as seeds.

    review_rows -> write_review (rows, Argilla, Label Studio) -> a person -> read_reviews -> apply_reviews -> seeds

A reviewed row says so in `checks`, which `llm2llm inspect why` shows: what was changed, and which row it was.
"""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.sax.saxutils import quoteattr

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.parquet import columns_of
from llm2llm.components.shared.data.schemas import Example, Prediction, Reject, StudentError, content_id
from llm2llm.components.shared.ingest.columns import is_empty
from llm2llm.components.shared.ingest.examples import LABELLED, REVIEW
from llm2llm.components.shared.ingest.export import write_columns
from llm2llm.components.shared.ingest.files import Source, read_file
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.pipelines.inspect.run_files import Run

ReviewFormat = Literal["rows", "argilla", "label-studio"]
WHY = {
    "suspect": "a seed whose label is more likely wrong than the student",
    "low_confidence": "a generated row of whose answer its check was not sure",
    "disagreement": "a generated row whose answer a judge or blind solutions did not confirm",
    "unsure": "a seed of which the student is least sure",
}
"""Why a row is for a person to look at, in the order in which they come."""
DECISIONS = ("keep", "correct", "drop")
_DISAGREE = ("disagrees", "judged_wrong", "not_judged", "wrong_answer")
_RESPONSES = {"answer": "corrected", "decision": "decision"}
"""The questions that a person is asked in Argilla and Label Studio, and the columns that their answers fill."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewRow:
    """A row for a person to look at; `decision` and `corrected` are for the person to fill in."""

    id: str
    reasons: list[str]
    """Keys of `WHY`."""
    detail: str
    """What is known about it, for a person."""
    kind: str
    """`seed`, `generated` or `rejected`."""
    question: str
    choices: list[str]
    rationale: str | None
    answer: str
    """As the row has it."""
    student_answer: str | None
    """What the student says; None where it was not asked, or nothing can be read."""
    confidence: float | None
    """How sure the student is of its answer to a seed, or the check of a generated row's answer, in [0, 1]."""
    decision: str = ""
    """`keep`, `correct`, `drop`; empty: not looked at."""
    corrected: str = ""
    """The right answer, where it is another one."""


def review_rows(run: Run, below: float, unsure: int) -> list[ReviewRow]:
    """The rows of a run that are worth a person's time, each once, those with a suspected label first.

    Args:
        run: See `open_run`.
        below: Generated rows with a lower confidence come along, in [0, 1].
        unsure: How many seeds the student is least sure of come along.
    """
    found: dict[str, tuple[Example | Reject, list[str], list[str]]] = {}

    def add(row: Example | Reject, reason: str, detail: str) -> None:
        _, reasons, details = found.setdefault(row.id, (row, [], []))
        if reason not in reasons:
            reasons.append(reason)
            details.append(detail)

    training = _read(run, run.last_training_set(), "examples", Example)
    seeds = {row.id: row for row in _read(run, run.last("prepare", "seeds_set"), "examples", Example)}
    best = run.best_iteration()
    said = _answers(run, best)
    for error in _read(run, run.last("filter_errors", "errors"), "errors", StudentError):
        if error.suspect and error.example_id in seeds:
            add(seeds[error.example_id], "suspect", f"students answered {error.parsed!r} again and again")
    for row in sorted(training, key=lambda row: (row.confidence or 0.0, row.id)):
        if row.generated and row.confidence is not None and row.confidence < below:
            add(row, "low_confidence", f"confidence {row.confidence:.2f}")
    for reject in _read(run, run.rejects(), "rejects", Reject):
        if reject.reason in _DISAGREE:
            add(reject, "disagreement", f"{reject.reason}: {reject.detail}" if reject.detail else reject.reason)
    sure = {row_id: value for row_id, answer in said.items() if (value := sureness(answer)) is not None}
    for row_id in sorted(sure.keys() & seeds.keys(), key=lambda row_id: (sure[row_id], row_id))[:unsure]:
        add(seeds[row_id], "unsure", f"the student of iteration {best} is {sure[row_id]:.0%} sure")
    order = list(WHY)
    rows = [
        ReviewRow(
            id=row.id,
            reasons=reasons,
            detail="; ".join(details),
            kind="seed" if row.id in seeds else "rejected" if isinstance(row, Reject) else "generated",
            question=row.question,
            choices=row.choices,
            rationale=row.rationale,
            answer=row.answer,
            student_answer=said[row.id].parsed if row.id in said else None,
            confidence=sure.get(row.id) if row.id in seeds else getattr(row, "confidence", None),
        )
        for row, reasons, details in found.values()
    ]
    return sorted(rows, key=lambda row: min(map(order.index, row.reasons)))


def sureness(answer: Prediction) -> float | None:
    """How sure a student is of what it answers, in [0, 1]: the probability of its label, or the share of its samples
    that agree in being right or wrong. None where it wrote one answer and nothing was measured."""
    if answer.confidence is not None:
        return answer.confidence
    if answer.label_probability is not None:
        return max(answer.label_probability, answer.label_probability - (answer.margin or 0.0))
    if answer.samples > 1:
        share = answer.samples_correct / answer.samples
        return max(share, 1 - share)
    return None


def _answers(run: Run, iteration: int | None) -> dict[str, Prediction]:
    """What the student of an iteration says to the seeds; where there is one, that which has not seen the row."""
    if iteration is None:
        return {}
    files = [run.at("evaluate", "predictions", iteration)]
    files += [file for file in run.all("out_of_fold", "predictions") if file.iteration == iteration]
    answers = (answer for file in files for answer in _read(run, file, "predictions", Prediction))
    return {answer.example_id: answer for answer in answers if answer.split == "seeds"}


def _read(run: Run, file: Any, kind: str, row_type: type[Any]) -> list[Any]:
    if file is None:
        return []
    table = run.table(file, kind, [one.name for one in dataclasses.fields(row_type)])
    return [row_type(**row) for row in table.to_pylist()]


def write_review(
    rows: Sequence[ReviewRow], path: str | os.PathLike[str], review_format: ReviewFormat, task: Task
) -> None:
    """Writes rows to review; a reader sees the whole file or none.

    Args:
        rows: What `review_rows` found.
        path: The file. For `rows` its suffix says whether JSON Lines, CSV (safe in a spreadsheet) or Parquet.
        review_format: `argilla`: JSON that `Dataset.records.from_json` takes. `label-studio`: JSON tasks with
            predictions, for the labelling config of `label_studio_config`.
        task: Of the run.

    Raises:
        UserError: Nothing to review, an unknown suffix, or the file cannot be written.
    """
    if not rows:
        raise UserError("review: nothing in this run is suspect, disputed or unsure; raise --below or --unsure")
    if review_format == "rows":
        suffix = Path(path).suffix.lower()
        if suffix not in (".jsonl", ".csv", ".parquet"):
            raise UserError(f"--to {os.fspath(path)}: the suffix must be one of .jsonl, .csv, .parquet")
        write_columns([dataclasses.asdict(row) for row in rows], path, suffix[1:], columns_of(ReviewRow))
        return
    make = _argilla_record if review_format == "argilla" else _label_studio_task
    write_text(path, json.dumps([make(row, task) for row in rows], ensure_ascii=True, indent=1) + "\n")


def _shown(row: ReviewRow) -> dict[str, str]:
    choices = "\n".join(f"{chr(ord('A') + place)}. {choice}" for place, choice in enumerate(row.choices))
    return {
        "question": f"{row.question}\n{choices}" if choices else row.question,
        "given": row.answer if row.rationale is None else f"{row.rationale}\n#### {row.answer}",
        "student": row.student_answer or "-",
        "why": "; ".join(f"{WHY[reason]} ({reason})" for reason in row.reasons) + f": {row.detail}",
    }


def _argilla_record(row: ReviewRow, task: Task) -> dict[str, Any]:
    return {
        "id": row.id,
        "fields": _shown(row),
        "metadata": {"kind": row.kind, "reason": row.reasons[0]},
        "suggestions": {"answer": {"value": row.answer, "score": None, "agent": "llm2llm"}},
        "responses": {},
        "vectors": {},
    }


def _label_studio_task(row: ReviewRow, task: Task) -> dict[str, Any]:
    kind = "choices" if options_of(task) else "textarea"
    value = {"choices": [row.answer]} if kind == "choices" else {"text": [row.answer]}
    result = {"from_name": "answer", "to_name": "question", "type": kind, "value": value}
    return {
        "data": {"id": row.id, "kind": row.kind, **_shown(row)},
        "predictions": [{"model_version": "llm2llm", "result": [result]}],
    }


def options_of(task: Task) -> list[str]:
    """What every row of a task may be answered with; empty where rows differ or answers are open."""
    return list(task.labels) if FORMS[task.form].has_labels else []


def label_studio_config(task: Task) -> str:
    """The labelling config for what `write_review` writes, as a project of Label Studio takes it."""
    options = "".join(f"<Choice value={quoteattr(option)}/>" for option in options_of(task))
    answer = (
        f'<Choices name="answer" toName="question" choice="single" showInline="true">{options}</Choices>'
        if options
        else '<TextArea name="answer" toName="question" maxSubmissions="1" editable="true"/>'
    )
    decisions = "".join(f'<Choice value="{one}"/>' for one in ("keep", "drop"))
    return (
        '<View><Header value="$why"/><Text name="question" value="$question"/><Text name="given" value="$given"/>'
        f'<Text name="student" value="$student"/>{answer}'
        f'<Choices name="decision" toName="question" choice="single" showInline="true">{decisions}</Choices></View>'
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """What a person says about a row."""

    place: str
    """`file:row`."""
    id: str
    decision: str
    """`keep`, `correct` or `drop`."""
    corrected: str = ""


def read_reviews(file: Path) -> tuple[list[Review], int]:
    """(what people said, the number of rows about which they disagree, which are left out), in the file's order.

    Args:
        file: What `write_review` wrote, filled in: rows, Argilla's `records.to_json`, or Label Studio's JSON export.

    Raises:
        UserError: No such file, rows without an id, a decision that is none, or a row that stands twice.
    """
    reviews: dict[str, Review] = {}
    disputed = 0
    for place, row in read_file(Source(file, file.name)):
        said = list(dict.fromkeys(_said(row)))
        row_id = str((row["data"] if isinstance(row.get("data"), Mapping) else row).get("id") or "")
        if not row_id:
            raise UserError(f"{place}: no `id`; give a file that `llm2llm review export` wrote, filled in")
        if row_id in reviews:
            raise UserError(f"{place}: row {row_id} stands in {reviews[row_id].place} already; keep one of them")
        if len(said) > 1:
            disputed += 1
        for decision, corrected in said if len(said) == 1 else []:
            if decision not in DECISIONS:
                raise UserError(f"{place}: decision {decision!r} is none of {', '.join(DECISIONS)}")
            if decision == "correct" and not corrected:
                raise UserError(f"{place}: decision 'correct', and `corrected` is empty; write the right answer there")
            reviews[row_id] = Review(place=place, id=row_id, decision=decision, corrected=corrected)
    return list(reviews.values()), disputed


def _said(row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(decision, corrected answer) of each person who looked at a row."""
    if isinstance(row.get("data"), Mapping):  # Label Studio
        for annotation in row.get("annotations") or []:
            if annotation.get("was_cancelled"):
                continue
            found = {}
            for result in annotation.get("result") or []:
                value = result.get("value") or {}
                texts = value.get("choices") or value.get("text") or [""]
                found[result.get("from_name")] = texts if isinstance(texts, str) else str(texts[0])
            yield from _decided(found.get("decision", ""), found.get("answer", ""))
    elif isinstance(row.get("fields"), Mapping):  # Argilla
        people: dict[str, dict[str, str]] = {}
        for question, responses in (row.get("responses") or {}).items():
            for response in responses or []:
                if question in _RESPONSES and not is_empty(response.get("value")):
                    people.setdefault(str(response.get("user_id")), {})[question] = str(response["value"])
        for found in people.values():
            yield from _decided(found.get("decision", ""), found.get("answer", ""))
    else:
        yield from _decided(*(_text(row.get(name)) for name in ("decision", "corrected")))


def _decided(decision: str, corrected: str) -> Iterator[tuple[str, str]]:
    decision, corrected = decision.strip().lower(), corrected.strip()
    if decision or corrected:
        yield decision or "correct", "" if decision in ("keep", "drop") else corrected


def _text(value: Any) -> str:
    return "" if is_empty(value) else str(value)


def apply_reviews(run: Run, reviews: Sequence[Review], task: Task) -> tuple[list[Example], Counter[str]]:
    """(the run's seeds with what people said put in, how many rows were confirmed, corrected, dropped, joined).

    A seed that was dropped is left out. A generated or rejected row that was confirmed or corrected joins the seeds. A
    corrected row loses its rationale, which led to the other answer.

    Args:
        run: The run that the rows are of.
        reviews: What `read_reviews` found.
        task: Says what a valid answer is.

    Raises:
        UserError: No row is reviewed, a row that the run has not, or an answer that is none of the task.
    """
    if not reviews:
        raise UserError("review: nobody has decided anything; fill in `decision` or `corrected`")
    seeds = {row.id: row for row in _read(run, run.last("prepare", "seeds_set"), "examples", Example)}
    others: dict[str, Example | Reject] = {row.id: row for row in _read(run, run.rejects(), "rejects", Reject)}
    others |= {row.id: row for row in _read(run, run.last_training_set(), "examples", Example)}
    counts: Counter[str] = Counter()
    result: dict[str, Example] = dict(seeds)
    for review in reviews:
        row = seeds.get(review.id) or others.get(review.id)
        if row is None:
            raise UserError(f"{review.place}: row {review.id} is not in the run at {run.uri}")
        if review.decision == "drop":
            counts["dropped"] += result.pop(review.id, None) is not None
            continue
        reviewed = _reviewed(row, review, task)
        counts["corrected" if reviewed.answer != row.answer else "confirmed"] += 1
        counts["joined"] += review.id not in seeds
        if review.id in seeds:
            result[review.id] = reviewed
        else:
            result.setdefault(reviewed.id, reviewed)
    return list({row.id: row for row in result.values()}.values()), counts


def _reviewed(row: Example | Reject, review: Review, task: Task) -> Example:
    """A row as a person left it, with where it comes from."""
    try:
        answer = tasks.normalise(task, review.corrected, row.choices, None)[0] if review.corrected else row.answer
        if answer != row.answer and task.rationale:
            raise ValueError("the rationale leads to another answer; drop the row, or write it anew in your seeds")
    except ValueError as problem:
        raise UserError(f"{review.place}: {problem} (column 'corrected')") from None
    change = "confirmed" if answer == row.answer else f"answer {row.answer!r} -> {answer!r}, was row {row.id}"
    origin = f"; written by {row.teacher or 'a teacher'} from seed {row.parent_id}" if row.parent_id else ""
    origin += f" by way of {row.by_way_of}" if row.by_way_of else ""
    old: dict[str, Any] = dataclasses.asdict(row)
    kept = {name: old[name] for name in ("question", "choices", "skills", "source", "source_id") if name in old}
    rationale = row.rationale if answer == row.answer else None
    also_right = [one for one in old.get("also_right", []) if one != answer] if answer == row.answer else []
    earlier = [one for one in old.get("checks", []) if one.startswith((REVIEW, LABELLED))]
    return Example(
        id=content_id(row.question, row.choices, rationale, answer),
        answer=answer,
        rationale=rationale,
        also_right=also_right,
        checks=[*earlier, f"{REVIEW} {change}{origin}"],
        **kept,
    )
