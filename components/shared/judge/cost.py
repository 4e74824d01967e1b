"""What a judge cost: its answers -> a prediction's four figures -> their sums by split and iteration -> the report.

The figures are the prices of its answers, whoever paid for them: what the ledger had already is in them, too. Of tokens
and dollars a sum is None where any of its parts is not known.
"""

from collections.abc import Iterable, Sequence
from typing import Any

from llm2llm.components.shared.data.schemas import Control, Decision, Prediction, Score, Trial
from llm2llm.components.shared.llm.requests import LLMResponse

Figures = tuple[int, int | None, int | None, float | None]
NAMES = ("judge_calls", "judge_input_tokens", "judge_output_tokens", "judge_usd")


def cost_of(answers: Iterable[LLMResponse]) -> dict[str, Any]:
    """The fields `NAMES` of a row's prediction, from what the judge answered about it; the same answer counts once."""
    came = {one.key: one for one in answers if one.outcome == "answered"}
    return _sums([(1, one.input_tokens, one.output_tokens, one.usd) for one in came.values()])


def total(rows: Iterable[Prediction | Score | Decision | Control | Trial]) -> dict[str, Any]:
    """The sums of the fields `NAMES` over rows, by name."""
    return _sums([(row.judge_calls, row.judge_input_tokens, row.judge_output_tokens, row.judge_usd) for row in rows])


def _sums(parts: Sequence[Figures]) -> dict[str, Any]:
    judged = [part for part in parts if part[0]]
    if not judged:
        return {"judge_calls": 0, **dict.fromkeys(NAMES[1:])}
    sums = [None if None in values else sum(values) for values in zip(*judged, strict=True)]
    return {**dict(zip(NAMES, sums, strict=True)), "judge_usd": None if sums[3] is None else round(sums[3], 12)}
