"""Candidates to the next training set: leaks and copies are dropped.

In order of cost: the firewall against validation and test; rows with the same text; near copies by ROUGE-L; copies by
meaning; with `coverage` all but those that cover most. Of rows that copy one another the earliest is kept: a row of the
training set, else the candidate with the smallest id. So the order in which candidates come changes nothing.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from llm2llm.components.dedupe.copies import find_copies, measured_recall
from llm2llm.components.dedupe.coverage import covering
from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.shared.data.schemas import Example, Reject
from llm2llm.components.shared.leakage.firewall import compared_text, find_leaks, leak_reject, masks_numbers, reject
from llm2llm.components.shared.similarity import question_key
from llm2llm.components.shared.similarity.minhash import bands_for
from llm2llm.components.shared.similarity.sketches import sketch

FEW_LEAKS = 5  # fewer say nothing about a teacher


class TeacherHasSeenTheTest(RuntimeError):
    """More of one teacher's candidates match validation or test rows than `max_leak_fraction` allows."""


@dataclass(frozen=True)
class Deduped:
    """What `dedupe` leaves."""

    training_set: list[Example]
    """The next one, sorted by iteration and id."""
    rejects: list[Reject]
    """Sorted by id, each with its reason, score and neighbour."""
    recall: float | None
    """The share of near copies that MinHash proposed, measured on a sample; None where all pairs were looked at, or the
    sample has no near copy."""


def dedupe(
    candidates: Sequence[Example],
    training_set: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    settings: DedupeSettings,
    iteration: int,
    form: str | None = None,
    hardness: Mapping[str, float] | None = None,
) -> Deduped:
    """The next training set, and the rejects: `in_test`, `in_validation`, `copy`, `near_copy`, `template` (one too many
    that differ in their numbers only), `semantic_copy`, `covered`.

    The question and the choices are compared, not the answer; of strategies that write new rationales for old
    questions, the rationale as well.

    Args:
        candidates: What the teacher wrote.
        training_set: The rows of the training set so far; all of them stay.
        validation: Protected: nothing like it gets in.
        test: Protected likewise.
        settings: See `DedupeSettings`.
        iteration: The iteration whose training set this is.
        form: The task's form; numeric tasks are compared without their numbers. None: not known.
        hardness: Id of a seed -> how hard it is, for `coverage.weigh_by_hardness`.

    Raises:
        TeacherHasSeenTheTest: Too many candidates leak.
    """
    # The same row may come twice: by other calls, of other parents.
    rows = sorted(candidates, key=lambda row: (row.id, row.written_from or "", row.call_key or "", row.iteration))
    training = sorted(training_set, key=lambda row: row.id)

    leaks = find_leaks(rows, test, validation, form, settings.leak)
    rejects = [leak_reject(row, leak, "dedupe", iteration) for row, leak in zip(rows, leaks, strict=True) if leak]
    refuse_teachers_that_have_seen_the_test(rows, rejects, settings.max_leak_fraction)
    rows = [row for row, leak in zip(rows, leaks, strict=True) if not leak]

    compared = rows
    if _are_new_rationales(rows, training):
        compared, training = _with_rationales(rows), _with_rationales(training)
    # Maps each row to the first row with the same text.
    first_of = _firsts(compared, training) if settings.exact else list(range(len(rows)))
    firsts = [place for place, first in enumerate(first_of) if first == place]
    distinct = [compared[place] for place in firsts]

    masked = masks_numbers(form) and settings.mask_numbers
    many = len(training) + len(distinct) > settings.exact_up_to
    threshold = settings.near_copy if many else None
    bands = (0, 0) if threshold is None else bands_for(threshold)
    known, new = (sketch((compared_text(row, masked) for row in some), bands) for some in (training, distinct))
    found = find_copies(distinct, new, training, known, masked, settings)
    recall = None
    if threshold is not None:
        recall = measured_recall(distinct, new, training, known, masked, threshold)
    fallen = {firsts[n]: neighbour for n, neighbour in found.items()}
    for place, (row, first) in enumerate(zip(rows, first_of, strict=True)):
        # The copy of a row that falls, falls for the same reason.
        if isinstance(first, int) and first in fallen:
            neighbour = fallen[first]
            rejects.append(
                reject(row, "dedupe", iteration, neighbour.kind, neighbour.detail, neighbour.score, neighbour.row)
            )
        elif first != place:
            same = compared[first] if isinstance(first, int) else first
            rejects.append(reject(row, "dedupe", iteration, "copy", "the same text", 1.0, same))

    kept = [n for n in range(len(distinct)) if n not in found]
    checks = _checks(settings, bool(test), bool(validation))
    new_rows = [rows[firsts[n]] for n in kept]
    if settings.coverage is not None:
        dropped = covering(new_rows, training, settings.coverage, hardness or {})
        detail = f"{len(new_rows)} rows for {settings.coverage.keep}"
        for place, (score, nearest) in dropped.items():
            rejects.append(reject(new_rows[place], "dedupe", iteration, "covered", detail, score, nearest))
        new_rows = [row for place, row in enumerate(new_rows) if place not in dropped]
    added = [replace(row, iteration=iteration, checks=[*row.checks, *checks]) for row in new_rows]
    return Deduped(
        training_set=sorted([*training_set, *added], key=lambda row: (row.iteration, row.id)),
        rejects=sorted(rejects, key=lambda one: one.id),
        recall=recall,
    )


