"""`llm2llm label`: logs labelled by a teacher or a committee, within the budget, with lineage."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.tasks import Task
from tests.support.command_line import Run
from tests.support.loopback_endpoint import MODEL, Endpoint, HTTPResponse, completion

COLOURS = ("red", "green", "blue")


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    one = Endpoint()
    one.models = HTTPResponse(body={"object": "list", "data": [{"id": MODEL}, {"id": "second"}, {"id": "third"}]})
    one.answer = lambda body, number: completion({"answer": named(body)})
    yield one
    one.close()


def named(body: dict[str, Any]) -> str:
    """The colour that the question names; of a question about nothing each model says another one."""
    question = body["messages"][-1]["content"]
    doubtful = COLOURS[[MODEL, "second", "third"].index(body["model"])]
    return next((colour for colour in COLOURS if colour in question), doubtful)


def write_config(folder: Path, endpoint: Endpoint, colours: Task, **teacher: Any) -> Path:
    rows = [{"question": f"seed {n} is {colour}", "answer": colour} for n in range(4) for colour in COLOURS]
    (folder / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    many = [{"url": endpoint.url, "model": name} for name in (MODEL, "second", "third")]
    asked = {"teachers": many} if teacher.pop("committee", False) else {"model": MODEL, "url": endpoint.url}
    config = {
        "name": "colours",
        "student": "scratch",
        "task": colours.model_dump(mode="json", exclude_defaults=True),
        "data": {"seeds": "seeds.jsonl"},
        "teacher_augment": {**asked, "ledger": str(folder / "ledger"), **teacher},
    }
    (folder / "c.yaml").write_text(yaml.safe_dump(config))
    return folder / "c.yaml"


def write_log(folder: Path, *questions: str) -> Path:
    lines = [{"id": f"t{n}", "input": [{"role": "user", "content": text}]} for n, text in enumerate(questions)]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder / "log.jsonl"


def test_a_teacher_labels_within_the_budget_and_is_paid_once(
    run: Run, tmp_path: Path, endpoint: Endpoint, colours: Task
) -> None:
    config = write_config(tmp_path, endpoint, colours)
    log = write_log(tmp_path, "a red door", "a blue door", "a red door", "seed 0 is red", "a green door")
    label = ("label", log, "--config", config, "--to", "new.jsonl")
    code, out, err = run(*label, "--set", "teacher_augment.budget.calls=2", "--with-seeds")
    assert code == 0, err
    assert "4 questions (1 repeated, 0 records without one, 1 known already, 0 over the limit): 2 labelled" in out
    assert ", 1 over_budget; paid now: 2 requests, 36 tokens" in out
    rows = read_examples(str(tmp_path / "new.jsonl"), colours)
    assert len(rows) == 14
    first = next(row for row in rows if row.question == "a red door")
    assert (first.answer, first.source_id, first.generated) == ("red", "t0", False)
    (check,) = first.checks
    assert check.startswith(f"labelled: by openai:{MODEL}, 1 of 1 agree; log.jsonl:1; ledger ")
    code, out, _ = run(*label)
    assert (code, ": 3 labelled; paid now: 1 requests" in out) == (0, True)
    assert len(endpoint.requests) == 3
    key = check.rpartition(" ")[2]
    assert run("ledger", "show", tmp_path / "ledger", key)[0] == 0


def test_a_committee_must_agree(run: Run, tmp_path: Path, endpoint: Endpoint, colours: Task) -> None:
    config = write_config(tmp_path, endpoint, colours, committee=True)
    log = write_log(tmp_path, "a red door", "a door of no colour")
    code, out, err = run("label", log, "--config", config, "--to", "new.csv")
    assert code == 0, err
    assert ": 1 labelled, 1 disagrees; paid now: 6 requests" in out
    (row,) = read_examples(str(tmp_path / "new.csv"), colours)
    assert (row.question, row.answer) == ("a red door", "red")
    assert "by openai:second, openai:teacher-8b, openai:third, 3 of 3 agree" in row.checks[0]


def test_the_students_errors_are_told_from_the_rest(
    run: Run, tmp_path: Path, endpoint: Endpoint, colours: Task, taught_student: Path, rows: list[Example]
) -> None:
    """The student has learnt the colours; the teacher says `blue` to what is red, so that row is an error."""
    endpoint.answer = lambda body, number: completion({"answer": "blue" if named(body) == "red" else "green"})
    known = [row for row in rows if row.answer in ("red", "green")][:4]
    log = write_log(tmp_path, *(row.question for row in known))
    config = write_config(tmp_path, endpoint, colours)
    arguments = ("--config", config, "--to", "wrong.jsonl", "--rest", "right.jsonl", "--student", taught_student)
    code, out, err = run("label", log, *arguments)
    assert code == 0, err
    wrong = read_examples(str(tmp_path / "wrong.jsonl"), colours)
    right = read_examples(str(tmp_path / "right.jsonl"), colours)
    assert f"the student: {len(right)} of 4 right" in out
    assert {row.question for row in (*wrong, *right)} == {row.question for row in known}
    assert {row.answer for row in wrong} >= {"blue"}
    assert all(row.checks[0].endswith("; the student was wrong") for row in wrong)


def test_mistakes_are_one_line(run: Run, tmp_path: Path, endpoint: Endpoint, colours: Task) -> None:
    config = write_config(tmp_path, endpoint, colours)
    log = write_log(tmp_path, "a door")
    code, _, err = run("label", log, "--config", config, "--to", "new.txt")
    assert (code, err) == (2, "error: --to new.txt: the suffix must be one of .jsonl, .csv, .parquet\n")
    code, _, err = run("label", log, "--config", "quickstart", "--to", "new.jsonl")
    assert (code, "asks no language model but the student; set teacher_augment.teacher" in err) == (2, True)
    endpoint.answer = lambda body, number: completion({"answer": "violet"})
    code, out, err = run("label", log, "--config", config, "--to", "new.jsonl")
    assert (code, err) == (2, "error: label: no row got a label, so nothing is written\n")
    assert ": 0 labelled, 1 invalid; paid now: 3 requests" in out
    assert not (tmp_path / "new.jsonl").exists()
