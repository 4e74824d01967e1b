"""What a converted student is worth: asked again on the same rows, as JSON and in its card.

{"schema_version": 1, "format": "int8", "splits": [{"split": "test", "before": 0.92, "after": 0.915, ...}], ...}
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from llm2llm.components.shared.base.statistics import mcnemar_p, paired_difference
from llm2llm.components.shared.base.text import code_span

SCHEMA_VERSION = 1
FILE = "conversion.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class SplitChange:
    """One set of rows under the student and under the converted one."""

    split: str
    n: int
    before: float
    after: float
    """Accuracies, in [0, 1]."""
    only_before: int
    only_after: int
    """Rows that one of them alone answers right."""
    difference: float
    low: float
    high: float
    """Accuracy after less before, with its 95% paired bootstrap interval."""
    p: float
    """The two-sided p-value of McNemar's exact test."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Converted:
    """A conversion."""

    format: str
    tool: str
    student: str
    """The folder's name, or the version's."""
    mode: str
    """How both were asked: `generate` or `score`."""
    bytes_before: int
    bytes_after: int
    """Of the full weights, and of the converted ones."""
    asked_as: str
    """What was asked: the converted folder itself, or the file's weights in a plain model."""
    splits: list[SplitChange]


def split_change(split: str, before: Sequence[bool], after: Sequence[bool]) -> SplitChange:
    """The paired difference of one set of rows; `before` and `after` say of each row whether it was answered right."""
    found = paired_difference(before, after)
    pairs = list(zip(before, after, strict=True))
    return SplitChange(
        split=split,
        n=len(pairs),
        before=sum(before) / len(pairs),
        after=sum(after) / len(pairs),
        only_before=sum(a and not b for a, b in pairs),
        only_after=sum(b and not a for a, b in pairs),
        difference=found.value,
        low=found.low,
        high=found.high,
        p=mcnemar_p(before, after),
    )


def shown_change(one: SplitChange) -> str:
    """In words, with all figures."""
    return (
        f"{one.split}: {one.n:,} rows, {one.before:.1%} before, {one.after:.1%} after: "
        f"{100 * one.difference:+.1f} points (95% interval {100 * one.low:+.1f} to {100 * one.high:+.1f}, McNemar "
        f"p = {one.p:.2g}; {one.only_before:,} rows lost, {one.only_after:,} gained)"
    )


def converted_text(converted: Converted) -> str:
    """The file's text."""
    values: dict[str, Any] = {"schema_version": SCHEMA_VERSION, **asdict(converted)}
    return json.dumps(values, indent=1, sort_keys=True) + "\n"


def with_conversion(card: str, converted: Converted) -> str:
    """A card with what the conversion has changed."""
    lines = [
        "## Converted",
        "",
        f"These weights are {code_span(converted.format)}, made of {code_span(converted.student)} by "
        f"{code_span(converted.tool)}: {converted.bytes_after / 1e6:,.1f} MB in place of "
        f"{converted.bytes_before / 1e6:,.1f}. The figures above, if there are any, are of the student before. Both "
        f"were asked the same rows, in mode {converted.mode}:",
        "",
        "| Rows | n | Before | After | Difference | 95% interval | McNemar p |",
        "|---|---|---|---|---|---|---|",
        *(
            f"| {one.split} | {one.n:,} | {one.before:.1%} | {one.after:.1%} | {100 * one.difference:+.1f} points | "
            f"{100 * one.low:+.1f} to {100 * one.high:+.1f} | {one.p:.2g} |"
            for one in converted.splits
        ),
        "",
        f"Asked: {converted.asked_as}.",
    ]
    return card.rstrip("\n") + "\n\n" + "\n".join(lines) + "\n"
