"""Compares two students on the same validation rows, and checks the conditions of a promotion."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm2llm.components.promote.verdict import Check, Comparison, SliceChange
from llm2llm.components.shared.base.statistics import (
    FEW_ROWS,
    best_of_p,
    bootstrapped,
    holm,
    mcnemar_p,
    paired_difference,
)
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.registry.settings import PromoteSettings
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.shared.tasks.measured import matrix, metric_of

ROUNDING = 1e-9
"""Shares are compared with this tolerance: 0.8 - 0.75 is more than 0.05 in floating point."""


@dataclass(frozen=True, slots=True)
class MeasuresByRow:
    """What a metric keeps of the answers of three kinds of students, by the row's id."""

    incumbent: Mapping[str, Sequence[float]]
    candidate: Mapping[str, Sequence[float]]
    students: Sequence[Mapping[str, Sequence[float]]] = ()
    """Of the run, the candidate too."""


def compare(
    incumbent: Mapping[str, bool],
    candidate: Mapping[str, bool],
    rows: Sequence[Example],
    task: Task,
    settings: PromoteSettings,
    random_seed: int,
    students: Sequence[Mapping[str, bool]] = (),
    measures: MeasuresByRow | None = None,
    left_out: int = 0,
    answered_now: int = 0,
) -> Comparison:
    """The figures of a comparison.

    Args:
        incumbent, candidate: Whether each answers a row right, by the row's id; of every row in `rows`.
        rows: The validation rows to compare on; at least one.
        task: Says whether right answers are slices.
        settings: See `PromoteSettings`.
        random_seed: Of the bootstrap and the permutation test.
        students: What each student of the run answers right, the candidate too: it was chosen as the best of them, on
            these very rows. Fewer than two change nothing.
        measures: What the task's metric keeps of the same answers; None for the accuracy.
        left_out, answered_now: See `Comparison`.
    """
    rows = sorted(rows, key=lambda row: row.id)
    before, after = [incumbent[row.id] for row in rows], [candidate[row.id] for row in rows]
    metric = metric_of(task)
    values: list[float | None] = [None, None]
    if metric is not None and measures is not None:
        own, theirs = (
            matrix(metric, [one[row.id] for row in rows]) for one in (measures.incumbent, measures.candidate)
        )
        every = [matrix(metric, [one[row.id] for row in rows]) for one in measures.students]
        difference = bootstrapped(own, theirs, metric.value, random_seed, level=1 - settings.level)
        p = best_of_p(own, [theirs], metric.value, random_seed)
        p_best = best_of_p(own, every, metric.value, random_seed) if len(every) > 1 else None
        values = [float(metric.value(one.sum(axis=0))) for one in (own, theirs)]
    else:
        own, every = _measures(incumbent, rows), [_measures(one, rows) for one in students]
        difference = paired_difference(before, after, random_seed, level=1 - settings.level)
        p = mcnemar_p(before, after)
        p_best = best_of_p(own, every, random_seed=random_seed) if len(every) > 1 else None
    both = sum(a and b for a, b in zip(before, after, strict=True))
    return Comparison(
        rows=len(rows),
        both=both,
        only_candidate=sum(after) - both,
        only_incumbent=sum(before) - both,
        neither=len(rows) - sum(before) - sum(after) + both,
        gain=difference.value,
        low=difference.low,
        high=difference.high,
        p=p,
        metric=task.metric,
        incumbent_value=values[0],
        candidate_value=values[1],
        test=settings.test,
        level=settings.level,
        slices=_slices(incumbent, candidate, rows, task, settings),
        left_out=left_out,
        answered_now=answered_now,
        students=max(1, len(every)),
        p_best=p_best,
    )


def _measures(answers: Mapping[str, bool], rows: Sequence[Example]) -> Any:
    import numpy as np

    return np.array([[answers[row.id], 1] for row in rows], dtype=np.float64)


def checks(comparison: Comparison, settings: PromoteSettings) -> list[Check]:
    """Whether the candidate is better, by enough, and no slice falls too far."""
    return [_better(comparison), _min_gain(comparison, settings), _no_drop(comparison, settings)]


