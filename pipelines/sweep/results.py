"""What a sweep comes to: means over random seeds with t intervals, and paired differences from the baseline.

What varies independently is one value for an interval. With several data seeds that is a data seed: its runs with
different training seeds share their rows, and are averaged first. With one data seed it is a training seed, and the
interval speaks of these rows only.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import fsum
from typing import Any

from llm2llm.components.shared.base.statistics import Mean, t_interval
from llm2llm.pipelines.sweep.points import Point
from llm2llm.pipelines.sweep.settings import SweepSettings

HALF = 0.525
"""The share of the baseline's rows that counts as half of them: `dedupe` may have taken a few more from one arm than
from the other."""


@dataclass(frozen=True)
class PointResult:
    """A finished point."""

    point: Point
    split: str
    """Which rows its accuracies are on: `test`, or `validation` where there are no test rows."""
    accuracy: tuple[float, ...]
    """Of each iteration, in [0, 1]."""
    training_rows: tuple[int, ...]
    """Of each iteration."""
    best: int
    """The iteration that validation chooses."""
    generated: int
    kept: int
    teacher_calls: int
    input_tokens: int | None
    output_tokens: int | None
    usd: float | None
    """What the teacher's tokens cost; None where a price is not known."""
    seconds: float | None
    """Of all stages; None for a run in a cluster."""
    control: float | None
    """Accuracy of the seeds alone, trained for as many steps; None where it was not asked for."""

    @property
    def added(self) -> tuple[int, ...]:
        """Rows beyond those of iteration 0, of each iteration."""
        return tuple(rows - self.training_rows[0] for rows in self.training_rows)


def outcome_of(point: Point, summary: Mapping[str, Any]) -> PointResult:
    """A point's figures, from the summary of its run."""
    iterations = summary["iterations"]
    split = "test" if all("test" in one["accuracy"] for one in iterations) else "validation"
    calls = summary["teacher_calls"]
    stages = summary.get("seconds_by_stage")
    controls = [one for one in summary.get("controls", []) if one["name"] == "steps"]
    control = controls[0]["accuracy"].get(split) if controls else None
    return PointResult(
        point=point,
        split=split,
        accuracy=tuple(one["accuracy"][split]["value"] for one in iterations),
        training_rows=tuple(one["training_rows"] for one in iterations),
        best=[one["iteration"] for one in iterations].index(summary["best_iteration"]),
        generated=summary["rows"]["generated"],
        kept=summary["rows"]["kept"],
        teacher_calls=calls["total"],
        input_tokens=calls.get("input_tokens"),
        output_tokens=calls.get("output_tokens"),
        usd=calls.get("usd"),
        seconds=None if stages is None else fsum(stages.values()),
        control=control["value"] if control else None,
    )


Measure = Callable[[PointResult], float | None]

MEASURES: dict[str, tuple[str, Measure]] = {
    "start": ("iteration 0", lambda one: one.accuracy[0]),
    "control": ("seeds alone, equal steps", lambda one: one.control),
    "chosen": ("chosen by validation", lambda one: one.accuracy[one.best]),
    "last": ("last iteration", lambda one: one.accuracy[-1]),
}
"""The accuracies of the table: what each is called, and how it is had. One that no point has is left out."""


@dataclass(frozen=True)
class ArmResult:
    """One arm of one config."""

    config: str
    arm: str
    split: str
    runs: int
    """Finished points."""
    means: Mapping[str, Mean]
    """By the names of `MEASURES`."""
    differences: Mapping[str, Mean]
    """From the baseline arm, paired by random seeds; also `curve`, the mean over all iterations after 0, and `half`:
    the arm's last student with at most half of the rows that the baseline added in all, less the baseline's last. The
    baseline itself has `half` alone: what its own second half is worth. And `gain`: the chosen student less the seeds
    alone at equal steps, of the same run."""
    added: float
    """Rows in the last training set beyond iteration 0's, on the average."""
    teacher_calls: float
    usd: float | None
    seconds: float | None


def rows_of(sweep: SweepSettings, outcomes: Sequence[PointResult]) -> list[ArmResult]:
    """The table, in the sweep's order of configs and arms; arms without a finished point are left out."""
    grouped: dict[tuple[str, str], list[PointResult]] = defaultdict(list)
    for one in _with_controls(outcomes):
        grouped[one.point.config, one.point.arm].append(one)
    configs = list(dict.fromkeys(one.point.config for one in outcomes))
    measures: dict[str, Measure] = {name: measure for name, (_, measure) in MEASURES.items()}
    rows = []
    for config in configs:
        baseline = grouped.get((config, sweep.compared_with), [])
        longest = max(len(one.accuracy) for one in outcomes if one.point.config == config)
        compared: dict[str, Measure] = {**measures, "curve": partial(_over_curve, longest=longest)}
        for arm in sweep.arms:
            held = grouped.get((config, arm), [])
            if not held:
                continue
            means = {name: _mean(sweep, held, measure) for name, measure in measures.items()}
            differences = {"half": _half(sweep, held, baseline), "gain": _mean(sweep, held, _gain)}
            if arm != sweep.compared_with:
                differences |= {name: _difference(sweep, held, baseline, one) for name, one in compared.items()}
            rows.append(
                ArmResult(
                    config=config,
                    arm=arm,
                    split=held[0].split,
                    runs=len(held),
                    means={name: mean for name, mean in means.items() if mean},
                    differences={name: mean for name, mean in differences.items() if mean},
                    added=fsum(one.added[-1] for one in held) / len(held),
                    teacher_calls=fsum(one.teacher_calls for one in held) / len(held),
                    usd=_average([one.usd for one in held]),
                    seconds=_average([one.seconds for one in held]),
                )
            )
    return rows


