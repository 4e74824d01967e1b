"""Splits a user's rows into seeds, validation, test and pool, and reads the replay rows."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from llm2llm.components.prepare.settings import PrepareSettings
from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.sampling import largest_remainder, seeded_key
from llm2llm.components.shared.data.schemas import Example, Reject
from llm2llm.components.shared.leakage.firewall import Leak, Split, find_leaks, leak_reject
from llm2llm.components.shared.similarity import folded_or_same, question_key
from llm2llm.components.shared.tasks import FORMS, Task

PROTECTED: dict[str, Split] = {"test": "test", "validation": "validation"}


@dataclass(frozen=True)
class Prepared:
    """Sets of examples, each sorted by id; of the first four no question is in two."""

    seeds: list[Example]
    validation: list[Example]
    test: list[Example]
    pool: list[Example]
    replay: list[Example]
    rejects: list[Reject]
    """The rows of seeds, pool and replay that match validation or test rows, sorted by id."""
    notes: list[str]
    """What was left out, and why."""


def prepare(
    seeds: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    pool: Sequence[Example],
    task: Task,
    settings: PrepareSettings,
    random_seed: int,
    replay: Sequence[Example] = (),
) -> Prepared:
    """Cleans and splits.

    Test rows win over validation rows, validation over seeds, seeds over the pool: a question that is in two sets
    stays in the first of these. Seeds and pool then lose what else the firewall catches: rows that nearly match one of
    test or validation. Labelled rows that are not drawn as seeds join the pool.

    Args:
        seeds: Labelled rows to draw the seeds from.
        validation: For decisions; empty: a share of `seeds` is split off.
        test: For the report; may be empty.
        pool: Further labelled rows, for the `pool` teacher.
        task: Says which answers are the same; classification is drawn stratified by label.
        settings: See `PrepareSettings`.
        random_seed: Decides which rows are drawn; the order of the rows does not.
        replay: General rows, of no task: they are trained on to remember, never written from. They too lose what the
            firewall catches.

    Raises:
        UserError: Contradictory answers (unless they are to be dropped), or too few rows for what is asked.
    """
    notes: list[str] = []
    sets = {"test": list(test), "validation": list(validation), "seeds": list(seeds), "pool": list(pool)}
    for name, rows in sets.items():
        sets[name] = _distinct(_consistent(rows, name, task, settings, notes), name, notes)

    rejects: list[Reject] = []
    taken: dict[str, tuple[str, Example]] = {}
    for name, rows in sets.items():
        clashes = [(row, *taken[key]) for row in rows if (key := question_key(row)) in taken]
        for other, count in sorted(Counter(other for _, other, _ in clashes).items()):
            notes.append(f"removed {count} rows from {name}: their questions are in {other}")
        for row, other, same in clashes:
            if name in ("seeds", "pool") and (split := PROTECTED.get(other)):
                rejects.append(leak_reject(row, Leak(split, same, "exact", 1.0, "the same text"), "prepare", 0))
        sets[name] = [row for row in rows if question_key(row) not in taken]
        taken |= {question_key(row): (name, row) for row in sets[name]}

    rows = sets["seeds"]
    if not rows:
        raise UserError("; ".join(["prepare: no seed rows are left", *notes]))
    if not sets["validation"]:
        count = max(1, round(len(rows) * settings.validation_fraction))
        if len(rows) - count < 1:
            raise UserError(
                f"prepare: {len(rows)} seed rows are too few to split off validation; bring more, or validation rows"
            )
        sets["validation"], rows = _draw(rows, count, task, random_seed, "validation", leave=1)
        notes.append(f"split {count} of {count + len(rows)} seed rows off as validation")

    rows = _behind_the_firewall("seeds", rows, sets, task, settings, rejects, notes)
    sets["pool"] = _behind_the_firewall("pool", sets["pool"], sets, task, settings, rejects, notes)
    general = _distinct(list(replay), "replay", notes)
    general = _behind_the_firewall("replay", general, sets, task, settings, rejects, notes)
    if not rows:
        raise UserError("; ".join(["prepare: no seed rows are left", *notes]))

    wanted = settings.seed_count or max(1, round(len(rows) * settings.seed_fraction))
    if wanted > len(rows):
        raise UserError(f"prepare.seed_count: {wanted} seeds are asked for, and only {len(rows)} rows are left")
    drawn, rest = _draw(rows, wanted, task, random_seed, "seeds", leave=0)
    if rest:
        notes.append(f"drew {wanted} of {len(rows)} rows as seeds; the other {len(rest)} join the pool")
    return Prepared(
        seeds=_sorted(drawn),
        validation=_sorted(sets["validation"]),
        test=_sorted(sets["test"]),
        pool=_sorted([*sets["pool"], *rest]),
        replay=_sorted(general),
        rejects=sorted(rejects, key=lambda one: one.id),
        notes=notes,
    )


def _behind_the_firewall(
    name: str,
    rows: list[Example],
    sets: dict[str, list[Example]],
    task: Task,
    settings: PrepareSettings,
    rejects: list[Reject],
    notes: list[str],
) -> list[Example]:
    """The rows that match no validation or test row; the others are added to `rejects`, their number to `notes`."""
    leaks = find_leaks(rows, sets["test"], sets["validation"], task.form, settings.leak)
    caught = [leak_reject(row, leak, "prepare", 0) for row, leak in zip(rows, leaks, strict=True) if leak]
    for reason, count in sorted(Counter(one.reason for one in caught).items()):
        notes.append(f"removed {count} rows from {name}: they nearly match rows of {reason.removeprefix('in_')}")
    rejects += caught
    return [row for row, leak in zip(rows, leaks, strict=True) if not leak]


def _consistent(
    rows: list[Example], name: str, task: Task, settings: PrepareSettings, notes: list[str]
) -> list[Example]:
    """The rows without questions that have two answers."""
    first_of: dict[str, Example] = {}
    contradictory: dict[str, tuple[Example, Example]] = {}
    for row in rows:
        first = first_of.setdefault(question_key(row), row)
        if not _same_answer(task, first, row):
            contradictory.setdefault(question_key(row), (first, row))
    if not contradictory:
        return rows
    first, second = next(iter(contradictory.values()))
    if settings.contradictions == "refuse":
        more = f" (and {len(contradictory) - 1} more such questions)" if len(contradictory) > 1 else ""
        raise UserError(
            f"{name}: {first.source} answers {first.answer!r} and {second.source} answers {second.answer!r} to the "
            f"same question {_short(first.question)!r}{more}; correct the rows, or set prepare.contradictions: drop"
        )
    kept = [row for row in rows if question_key(row) not in contradictory]
    notes.append(f"dropped {len(rows) - len(kept)} rows of {name} whose questions have contradictory answers")
    return kept


def _same_answer(task: Task, one: Example, other: Example) -> bool:
    """Whether two rows with the same question agree; by a choice's text, as the choices may come in another order."""
    if one.choices:
        chosen, also_chosen = (folded_or_same(row.choices[ord(row.answer) - ord("A")]) for row in (one, other))
        return chosen == also_chosen
    right = [other.answer, *other.also_right]
    return any(tasks.matches(task, mine, theirs) for mine in (one.answer, *one.also_right) for theirs in right)


