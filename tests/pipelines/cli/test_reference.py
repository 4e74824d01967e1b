"""The reference pages are those that the code would write today, and the schema takes what the configs say."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from llm2llm.components.stages import STAGES
from llm2llm.pipelines.cli.reference import BEGIN, END, ROOT, with_generated
from llm2llm.pipelines.config.loading import shipped_configs
from llm2llm.pipelines.config.schema import config_schema

LINK = re.compile(r"\]\(([^)\s#]+)?(#[^)\s]+)?\)")


def test_every_page_is_current() -> None:
    """In a process of its own: click remembers on a command how its help was asked for."""
    command = [sys.executable, "-m", "llm2llm.pipelines.cli.reference", "--check"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stdout) == (0, ""), "run `make docs`"


def test_every_stage_has_a_page_that_says_why() -> None:
    for name in STAGES.keys() - {"configure"}:
        written = (ROOT / "components" / name / "README.md").read_text(encoding="utf-8").partition(BEGIN)[0]
        assert len(written.split()) > 45, name


def test_what_a_person_wrote_stays() -> None:
    once = with_generated("# Stage\n\nWhy.\n", "old")
    assert once == f"# Stage\n\nWhy.\n\n{BEGIN}\n\nold\n\n{END}\n"
    assert with_generated(once + "\nMore.\n", "new") == f"# Stage\n\nWhy.\n\n{BEGIN}\n\nnew\n\n{END}\n\nMore.\n"


@pytest.mark.parametrize("name", shipped_configs())
def test_the_schema_takes_every_shipped_config(name: str) -> None:
    jsonschema.validate(yaml.safe_load(shipped_configs()[name].read_text(encoding="utf-8")), config_schema())


QUICKSTART: dict[str, Any] = yaml.safe_load(shipped_configs()["quickstart"].read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "changes",
    [
        {"train": {"epoch": 3}},
        {"train": {"epochs": -1}},
        {"task": "gsm9k"},
        {"teacher_augment": {"teacher": "opanai"}},
        {"filter_errors": {"selection": "hardest"}},
        {"max_iterations": 0},
        {"seeds": "rows.jsonl"},
    ],
)
def test_the_schema_refuses_what_the_config_refuses(changes: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**QUICKSTART, **changes}, config_schema())


def test_a_shipped_task_may_be_changed_by_some_keys() -> None:
    jsonschema.validate({**QUICKSTART, "task": {"name": "gsm8k", "max_new_tokens": 64}}, config_schema())


def pages_of_the_repository() -> list[Path]:
    folders = (ROOT, *(ROOT / name for name in ("components", "pipelines", "images", "manifests", "tests")))
    found = [file for folder in folders for file in (folder.glob("*.md") if folder == ROOT else folder.rglob("*.md"))]
    return sorted(found)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.M | re.S), re.M)
    return {
        re.sub(r"[^\w -]", "", re.sub(r"\]\([^)]*\)|[\[`*]", "", text).lower()).replace(" ", "-") for text in headings
    }


@pytest.mark.parametrize("page", pages_of_the_repository(), ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    broken = []
    for target, anchor in LINK.findall(text):
        if target.startswith(("https://", "http://", "mailto:")):
            continue
        file = (page.parent / target).resolve() if target else page
        if not file.exists() or (anchor and file.suffix == ".md" and anchor[1:] not in anchors(file)):
            broken.append(target + anchor)
    assert not broken


def test_the_schema_is_json_that_editors_can_read() -> None:
    written = json.loads((ROOT / "pipelines" / "configs" / "schema.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(written)


def test_labels_and_schemas_in_other_words() -> None:
    """A mapping of labels to descriptions, and the file of an answer's schema."""
    labels = {"name": "t", "form": "classification", "labels": {"a": "the first", "b": None}}
    answers = {"name": "t", "form": "json", "answer_schema": "answer.schema.json"}
    for task in (labels, answers):
        jsonschema.validate({**QUICKSTART, "task": task}, config_schema())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**QUICKSTART, "task": {**labels, "labels": {"a": 1}}}, config_schema())