def _better(found: Comparison) -> Check:
    test = "McNemar" if found.metric == "accuracy" else "permutation"
    if found.test == "bootstrap":
        passed = found.low > 0
        figures = f"{1 - found.level:.0%} interval {_points(found.low)} to {_points(found.high)}"
        if passed and found.rows < FEW_ROWS:
            passed = found.p < found.level
            figures += f", and on so few rows {test} p = {found.p:.2g}, level {found.level:g}"
    else:
        passed = found.gain > 0 and found.p < found.level
        figures = f"{test} p = {found.p:.2g}, level {found.level:g}"
    if found.p_best is not None:
        passed = passed and found.p_best < found.level
        figures += (
            f"; as the best of {found.students} students p = {found.p_best:.2g} by permutation, level {found.level:g}"
        )
    word = "better beyond chance" if passed else "not better beyond chance"
    of = (
        ""
        if found.metric == "accuracy"
        else f" of {found.metric} ({found.incumbent_value:.1%} to {found.candidate_value:.1%})"
    )
    gain = f"{_points(found.gain)} points{of} on {found.rows:,} validation rows"
    return Check(name="better", passed=passed, text=f"{word}: {gain} ({figures})")


def _min_gain(found: Comparison, settings: PromoteSettings) -> Check:
    passed = found.gain >= settings.min_gain - ROUNDING
    return Check(
        name="min_gain",
        passed=passed,
        text=f"the gain of {_points(found.gain)} points is {'at least' if passed else 'below'} the "
        f"{100 * settings.min_gain:.1f} that min_gain asks for",
    )


def _no_drop(found: Comparison, settings: PromoteSettings) -> Check:
    lower = [one for one in found.slices if one.counts and -one.change > settings.max_slice_drop + ROUNDING]
    fallen = [one for one in lower if one.p <= settings.slice_level]
    counted = sum(one.counts for one in found.slices)
    limit = f"{100 * settings.max_slice_drop:.1f} points"
    if not fallen:
        text = f"none of {counted} slices falls by more than {limit}" if counted else "there are no slices to look at"
        if lower:
            text += f" beyond chance; {len(lower)} may by chance, the most {_fall(lower[0])}"
    else:
        shown = "; ".join(_fall(one) for one in fallen[:5])
        more = f" and {len(fallen) - 5} more" if len(fallen) > 5 else ""
        text = f"{len(fallen)} of {counted} slices fall by more than {limit}, beyond chance: {shown}{more}"
    return Check(name="slices", passed=not fallen, text=text)


def _fall(one: SliceChange) -> str:
    return (
        f"{one.slice} by {100 * -one.change:.1f} points ({one.incumbent:.1%} to {one.candidate:.1%}, {one.n} rows, "
        f"p = {one.p:.2g})"
    )


def _slices(
    incumbent: Mapping[str, bool],
    candidate: Mapping[str, bool],
    rows: Sequence[Example],
    task: Task,
    settings: PromoteSettings,
) -> list[SliceChange]:
    members: defaultdict[str, list[str]] = defaultdict(list)
    for row in rows:
        if "label" in settings.slices and FORMS[task.form].has_classes:
            members[f"label: {row.answer}"].append(row.id)
        if "skills" in settings.slices:
            for skill in sorted(set(row.skills)):
                members[f"skill: {skill}"].append(row.id)
    found, p_values = [], {}
    for name, ids in members.items():
        before, after = ([answers[one] for one in ids] for answers in (incumbent, candidate))
        if len(ids) >= settings.min_slice_rows:
            p_values[name] = mcnemar_p(before, after, "worse")
        found.append(
            SliceChange(
                slice=name,
                n=len(ids),
                incumbent=sum(before) / len(ids),
                candidate=sum(after) / len(ids),
                change=(sum(after) - sum(before)) / len(ids),
                counts=name in p_values,
            )
        )
    adjusted = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    found = [replace(one, p=adjusted.get(one.slice, 1.0)) for one in found]
    return sorted(found, key=lambda one: (not one.counts, one.change, one.slice))


def _points(share: float) -> str:
    return f"{100 * share:+.1f}"
