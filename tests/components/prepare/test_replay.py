"""General rows: read as any text, never like a validation or test row, and apart from the task's own sets."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llm2llm.components.prepare.component import prepare as stage
from llm2llm.components.prepare.prepare import prepare
from llm2llm.components.prepare.settings import PrepareSettings
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.journal import read_journal
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.tasks import Task
from tests.support.builders import outputs_of

Make = Callable[..., Example]


def written(path: Path, rows: list[dict[str, str]]) -> str:
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return str(path)


def test_general_rows_that_are_like_test_or_validation_are_rejected(example: Make, colours: Task) -> None:
    seeds = [example(f"the {label} thing number {n}", label) for label in colours.labels for n in range(3)]
    test = [example("which colour has the sky on a clear summer day", "blue")]
    validation = [example("the colour of fresh grass in the month of may", "green")]
    general = [
        example("Which colour has the sky, on a clear summer day?", "Blue, as a rule."),
        example("The colour of fresh grass in the month of May", "Green."),
        example("Name three rivers.", "Rhine, Rhone, Po."),
        example("Name three rivers.", "Elbe, Oder, Spree."),
    ]
    made = prepare(seeds, validation, test, [], colours, PrepareSettings(), 0, replay=general)
    assert [row.question for row in made.replay] == ["Name three rivers."]
    assert {row.reason for row in made.rejects} == {"in_test", "in_validation"}
    assert "removed 1 rows from replay: they nearly match rows of test" in made.notes
    without = prepare(seeds, validation, test, [], colours, PrepareSettings(), 0)
    assert without.replay == []
    for name in ("seeds", "validation", "test", "pool"):
        assert getattr(without, name) == getattr(made, name), "general rows change no other set"


def test_from_a_source_with_columns_of_its_own(tmp_path: Path, colours: Task) -> None:
    lines = [{"question": f"the {label} {n}", "answer": label} for label in colours.labels for n in range(4)]
    seeds = written(tmp_path / "seeds.jsonl", lines)
    answers = ["Yes.\nColour: red\nText: this is no second question", "Answer: 42", "a" * 500]
    general = written(
        tmp_path / "general.jsonl", [{"instruction": f"Do {n}.", "output": text} for n, text in enumerate(answers)]
    )
    outputs = outputs_of("prepare", tmp_path / "out")
    columns = {"question": "instruction", "answer": "output"}
    settings = {"task": colours.model_dump(), "data": {"seeds": seeds, "replay": general}}
    stage.python_func(settings=settings_text({**settings, "prepare": {"replay_columns": columns}}), **outputs)
    rows = read_rows(outputs["replay_set"].path, "examples", Example)
    assert {row.question: row.answer for row in rows} == {f"Do {n}.": text for n, text in enumerate(answers)}
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert read_journal(outputs["journal"]).rejects == []

    outputs = outputs_of("prepare", tmp_path / "without")
    stage.python_func(settings=settings_text({**settings, "data": {"seeds": seeds}}), **outputs)
    assert read_rows(outputs["replay_set"].path, "examples", Example) == []


def test_a_source_without_the_columns_is_named(
    tmp_path: Path, colours: Task, capfd: pytest.CaptureFixture[str]
) -> None:
    seeds = written(tmp_path / "seeds.jsonl", [{"question": f"the {c}", "answer": c} for c in colours.labels])
    general = written(tmp_path / "general.jsonl", [{"order": "Do it.", "reply": "Done."}])
    settings = {"task": colours.model_dump(), "data": {"seeds": seeds, "replay": general}}
    with pytest.raises(SystemExit) as caught:
        stage.python_func(settings=settings_text(settings), **outputs_of("prepare", tmp_path / "out"))
    assert caught.value.code == 2
    error = capfd.readouterr().err
    assert "general.jsonl:1" in error
    assert "'question'" in error
