"""The verdict: what promotion decided, with all its numbers, as JSON.

    {"schema_version": 1, "outcome": "kept", "reason": "...", "candidate": {...}, "comparison": {...}, ...}

It holds no times, so the same rows give the same file, whether the pointer moved or not.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

SCHEMA_VERSION = 1

Conclusion = Literal["pending", "promoted", "would_promote", "kept"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """A student in a comparison. Its accuracy is that on the rows that both were compared on."""

    version: str
    """Its name in the registry, or what it would be called there."""
    iteration: int
    """The iteration of its run that made it."""
    training_rows: int
    n: int
    correct: int
    accuracy: float
    low: float
    high: float
    """The 95% Wilson interval of the accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceChange:
    """One slice of the validation rows under both students."""

    slice: str
    """`label: refund`, `skill: fractions`."""
    n: int
    incumbent: float
    candidate: float
    """Accuracies, in [0, 1]."""
    change: float
    """The candidate's accuracy less the incumbent's."""
    counts: bool
    """Whether it has enough rows to block a promotion."""
    p: float = 1.0
    """The one-sided p-value of McNemar's exact test that it fell, adjusted by Holm's method for all slices that count;
    1 for one that does not."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """The candidate and the version in production on the same validation rows."""

    rows: int
    both: int
    only_candidate: int
    only_incumbent: int
    neither: int
    """How many rows each answers right."""
    gain: float
    """The candidate's figure by the metric less the incumbent's, in [-1, 1]."""
    low: float
    high: float
    """The paired bootstrap interval of the gain, at 1 - `level`."""
    p: float
    """The two-sided p-value of these two students alone: of McNemar's exact test, or of a permutation test for another
    metric than the accuracy."""
    test: Literal["bootstrap", "mcnemar"]
    """Which of the two decides."""
    level: float
    slices: list[SliceChange]
    """The worst change first."""
    left_out: int
    """Validation rows that the incumbent was trained on, and that were left out for it."""
    answered_now: int
    """Rows that the incumbent was asked for this comparison; its answers to the others came with it."""
    students: int = 1
    """How many students of the run the candidate was the best of, on these rows."""
    metric: str = "accuracy"
    """What gain, interval and p-values are of (`task.metric`)."""
    candidate_value: float | None = None
    incumbent_value: float | None = None
    """Its figures on these rows; None for the accuracy."""
    p_best: float | None = None
    """The two-sided p-value that allows for that (`best_of_p`); None where there was no other student."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GuardChange:
    """One guard set under the model that the candidate was fine-tuned from, and under the candidate."""

    name: str
    """Its task's."""
    n: int
    before: float
    after: float
    """Accuracies, in [0, 1]."""
    max_loss: float
    p: float
    """The one-sided p-value of McNemar's exact test that it fell."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One condition of a promotion."""

    name: Literal[
        "better", "min_gain", "slices", "tells_apart", "first", "new", "not_rolled_back", "comparable", "guards"
    ]
    """`tells_apart`: said only of a student that gives one answer to everything. `first`: with nothing in production,
    that it answers something right. `new`: that it is not in production already. `not_rolled_back`: that no person took
    this very version out of production. `comparable`: that rows are left to compare on."""
    passed: bool
    text: str
    """In words, with the figures."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What promotion decided."""

    outcome: Conclusion
    """`pending`: the run goes on, and decides when it stops. `promoted`: the candidate is in production now.
    `would_promote`: it passed every check, in mode report_only. `kept`: production stays as it is."""
    reason: str
    """One sentence, for a person."""
    run: str
    iteration: int
    """The iteration after which this was written."""
    mode: Literal["report_only", "promote"]
    registry: str
    candidate: Contender | None = None
    """The run's best student so far; None while nothing is compared."""
    incumbent: Contender | None = None
    """The version that was in production; None: there was none."""
    incumbent_generation: int = 0
    """The pointer's generation that the comparison was made against; 0: there was none."""
    generation: int | None = None
    """The pointer's generation that the promotion made."""
    comparison: Comparison | None = None
    """None without an incumbent to compare with."""
    checks: list[Check] = field(default_factory=list)
    """The conditions, in the order in which they were looked at; a failed one that makes the rest pointless is the
    last."""
    guards: list[GuardChange] = field(default_factory=list)
    """What it has forgotten; empty where nothing was asked, as when a check before had failed."""
    rounds: int = 0
    """How often it was decided: above 1 when another run moved the pointer in between."""


def to_json(verdict: Verdict) -> dict[str, Any]:
    """The verdict as `verdict.json` holds it: `schema_version`, then the fields above by name."""
    return {"schema_version": SCHEMA_VERSION, **asdict(verdict)}


def verdict_text(verdict: Mapping[str, Any]) -> str:
    """A verdict, as `to_json` gives it, on one line of JSON: ASCII, keys sorted, so that equal ones are equal bytes."""
    return json.dumps(verdict, sort_keys=True)


def verdict_figures(verdict: Mapping[str, Any]) -> dict[str, float]:
    """What Kubeflow shows of a verdict: whether it was promoted, both accuracies, the gain with its interval."""
    figures: dict[str, float] = {"promoted": float(verdict["outcome"] == "promoted")}
    for name in ("candidate", "incumbent"):
        if verdict.get(name):
            figures[f"{name}_accuracy"] = round(verdict[name]["accuracy"], 4)
    if comparison := verdict.get("comparison"):
        figures |= {
            f"gain{end}": round(comparison[key], 4) for end, key in (("", "gain"), ("_low", "low"), ("_high", "high"))
        }
        figures["p"] = comparison["p"]
    return figures