def _with_controls(outcomes: Sequence[PointResult]) -> list[PointResult]:
    """Where controls were measured, a run that delivers iteration 0 has none of its own: it is the seeds alone. Without
    it the mean would be over the runs that gained."""
    measured = {one.point.config for one in outcomes if one.control is not None}
    return [
        replace(one, control=one.accuracy[0])
        if one.control is None and one.best == 0 and one.point.config in measured
        else one
        for one in outcomes
    ]


@dataclass(frozen=True)
class CurvePoint:
    """The mean of an arm after one iteration."""

    added: float
    accuracy: Mean
    split: str
    """Which rows the accuracy is on."""


def curves_of(sweep: SweepSettings, outcomes: Sequence[PointResult]) -> dict[tuple[str, str], list[CurvePoint]]:
    """(config, arm) -> its learning curve. Where a loop has ended, its last accuracy stands for what follows."""
    found: dict[tuple[str, str], list[CurvePoint]] = {}
    for config in dict.fromkeys(one.point.config for one in outcomes):
        of_config = [one for one in outcomes if one.point.config == config]
        longest = max(len(one.accuracy) for one in of_config)
        for arm in sweep.arms:
            held = [one for one in of_config if one.point.arm == arm]
            if held:
                found[config, arm] = [_curve_point(sweep, held, place) for place in range(longest)]
    return found


def _curve_point(sweep: SweepSettings, held: Sequence[PointResult], place: int) -> CurvePoint:
    mean = _mean(sweep, held, lambda one: _carried(one.accuracy, place))
    assert mean is not None, "every point has an accuracy"
    return CurvePoint(fsum(_carried(one.added, place) for one in held) / len(held), mean, held[0].split)


def _carried(values: Sequence[float], place: int) -> float:
    return values[min(place, len(values) - 1)]


def _gain(one: PointResult) -> float | None:
    return None if one.control is None else one.accuracy[one.best] - one.control


def _over_curve(one: PointResult, longest: int) -> float | None:
    after = [_carried(one.accuracy, place) for place in range(1, longest)]
    return fsum(after) / len(after) if after else None


def _seeds(point: Point) -> tuple[int, int]:
    return point.data_seed, point.training_seed


def _independent(sweep: SweepSettings, values: Mapping[tuple[int, int], float]) -> list[float]:
    """One value for each data seed, or for each training seed where there is one data seed."""
    by_unit: dict[int, list[float]] = defaultdict(list)
    for (data_seed, training_seed), value in sorted(values.items()):
        by_unit[data_seed if len(sweep.seeds.data) > 1 else training_seed].append(value)
    return [fsum(held) / len(held) for held in by_unit.values()]


def _values(held: Sequence[PointResult], measure: Measure) -> dict[tuple[int, int], float]:
    return {_seeds(one.point): value for one in held if (value := measure(one)) is not None}


def _mean(sweep: SweepSettings, held: Sequence[PointResult], measure: Measure) -> Mean | None:
    values = _independent(sweep, _values(held, measure))
    return t_interval(values) if values else None


def _difference(
    sweep: SweepSettings, held: Sequence[PointResult], baseline: Sequence[PointResult], measure: Measure
) -> Mean | None:
    """Over the seeds of which both arms have finished."""
    return _paired(sweep, _values(held, measure), _values(baseline, measure))


def _half(sweep: SweepSettings, held: Sequence[PointResult], baseline: Sequence[PointResult]) -> Mean | None:
    """An arm with half of the rows against the baseline with all of its own."""
    budgets = {_seeds(one.point): HALF * one.added[-1] for one in baseline}
    halves = {}
    for one in held:
        if (budget := budgets.get(_seeds(one.point))) is not None:
            halves[_seeds(one.point)] = [
                accuracy for accuracy, added in zip(one.accuracy, one.added, strict=True) if added <= budget
            ][-1]
    return _paired(sweep, halves, _values(baseline, lambda one: one.accuracy[-1]))


def _paired(
    sweep: SweepSettings, values: Mapping[tuple[int, int], float], others: Mapping[tuple[int, int], float]
) -> Mean | None:
    differences = {seeds: values[seeds] - others[seeds] for seeds in values.keys() & others.keys()}
    independent = _independent(sweep, differences)
    return t_interval(independent) if independent else None


def _average(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return fsum(known) / len(known) if known and len(known) == len(values) else None
