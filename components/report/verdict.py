"""The headline of a report: the outcome of a run, with figures."""

from collections.abc import Mapping
from dataclasses import dataclass
from textwrap import shorten
from typing import Any, Literal

from llm2llm.components.report.controls import control_of
from llm2llm.components.shared.base.statistics import FEW_ROWS
from llm2llm.components.shared.data.schemas import ControlName


@dataclass(frozen=True)
class Headline:
    """The report's first words. They hold reasons from the rows, so whoever shows them escapes them."""

    outcome: Literal["better", "worse", "unclear", "open"]
    """`unclear`: the intervals overlap, or there is no difference. `open`: there is nothing to compare (with) yet."""
    headline: str
    sentences: list[str]


def verdict(summary: Mapping[str, Any]) -> Headline:
    """Compares the best iteration by validation with the seeds alone, on the test split where there is one.

    The seeds alone had as many optimiser steps where that control was measured; else it is iteration 0.

    Args:
        summary: As `summarise` returns it.
    """
    iterations = {one["iteration"]: one for one in summary["iterations"]}
    first, last = summary["iterations"][0], summary["iterations"][-1]
    best = iterations[summary["best_iteration"]]
    ending = _ending(last)
    if unlearnt := not_learnt(best):
        return Headline(
            "open", "The student has not learnt to answer", [unlearnt, *_of_seeds_alone(best, summary), ending]
        )
    if one_label := always_one(summary):
        return Headline(
            "open", "The student always gives the same answer", [one_label, *_of_seeds_alone(best, summary), ending]
        )
    if len(iterations) == 1:
        return Headline("open", "Nothing to compare with yet", [_only(first, summary), ending])
    if best is first and first["accuracy"]["validation"]["value"] == 1:
        return Headline(
            "open",
            "Nothing left to gain: iteration 0 answers every validation question rightly",
            ["Take more or harder validation rows to see a difference.", _test_of(first), ending],
        )
    if best is first:
        return Headline(
            "worse",
            f"The added rows did not help: iteration {first['iteration']} is still the best",
            [_none_better(first, last, summary), _test_of(first), ending],
        )
    control = control_of(summary, "steps")
    if control is None:
        outcome, headline, comparison = _compare(first, best, f"in iteration {first['iteration']}", "")
        comparison += _fewer_steps(first, best, last)
    else:
        alone = {**control, "training_rows": first["training_rows"]}
        held = {**best, "accuracy": _against(best["accuracy"], control["gain"])}
        steps = count(control["steps"], "optimiser step")
        outcome, headline, comparison = _compare(
            alone,
            held,
            f"of the seeds alone, trained for as many steps ({steps})",
            " than the seeds alone with as many steps",
        )
        comparison += _of_first(first, best)
    comparison += _not_ahead(summary)
    return Headline(outcome, headline, [_best(first, best, summary), *comparison, ending])


def _of_seeds_alone(best: Mapping[str, Any], summary: Mapping[str, Any]) -> list[str]:
    """What the seeds alone come to at equal steps, where another headline does not say it."""
    control = control_of(summary, "steps")
    gains = control["gain"] if control else {}
    split = next((one for one in ("test", "validation") if one in gains), None)
    if control is None or split is None:
        return []
    own, alone = (percent(one["accuracy"][split]["value"]) for one in (best, control))
    return [
        f"The seeds alone, trained for as many steps, have {alone} on the {split} split, and this student {own}: "
        f"{signed_points(gains[split]['value'])}."
    ]


def always_one(summary: Mapping[str, Any]) -> str:
    """Says that the delivered student answers every question with one label; empty where it does not."""
    delivered = summary.get("delivered")
    if not delivered:
        return ""
    split = next((one for one in ("test", "validation") if one in delivered["splits"]), None)
    label = delivered["splits"][split]["always"] if split else None
    if split is None or label is None:
        return ""
    return (
        f"The student of iteration {delivered['iteration']} answers "
        f"{shorten(label, 80, placeholder=' ...')!r} to each of the "
        f"{count(delivered['splits'][split]['n'], f'{split} question')}: it has not learnt to tell them apart. "
        "Raise train.learning_rate or train.epochs, or, for labels, set train.class_weights: balanced."
    )


_AS_WELL: tuple[tuple[ControlName, str], ...] = (
    ("majority", "Always answering the most frequent label of the seeds"),
    ("untrained", "The student before any training"),
    ("few_shot", "The student before any training, with {shots} in its prompt,"),
)
"""What a student must be ahead of to have learnt anything, and what that is called at the beginning of a sentence."""