def refuse_teachers_that_have_seen_the_test(
    candidates: Sequence[Example], leaks: Sequence[Reject], max_fraction: float
) -> None:
    """Looks at how many of each teacher's candidates leak.

    Raises:
        TeacherHasSeenTheTest: More than `max_fraction` of one teacher's, and at least `FEW_LEAKS`.
    """
    written = Counter(row.teacher for row in candidates)
    for teacher, count in sorted(Counter(row.teacher for row in leaks).items(), key=str):
        if count >= FEW_LEAKS and count > max_fraction * written[teacher]:
            of_teacher = [leak for leak in leaks if leak.teacher == teacher]
            shown = "; ".join(
                f"{leak.question[:100]!r} is like {(leak.neighbour or '')[:100]!r}" for leak in of_teacher[:3]
            )
            raise TeacherHasSeenTheTest(
                f"dedupe: {count} of {written[teacher]} candidates of teacher {teacher or 'unknown'} match validation "
                f"or test rows, more than max_leak_fraction {max_fraction}: it has seen them, or was shown them in a "
                f"prompt ({shown})"
            )


def _are_new_rationales(rows: Sequence[Example], training: Sequence[Example]) -> bool:
    """Whether the rows are other ways to the answers of their parents: each has the question of its own.

    Rows of any other strategy that have their parent's question are rejected before they come here.
    """
    parents = {row.written_from for row in rows}
    keys = {row.id: question_key(row) for row in training if row.id in parents}
    return bool(rows) and all(keys.get(row.written_from or "") == question_key(row) for row in rows)


def _with_rationales(rows: Sequence[Example]) -> list[Example]:
    """The rows with the rationale as a part of the question, to be compared as such."""
    return [replace(row, question=f"{row.question}\n{row.rationale}") if row.rationale else row for row in rows]


def _firsts(rows: Sequence[Example], training: Sequence[Example]) -> list[int | Example]:
    """For each row the training row with the same text, else the place of the first row with it."""
    keys = [question_key(row) for row in rows]
    first: dict[str, int | Example] = {}
    for place, key in enumerate(keys):
        first.setdefault(key, place)
    for row in reversed(training):
        if (key := question_key(row)) in first:
            first[key] = row
    return [first[key] for key in keys]


def _checks(settings: DedupeSettings, test: bool, validation: bool) -> list[str]:
    """What a row that is kept has passed; a check that was not made is not claimed."""
    made = {
        "not in test": test,
        "not in validation": validation,
        "no copy": settings.exact,
        "no near copy": settings.near_copy is not None,
        "no semantic copy": settings.semantic is not None,
    }
    return [name for name, was_made in made.items() if was_made]
