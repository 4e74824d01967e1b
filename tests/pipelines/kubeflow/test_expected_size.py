"""Sizes are known, and what cannot fit is refused, before anything is submitted."""

from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.config.compiled import check_compiled, compiled_settings
from llm2llm.pipelines.kubeflow.compile import compile_checked
from llm2llm.pipelines.kubeflow.expected_size import size_line
from tests.pipelines.config.test_config import NAMES
from tests.support.kubeflow.compiled import EVERYTHING

KB = 1024


LEAN = "controls.steps=false"
"""Without the control of equal steps, which is a task an iteration."""


@pytest.mark.parametrize(("more", "total", "per_iteration"), [((), 705, 62), ((LEAN,), 660, 60)])
@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_config_fits_at_ten_iterations(
    name: str, more: tuple[str, ...], total: int, per_iteration: int, tmp_path: Path
) -> None:
    size = compile_checked(load_config(name, ["max_iterations=10", *more]), tmp_path / "p.yaml").size
    assert size.iterations == 10
    assert size.stored.total < total * KB
    assert size.per_iteration < per_iteration * KB
    assert size.largest_argument < 64 * KB
    assert f"{size.pods} pods at most, {size.pods_in_a_row} one after another" in size_line(size)


FOLDS_AND_SHARDS = ("max_iterations=10", "filter_errors.folds=3", "evaluate.shards=4")
EACH = "report.each_iteration=true"


@pytest.mark.parametrize(("more", "total"), [((), 900), ((LEAN,), 900), ((EACH,), 945)])
def test_ten_iterations_with_folds_and_shards_fit(more: tuple[str, ...], total: int, tmp_path: Path) -> None:
    checked = compile_checked(load_config("quickstart", [*FOLDS_AND_SHARDS, *more]), tmp_path / "p.yaml")
    assert checked.size.stored.total < total * KB


def test_a_report_after_each_iteration_is_left_out_where_it_would_make_the_workflow_large(tmp_path: Path) -> None:
    once = "one report, when the loop has ended (report.each_iteration)"
    for overrides, told in ((("max_iterations=3",), False), (FOLDS_AND_SHARDS, True)):
        config = load_config("quickstart", overrides)
        checked = compile_checked(config, tmp_path / "p.yaml")
        assert (once in checked.notes) is told
        assert checked.config.reports_each_iteration is not told
        # What a run's form does not say is as it was compiled; what it says must be the same.
        check_compiled(config, compiled_settings(checked.config))
        said = load_config("quickstart", [*overrides, f"report.each_iteration={str(told).lower()}"])
        with pytest.raises(UserError, match=r"report\.each_iteration: .* compile it again"):
            check_compiled(said, compiled_settings(checked.config))


def test_ten_iterations_with_everything_fit_with_one_report(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"at most 9 with the rest as it is\).*report\.each_iteration: false"):
        compile_checked(load_config("quickstart", [*EVERYTHING, EACH]), tmp_path / "p.yaml")
    size = compile_checked(load_config("quickstart", EVERYTHING), tmp_path / "p.yaml").size
    assert size.iterations == 10
    assert size.stored.total < 1000 * KB


def test_what_would_outgrow_argo_is_refused_with_what_to_change_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Argo ends a run at 1024 KB; use fewer max_iterations \(at most \d+ with"):
        compile_checked(load_config("quickstart", ["max_iterations=30"]), tmp_path / "p.yaml")
    assert list(tmp_path.iterdir()) == []
