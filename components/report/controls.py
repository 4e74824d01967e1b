"""What the delivered student is held against: accuracy of each control, and the paired difference."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, get_args

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import mcnemar_p, paired_difference, wilson_interval
from llm2llm.components.shared.data.schemas import SPLITS, Confusion, Control, ControlName, Example, Score, Split

NAMES: tuple[ControlName, ...] = get_args(ControlName)


def count_controls(controls: Sequence[Control], history: Sequence[Score], best: int) -> list[dict[str, Any]]:
    """The part `controls` of the summary, in the order of `ControlName`.

    Args:
        controls: As the journal has them; none while the loop goes on.
        history: All scores so far.
        best: The iteration whose student is delivered.

    Raises:
        UserError: A control that answered other questions than the delivered student.
    """
    delivered = {score.split: score for score in history if score.iteration == best}
    found = []
    for name in NAMES:
        of_name = [one for one in controls if one.name == name]
        if not of_name:
            continue
        found.append(
            {
                "name": name,
                "steps": of_name[0].steps,
                "shots": of_name[0].shots,
                "accuracy": {
                    one.split: {
                        "value": one.accuracy,
                        "low": one.low,
                        "high": one.high,
                        "n": one.n,
                        "unparseable": one.unparseable,
                        "calibration_error": None,
                    }
                    for one in of_name
                },
                "gain": {one.split: _gain(one, delivered.get(one.split)) for one in of_name},
            }
        )
    return found


def _gain(control: Control, delivered: Score | None) -> dict[str, float]:
    """The delivered student's accuracy less the control's, on the same rows."""
    asked = len(control.asked_ids) or control.n
    if delivered is None or (delivered.n < asked if control.asked_ids else delivered.n != asked):
        raise UserError(
            f"report: control {control.name!r} answered {control.n} {control.split} rows, and the delivered student "
            f"{0 if delivered is None else delivered.n}; give the journal of one run"
        )
    right, right_control = set(delivered.correct_ids), set(control.correct_ids)
    if control.asked_ids:
        right &= set(control.asked_ids)
    either = sorted(right | right_control)
    # Rows that neither answers right are equal in both.
    neither = [False] * (control.n - len(either))
    pair = [row in right_control for row in either] + neither, [row in right for row in either] + neither
    difference = paired_difference(*pair)
    return {"value": difference.value, "low": difference.low, "high": difference.high, "p": mcnemar_p(*pair)}


def majority(splits: Mapping[Split, Sequence[Example]], history: Sequence[Score], best: int) -> list[Control]:
    """What answering the seeds' most frequent label would score; of equally frequent ones the first by name.

    Args:
        splits: Seeds, and what was asked.
        history: All scores so far: only splits that the delivered student was asked count.
        best: The iteration whose student is delivered.
    """
    counts = Counter(row.answer for row in splits.get("seeds", []))
    if not counts:
        return []
    label = min(counts, key=lambda answer: (-counts[answer], answer))
    asked = {score.split: score.n for score in history if score.iteration == best}
    found = []
    for split in SPLITS[1:]:
        rows = splits.get(split, [])
        if not rows or asked.get(split) != len(rows):
            continue
        right = sorted(row.id for row in rows if row.answer == label)
        low, high = wilson_interval(len(right), len(rows))
        found.append(
            Control(
                name="majority",
                iteration=best,
                split=split,
                n=len(rows),
                correct=len(right),
                unparseable=0,
                accuracy=len(right) / len(rows),
                low=low,
                high=high,
                correct_ids=right,
            )
        )
    return found


def count_delivered(confusions: Sequence[Confusion], best: int) -> dict[str, Any] | None:
    """The part `delivered` of the summary: what the delivered student answers; None where that was not counted.

    Args:
        confusions: Of all iterations so far.
        best: The iteration whose student is delivered.
    """
    of_best = [one for one in confusions if one.iteration == best]
    if not of_best:
        return None
    splits: dict[str, Any] = {}
    for split in SPLITS:
        cells = [one for one in of_best if one.split == split]
        if cells:
            splits[split] = {
                "n": sum(one.n for one in cells),
                "confusion": [{"right": one.right, "given": one.given, "n": one.n} for one in cells],
                "always": _always(cells),
            }
    return {"iteration": best, "splits": splits}


def _always(cells: Sequence[Confusion]) -> str | None:
    """The one label that is ever given, where there are several right ones."""
    given = {one.given for one in cells}
    several = len({one.right for one in cells}) > 1
    return next(iter(given)) if several and len(given) == 1 else None


TITLES: Mapping[ControlName, str] = {
    "steps": "Seeds alone, as many steps",
    "majority": "Always the most frequent label",
    "untrained": "Before any training",
    "few_shot": "Before any training, seeds in the prompt",
    "teacher": "The teacher itself (ceiling)",
}
"""What a control is called in tables."""


def control_of(summary: Mapping[str, Any], name: ControlName) -> Mapping[str, Any] | None:
    """A control of a summary by its name; None where it was not measured."""
    return next((one for one in summary.get("controls", []) if one["name"] == name), None)
