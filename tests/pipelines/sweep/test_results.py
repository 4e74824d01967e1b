"""The table of a sweep: means, intervals, paired differences, curves, in every format."""

import csv
import io
import re
from math import isclose
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from llm2llm.pipelines.sweep.plot import plot
from llm2llm.pipelines.sweep.results import PointResult, curves_of, outcome_of, rows_of
from llm2llm.pipelines.sweep.tables import latex_table, markdown_table, points_csv, table_csv, text_table
from tests.support.sweeps import point_of, run_summary, sweep_of

THREE = {"training": [0, 1, 2]}


def outcome(arm: str, accuracy: list[float], data: int = 0, training: int = 0, **others: object) -> PointResult:
    return outcome_of(point_of(arm, data, training), run_summary(accuracy, **others))  # type: ignore[arg-type]


def test_means_and_paired_differences_have_t_intervals() -> None:
    before, after = [0.5, 0.6, 0.4], [0.7, 0.9, 0.5]
    outcomes = [outcome("random", [0.1, value], training=i) for i, value in enumerate(before)]
    outcomes += [outcome("wrong", [0.1, value], training=i) for i, value in enumerate(after)]
    control, arm = rows_of(sweep_of(seeds=THREE), outcomes)
    expected = stats.ttest_rel(after, before).confidence_interval(0.95)
    difference = arm.differences["last"]
    assert isclose(difference.value, 0.2)
    assert difference.low == pytest.approx(expected.low)
    assert difference.high == pytest.approx(expected.high)
    assert arm.means["last"].value == pytest.approx(0.7)
    assert arm.differences["start"].value == 0
    assert control.differences.keys() == {"half"}, "it is not compared with itself"
    assert (arm.runs, arm.means["last"].n, arm.added) == (3, 3, 10)
    assert (arm.usd, arm.seconds, arm.teacher_calls) == (0.25, 4.5, 7)


def test_training_seeds_on_the_same_rows_are_no_independent_values() -> None:
    """Two draws of the data: two values, however often each was trained on."""
    sweep = sweep_of(["random"], seeds={"data": [0, 1], "training": [0, 1]})
    values = {(0, 0): 0.5, (0, 1): 0.5, (1, 0): 0.7, (1, 1): 0.7}
    (row,) = rows_of(sweep, [outcome("random", [0.1, value], *seeds) for seeds, value in values.items()])
    expected = stats.t.interval(0.95, 1, loc=0.6, scale=0.1)
    assert (row.runs, row.means["last"].n) == (4, 2)
    assert row.means["last"].low == pytest.approx(expected[0])


def test_a_pair_counts_when_both_of_it_have_finished() -> None:
    outcomes = [outcome("random", [0.1, 0.5]), outcome("wrong", [0.1, 0.6]), outcome("wrong", [0.1, 0.9], training=1)]
    _, arm = rows_of(sweep_of(seeds=THREE), outcomes)
    assert (arm.differences["last"].n, arm.differences["last"].low) == (1, None)
    assert arm.differences["last"].value == pytest.approx(0.1)
    (alone,) = rows_of(sweep_of(seeds=THREE), outcomes[1:])
    assert alone.differences == {}, "without the baseline there is nothing to compare with"


def test_the_chosen_iteration_is_validations_and_the_control_is_shown_where_there_is_one() -> None:
    with_control = outcome(
        "random", [0.1, 0.8, 0.6], best=1, controls=[{"name": "steps", "accuracy": {"test": {"value": 0.55}}}]
    )
    (row,) = rows_of(sweep_of(["random"], seeds=THREE), [with_control])
    assert (row.means["chosen"].value, row.means["last"].value, row.means["control"].value) == (0.8, 0.6, 0.55)
    sweep = sweep_of(["random"], seeds=THREE)
    assert "seeds alone, equal steps" in text_table(sweep, [row])
    (plain,) = rows_of(sweep, [outcome("random", [0.1, 0.8])])
    assert "control" not in plain.means
    assert "seeds alone" not in text_table(sweep, [plain])


def test_a_run_that_delivers_iteration_0_is_its_own_control() -> None:
    """A mean over those runs alone that gained would be of other random seeds than the rest of the table."""
    measured = [{"name": "steps", "accuracy": {"test": {"value": 0.5}}}]
    gained = outcome("random", [0.1, 0.8], controls=measured)
    stayed = outcome("random", [0.3, 0.2], training=1, best=0, controls=[])
    (row,) = rows_of(sweep_of(["random"], seeds=THREE), [gained, stayed])
    assert (row.means["control"].n, row.means["control"].value) == (2, pytest.approx(0.4))
    assert row.differences["gain"].value == pytest.approx((0.8 - 0.5 + 0) / 2)
    assert "chosen minus seeds alone, equal steps" in text_table(sweep_of(["random"], seeds=THREE), [row])


