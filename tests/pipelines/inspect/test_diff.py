"""`llm2llm inspect diff`: two runs that differ in known ways."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import mcnemar_p
from llm2llm.pipelines.cli.inspect import diff as diff_command
from llm2llm.pipelines.inspect.diff import diff
from llm2llm.pipelines.inspect.run_files import open_run
from llm2llm.pipelines.inspect.wording import diff_text
from tests.support.made_run import make_run


def between(a: Path, b: Path) -> dict[str, Any]:
    return diff(open_run(str(a)), open_run(str(b)))


@pytest.mark.parametrize("before", [False, True], ids=["of today", "of before"])
def test_equal_runs_in_two_places(tmp_path: Path, before: bool) -> None:
    a, b = make_run(tmp_path / "a", before=before), make_run(tmp_path / "b", in_cluster=True, before=before)
    found = between(a, b)
    assert found["config"] == []
    assert found["code"] == []
    assert all(one["same"] and one["a"] == one["b"] for one in found["data"].values())
    assert (found["training_rows"]["only_a"], found["training_rows"]["only_b"]) == (0, 0)
    assert all(score["difference"] == 0 and score["p"] == 1 for score in found["scores"].values())
    assert "config: the same" in diff_text(found)
    assert "seeds: 12 rows -> 12 rows, the same" in diff_text(found)


def test_a_run_of_before_and_its_like_of_today(tmp_path: Path) -> None:
    """The hashes are others: then they were of all bytes of one file, of which the records are no part."""
    found = between(make_run(tmp_path / "a", before=True), make_run(tmp_path / "b"))
    assert found["config"] == found["code"] == []
    assert all(one["same"] and one["a"]["rows"] == one["b"]["rows"] for one in found["data"].values())
    assert "seeds: 12 rows -> 12 rows, the same" in diff_text(found)


def test_settings_data_scores_and_rows(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", iterations=0, held_out=8)
    b = make_run(tmp_path / "b", seeds=15, iterations=2, held_out=10, config={"student": "bigger", "random_seed": 3})
    found = between(a, b)
    assert found["config"] == [
        {"key": "random_seed", "a": None, "b": 3},
        {"key": "student", "a": "tiny", "b": "bigger"},
    ]
    seeds = found["data"]["seeds"]
    assert (seeds["a"]["rows"], seeds["b"]["rows"], seeds["same"], seeds["only_a"], seeds["only_b"]) == (
        12,
        15,
        False,
        0,
        3,
    )
    assert found["best"] == {"a": 0, "b": 2}
    # In iteration i the rows up to place i are answered right: 1 of 8 against 3 of 10, of which 8 are common.
    score = found["scores"]["validation"]
    assert (score["a"], score["b"], score["rows"]) == (1 / 8, 3 / 10, 8)
    assert (score["common_a"], score["common_b"], score["difference"]) == (1 / 8, 3 / 8, 2 / 8)
    assert score["p"] == mcnemar_p([True] + 7 * [False], 3 * [True] + 5 * [False])
    assert score["low"] <= score["difference"] <= score["high"]
    rows = found["training_rows"]
    assert (rows["both"], rows["only_a"], rows["only_b"]) == (12, 0, 11)  # 3 seeds, and 2 times 4 of 5 rows
    assert len(rows["examples_b"]) == 3
    assert rows["examples_a"] == []
    found["config"].append({"key": "promote.registry", "a": "/x", "b": ""})
    text = diff_text(found)
    assert "student: tiny -> bigger" in text
    assert "promote.registry: /x -> ''" in text
    assert "on 8 common rows 12.5% -> 37.5%, +25.0 points" in text


def test_a_file_that_only_lies_elsewhere_is_no_other_setting(tmp_path: Path) -> None:
    a = make_run(tmp_path / "a", config={"data": {"seeds": "/x/inputs/1/seeds.jsonl", "test": "/x/test.jsonl"}})
    b = make_run(tmp_path / "b", config={"data": {"seeds": "/y/inputs/2/seeds.jsonl", "test": "/y/other.jsonl"}})
    assert [one["key"] for one in between(a, b)["config"]] == ["data.test"]


def test_no_common_rows(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a", held_out=0), make_run(tmp_path / "b", held_out=3)
    assert list(between(a, b)["scores"]) == ["seeds"]


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    a, b = make_run(tmp_path / "a"), make_run(tmp_path / "b")
    path = b / "artifacts/colours-2026/evaluate-3/predictions"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match=str(path)):
        between(a, b)


def test_the_command(tmp_path: Path) -> None:
    a, b = str(make_run(tmp_path / "a")), str(make_run(tmp_path / "b"))
    assert "scores of the best iterations (A: 2, B: 2)" in CliRunner().invoke(diff_command, [a, b]).output
    found = json.loads(CliRunner().invoke(diff_command, [a, b, "--json"]).output)
    assert found["schema_version"] == 1
    assert found["runs"] == [a, b]
