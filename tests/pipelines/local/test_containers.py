"""What the containers of `--runner docker` are given of this machine: what the config needs, and no more."""

from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import check_config
from llm2llm.pipelines.local.run import _key_variables, _model_folders, _with_places, _written_to, run_local


def test_whoever_is_asked_has_its_key_and_whatever_is_kept_its_folder(tmp_path: Path) -> None:
    """A verifier and a judge with keys of their own; a judge that keeps verdicts where no teacher keeps anything."""
    values = {
        "name": "mine",
        "student": "scratch",
        "task": {"name": "own", "form": "text", "match": "judge", "rubric": "Is it right?"},
        "data": {"seeds": "seeds.jsonl", "pool": "pool.jsonl"},
        "evaluate": {"judge": {"model": "j", "api_key_env": "JUDGE_KEY"}},
        "promote": {"registry": "s3://bucket/registry"},
        "teacher_augment": {"teacher": "pool"},
    }
    config = _with_places(check_config(values, "c.yaml"), tmp_path)
    kept = [tmp_path / name for name in ("artifacts", "ledger", "checkpoints")]
    assert _written_to(config, tmp_path) == kept
    assert "JUDGE_KEY" in _key_variables(config)
    by = {"model": "v", "api_key_env": "VERIFIER_KEY"}
    values["teacher_augment"] = {"model": "t", "verify": "judge", "verification": {"by": by}}
    config = _with_places(check_config(values, "c.yaml"), tmp_path)
    assert _key_variables(config) == {"OPENAI_API_KEY", "VERIFIER_KEY", "JUDGE_KEY"}
    assert _written_to(config, tmp_path) == kept, "each folder once"


def test_folders_of_models_are_there_to_read(tmp_path: Path) -> None:
    """Student, writer, verifier and judge; a name at an endpoint is none."""
    student, writer, verifier, judge = (str(tmp_path / name) for name in ("student", "writer", "verifier", "judge"))
    by = {"teacher": "transformers", "model": verifier}
    values: dict[str, Any] = {
        "name": "mine",
        "student": student,
        "task": {"name": "own", "form": "text", "match": "judge", "rubric": "Is it right?"},
        "data": {"seeds": "builtin:support_tickets/seeds.jsonl"},
        "train": {"method": "lora"},
        "evaluate": {"judge": {"teacher": "transformers", "model": judge}},
        "teacher_augment": {"teacher": "transformers", "model": writer, "verify": "judge", "verification": {"by": by}},
    }
    config = check_config(values, "c.yaml")
    folders = [student, writer, verifier, judge]
    assert _model_folders(config) == {folder: Path(folder) for folder in folders}
    for name in ("student", "verifier", "judge"):
        (tmp_path / name).mkdir()
    with pytest.raises(UserError, match=f"model {writer}: no such folder"):  # before anything is trained
        run_local(config, tmp_path / "out")
    values["teacher_augment"] = {"model": "/models/at-an-endpoint"}
    assert list(_model_folders(check_config(values, "c.yaml"))) == [student, judge]
