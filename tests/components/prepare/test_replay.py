"""General rows: read as any text, never like a validation or test row, and apart from the task's own sets."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from llm2llm.components.prepare.prepare import prepare
from llm2llm.components.prepare.run import run
from llm2llm.components.prepare.settings import PrepareSettings
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Reject
from llm2llm.components.shared.tasks import Task
from tests.support.builders import artifacts

Make = Callable[..., Example]
SETS = ("seeds_set", "validation_set", "test_set", "pool_set", "replay_set", "rejects")


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
    outputs = artifacts(tmp_path / "out", *SETS)
    columns = {"question": "instruction", "answer": "output"}
    common = {"validation": "", "test": "", "pool": "", "task": colours.model_dump(), "seed_count": 0, "random_seed": 0}
    run(seeds=seeds, replay=general, settings={"replay_columns": columns}, **common, **outputs)
    rows = read_rows(outputs["replay_set"].path, "examples", Example)
    assert {row.question: row.answer for row in rows} == {f"Do {n}.": text for n, text in enumerate(answers)}
    assert [row.id for row in rows] == sorted(row.id for row in rows)
    assert read_rows(outputs["rejects"].path, "rejects", Reject) == []

    run(seeds=seeds, settings={}, **common, **outputs)
    assert read_rows(outputs["replay_set"].path, "examples", Example) == []


def test_a_source_without_the_columns_is_named(
    tmp_path: Path, colours: Task, capfd: pytest.CaptureFixture[str]
) -> None:
    seeds = written(tmp_path / "seeds.jsonl", [{"question": f"the {c}", "answer": c} for c in colours.labels])
    general = written(tmp_path / "general.jsonl", [{"order": "Do it.", "reply": "Done."}])
    outputs = artifacts(tmp_path / "out", *SETS)
    common = {"validation": "", "test": "", "pool": "", "task": colours.model_dump(), "seed_count": 0, "random_seed": 0}
    with pytest.raises(SystemExit) as caught:
        run(seeds=seeds, replay=general, settings={}, **common, **outputs)
    assert caught.value.code == 2
    error = capfd.readouterr().err
    assert "general.jsonl:1" in error
    assert "'question'" in error
