"""Sizes are known, and what cannot fit is refused, before anything is submitted."""

from pathlib import Path

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.kubeflow.compile import compile_checked
from llm2llm.pipelines.kubeflow.expected_size import size_line
from tests.pipelines.config.test_config import NAMES

KB = 1024


@pytest.mark.parametrize("name", NAMES)
def test_every_shipped_config_fits_at_ten_iterations(name: str, tmp_path: Path) -> None:
    size = compile_checked(load_config(name, ["max_iterations=10"]), tmp_path / "p.yaml")
    assert size.iterations == 10
    assert size.stored.total < 700 * KB
    assert size.per_iteration < 60 * KB
    assert size.largest_argument < 64 * KB
    assert f"{size.pods} pods at most, {size.pods_in_a_row} one after another" in size_line(size)


def test_ten_iterations_with_folds_and_shards_fit(tmp_path: Path) -> None:
    wanted = ["max_iterations=10", "filter_errors.folds=3", "evaluate.shards=4"]
    size = compile_checked(load_config("quickstart", wanted), tmp_path / "p.yaml")
    assert size.stored.total < 900 * KB


def test_what_would_outgrow_argo_is_refused_with_what_to_change_and_nothing_is_written(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"Argo ends a run at 1024 KB; use fewer max_iterations \(at most \d+ with"):
        compile_checked(load_config("quickstart", ["max_iterations=30"]), tmp_path / "p.yaml")
    assert list(tmp_path.iterdir()) == []
