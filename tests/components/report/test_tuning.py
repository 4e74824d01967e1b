"""The trials of `tune` in the report: a table, what was chosen, and why."""

from pathlib import Path

import pytest

from llm2llm.components.report.report import render_html, render_markdown
from llm2llm.components.report.summary import summarise
from llm2llm.components.report.tuning import count_trials
from llm2llm.components.shared.data.schemas import Trial
from tests.support.builders import decision, example, score, trial

SEEDS = [example(f"seed {n}") for n in range(4)]
IDS = [f"row {n:02}" for n in range(40)]
TRIALS = [
    trial(0, '{"learning_rate": 1e-05, "epochs": 1.0}', IDS[:10], 40),
    trial(1, '{"learning_rate": 0.0001, "epochs": 1.0}', IDS[:34], 40, chosen=True),
    trial(2, '{"learning_rate": 0.0001, "epochs": 2.0}', IDS[6:40], 40),
    trial(3, '{"learning_rate": 1e+30, "epochs": 1.0}', [], 40, failed="train: the loss is nan <b>at step 2</b>"),
]


def summary(trials: list[Trial]) -> dict[str, object]:
    return summarise(
        SEEDS, [score(0, "validation", 2, 4), score(0, "seeds", 2, 4)], [], [decision(0, 0)], [], [], trials=trials
    )


def test_the_summary_says_what_was_chosen_and_why() -> None:
    tuning = count_trials(TRIALS[::-1])
    assert tuning is not None
    assert tuning["chosen"] == {"learning_rate": 0.0001, "epochs": 1.0}
    assert tuning["reason"] == (
        "the highest accuracy on 40 validation rows: 85.0%; the first of 2 equals in the given order; "
        "1 of the other 2 may be as good (the paired 95% interval of the accuracy holds 0); 1 ended without a student"
    )
    first, chosen, equal, failed = tuning["trials"]
    assert first["behind"]["value"] == pytest.approx(24 / 40)
    assert first["behind"]["low"] > 0
    assert (chosen["behind"], failed["behind"]) == (None, None)
    assert equal["behind"]["value"] == 0
    assert equal["behind"]["low"] < 0 < equal["behind"]["high"]
    assert count_trials([]) is None


def test_what_decides_is_shown_where_it_is_not_the_accuracy() -> None:
    of_f1 = {"metric": "macro_f1", "value_low": 0.3, "value_high": 0.7}
    by_f1 = [
        trial(0, '{"epochs": 1.0}', IDS[:20], 40, value=0.6, chosen=True, **of_f1),
        trial(1, '{"epochs": 2.0}', IDS[:30], 40, value=0.4, **of_f1),
    ]
    tuning = count_trials(by_f1)
    assert tuning is not None
    assert tuning["reason"].startswith("the highest macro f1 on 40 validation rows: 60.0%; 1 of the other 1 may")
    assert tuning["trials"][0]["decides"] == {"name": "macro_f1", "value": 0.6, "low": 0.3, "high": 0.7}
    assert "| Settings | Accuracy | Macro f1 |" in render_markdown({}, summary(by_f1), [])


def test_the_report_has_a_table_of_trials_with_intervals(tmp_path: Path) -> None:
    page = render_html({"name": "x"}, summary(TRIALS), SEEDS, [], [])
    assert "Settings that were tried" in page
    assert "learning_rate 0.0001, epochs 1 (chosen)" in page
    assert "70.9% to 92.9%" in page
    assert "<b>at step 2" not in page
    assert "&lt;b&gt;at step 2" in page
    text = render_markdown({"name": "x"}, summary(TRIALS), [])
    assert "| learning\\_rate 0.0001, epochs 1 (chosen) | 85.0% (70.9% to 92.9%), n = 40 |" in text
    assert "Settings that were tried" not in render_html({"name": "x"}, summary([]), SEEDS, [], [])
    assert "Settings that were tried" not in render_markdown({"name": "x"}, summary([]), [])
