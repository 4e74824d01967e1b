"""Promotion verdicts as `promote` writes them, for the report's tests."""

from typing import Any

from llm2llm.components.promote.verdict import Check, Comparison, Contender, SliceChange, Verdict, to_json
from llm2llm.components.shared.base.statistics import wilson_interval


def contender(version: str, correct: int, n: int = 200) -> Contender:
    low, high = wilson_interval(correct, n)
    return Contender(
        version=version, iteration=1, training_rows=6, n=n, correct=correct, accuracy=correct / n, low=low, high=high
    )


def comparison(**fields: Any) -> Comparison:
    slices = [
        SliceChange(slice="label: refund", n=80, incumbent=0.5, candidate=0.45, change=-0.05, counts=True),
        SliceChange(slice="label: rare", n=4, incumbent=0.5, candidate=0.75, change=0.25, counts=False),
    ]
    return Comparison(
        **{
            "rows": 200, "both": 90, "only_candidate": 40, "only_incumbent": 10, "neither": 60, "gain": 0.15,
            "low": 0.08, "high": 0.22, "p": 0.00002, "test": "bootstrap", "level": 0.05, "slices": slices,
            "left_out": 0, "answered_now": 200, **fields,
        }
    )  # fmt: skip


def verdict(outcome: Any, text: str = "", **fields: Any) -> dict[str, Any]:
    """A verdict with everything in it; `text` in every field that holds one."""
    checks = [
        Check(name="better", passed=True, text=text or "the interval lies above 0"),
        Check(name="slices", passed=outcome != "kept", text=text or "label: refund falls by 5.0 points"),
    ]
    found = comparison()
    if text:
        found = comparison(slices=[SliceChange(slice=text, n=9, incumbent=0.1, candidate=0.2, change=0.1, counts=True)])
    whole = Verdict(
        **{
            "outcome": outcome, "reason": text or f"this is why it is {outcome}", "run": text or "run-1",
            "iteration": 2, "mode": "promote", "registry": text or "s3://registry",
            "candidate": contender(text or "v-new", 130), "incumbent": contender(text or "v-old", 100),
            "comparison": found, "checks": checks, "rounds": 1, **fields,
        }
    )  # fmt: skip
    return to_json(whole)