def _not_ahead(summary: Mapping[str, Any]) -> list[str]:
    """Says which controls that cost nothing do as well; nothing where the student is ahead of them."""
    found = []
    for name, words in _AS_WELL:
        control = control_of(summary, name)
        gains = control["gain"] if control else {}
        split = next((one for one in ("test", "validation") if one in gains), None)
        if control is None or split is None or gains[split]["value"] > 0:
            continue
        score = percent(control["accuracy"][split]["value"])
        who = words.format(shots=count(control["shots"], "seed"))
        found.append(f"{who} does as well: {score} on the {split} split.")
    return found


def _against(accuracy: Mapping[str, Any], gains: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracies with their gain over a control in place of that over iteration 0."""
    return {split: {**accuracy[split], "gain": gain} for split, gain in gains.items()}


def _of_first(first: Mapping[str, Any], best: Mapping[str, Any]) -> list[str]:
    """How much there is over iteration 0, of which the steps alone may be a part."""
    split = _split(first, best)
    if split is None or not best["accuracy"][split]["gain"]:
        return []
    before = first["accuracy"][split]
    return [
        f"Iteration {first['iteration']}, with {count(first['steps'], 'step')}, has {percent(before['value'])} on the "
        f"{split} split: {signed_points(best['accuracy'][split]['gain']['value'])} since then, by more steps and "
        "more rows together."
    ]


def _fewer_steps(first: Mapping[str, Any], best: Mapping[str, Any], last: Mapping[str, Any]) -> list[str]:
    """Says that a comparison with iteration 0 is not one of equal compute; nothing where it is, or is not known."""
    if not 0 < first["steps"] < best["steps"]:
        return []
    known = f"Iteration {first['iteration']} had {first['steps']:,} optimiser steps and this one {best['steps']:,}"
    if last["go_on"]:
        return [f"{known}; once the loop has ended, the seeds alone are trained for as many (controls.steps)."]
    return [f"{known}: part of the difference may come from the steps (controls.steps: true trains the control)."]


def not_learnt(best: Mapping[str, Any]) -> str:
    """Says that no answer can be read from most completions, and what to do; empty where that is not so. Comparing such
    students would say nothing about the rows that were added.

    Args:
        best: The best iteration, one of a summary's `iterations`.
    """
    score = best["accuracy"].get("validation")
    if score is None or 2 * score["unparseable"] <= score["n"]:
        return ""
    return (
        f"{score['unparseable']} of the {score['n']} validation answers are unparseable: the student has not learnt to "
        "answer. Raise train.learning_rate (an adapter: 2.0e-4, a student from scratch: 1.0e-3) or train.epochs."
    )


def percent(share: float) -> str:
    """A share in [0, 1] as a percentage with one decimal."""
    return f"{100 * share:.1f}%"


def interval(score: Mapping[str, Any]) -> str:
    """The bounds of an accuracy's 95% interval."""
    return f"{percent(score['low'])} to {percent(score['high'])}"


def count(number: int, noun: str) -> str:
    """`1 row`, `2 rows`, `1,200 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def points(difference: float) -> str:
    """A difference of shares in percentage points, without its sign; the figure is the difference before rounding."""
    number = f"{100 * abs(difference):.1f}"
    if number == "0.0":
        number = "less than 0.1"
    return f"{number} point" if number == "1.0" else f"{number} points"


def signed_points(difference: float) -> str:
    """A difference of shares in percentage points, with its sign: `+1.5 points`, `\u22120.3 points`."""
    number = _signed(difference)
    return f"{number} point" if number[1:] == "1.0" else f"{number} points"


def signed_interval(bounds: Mapping[str, Any]) -> str:
    """The `low` and `high` of a difference: `+0.5 to +2.5 points`."""
    return f"{_signed(bounds['low'])} to {_signed(bounds['high'])} points"


def _signed(difference: float) -> str:
    number = f"{100 * abs(difference):.1f}"
    return number if number == "0.0" else ("+" if difference > 0 else "\u2212") + number


def probability(p: float) -> str:
    """A p-value in words: `p = 0.03`, `p < 0.001`."""
    if p < 0.001:
        return "p < 0.001"
    return f"p = {p:.3f}" if p < 0.01 else f"p = {p:.2f}"


def _basis(score: Mapping[str, Any]) -> str:
    return f"95% interval {interval(score)}, {count(score['n'], 'question')}"


def _only(first: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    added = summary["rows"]["kept"]
    rows = count(first["training_rows"], "row")
    trained = f"{rows}, {added:,} of them generated" if added else f"{rows}, none of them generated"
    split = _split(first, first)
    only = f"Only iteration {first['iteration']} has run{' so far' if first['go_on'] else ''}"
    if split is None:
        return f"{only}: its student was trained on {trained}."
    score = first["accuracy"][split]
    return (
        f"{only}: its student, trained on {trained}, answers "
        f"{percent(score['value'])} of the {split} questions right ({_basis(score)})."
    )


def _none_better(first: Mapping[str, Any], last: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    later = len(summary["iterations"]) - 1
    score = first["accuracy"].get("validation")
    figure = f" ({percent(score['value'])}, {_basis(score)})" if score else ""
    if decides := (score or {}).get("decides"):
        figure = f" ({decides['name']} {percent(decides['value'])}, 95% interval {interval(decides)})"
    return (
        f"By validation, {'the one later iteration is' if later == 1 else f'none of the {later} later iterations is'} "
        f"{'not ' if later == 1 else ''}better than iteration {first['iteration']}{figure}, although the training set "
        f"grew from {first['training_rows']:,} to {count(last['training_rows'], 'row')}."
    )


def _test_of(only: Mapping[str, Any]) -> str:
    score = only["accuracy"].get("test")
    if score is None:
        return "There is no test split to report on."
    return f"On the test split iteration {only['iteration']} scores {percent(score['value'])} ({_basis(score)})."


def _best(first: Mapping[str, Any], best: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    added = sum(one["kept"] for one in summary["by_iteration"] if one["iteration"] <= best["iteration"])
    score = best["accuracy"].get("validation")
    base = first["accuracy"].get("validation")
    figure = ""
    if score and base:
        figure = f", with {percent(score['value'])} against {percent(base['value'])} in iteration {first['iteration']}"
        if (now := score.get("decides")) and (then := base.get("decides")):
            figure = (
                f", with a {now['name']} of {percent(now['value'])} against {percent(then['value'])} in iteration "
                f"{first['iteration']}"
            )
    return (
        f"By validation, iteration {best['iteration']} is the best{figure}; its student was trained on "
        f"{count(best['training_rows'], 'row')}, {count(added, 'generated row')} among them."
    )


def _split(first: Mapping[str, Any], best: Mapping[str, Any]) -> str | None:
    """The split to compare on: test, or validation for want of one."""
    both = first["accuracy"].keys() & best["accuracy"].keys()
    return next((split for split in ("test", "validation") if split in both), None)


def _compare(
    first: Mapping[str, Any], best: Mapping[str, Any], of_first: str, than: str
) -> tuple[Literal["better", "worse", "unclear", "open"], str, list[str]]:
    """The outcome, headline and sentences.

    Args:
        first: What the best iteration is compared with: its `accuracy` by split.
        best: The best iteration, with its `gain` over that.
        of_first: Whose accuracy that is, after the figure.
        than: The same in the headline; empty for iteration 0.
    """
    split = _split(first, best)
    if split is None:
        return "open", "Nothing to compare on", ["Neither a test nor a validation split has been asked."]
    before, after = first["accuracy"][split], best["accuracy"][split]
    difference = after["value"] - before["value"]
    may_be_chance, basis = _chance(before, after)
    figures = (
        f"{percent(after['value'])} ({_basis(after)}) against "
        f"{percent(before['value'])} ({interval(before)}) {of_first}"
    )
    sentences = []
    if split == "validation":
        sentences.append(
            "There is no test split, so the comparison rests on the validation split; the iteration was chosen on it, "
            "which flatters the figure."
        )
    if difference == 0:
        sentences.append(f"On the {split} split its accuracy is {figures}: no difference.")
        return "unclear", f"{f'No better{than}' if than else 'No difference'} on the {split} split", sentences
    direction = "higher" if difference > 0 else "lower"
    sentences.append(f"On the {split} split its accuracy is {figures}: {points(difference)} {direction}.")
    sentences.append(basis)
    if difference < 0:
        sentences.append("On these rows it got worse, not better.")
        chance = ", which may be chance" if may_be_chance else ""
        return "worse", f"Worse: {points(difference)} lower{than} on the {split} split{chance}", sentences
    if may_be_chance:
        higher = f"{_capital(points(difference))} higher{than}"
        return "unclear", f"{higher} on the {split} split, which may be chance", sentences
    return "better", f"Better: {points(difference)} higher{than} on the {split} split", sentences


def _chance(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[bool, str]:
    """Whether a difference may be chance, and what says so: the paired comparison, or for want of one whether the two
    intervals overlap, which sees less."""
    if gain := after["gain"]:
        may_be = gain["low"] <= 0 <= gain["high"] or (after["n"] < FEW_ROWS and gain["p"] >= 0.05)
        return may_be, (
            f"Question by question, the 95% interval of the difference is {signed_interval(gain)} (paired bootstrap; "
            f"McNemar's exact test: {probability(gain['p'])})" + (": it may be chance." if may_be else ".")
        )
    if after["low"] <= before["high"] and before["low"] <= after["high"]:
        return True, "The two intervals overlap: a difference of this size may be chance."
    return False, "The two intervals do not overlap."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _ending(last: Mapping[str, Any]) -> str:
    if last["go_on"]:
        return f"The loop goes on after iteration {last['iteration']}: {last['reason']}."
    return f"The loop stopped after iteration {last['iteration']}: {last['reason']}."
