"""Cost of teacher and judge: tokens and money by iteration and purpose, for each kept row and each point gained.

The figures are the prices of the calls, whoever paid for them: a run that finds them all in the ledger pays nothing and
reports the same.
"""

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from llm2llm.components.report.verdict import count
from llm2llm.components.shared.data.schemas import Call, Control, Decision, Score, Trial
from llm2llm.components.shared.judge.cost import total


def teacher_costs(
    calls: Sequence[Call], kept: int, iterations: Sequence[Mapping[str, Any]], best: int
) -> dict[str, Any]:
    """The part `teacher_calls` of the summary.

    Args:
        calls: All so far.
        kept: Generated rows in the training set.
        iterations: The summary's iterations, with their accuracies.
        best: The iteration that validation chooses.
    """
    total = _sums(calls)
    written = [call for call in calls if call.purpose != "ceiling"]
    return {
        **total,
        "by_iteration": _grouped(calls, "iteration", lambda call: call.iteration),
        "by_strategy": _grouped(calls, "strategy", lambda call: call.strategy or ""),
        "by_purpose": _grouped(calls, "purpose", lambda call: call.purpose),
        "by_teacher": _grouped(
            calls, "teacher", lambda call: f"{call.teacher}:{call.model}" if call.model else call.teacher
        ),
        "per_kept_row": _divided(_sums(written), kept),
        "per_point": _per_point(written, iterations, best),
    }


def judge_costs(
    history: Sequence[Score],
    decisions: Sequence[Decision],
    controls: Sequence[Control] = (),
    trials: Sequence[Trial] = (),
) -> dict[str, Any] | None:
    """The part `judge_calls` of the summary; None where no answer was judged.

    Args:
        history: All scores so far, which hold what judging each split cost.
        decisions: All decisions so far, which hold what judging the folds cost.
        controls: Counted with the iteration that they are compared with.
        trials: Counted with iteration 0.
    """
    judged: list[Score | Decision | Control | Trial] = [*history, *decisions, *controls, *trials]
    rows = [row for row in judged if row.judge_calls]
    if not rows:
        return None
    iterations = sorted({row.iteration for row in rows})
    return {
        **_of_judge(rows),
        "by_iteration": [
            {"iteration": i, **_of_judge([row for row in rows if row.iteration == i])} for i in iterations
        ],
    }


def _of_judge(rows: Sequence[Score | Decision | Control | Trial]) -> dict[str, Any]:
    sums = total(rows)
    usd = sums["judge_usd"]
    return {
        "total": sums["judge_calls"],
        "input_tokens": sums["judge_input_tokens"],
        "output_tokens": sums["judge_output_tokens"],
        "usd": None if usd is None else round(usd, 6),
        "unpriced": sums["judge_calls"] if usd is None else 0,
    }


def _sums(calls: Sequence[Call]) -> dict[str, Any]:
    priced = [call.usd for call in calls if call.usd is not None]
    counted = [call for call in calls if call.input_tokens is not None or call.output_tokens is not None]
    return {
        "total": len(calls),
        "answered": sum(call.outcome == "answered" for call in calls),
        "failed": sum(call.outcome == "failed" for call in calls),
        "input_tokens": sum(call.input_tokens or 0 for call in counted) if counted else None,
        "output_tokens": sum(call.output_tokens or 0 for call in counted) if counted else None,
        "usd": round(sum(priced), 6) if priced else None,
        "unpriced": sum(call.usd is None for call in counted),
    }


def _grouped(calls: Sequence[Call], name: str, of: Callable[[Call], Any]) -> list[dict[str, Any]]:
    groups: dict[Any, list[Call]] = defaultdict(list)
    for call in calls:
        groups[of(call)].append(call)
    return [{name: key, **_sums(groups[key])} for key in sorted(groups)]


def _divided(sums: Mapping[str, Any], by: float) -> dict[str, Any]:
    """Tokens and dollars for each of `by`; null where there are none of either."""
    tokens = None if sums["input_tokens"] is None else sums["input_tokens"] + sums["output_tokens"]
    return {
        "tokens": round(tokens / by, 1) if tokens is not None and by > 0 else None,
        "usd": round(sums["usd"] / by, 6) if sums["usd"] is not None and by > 0 else None,
    }


def _per_point(calls: Sequence[Call], iterations: Sequence[Mapping[str, Any]], best: int) -> dict[str, Any] | None:
    """What each point of accuracy that the best iteration is ahead of the first cost up to then, on the test split or
    without one on validation; null without a gain."""
    by_number = {one["iteration"]: one["accuracy"] for one in iterations}
    first = min(by_number)
    split = next((one for one in ("test", "validation") if one in by_number[first] and one in by_number[best]), None)
    if split is None:
        return None
    points = 100 * (by_number[best][split]["value"] - by_number[first][split]["value"])
    until = [call for call in calls if call.iteration <= best]
    if points <= 0 or not until:
        return None
    return {"split": split, "points": round(points, 4), **_divided(_sums(until), points)}


def price(sums: Mapping[str, Any]) -> str:
    """The money of a line of sums in words: `$1.25`, `at least $1.25` where some prices are not known."""
    if sums["usd"] is None:
        return "not known" if sums["unpriced"] else "none"
    return ("at least " if sums["unpriced"] else "") + dollars(sums["usd"])


def dollars(usd: float) -> str:
    """An amount with at least two decimals and at least two digits that are not zero: `$12.30`, `$0.0042`."""
    if usd == 0 or usd >= 0.1:
        return f"${usd:,.2f}"
    return f"${usd:.2g}" if usd >= 0.0001 else f"${usd:.1e}"


def cost_sentences(calls: Mapping[str, Any]) -> list[str]:
    """What a kept row and a point of accuracy cost, in words; nothing where it is not known.

    Args:
        calls: The summary's `teacher_calls`.
    """
    sentences = []
    if amount := _amount(calls["per_kept_row"]):
        sentences.append(f"Each row that was kept took {amount}.")
    gain = calls["per_point"]
    if gain and (amount := _amount(gain)):
        sentences.append(
            f"Each point of accuracy on the {gain['split']} split, of the {gain['points']:.1f} that the best iteration "
            f"is ahead of the first, took {amount}."
        )
    return sentences


def _amount(each: Mapping[str, Any]) -> str:
    parts = []
    if each["tokens"] is not None:
        parts.append(count(round(each["tokens"]), "token"))
    if each["usd"] is not None:
        parts.append(dollars(each["usd"]))
    return " and ".join(parts)
