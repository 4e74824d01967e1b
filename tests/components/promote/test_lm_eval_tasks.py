"""Guards that are tasks of lm-eval."""

import json
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.promote.guards import guard_changes
from llm2llm.components.promote.lm_eval_tasks import check_lm_eval
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.registry.records import TrainedOn
from llm2llm.components.shared.tasks import Task, prompt
from llm2llm.pipelines.checks.preflight import guard_checks
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.local.run import run_local
from tests.support import lm_eval_stand_in as stand_in

NOTHING = TrainedOn(seeds=[], rows=[], questions=[])


@pytest.fixture
def documents(monkeypatch: pytest.MonkeyPatch, rows: list[Example], colours: Task) -> None:
    stand_in.install(monkeypatch)
    asked = [
        {
            "text": prompt(colours, row.question, []),
            "choices": [f" {one}" for one in colours.labels],
            "target": f" {row.answer}",
        }
        for row in rows
    ]
    monkeypatch.setattr(stand_in, "ROWS", {"colours": asked, "empty": []})


def settings(**guard: Any) -> PromoteSettings:
    return PromoteSettings.load({"registry": "r", "guards": [guard]}, "promote")


def test_a_student_is_asked_the_task_beside_the_model_before_it(
    documents: None, taught_student: Path, tiny_student: Path
) -> None:
    """The one before has learnt the colours, the untrained one knows nothing: as if all had been forgotten."""
    found = guard_changes(tiny_student, str(taught_student), NOTHING, {}, settings(lm_eval="colours", max_loss=0.1))
    (change,) = found
    assert (change.name, change.n, change.max_loss) == ("colours", 24, 0.1)
    assert change.before > 0.8, "the strict filter's answers, not the lenient ones"
    assert change.after < 0.6
    assert change.p < 0.05
    (few,) = guard_changes(tiny_student, str(taught_student), NOTHING, {}, settings(lm_eval="colours", limit=5))
    assert few.n == 5


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ({"lm_eval": "colour"}, "lm-eval has no task 'colour'; did you mean 'colours'"),
        ({"lm_eval": "arc_easy"}, "arc_easy cannot be asked here: Couldn't reach 'arc_easy'.*HF_HOME"),
        ({"lm_eval": "colours", "metric": "acc_norm"}, "colours has no metric 'acc_norm'; it has acc, likelihood"),
        (
            {"lm_eval": "colours", "metric": "likelihood"},
            "likelihood of the lm-eval task colours is -.* right or wrong",
        ),
        ({"lm_eval": "none.yaml"}, "none.yaml: no such file"),
        ({"lm_eval": "empty"}, "empty has no documents"),
    ],
)
def test_what_cannot_be_asked_is_refused(
    documents: None, tiny_student: Path, guard: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words) as refused:
        guard_changes(tiny_student, str(tiny_student), NOTHING, {}, settings(**guard))
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("guard", "words"),
    [
        ({"lm_eval": "arc_easy", "file": "a.jsonl"}, "lm_eval stands in place of file and task"),
        ({"lm_eval": "arc_easy; rm"}, "lm_eval"),
        ({"file": "a.jsonl", "task": "gsm8k", "limit": 5}, "limit: only for lm_eval"),
        ({"file": "a.jsonl"}, "task: missing"),
        ({}, "file: missing; .*lm_eval"),
    ],
)
def test_a_guard_is_one_of_two_kinds(guard: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        settings(**guard)


def test_without_lm_eval_it_is_refused_by_name_before_anything_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guards = settings(lm_eval="arc_easy")
    monkeypatch.setattr("llm2llm.components.promote.lm_eval_tasks.find_spec", lambda name: None)
    with pytest.raises(UserError, match="arc_easy is a task of lm-eval, which is not installed here: pip install"):
        check_lm_eval(guards)
    promotion = {"registry": str(tmp_path / "r"), "guards": [{"lm_eval": "arc_easy"}]}
    config = load_config("quickstart", ["student=a/b", f"promote={json.dumps(promotion)}"])
    with pytest.raises(UserError, match="not installed here"):
        run_local(config, tmp_path / "out", "process")
    assert not (tmp_path / "out").exists()


def test_preflight_says_what_it_cannot_see(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch)
    promotion = {"registry": "s3://b/r", "guards": [{"lm_eval": "arc_easy"}]}
    config = load_config("quickstart", ["student=a/b", f"promote={json.dumps(promotion)}"])
    assert [(one.status, one.detail) for one in guard_checks(config)] == [("ok", "the lm-eval task arc_easy")]
    away = load_config("quickstart", ["student=a/b", f"promote={json.dumps(promotion)}", "placement.profile=gke"])
    assert [one.status for one in guard_checks(away)] == ["warn"]


def test_a_task_of_ones_own_is_a_file_beside_the_config(tmp_path: Path) -> None:
    config = tmp_path / "config.yaml"
    config.write_text("name: x\npromote: {registry: r, guards: [{lm_eval: own.yaml}, {lm_eval: arc_easy}]}\n")
    (tmp_path / "arc_easy").mkdir()
    from llm2llm.pipelines.config.loading import read_mapping
    from llm2llm.pipelines.config.paths import resolve_paths

    values = read_mapping(config, "config.yaml", "a config")
    resolve_paths(values, tmp_path)
    assert [one["lm_eval"] for one in values["promote"]["guards"]] == [str(tmp_path / "own.yaml"), "arc_easy"]
