"""The verdict of `promote` in words."""

import json
import os
from collections.abc import Mapping
from typing import Any

from llm2llm.components.report.verdict import count, probability, signed_interval, signed_points
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import without_record

SCHEMA_VERSION = 1
HEADLINES = {
    "pending": "Nothing is promoted yet",
    "promoted": "Promoted: it is in production now",
    "would_promote": "It would be promoted; this registry is set to report only",
    "kept": "Production stays as it is",
}
SLICES_SHOWN = 12


def read_promotion(path: str | os.PathLike[str], iteration: int) -> dict[str, Any]:
    """The verdict in a file.

    Raises:
        UserError: Not a verdict, of another version, or of another iteration.
    """
    fix = "give the verdict of the same iteration's promote"
    try:
        with open(path, encoding="utf-8") as file:
            verdict = json.load(file)
    except OSError as problem:
        raise UserError(f"cannot read {os.fspath(path)}: {problem.strerror}") from problem
    except ValueError as problem:
        raise UserError(f"{os.fspath(path)}: the promotion's verdict is not JSON: {problem}; {fix}") from None
    if not isinstance(verdict, dict) or verdict.get("outcome") not in HEADLINES:
        raise UserError(f"{os.fspath(path)}: is no verdict of a promotion; {fix}")
    if verdict.get("schema_version") != SCHEMA_VERSION:
        raise UserError(
            f"{os.fspath(path)}: the promotion's verdict has version {verdict.get('schema_version')!r}, and this "
            f"llm2llm knows {SCHEMA_VERSION}; use one llm2llm for the whole run"
        )
    if verdict["iteration"] != iteration:
        raise UserError(
            f"{os.fspath(path)}: is the verdict of iteration {verdict['iteration']}, not {iteration}; {fix}"
        )
    return without_record(verdict)


def promotion_headline(verdict: Mapping[str, Any]) -> str:
    """The outcome in a few words."""
    return HEADLINES[verdict["outcome"]]


def comparison_sentences(comparison: Mapping[str, Any]) -> list[str]:
    """A paired comparison in words with figures."""
    metric = comparison.get("metric", "accuracy")
    paired = "McNemar's exact test" if metric == "accuracy" else "a permutation test"
    test = "the paired bootstrap" if comparison["test"] == "bootstrap" else paired
    of = "" if metric == "accuracy" else f" of {metric}"
    gain, level = signed_points(comparison["gain"]), comparison["level"]
    sentences = [
        f"On the same {count(comparison['rows'], 'validation row')} the candidate is at {gain}{of} against the version "
        f"in production ({100 * (1 - level):g}% paired bootstrap interval {signed_interval(comparison)}; {paired}: "
        f"{probability(comparison['p'])}); {test} decides, at level {level:g}.",
        f"Both answer {comparison['both']:,} of them right, only the candidate {comparison['only_candidate']:,}, only "
        f"the version in production {comparison['only_incumbent']:,}, neither {comparison['neither']:,}.",
    ]
    if comparison.get("p_best") is not None:
        sentences.insert(
            1,
            f"It is the best of {comparison['students']} students of its run on these rows. A permutation test that "
            f"allows for the choice must agree: {probability(comparison['p_best'])}.",
        )
    if comparison["left_out"]:
        sentences.append(
            f"The version in production was trained on {count(comparison['left_out'], 'validation row')} of this run, "
            "which count for neither."
        )
    return sentences
