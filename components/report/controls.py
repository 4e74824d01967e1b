"""What the delivered student is held against: accuracy of each control, and the paired difference."""

from collections.abc import Mapping, Sequence
from typing import Any, get_args

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import mcnemar_p, paired_difference
from llm2llm.components.shared.data.schemas import Control, ControlName, Score

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
    if delivered is None or delivered.n != control.n:
        raise UserError(
            f"report: control {control.name!r} answered {control.n} {control.split} rows, and the delivered student "
            f"{0 if delivered is None else delivered.n}; give the journal of one run"
        )
    right, right_control = set(delivered.correct_ids), set(control.correct_ids)
    either = sorted(right | right_control)
    # Rows that neither answers right are equal in both.
    neither = [False] * (control.n - len(either))
    pair = [row in right_control for row in either] + neither, [row in right for row in either] + neither
    difference = paired_difference(*pair)
    return {"value": difference.value, "low": difference.low, "high": difference.high, "p": mcnemar_p(*pair)}


TITLES: Mapping[ControlName, str] = {
    "steps": "Seeds alone, as many steps",
}
"""What a control is called in tables."""


def control_of(summary: Mapping[str, Any], name: ControlName) -> Mapping[str, Any] | None:
    """A control of a summary by its name; None where it was not measured."""
    return next((one for one in summary.get("controls", []) if one["name"] == name), None)
