"""Settings of the training that were tried before the loop: every trial, what was chosen, and why."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from llm2llm.components.shared.base.statistics import mcnemar_p, paired_difference
from llm2llm.components.shared.data.schemas import Trial


def count_trials(trials: Sequence[Trial]) -> dict[str, Any] | None:
    """The part `tuning` of the summary; None where nothing was tried."""
    if not trials:
        return None
    ordered = sorted(trials, key=lambda one: one.number)
    (best,) = [one for one in ordered if one.chosen]
    return {
        "chosen": json.loads(best.settings),
        "reason": _reason(ordered, best),
        "split": best.split,
        "folds": best.folds,
        "metric": best.metric,
        "trials": [
            {
                "settings": json.loads(one.settings),
                "chosen": one.chosen,
                "failed": one.failed,
                "n": one.n,
                "unparseable": one.unparseable,
                "accuracy": {"value": one.accuracy, "low": one.low, "high": one.high},
                "decides": None
                if one.value is None
                else {"name": one.metric, "value": one.value, "low": one.value_low, "high": one.value_high},
                "behind": None if one.chosen or one.failed else _behind(one, best),
            }
            for one in ordered
        ],
    }


def _behind(trial: Trial, best: Trial) -> dict[str, float]:
    """How far a trial's accuracy is behind that of the chosen one, on the same rows."""
    right, right_best = set(trial.correct_ids), set(best.correct_ids)
    either = sorted(right | right_best)
    # Rows that neither answers right are equal in both.
    neither = [False] * (trial.n - len(either))
    pair = [row in right for row in either] + neither, [row in right_best for row in either] + neither
    difference = paired_difference(*pair)
    return {"value": difference.value, "low": difference.low, "high": difference.high, "p": mcnemar_p(*pair)}


def _reason(trials: Sequence[Trial], best: Trial) -> str:
    others = [one for one in trials if not one.chosen and not one.failed]
    equal = sum(one.decides == best.decides for one in others)
    near = sum(_behind(one, best)["low"] <= 0 for one in others)
    asked = f"{best.n:,} {best.split} rows" + (f" by {best.folds} folds" if best.folds else "")
    said = f"the highest {best.metric.replace('_', ' ')} on {asked}: {best.decides:.1%}"
    if equal:
        said += f"; the first of {equal + 1} equals in the given order"
    failed = sum(bool(one.failed) for one in trials)
    return (
        f"{said}; {near} of the other {len(others)} may be as good (the paired 95% interval of the accuracy holds 0)"
        + (f"; {failed} ended without a student" if failed else "")
    )


def tuning_rows(tuning: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """The trials with their settings in words, for tables."""
    return [
        {**one, "words": ", ".join(f"{key} {_shown(value)}" for key, value in one["settings"].items())}
        for one in (tuning["trials"] if tuning else [])
    ]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
