"""Why is this row in the training set, or why not? The facts of one row, out of a finished run's files.

generated   seed <- the student's answer to it <- the teacher's prompt and answer <- checks <- neighbours <- use
rejected    the same, and stage, reason and neighbour
seed        what the students answered in every iteration, and what became of it: errors, rows, calls
others      validation, test and pool rows: answers, and which rows were kept away from them
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Call, Example, Prediction, Reject, StudentError
from llm2llm.components.shared.llm.ledger import Entry
from llm2llm.pipelines.inspect.run_files import Run, RunFile

SCHEMA_VERSION = 1
NEIGHBOURS = 3
SHORTEST_PREFIX = 4


def why(run: Run, wanted: str) -> dict[str, Any]:
    """All that a run knows about a row.

    Args:
        run: See `open_run`.
        wanted: The row's id, its first digits if no other row's begin with them, or the id that a user's own column
            gave it.

    Returns:
        Ready for JSON; every key is there, null or empty where it does not apply:
        schema_version  1
        run, id
        what        seed, generated, rejected, candidate (`dedupe` has not seen it), validation, test or pool
        row         the row, as an `examples` row; of a rejected one, the fields that `rejects` has
        seed        the row that it was generated from
        by_way_of   the generated rows between that seed and it, the one that was written from the seed first: id,
                    iteration, question, answer
        student     the answer that it was generated for: the `errors` row, and `model`: uri and sha256 of the student
        teacher     `call`: the `calls` row; `other_calls`: further ones about the seed in that iteration; `ledger`:
                    uri, messages, text, refusal, identity, run and written_at of its entry; `note`: why there is none
        checks, confidence
        rejected    every time that this very row was rejected: iteration, stage, reason, detail, score, neighbour_id,
                    neighbour
        neighbours  the nearest rows of the last training set: id, score (ROUGE-L), question, answer, parent_id
        used        training_sets (iterations), best_iteration, in_best, and of the last verdict: outcome, version, and
                    in_version: whether that student was trained on the row
        history     of a row that students were asked: answers, errors, written, rejected, calls (sums), suspect,
                    retired
        collided    rows that were rejected because of this one: id, iteration, stage, reason, score

    Raises:
        UserError: No such row, several of them, or a damaged file.
    """
    row_id, what = _find(run, wanted)
    rejects = run.rows(run.rejects(), "rejects", Reject, "id", row_id)
    facts: dict[str, Any] = {
        "schema_version": SCHEMA_VERSION,
        "run": run.uri,
        "id": row_id,
        "what": what,
        **dict.fromkeys(("row", "seed", "student", "teacher", "confidence", "used", "history")),
        **{key: [] for key in ("by_way_of", "checks", "rejected", "neighbours", "collided")},
    }
    row: Example | Reject
    if what == "rejected":
        row = rejects[-1]
    else:
        (row, *_) = run.rows(_file_of(run, what), _KIND.get(what, "examples"), Example, "id", row_id)
        facts |= {"checks": row.checks, "confidence": row.confidence}
    facts["row"] = _row(row)
    facts["rejected"] = [
        {key: getattr(one, key) for key in
         ("iteration", "stage", "reason", "detail", "score", "neighbour_id", "neighbour", "parent_id")}
        for one in rejects
    ]  # fmt: skip
    if row.parent_id is not None:
        facts |= _origin(run, row)
    if row.parent_id is None or (what == "generated" and _asks_generated(run)):
        facts["history"] = _history(run, row_id, what)
    if what in ("seed", "generated"):
        facts["used"] = _used(run, row_id)
        assert isinstance(row, Example)
        facts["neighbours"] = _neighbours(run, row)
    facts["collided"] = [
        {"id": one.id, "iteration": one.iteration, "stage": one.stage, "reason": one.reason, "score": one.score}
        for one in run.rows(run.rejects(), "rejects", Reject, "neighbour_id", row_id)
    ]
    return facts


# Where to look, the first that has the row wins.
_KIND = {"rejected": "rejects", "candidate": "candidates"}
_WHAT = ("seed", "generated", "validation", "test", "pool", "rejected", "candidate")


def _file_of(run: Run, what: str) -> RunFile | None:
    return {
        "seed": run.last("prepare", "seeds_set"),
        "generated": run.last_training_set(),
        "validation": run.last("prepare", "validation_set"),
        "test": run.last("prepare", "test_set"),
        "pool": run.last("prepare", "pool_set"),
        "rejected": run.rejects(),
        "candidate": run.last("teacher_augment", "candidates"),
    }[what]


def _find(run: Run, wanted: str) -> tuple[str, str]:
    """The id of the row that is meant, and what it is."""
    if not wanted.strip():
        raise UserError("ROW_ID: empty; give a row's id, or its first digits")
    begins: dict[str, str] = {}
    known: list[pa.ChunkedArray] = []
    for what in _WHAT:
        file = _file_of(run, what)
        if file is None:
            continue
        names = ["id"] if what == "rejected" else ["id", "source_id"]
        table = run.table(file, _KIND.get(what, "examples"), names)
        for name in names:
            column = table.column(name)
            for one in table.filter(pc.starts_with(column, wanted)).to_pylist():
                if one[name] == wanted:
                    return str(one["id"]), what
                if name == "id" and len(wanted) >= SHORTEST_PREFIX:
                    begins.setdefault(str(one["id"]), what)
            known.append(column)
    if len(begins) == 1:
        return next(iter(begins.items()))
    if begins:
        some = ", ".join(sorted(begins)[:3])
        raise UserError(f"{wanted}: {len(begins):,} rows have an id that begins so ({some}, ...); give more of it")
    raise UserError(
        f"{wanted}: no row of this id in the run at {run.uri}{_like(wanted, known)}. Ids are those of the report; your "
        "own count where task.columns.id names their column; --text finds a row by its question"
    )


def id_of_text(run: Run, text: str | None) -> str:
    """The id of the row whose question holds a text, whatever its case; a question that is just that goes first.

    Raises:
        UserError: No such row, or several; names some of them.
    """
    wanted = (text or "").strip()
    if not wanted:
        raise UserError("--text: empty; give a part of the row's question")
    shown = repr(wanted if len(wanted) <= 60 else f"{wanted[:60]}...")
    found: dict[str, str] = {}
    for what in _WHAT:
        file = _file_of(run, what)
        if file is None:
            continue
        table = run.table(file, _KIND.get(what, "examples"), ["id", "question"])
        held = table.filter(pc.match_substring(table.column("question"), wanted, ignore_case=True))
        for one in held.to_pylist():
            found.setdefault(str(one["id"]), str(one["question"]))
    exact = [row for row, question in found.items() if question.strip().casefold() == wanted.casefold()]
    if len(found) == 1 or len(exact) == 1:
        return (exact or list(found))[0]
    if not found:
        raise UserError(f"--text {shown}: no question in the run at {run.uri} holds it")
    some = "".join(f"\n  {row}  {question[:60]!r}" for row, question in sorted(found.items())[:5])
    more = f"\n  and {len(found) - 5:,} more" if len(found) > 5 else ""
    raise UserError(f"--text {shown}: {len(found):,} questions hold it; give more of it, or an id:{some}{more}")


def _like(wanted: str, known: Sequence[pa.ChunkedArray]) -> str:
    """The known id nearest to what was asked for, if any is near, and how many there are."""
    from rapidfuzz import process
    from rapidfuzz.distance import Indel

    ids = [one for column in known for one in column.to_pylist() if one]
    close = process.extractOne(wanted, ids, scorer=Indel.normalized_similarity, score_cutoff=0.7)
    return f"; did you mean {close[0]!r}?" if close else f", which has {len(set(ids)):,} rows"


def _row(row: Example | Reject) -> dict[str, Any]:
    own = ("iteration", "stage", "reason", "detail", "score", "neighbour_id", "neighbour")
    return {key: value for key, value in asdict(row).items() if isinstance(row, Example) or key not in own}


def _origin(run: Run, row: Example | Reject) -> dict[str, Any]:
    """Seed, student and teacher of a generated row, kept or not."""
    seeds = run.rows(run.last("prepare", "seeds_set"), "examples", Example, "id", str(row.parent_id))
    parent = str(row.written_from)
    errors = run.rows(run.last("filter_errors", "errors"), "errors", StudentError, "example_id", parent)
    answered = next((one for one in errors if one.iteration == row.iteration - 1), None)
    calls = run.rows(run.last("teacher_augment", "calls"), "calls", Call, "parent_id", parent)
    found = [one for one in calls if one.key == row.call_key]
    if not found and row.call_key is not None:  # one call may write rows of several seeds
        found = run.rows(run.last("teacher_augment", "calls"), "calls", Call, "key", row.call_key)
    # The same may have been asked in an earlier iteration, and answered out of the ledger in this one.
    own = min(found, key=lambda one: one.iteration != row.iteration, default=None)
    entry, uri, note = _entry(run, row)
    return {
        "seed": asdict(seeds[0]) if seeds else None,
        "by_way_of": _between(run, row),
        "student": None if answered is None else {**asdict(answered), "model": _model(run, answered)},
        "teacher": {
            "call": None if own is None else asdict(own),
            "other_calls": [
                asdict(one) for one in calls if one.iteration == row.iteration and one.key != row.call_key
            ],
            "ledger": None if entry is None else {
                "uri": uri,
                "messages": [dict(message) for message in entry.request["messages"]],
                **{key: getattr(entry, key) for key in ("text", "refusal", "identity", "run", "written_at")},
            },
            "note": note,
        },
    }  # fmt: skip


def _between(run: Run, row: Example | Reject) -> list[dict[str, Any]]:
    """The generated rows by way of which a row was written, the one that was written from the seed first."""
    found: list[dict[str, Any]] = []
    known = {row.id}
    while row.by_way_of is not None and row.by_way_of not in known:  # a file may be damaged
        known.add(row.by_way_of)
        shown = run.rows(run.last_training_set(), "examples", Example, "id", row.by_way_of)
        if not shown:
            break
        row = shown[0]
        found.append({key: getattr(row, key) for key in ("id", "iteration", "question", "answer")})
    return found[::-1]


def _model(run: Run, answered: StudentError) -> dict[str, Any] | None:
    """The student that gave an answer; those of the folds are not kept."""
    file = run.at("train", "model", answered.iteration) if answered.fold is None else None
    return None if file is None else {"uri": file.uri, "sha256": file.sha256, "base": run.config().get("student")}


def _entry(run: Run, row: Example | Reject) -> tuple[Entry | None, str | None, str]:
    """(entry, where it is, why there is none) of the call that a row came from."""
    from llm2llm.components.shared import storage
    from llm2llm.components.shared.llm.ledger import entry_uri, read_ledger
    from llm2llm.components.teacher_augment.offline import OFFLINE
    from llm2llm.components.teacher_augment.strategies import STRATEGIES

    if row.call_key is None:
        return None, None, "no teacher's answer is recorded for this row"
    settings = run.config().get("teacher_augment") or {}
    named = str(settings.get("ledger") or "")
    # The folder of a run may have moved, and its ledger with it.
    ledgers = [one for one in (named, storage.join(run.uri, "ledger")) if one]
    if settings.get("cache") is False and run.run_id:  # as `teachers.account` names a run's own ledger
        ledgers = [storage.join(one, f"run-{run.run_id}") for one in ledgers]
    note = "the run had no ledger" if not named else f"{row.call_key} is not in the ledger {named}"
    strategy = STRATEGIES.get(str(settings.get("strategy")))
    if settings.get("teacher") in OFFLINE or (strategy is not None and strategy.asks == "nobody"):
        return None, None, "the teacher is no language model: nobody was asked"
    for ledger in ledgers:
        try:
            return read_ledger(ledger, row.call_key), entry_uri(ledger, row.call_key), ""
        except storage.NotThere:
            continue
        except UserError as problem:
            note = str(problem)
    return None, None, note


def _used(run: Run, row_id: str) -> dict[str, Any]:
    sets = []
    for file in run.training_sets():
        ids = run.table(file, "examples", ["id"]).column("id")
        if row_id in ids.filter(pc.starts_with(ids, row_id)).to_pylist():
            sets.append(file.iteration or 0)
    best = run.best_iteration()
    verdict = run.json(run.last("promote", "verdict"))
    candidate: Mapping[str, Any] = (verdict or {}).get("candidate") or {}
    return {
        "training_sets": sorted(sets),
        "best_iteration": best,
        "in_best": best in sets,
        "outcome": (verdict or {}).get("outcome"),
        "version": candidate.get("version"),
        "in_version": candidate.get("iteration") in sets if candidate else None,
    }


def _neighbours(run: Run, row: Example) -> list[dict[str, Any]]:
    """The rows of the last training set that are most like one, itself left out."""
    from llm2llm.components.shared.similarity import text_of
    from llm2llm.pipelines.inspect.most_similar import most_similar

    file = run.last_training_set()
    if file is None:
        return []
    table = run.table(file, "examples", ["id", "question", "choices", "answer", "parent_id"])
    questions = table.column("question").to_pylist()
    texts = questions
    if pc.sum(pc.list_value_length(table.column("choices"))).as_py():
        texts = [
            text_of(Example(id="", question=question, choices=choices, answer=""))
            for question, choices in zip(questions, table.column("choices").to_pylist(), strict=True)
        ]
    found = []
    for place, score in most_similar(text_of(row), texts, NEIGHBOURS + 1):
        one = table.slice(place, 1).to_pylist()[0]
        if one["id"] != row.id:
            keys = ("id", "question", "answer", "parent_id")
            found.append({key: one[key] for key in keys} | {"score": round(score, 4)})
    return found[:NEIGHBOURS]


def _asks_generated(run: Run) -> bool:
    return bool((run.config().get("filter_errors") or {}).get("generated_rows"))


def _history(run: Run, row_id: str, what: str) -> dict[str, Any]:
    """What became of a row that students were asked: of one that is written from, everything; of others, the
    answers."""
    files = [*run.all("evaluate", "predictions"), *run.all("out_of_fold", "predictions")]
    answers = [
        {key: getattr(one, key) for key in
         ("iteration", "fold", "outcome", "parsed", "completion", "truncated", "samples", "samples_correct")}
        for file in files for one in run.rows(file, "predictions", Prediction, "example_id", row_id)
    ]  # fmt: skip
    answers.sort(key=lambda one: (one["iteration"], one["fold"] is not None, one["fold"] or 0))
    errors = run.rows(run.last("filter_errors", "errors"), "errors", StudentError, "example_id", row_id)
    if what not in ("seed", "generated"):
        return {"answers": answers, "errors": [], "written": [], "rejected": [], "calls": None, "suspect": False,
                "retired": False}  # fmt: skip
    origin = "parent_id" if what == "seed" else "by_way_of"
    written = run.rows(run.last_training_set(), "examples", Example, origin, row_id)
    rejected = run.rows(run.rejects(), "rejects", Reject, origin, row_id)
    calls = run.rows(run.last("teacher_augment", "calls"), "calls", Call, "parent_id", row_id)
    priced = [call.usd for call in calls if call.usd is not None]
    return {
        "answers": answers,
        "errors": [
            {key: getattr(one, key) for key in ("iteration", "fold", "difficulty", "hardness", "suspect", "outcome")}
            for one in errors
        ],
        "written": [
            {key: getattr(one, key) for key in
             ("id", "iteration", "strategy", "question", "answer", "confidence", "by_way_of")}
            for one in written
        ],
        "rejected": [
            {key: getattr(one, key) for key in ("id", "iteration", "stage", "reason", "detail")} for one in rejected
        ],
        "calls": {
            "number": len(calls),
            "input_tokens": sum(call.input_tokens or 0 for call in calls),
            "output_tokens": sum(call.output_tokens or 0 for call in calls),
            "usd": sum(priced) if priced else None,
        },
        "suspect": any(one.suspect for one in errors),
        "retired": _is_retired(run, row_id, written, rejected),
    }  # fmt: skip


def _is_retired(run: Run, row_id: str, written: Sequence[Example], rejected: Sequence[Reject]) -> bool:
    """Whether `filter_errors` no longer writes from a row: nothing was kept in so many iterations."""
    after = (run.config().get("filter_errors") or {}).get("retire_after", 0)
    kept = {row.iteration for row in written if row.written_from == row_id}
    rejected = [one for one in rejected if one.written_from == row_id]
    failed = {one.iteration for one in rejected if one.reason != "over_budget"} - kept
    return bool(after) and len(failed) >= after
