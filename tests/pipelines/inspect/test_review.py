"""Rows for people to look at, and what they say back as seeds: in every format, with lineage."""

import csv
import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.data.journal import read_journal, write_journal
from llm2llm.components.shared.data.parquet import read_rows, write_rows
from llm2llm.components.shared.data.schemas import Prediction
from llm2llm.components.shared.data.splits import read_splits, write_splits
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.tasks import Task
from llm2llm.pipelines.inspect.review import label_studio_config
from llm2llm.pipelines.inspect.run_files import open_run
from tests.support.command_line import Run
from tests.support.made_run import generated, make_run, seed

DIGITS = Task(name="digits", form="classification", labels=[str(n) for n in range(7)])
SUSPECT, UNSURE, LOW = seed(3), seed(4), generated(0, 1)
DISPUTED = generated(3, 1)


@pytest.fixture
def reviewed_run(tmp_path: Path) -> Path:
    """A run in which one seed is suspect, one unsure, rows are of confidence 0.75, and one was judged wrong."""
    folder = make_run(tmp_path / "out", config={"task": DIGITS.model_dump(mode="json")})
    artifacts = folder / "artifacts" / "colours-2026"
    for name in sorted(artifacts.glob("filter-errors*")):
        journal = read_journal(LocalArtifact(str(name / "journal")))
        errors = [dataclasses.replace(e, suspect=e.example_id == SUSPECT.id, parsed="5") for e in journal.errors]
        write_journal(LocalArtifact(str(name / "journal")), dataclasses.replace(journal, errors=errors))
    for name in sorted(artifacts.glob("dedupe*")):
        journal = read_journal(LocalArtifact(str(name / "journal")))
        rejects = [dataclasses.replace(one, stage="teacher_augment", reason="judged_wrong", detail="88% sure")
                   if one.id == DISPUTED.id else one for one in journal.rejects]  # fmt: skip
        write_journal(LocalArtifact(str(name / "journal")), dataclasses.replace(journal, rejects=rejects))
    for name in sorted(artifacts.glob("evaluate*")):
        answers = [
            dataclasses.replace(answer, label_probability=0.4 if answer.example_id == UNSURE.id else 0.9, margin=0.1)
            for answer in read_rows(name / "predictions", "predictions", Prediction)
        ]
        write_rows(name / "predictions", "predictions", answers)
    without_hashes(folder)
    return folder


def without_hashes(folder: Path) -> None:
    """Takes the hashes out of a run's events, whose files a test has written anew."""
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    (folder / "events.jsonl").write_text("".join(json.dumps({**event, "sha256": {}}) + "\n" for event in events))


def fill_csv(path: Path, said: Mapping[str, tuple[str, str]]) -> Path:
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["decision"], row["corrected"] = said.get(row["id"], ("", ""))
    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, rows[0], delimiter=";")  # as a spreadsheet may save it
        writer.writeheader()
        writer.writerows(rows)
    return path


def fill_argilla(path: Path, said: Mapping[str, tuple[str, str]]) -> Path:
    records = json.loads(path.read_text())
    for record in records:
        decision, answer = said.get(record["id"], ("", ""))
        given = {"decision": decision, "answer": answer}
        record["responses"] = {name: [{"value": value, "user_id": "ann"}] for name, value in given.items() if value}
    path.write_text(json.dumps(records))
    return path


def fill_label_studio(path: Path, said: Mapping[str, tuple[str, str]]) -> Path:
    tasks = json.loads(path.read_text())
    for number, task in enumerate(tasks):
        decision, answer = said.get(task["data"]["id"], ("", ""))
        given = {"decision": decision, "answer": answer}
        result = [{"from_name": name, "to_name": "question", "type": "choices", "value": {"choices": [value]}}
                  for name, value in given.items() if value]  # fmt: skip
        task |= {"id": number, "annotations": [{"result": result, "was_cancelled": False}] if result else []}
    path.write_text(json.dumps(tasks))
    return path


FORMATS: dict[str, tuple[str, Callable[[Path, Mapping[str, tuple[str, str]]], Path]]] = {
    "rows": ("review.csv", fill_csv),
    "argilla": ("review.json", fill_argilla),
    "label-studio": ("review.json", fill_label_studio),
}


@pytest.mark.parametrize("name", FORMATS)
def test_corrections_come_back_as_seeds(run: Run, tmp_path: Path, reviewed_run: Path, name: str) -> None:
    file, fill = FORMATS[name]
    code, out, err = run("review", "export", reviewed_run, "--to", file, "--format", name, "--unsure", 1)
    assert code == 0, err
    assert "1 suspect, " in out
    assert ", 1 disagreement, 1 unsure)" in out
    right = str((int(SUSPECT.answer) + 1) % 7)
    fill(tmp_path / file, {
        SUSPECT.id: ("correct" if name == "rows" else "", right),
        UNSURE.id: ("drop", ""),
        LOW.id: ("keep", ""),
        DISPUTED.id: ("", str((int(DISPUTED.answer) + 2) % 7)),
    })  # fmt: skip
    code, out, err = run("review", "import", file, "--run", reviewed_run, "--to", "seeds.jsonl")
    assert code == 0, err
    assert "wrote 13 seeds to seeds.jsonl: 1 rows confirmed, 2 corrected, 1 seeds dropped; 2 of the rows" in out
    seeds = {row.question: row for row in read_examples(str(tmp_path / "seeds.jsonl"), DIGITS)}
    assert len(seeds) == 13
    assert UNSURE.question not in seeds
    corrected, joined = seeds[SUSPECT.question], seeds[LOW.question]
    assert (corrected.answer, corrected.source_id) == (right, SUSPECT.source_id)
    assert corrected.checks == [f"review: answer {SUSPECT.answer!r} -> {right!r}, was row {SUSPECT.id}"]
    assert (joined.answer, joined.generated) == (LOW.answer, False)
    assert joined.checks == [f"review: confirmed; written by openai from seed {LOW.parent_id}"]
    assert seeds[seed(5).question].checks == []
    # In the next run, `why` tells what the person did.
    for place in (reviewed_run / "artifacts" / "colours-2026").glob("prepare/splits"):
        write_splits(LocalArtifact(str(place)), {**read_splits(str(place)), "seeds": list(seeds.values())})
    code, out, _ = run("inspect", "why", corrected.id, "--run", reviewed_run)
    assert code == 0
    assert f"checks     review: answer {SUSPECT.answer!r} -> {right!r}, was row {SUSPECT.id}" in out