def test_half_the_rows_are_held_against_all_rows_of_the_baseline() -> None:
    outcomes = [outcome("random", [0.1, 0.3, 0.6], added=20), outcome("wrong", [0.1, 0.7, 0.9], added=21)]
    control, arm = rows_of(sweep_of(seeds=THREE), outcomes)
    assert arm.differences["half"].value == pytest.approx(0.7 - 0.6), "21 of 40 count as half; 42 do not"
    assert control.differences["half"].value == pytest.approx(0.3 - 0.6), "what its second half is worth"
    greedy = outcome("wrong", [0.1, 0.7], added=22)
    _, arm = rows_of(sweep_of(seeds=THREE), [outcomes[0], greedy])
    assert arm.differences["half"].value == pytest.approx(0.1 - 0.6), "22 are more than half: iteration 0 is left"
    assert "half the rows minus random" in text_table(sweep_of(seeds=THREE), [control, arm])
    line = list(csv.DictReader(io.StringIO(table_csv(sweep_of(seeds=THREE), [control, arm]))))[1]
    assert float(line["half_minus_baseline"]) == pytest.approx(-0.5)


def test_without_test_rows_validation_is_reported_and_said() -> None:
    given = run_summary([0.4, 0.6])
    for one in given["iterations"]:
        del one["accuracy"]["test"]
    found = outcome_of(point_of("random"), given)
    assert (found.split, found.accuracy) == ("validation", (0.2, 0.3))
    sweep = sweep_of(["random"])
    assert "on validation rows" in text_table(sweep, rows_of(sweep, [found]))


def test_where_a_loop_has_ended_its_last_accuracy_stands() -> None:
    outcomes = [outcome("random", [0.1, 0.4, 0.7]), outcome("wrong", [0.1, 0.5])]
    curves = curves_of(sweep_of(seeds=THREE), outcomes)
    assert [one.accuracy.value for one in curves["tickets", "wrong"]] == [0.1, 0.5, 0.5]
    assert [one.added for one in curves["tickets", "wrong"]] == [0, 10, 10]
    _, arm = rows_of(sweep_of(seeds=THREE), outcomes)
    assert arm.differences["curve"].value == pytest.approx(0.5 - 0.55)


def test_csv_is_unrounded_and_latex_and_markdown_are_whole() -> None:
    sweep = sweep_of(["random", "out_of_fold"], seeds={"training": [0, 1]})
    outcomes = [outcome(arm, [1 / 3, value], training=i) for arm in sweep.arms for i, value in enumerate((0.5, 2 / 3))]
    rows = rows_of(sweep, outcomes)
    _, line = csv.DictReader(io.StringIO(table_csv(sweep, rows)))
    assert float(line["start"]) == 1 / 3
    assert line["control"] == line["gain"] == ""
    assert float(line["last_low"]) == rows[1].means["last"].low
    assert (line["independent"], line["last_minus_baseline"]) == ("2", "0.0")
    lines = list(csv.DictReader(io.StringIO(points_csv(outcomes))))
    assert len(lines) == 2 * len(outcomes)
    assert [one["added_rows"] for one in lines[:2]] == ["0", "10"]
    latex = latex_table(sweep, rows)
    assert r"out\_of\_fold" in latex
    assert r"$\pm$" in latex
    columns = {len(re.findall(r"(?<!\\)&", line)) for line in latex.splitlines() if line.endswith(r"\\")}
    assert len(columns) == 1
    assert "minus seeds alone" not in latex, "no run has controls"
    assert "This is of" not in latex
    assert "This is of 2 of 4 runs; the others have not finished." in latex_table(sweep, rows[:1])
    table = [line for line in markdown_table(sweep, rows).splitlines() if line.startswith("|")]
    assert len(table) == 4
    assert len({line.count("|") for line in table}) == 1


@given(
    st.lists(st.lists(st.floats(0, 1), min_size=1, max_size=4), min_size=1, max_size=4),
    st.integers(1, 8),
)
def test_any_results_are_a_plot_that_is_well_formed_and_stays_inside(values: list[list[float]], arms: int) -> None:
    sweep = sweep_of([f"arm{i}" for i in range(arms)], seeds={"training": list(range(len(values)))})
    outcomes = [outcome(arm, line, training=i) for arm in sweep.arms for i, line in enumerate(values)]
    drawn = plot(sweep, curves_of(sweep, outcomes))
    root = ElementTree.fromstring(drawn)
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    assert len(list(root.iter("{http://www.w3.org/2000/svg}polyline"))) == arms
    assert "tickets: accuracy on test rows" in drawn
    for line in root.iter("{http://www.w3.org/2000/svg}polyline"):
        for place in line.attrib["points"].split():
            x, y = map(float, place.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height