def _distinct(rows: list[Example], name: str, notes: list[str]) -> list[Example]:
    """One row of each question: the one with the smallest id, and of equal rows the first."""
    first: dict[str, Example] = {}
    for row in sorted(rows, key=lambda row: row.id):
        first.setdefault(question_key(row), row)
    if len(first) < len(rows):
        notes.append(f"dropped {len(rows) - len(first)} duplicate rows of {name}")
    return list(first.values())


def _draw(
    rows: Sequence[Example], count: int, task: Task, random_seed: int, purpose: str, leave: int
) -> tuple[list[Example], list[Example]]:
    """(drawn, rest): `count` rows in the order of a hash, for classification the same share of every label.

    So many rows of each label as `leave` says stay in the rest, if there are enough of the others.
    """

    def order(row: Example) -> bytes:
        return seeded_key(random_seed, purpose, row.id)

    if not FORMS[task.form].has_labels:
        shuffled = sorted(rows, key=order)
        return shuffled[:count], shuffled[count:]
    by_label: dict[str, list[Example]] = defaultdict(list)
    for row in sorted(rows, key=order):
        by_label[row.answer].append(row)
    groups = sorted(by_label.items())
    sizes = {label: len(group) - leave for label, group in groups}
    if sum(sizes.values()) < count:
        sizes = {label: len(group) for label, group in groups}
    # One of each label that has one, if that fits.
    shares = largest_remainder(sizes, count, at_least=1 if count >= len(sizes) else 0, at_most=sizes)
    drawn = [row for label, group in groups for row in group[: shares[label]]]
    rest = [row for label, group in groups for row in group[shares[label] :]]
    return drawn, rest


def _sorted(rows: Iterable[Example]) -> list[Example]:
    return sorted(rows, key=lambda row: row.id)


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
