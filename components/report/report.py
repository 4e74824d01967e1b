"""The report as one HTML page and as Markdown.

Every text that comes from rows, models or the config is escaped where it enters the page: in HTML by jinja2's
autoescape, in Markdown by `escape_markdown` around every value. The page has no script and asks for nothing.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from llm2llm.components.report.answers import confusion_table, label_scores, most_confused
from llm2llm.components.report.charts import (
    Bar,
    ChartPoint,
    Fill,
    accuracy_chart,
    accuracy_scale,
    bar_chart,
    reliability_chart,
)
from llm2llm.components.report.controls import TITLES
from llm2llm.components.report.cost import cost_sentences, price
from llm2llm.components.report.promotion import SLICES_SHOWN, comparison_sentences, promotion_headline
from llm2llm.components.report.reasons import REASONS
from llm2llm.components.report.samples import kept_rows, last_errors, rejected_rows, suspects_of
from llm2llm.components.report.tuning import tuning_rows
from llm2llm.components.report.verdict import (
    count,
    interval,
    percent,
    probability,
    signed_interval,
    signed_points,
    verdict,
)
from llm2llm.components.shared.base.statistics import FEW_ROWS
from llm2llm.components.shared.data.schemas import SPLITS, Example, Reject, StudentError

KEPT_SHOWN = 5  # generated rows of each iteration
REJECTED_SHOWN = 3  # rejected rows for each reason
ERRORS_SHOWN = 20
CONFUSED_SHOWN = 8
MATRIX_LABELS = 12  # most labels of a confusion matrix that is drawn
REASONS_SHOWN = 8  # columns of the table; rarer reasons share the last one
CUT = 280  # characters of a text that are shown at once
CUT_LINES = 6
WHOLE = 20_000  # characters of a text that are shown at all

FILTERS = {
    "percent": percent,
    "interval": interval,
    "count": count,
    "price": price,
    "points": signed_points,
    "points_interval": signed_interval,
    "probability": probability,
}
"""What templates may do with numbers."""

# Control characters but tab and line feed, halves of surrogate pairs, and noncharacters: no page may hold them.
UNPRINTABLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\ufdd0-\ufdef\ufffe\uffff]")
# These turn the reading order around; a block of HTML contains that, a line of Markdown does not.
REORDERING = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
WORD_JOINER = "\u2060"
ADDRESS = re.compile(r"(?<=[^\W\d_])\.(?=\w)|(?<=\w)\.(?=[^\W\d_])|:(?=//)|@")  # where one would be recognised


def render_html(
    config: Mapping[str, Any],
    summary: Mapping[str, Any],
    training_set: Sequence[Example],
    errors: Sequence[StudentError],
    rejects: Sequence[Reject],
) -> str:
    """The report as one self-contained page.

    Args:
        config: The run's settings, shown as they are.
        summary: As `summarise` makes it from the same rows.
        training_set: Of the last iteration.
        errors: All so far.
        rejects: All so far.
    """
    environment = Environment(
        autoescape=True,
        finalize=_printable,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        loader=FileSystemLoader(Path(__file__).parent),
    )
    environment.filters.update(FILTERS, cut=cut)
    last = summary["iterations"][-1]
    looked = next((one for one in reversed(summary["iterations"]) if one["errors"] is not None), None)
    return environment.get_template("report.html.j2").render(
        style=Markup(Path(__file__).with_name("report.css").read_text(encoding="utf-8")),  # noqa: S704  # our own file
        name=_name(config),
        about=_about(config),
        verdict=verdict(summary),
        summary=summary,
        splits=_splits(summary),
        last=last,
        # The charts are made of numbers and of words that stand in the code.
        accuracy=[Markup(chart) for chart in _accuracy_charts(summary)],  # noqa: S704
        rows=[Markup(chart) for chart in _row_charts(summary)],  # noqa: S704
        reasons=reasons_table(rejects, summary),
        meaning=REASONS,
        kept=kept_rows(training_set, errors, KEPT_SHOWN),
        rejected=rejected_rows(rejects, REJECTED_SHOWN),
        looked=looked,
        errors=last_errors(errors, looked["iteration"], ERRORS_SHOWN) if looked else [],
        errors_shown=ERRORS_SHOWN,
        suspects=suspects_of(errors, looked["iteration"]) if looked else [],
        cost_sentences=cost_sentences(summary["teacher_calls"]),
        leakage_sentence=leakage_sentence(summary["leakage"]),
        gains=_gains(summary),
        controls=_controls(summary),
        trials=tuning_rows(summary.get("tuning")),
        few_rows=FEW_ROWS,
        answers=_answers(summary),
        promotion=_promotion(summary["promotion"]),
        config=yaml.safe_dump(dict(config), sort_keys=False, allow_unicode=True, width=1_000),
    )


def render_markdown(config: Mapping[str, Any], summary: Mapping[str, Any], rejects: Sequence[Reject]) -> str:
    """The report's verdict, its main table and what became of the generated rows.

    Args:
        config: The run's settings; only the name is shown.
        summary: As `summarise` makes it.
        rejects: All so far.
    """
    environment = Environment(
        autoescape=False,  # noqa: S701  # this is Markdown: `finalize` escapes every value
        finalize=escape_markdown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        loader=FileSystemLoader(Path(__file__).parent),
    )
    environment.filters.update(FILTERS)
    return environment.get_template("report.md.j2").render(
        cost_sentences=cost_sentences(summary["teacher_calls"]),
        leakage_sentence=leakage_sentence(summary["leakage"]),
        name=_name(config),
        verdict=verdict(summary),
        summary=summary,
        splits=_splits(summary),
        reasons=reasons_table(rejects, summary),
        gains=_gains(summary),
        controls=_controls(summary),
        trials=tuning_rows(summary.get("tuning")),
        answers=_answers(summary),
        promotion=_promotion(summary["promotion"]),
    )


def leakage_sentence(leakage: Mapping[str, Any] | None) -> str:
    """The verdict of the last check, in words; empty when there was none."""
    if leakage is None:
        return ""
    against = " and ".join(f"{number:,} {name} rows" for name, number in leakage["against"].items() if number)
    checked = f"{count(leakage['checked'], 'row')} of the training set, each held against {against}"
    if not leakage["matches"]:
        return f"{_capital(checked)}: none matches."
    verb = "matches" if leakage["matches"] == 1 else "match"
    return f"{_capital(checked)}: {leakage['matches']:,} {verb} a row that must stay unseen. Do not trust the scores."


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def reasons_table(rejects: Sequence[Reject], summary: Mapping[str, Any]) -> dict[str, Any]:
    """How many rows were rejected for each reason in each iteration.

    Returns:
        `columns`: the reasons, the most frequent first, and `all others` when there are too many; `rows`: for each
        iteration its counts under `counts`, in the order of the columns; `total`: the same for all iterations.
    """
    rejects = [reject for reject in rejects if reject.stage != "prepare"]
    by_reason = Counter(reject.reason for reject in rejects)
    columns = sorted(by_reason, key=lambda reason: (-by_reason[reason], reason))
    others = columns[REASONS_SHOWN:] if len(columns) > REASONS_SHOWN + 1 else []
    columns = columns[: len(columns) - len(others)]

    def counts(within: Sequence[Reject]) -> list[int]:
        found = Counter(reject.reason for reject in within)
        rest = [sum(found[reason] for reason in others)] if others else []
        return [*(found[reason] for reason in columns), *rest]

    rows = [
        {**one, "counts": counts([reject for reject in rejects if reject.iteration == one["iteration"]])}
        for one in summary["by_iteration"]
    ]
    return {
        "columns": [*columns, *(["all others"] if others else [])],
        "rows": rows,
        "total": {
            "generated": summary["rows"]["generated"],
            "kept": summary["rows"]["kept"],
            "rejected": summary["rows"]["rejected"]["total"],
            "counts": counts(rejects),
        },
    }


def cut(text: str) -> tuple[str, str | None]:
    """The beginning of a text, and the whole text if that is longer."""
    text = _printable(text).strip()
    lines = text.split("\n")
    short = "\n".join(lines[:CUT_LINES])
    if len(short) > CUT:
        # At the end of a word, where one ends soon before.
        at = max(short.rfind(" ", CUT - 40, CUT), short.rfind("\n", CUT - 40, CUT))
        short = short[: at if at > 0 else CUT]
    if short == text:
        return text, None
    whole = text if len(text) <= WHOLE else f"{text[:WHOLE]}… ({len(text) - WHOLE:,} more characters)"
    return short.rstrip() + "…", whole


def escape_markdown(value: Any) -> Any:
    """A text as Markdown that shows it as it is, on one line; other values pass through.

    No HTML, link, image, code, emphasis, table cell or list can begin in it. GitHub also makes links of bare addresses,
    escaped or not, so an invisible word joiner breaks those up.
    """
    if not isinstance(value, str):
        return value
    text = REORDERING.sub("", _printable(value))
    text = " ".join(text.split())
    text = ADDRESS.sub(rf"{WORD_JOINER}\g<0>{WORD_JOINER}", text)
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    text = re.sub(r"[\\`*_\[\]|~$]", r"\\\g<0>", text)
    # What starts a heading, a list, a rule or a quotation at the beginning of a line.
    return re.sub(r"^(\d+(?=[.)](?: |$))|(?=[#+=:-]))", r"\1\\", text)


def _printable(value: Any) -> Any:
    """A text with a replacement character for each character that no page may hold; other values pass through."""
    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return UNPRINTABLE.sub("\ufffd", value.replace("\r\n", "\n").replace("\r", "\n"))


def _name(config: Mapping[str, Any]) -> str:
    return str(config.get("name") or "llm2llm run")


def _about(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What was trained on what, by whom, as far as the config says."""
    task, augment = config.get("task"), config.get("teacher_augment")
    teacher = augment if isinstance(augment, Mapping) else {}
    about = {
        "Student": config.get("student"),
        "Task": task.get("name") if isinstance(task, Mapping) else task,
        # eda edits rows without a teacher.
        "Teacher": teacher.get("strategy") != "eda" and (teacher.get("model") or teacher.get("teacher")),
        "Strategy": teacher.get("strategy"),
    }
    return [(key, str(value)) for key, value in about.items() if value]