def test_what_is_worth_a_look_comes_once_with_its_reasons(run: Run, tmp_path: Path, reviewed_run: Path) -> None:
    assert run("review", "export", reviewed_run, "--to", "review.jsonl", "--unsure", 12)[0] == 0
    rows = [json.loads(line) for line in (tmp_path / "review.jsonl").read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    first = rows[0]
    assert (first["id"], first["reasons"], first["kind"]) == (SUSPECT.id, ["suspect", "unsure"], "seed")
    assert first["detail"].startswith("students answered '5' again and again; the student of iteration 2 is 90% sure")
    unsure = [row["id"] for row in rows if "unsure" in row["reasons"]]
    assert (len(unsure), next(row for row in unsure if row != SUSPECT.id)) == (12, UNSURE.id)
    kinds = {row["id"]: row["kind"] for row in rows}
    assert (kinds[LOW.id], kinds[DISPUTED.id]) == ("generated", "rejected")
    code, out, _ = run("review", "export", reviewed_run, "--to", "few.jsonl", "--unsure", 0, "--below", 0)
    assert (code, out.strip()) == (0, "wrote 2 rows to few.jsonl (1 suspect, 1 disagreement)")


def test_label_studio_is_told_the_labels() -> None:
    tree = ElementTree.fromstring(label_studio_config(DIGITS.model_copy(update={"labels": ['a "b"', "<c>"]})))
    assert [one.get("value") for one in tree.findall("Choices[@name='answer']/Choice")] == ['a "b"', "<c>"]
    tree = ElementTree.fromstring(label_studio_config(Task(name="t", form="text")))
    assert tree.find("TextArea[@name='answer']") is not None


def test_people_who_disagree_are_not_outvoted(run: Run, tmp_path: Path, reviewed_run: Path) -> None:
    assert run("review", "export", reviewed_run, "--to", "review.json", "--format", "argilla")[0] == 0
    records = json.loads((tmp_path / "review.json").read_text())
    for record in records[:1]:
        record["responses"] = {"answer": [{"value": "1", "user_id": "ann"}, {"value": "2", "user_id": "bob"}]}
    for record in records[1:2]:
        record["responses"] = {"decision": [{"value": "keep", "user_id": "ann"}, {"value": "keep", "user_id": "bob"}]}
    (tmp_path / "review.json").write_text(json.dumps(records))
    code, out, _ = run("review", "import", "review.json", "--run", reviewed_run, "--to", "seeds.jsonl")
    assert (code, "; 1 left out, about which people disagree" in out, "1 rows confirmed, 0 corrected" in out) == (
        0, True, True)  # fmt: skip


MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"decision": "correct"}, "review.jsonl:1: decision 'correct', and `corrected` is empty"),
    ({"decision": "yes"}, "review.jsonl:1: decision 'yes' is none of keep, correct, drop"),
    ({"corrected": "9"}, "review.jsonl:1: the answer '9' is not in the label set"),
    ({"decision": "keep", "id": "0000"}, "review.jsonl:1: row 0000 is not in the run at"),
    ({}, "review: nobody has decided anything; fill in `decision` or `corrected`"),
    ({"id": ""}, "review.jsonl:1: no `id`"),
]


@pytest.mark.parametrize(("said", "message"), MISTAKES)
def test_a_mistake_of_the_reviewer_is_one_line(
    run: Run, tmp_path: Path, reviewed_run: Path, said: dict[str, Any], message: str
) -> None:
    assert run("review", "export", reviewed_run, "--to", "review.jsonl")[0] == 0
    first, *_ = (json.loads(line) for line in (tmp_path / "review.jsonl").read_text().splitlines())
    (tmp_path / "review.jsonl").write_text(json.dumps({**first, **said}) + "\n")
    code, _, err = run("review", "import", "review.jsonl", "--run", reviewed_run, "--to", "seeds.jsonl")
    assert (code, err.startswith(f"error: {message}"), len(err.splitlines())) == (2, True, 1), err
    assert not (tmp_path / "seeds.jsonl").exists()


def test_a_run_without_doubts_has_nothing_to_review(run: Run, tmp_path: Path) -> None:
    output = make_run(tmp_path / "out", config={"task": DIGITS.model_dump(mode="json")})
    code, _, err = run("review", "export", output, "--to", "review.csv", "--below", 0)
    assert (code, err.startswith("error: review: nothing in this run is suspect, disputed or unsure")) == (2, True)
    assert open_run(str(output)).best_iteration() == 2
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