def _splits(summary: Mapping[str, Any]) -> list[str]:
    """The splits that were asked in any iteration."""
    return [split for split in SPLITS if any(split in one["accuracy"] for one in summary["iterations"])]


def _gains(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The iterations that were compared with iteration 0, each with its gain by split."""
    gains = [
        {
            "iteration": one["iteration"],
            "gain": {split: score["gain"] for split, score in one["accuracy"].items() if score["gain"]},
        }
        for one in summary["iterations"]
    ]
    return [one for one in gains if one["gain"]]


def _controls(summary: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The controls with the words of their names."""
    return [
        {**one, "title": TITLES[one["name"]].replace("seeds in", f"{one['shots']} seeds in")}
        for one in summary["controls"]
    ]


def _answers(summary: Mapping[str, Any]) -> dict[str, Any] | None:
    """What is shown of the answers: of the split that the report is about, but what was cut off of all splits."""
    answers = summary["answers"]
    if answers is None:
        return None
    splits = answers["splits"]
    split = next(split for split in reversed(SPLITS) if split in splits)
    shown = splits[split]
    # Of the delivered student where it was counted, else of the last one.
    delivered = summary["delivered"]
    of_best = delivered["splits"].get(split) if delivered else None
    # Free answers have a confusion only where one is always given, which the verdict tells.
    confusion = (of_best or shown)["confusion"] if shown["confusion"] is not None else None
    reliability = shown["reliability"]
    scored = next(one for one in summary["iterations"] if one["iteration"] == answers["iteration"])["accuracy"][split]
    return {
        "iteration": answers["iteration"],
        "split": split,
        "n": shown["n"],
        "truncated": [(name, one["truncated"], one["n"]) for name, one in splits.items() if one["truncated"]],
        "matrix": confusion_table(confusion, MATRIX_LABELS) if confusion else None,
        "confused_iteration": delivered["iteration"] if of_best else answers["iteration"],
        "labels": len({cell["right"] for cell in confusion}) if confusion else 0,
        "confused": most_confused(confusion, CONFUSED_SHOWN) if confusion else [],
        "by_label": label_scores(confusion, CONFUSED_SHOWN) if confusion else [],
        # Made of numbers and of words that stand in the code.
        "reliability": Markup(reliability_chart(split, reliability)) if reliability else None,  # noqa: S704
        "calibration_error": scored["calibration_error"],
        "fields": shown.get("fields"),
    }


def _promotion(verdict: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """A promotion's verdict with its words."""
    if verdict is None:
        return None
    comparison = verdict["comparison"]
    return {
        **verdict,
        "headline": promotion_headline(verdict),
        "sentences": comparison_sentences(comparison) if comparison else [],
        "slices": comparison["slices"][:SLICES_SHOWN] if comparison else [],
        "slices_total": len(comparison["slices"]) if comparison else 0,
    }


def _accuracy_charts(summary: Mapping[str, Any]) -> list[str]:
    points = {
        split: [
            ChartPoint(one["iteration"], *(one["accuracy"][split][key] for key in ("value", "low", "high")))
            for one in summary["iterations"]
            if split in one["accuracy"]
        ]
        for split in SPLITS
    }
    drawn = {split: row for split, row in points.items() if row}
    scale = accuracy_scale([point for row in drawn.values() for point in row])
    return [accuracy_chart(split, row, summary["best_iteration"], scale) for split, row in drawn.items()]


def _row_charts(summary: Mapping[str, Any]) -> list[str]:
    """The growth of the training set, the errors left, and what became of the generated rows."""
    seeds = summary["rows"]["seeds"]
    kept = {one["iteration"]: one["kept"] for one in summary["by_iteration"]}
    growth = []
    for one in summary["iterations"]:
        new = kept.get(one["iteration"], 0)
        before = sum(rows for iteration, rows in kept.items() if iteration < one["iteration"])
        parts = [seeds, before, new] if kept else [seeds]
        growth.append(Bar(one["iteration"], parts, f"{sum(parts):,}"))
    errors = [
        Bar(one["iteration"], [one["errors"]], f"{one['errors']:,}")
        for one in summary["iterations"]
        if one["errors"] is not None
    ]
    sorts: list[tuple[str, Fill]] = [("seeds", "plain"), ("generated before", "soft"), ("new", "hatched")]
    charts = [
        bar_chart("growth", "Rows of the training set by iteration", sorts if kept else sorts[:1], growth, "rows"),
    ]
    if errors:
        charts.append(bar_chart("errors", "Errors by iteration", [("errors", "plain")], errors, "errors"))
    outcomes = [
        Bar(one["iteration"], [one["kept"], one["rejected"]], f"{one['generated']:,}")
        for one in summary["by_iteration"]
    ]
    if outcomes:
        title = "Generated rows, kept and rejected, by iteration"
        charts.append(bar_chart("outcome", title, [("kept", "plain"), ("rejected", "hatched")], outcomes, "rows"))
    return charts
