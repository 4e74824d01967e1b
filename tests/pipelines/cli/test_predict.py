"""`llm2llm predict`: a finished student asked with the task that it was trained on."""

import csv
import io
import json
import shutil
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.ask import Asked, ask_student
from llm2llm.components.shared.inference.predict import predict
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.student_folder import TRAINING_FILE, read_task
from llm2llm.components.shared.registry.records import RECORD, Record, Rows, Threshold, to_document
from llm2llm.components.shared.tasks import Task, load_task
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.pipelines.cli.predict import _summary
from tests.support.command_line import Run
from tests.support.made_run import make_run


def rows_file(path: Path, rows: list[Example], unanswered: int = 0) -> Path:
    lines = [{"question": row.question, "answer": row.answer} for row in rows]
    lines += [{"question": f"is it {row.answer}?"} for row in rows[:unanswered]]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("mode", ["generate", "score"])
def test_the_answers_are_those_that_evaluate_gives(
    taught_student: Path, rows: list[Example], colours: Task, mode: str
) -> None:
    settings = AnswerSettings(mode=mode, batch_size=5)
    asked = ask_student(taught_student, [*rows, rows[0], replace(rows[1], id="bare", answer="")], colours, settings)
    graded = {one.example_id: one for one in predict(taught_student, {"test": rows}, 0, None, colours, settings)}
    for row, one in zip(rows, asked, strict=False):
        known = graded[row.id]
        assert (one.id, one.question, one.answer) == (row.id, row.question, row.answer)
        assert (one.completion, one.prediction, one.outcome) == (known.completion, known.parsed, known.outcome)
        assert one.confidence == (pytest.approx(known.confidence, abs=1e-4) if mode == "score" else None)
    assert asked[len(rows)] == asked[0]  # a row that stands twice
    assert (asked[-1].answer, asked[-1].outcome, asked[-1].completion) == (None, None, asked[1].completion)


def test_a_student_knows_its_task(run: Run, tmp_path: Path, taught_student: Path, rows: list[Example]) -> None:
    source = rows_file(tmp_path / "in.jsonl", rows, unanswered=3)
    code, out, err = run("predict", "--student", taught_student, "--input", source, "--output", "out.csv")
    assert (code, err.count("evaluate: 27/27 rows")) == (0, 1)
    with open("out.csv", encoding="utf-8-sig", newline="") as file:
        lines = list(csv.DictReader(file))
    right = sum(line["outcome"] == "correct" for line in lines)
    assert right >= 20
    assert f"27 rows; 24 with an answer: {right} correct ({right / 24:.1%}, 95% interval" in out
    assert [line["answer"] for line in lines] == [*(row.answer for row in rows), "", "", ""]
    assert [line["outcome"] for line in lines[-3:]] == ["", "", ""]
    assert all(line["prediction"] in ("red", "green", "blue") for line in lines[-3:])


def test_without_an_output_the_answers_are_all_of_standard_output(
    run: Run, tmp_path: Path, taught_student: Path, rows: list[Example]
) -> None:
    source = rows_file(tmp_path / "in.jsonl", rows[:4])
    code, out, err = run("predict", "--student", taught_student, "--input", source, "--mode", "score")
    found = [json.loads(line) for line in out.splitlines()]
    assert (code, len(found)) == (0, 4)
    assert all(0 < row["confidence"] <= 1 for row in found)
    assert "4 rows; 4 with an answer" in err


def test_an_adapter_is_asked_as_well(
    run: Run, tmp_path: Path, taught_student: Path, rows: list[Example], other_rows: list[Example], colours: Task,
    quick_lora: FineTuneSettings,
) -> None:  # fmt: skip
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    fine_tune(other_rows, colours, str(taught_student), quick_lora, 0, adapter)
    assert not list(adapter.glob("model*.safetensors"))
    source = rows_file(tmp_path / "in.jsonl", other_rows)
    code, out, _ = run("predict", "--student", adapter, "--input", source, "--output", "out.parquet")
    outcomes = pq.read_table("out.parquet").column("outcome").to_pylist()
    assert (code, outcomes.count("correct") >= 20) == (0, True), out


def test_a_run_says_how_its_student_is_asked(
    run: Run, tmp_path: Path, taught_student: Path, rows: list[Example], colours: Task
) -> None:
    settings = {"task": colours.model_dump(mode="json"), "evaluate": {"mode": "score", "shards": 2}}
    output = make_run(tmp_path / "out", config=settings)
    source = rows_file(tmp_path / "in.jsonl", rows[:2])
    code, _, err = run("predict", "--student", output, "--input", source)
    assert (code, "out: a run that has no student yet; run its config to the end" in err) == (2, True)
    shutil.copytree(taught_student, output / "student")
    log = json.loads((output / "student" / TRAINING_FILE).read_text())
    assert log.pop("task")["name"] == "colours"
    (output / "student" / TRAINING_FILE).write_text(json.dumps(log))  # as an older llm2llm left it
    assert read_task(output / "student") is None
    code, out, _ = run("predict", "--student", output, "--input", source)
    assert code == 0
    assert json.loads(out.splitlines()[0])["confidence"] is not None
    code, _, err = run("predict", "--student", output / "student", "--input", source)
    assert (code, "nothing there says what task it was trained on; add --task" in err) == (2, True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"--student": "/nowhere"}, "error: --student /nowhere: no such folder"),
        ({"--input": "none.jsonl"}, "error: none.jsonl: no such file"),
        ({"--output": "out.xlsx"}, "error: --output out.xlsx: the suffix must be one of .jsonl, .csv, .parquet"),
        ({"--format": "mesages"}, "error: --format mesages: no such format; did you mean 'messages'?"),
        ({"--output": "in.jsonl/out.csv"}, "error: cannot write in.jsonl/out.csv"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    run: Run, tmp_path: Path, taught_student: Path, rows: list[Example], changed: dict[str, str], message: str
) -> None:
    rows_file(tmp_path / "in.jsonl", rows[:1])
    given = {"--student": str(taught_student), "--input": "in.jsonl", "--output": "out.csv", **changed}
    code, out, err = run("predict", *(word for pair in given.items() for word in pair))
    assert (code, err.splitlines()[-1].startswith(message), out) == (2, True, ""), err
    assert [path.name for path in tmp_path.iterdir()] == ["in.jsonl"]


def test_a_column_of_another_name_is_told_with_what_helps_here(run: Run, tmp_path: Path, taught_student: Path) -> None:
    (tmp_path / "in.csv").write_text("body\nthe sea\n")
    code, _, err = run("predict", "--student", str(taught_student), "--input", "in.csv")
    assert (code, len(err.splitlines())) == (2, 1)
    assert err.endswith("rename the column, or give --task CONFIG with other task.columns\n")


def test_other_columns_come_back(run: Run, tmp_path: Path, taught_student: Path, rows: list[Example]) -> None:
    """Unless an answer has a column of the name; the user's own id is `source_id`."""
    lines = [
        {"id": f"T-{place}", "question": row.question, "ticket": place, "tags": ["a", {"b": None}], "mixed": mixed,
         "=sum": "=1+1", "\u8a9e": "\ud83d", "\udc00": 1, "outcome": "mine"}
        for place, (row, mixed) in enumerate(zip(rows, [1, "x", None], strict=False))
    ]  # fmt: skip
    source = tmp_path / "in.jsonl"
    source.write_text("".join(json.dumps(line) + "\n" for line in lines))
    code, out, err = run("predict", "--student", taught_student, "--input", source)
    assert code == 0, err
    assert "; not kept, as the answers have columns of these names: outcome" in err
    for place, (line, found) in enumerate(zip(lines, map(json.loads, out.splitlines()), strict=True)):
        assert (found["source_id"], found["source"]) == (f"T-{place}", f"in.jsonl:{place + 1}")
        assert {name: found[name] for name in [*line][2:-2]} == {name: line[name] for name in [*line][2:-2]}
        assert found["\\udc00"] == 1
        assert found["outcome"] is None
    assert run("predict", "--student", taught_student, "--input", source, "--output", "out.csv")[0] == 0
    with open("out.csv", encoding="utf-8-sig", newline="") as file:
        cells = list(csv.DictReader(file))
    assert (cells[0]["'=sum"], cells[0]["tags"], cells[1]["mixed"]) == ("'=1+1", '["a", {"b": null}]', "x")
    assert run("predict", "--student", taught_student, "--input", source, "--output", "out.parquet")[0] == 0
    table = pq.read_table("out.parquet")
    assert (table["ticket"].to_pylist(), table["mixed"].to_pylist()) == ([0, 1, 2], ["1", '"x"', None])


def test_columns_of_parquet_keep_their_types(run: Run, tmp_path: Path, taught_student: Path) -> None:
    when, money = datetime(2024, 1, 2, 3, 4, 5), Decimal("1.5")
    table = pa.table({"question": ["red"], "when": [when], "money": [money], "raw": [b"\xff"], "nan": [float("nan")]})
    pq.write_table(table, tmp_path / "in.parquet")
    code, out, _ = run("predict", "--student", taught_student, "--input", "in.parquet")
    found = json.loads(out)
    assert (code, found["when"], found["money"], found["raw"]) == (0, "2024-01-02T03:04:05", 1.5, "/w==")
    assert found["nan"] is None
    assert run("predict", "--student", taught_student, "--input", "in.parquet", "--output", "out.parquet")[0] == 0
    (kept,) = pq.read_table("out.parquet", columns=["when", "money", "raw"]).to_pylist()
    assert kept == {"when": when, "money": money, "raw": b"\xff"}


def test_a_conversation_comes_back_as_its_question(run: Run, tmp_path: Path, taught_student: Path) -> None:
    line = {"messages": [{"role": "user", "content": "red"}], "system": "", "customer": 7}
    (tmp_path / "in.jsonl").write_text(json.dumps(line) + "\n")
    code, out, _ = run("predict", "--student", taught_student, "--input", "in.jsonl")
    found = json.loads(out)
    assert (code, found["question"], found["customer"], "messages" in found) == (0, "red", 7, False)


@pytest.mark.parametrize(
    ("content", "place"),
    [
        (b'{"question": "red"}\n', "stdin.jsonl:1"),
        (b'\xef\xbb\xbf[{"question": "red"}]', "stdin.jsonl:1"),
        (b"question;n\r\nred;1\r\n", "stdin.csv:2"),
    ],
)
def test_standard_input(
    run: Run, taught_student: Path, content: bytes, place: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
    code, out, err = run("predict", "--student", taught_student, "--input", "-")
    assert (code, json.loads(out)["source"]) == (0, place), err


def test_an_empty_standard_input(run: Run, taught_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert run("predict", "--student", taught_student, "--input", "-") == (2, "", "error: -: no rows\n")


def test_a_run_with_a_threshold_says_which_rows_are_flagged(
    run: Run, tmp_path: Path, taught_student: Path, rows: list[Example], colours: Task
) -> None:
    evaluate = {"mode": "score", "threshold": {"label": "red", "max_false_positive_rate": 0.05}}
    config = {"task": colours.model_dump(mode="json"), "evaluate": evaluate}
    source = rows_file(tmp_path / "in.jsonl", rows)

    def asked(summary: dict[str, Any]) -> tuple[int, list[dict[str, Any]], str]:
        output = make_run(tmp_path / f"out-{len(summary)}", config=config, summary=summary)
        shutil.copytree(taught_student, output / "student")
        code, out, err = run("predict", "--student", output, "--input", source)
        return code, [json.loads(line) for line in out.splitlines()], err

    assert {row["flagged"] for row in asked({})[1]} == {None}  # no report has told a threshold
    code, found, err = asked({"threshold": {"label": "red", "value": 0.02}})
    assert code == 0, err
    for row in found:
        assert row["flagged"] == (row["flag_probability"] >= 0.02)
        if row["prediction"] == "red":
            assert row["flag_probability"] == row["confidence"]
    flagged = sum(row["flagged"] for row in found)
    assert f"; {flagged:,} flagged as red (a probability of at least 0.0200)" in err
    version = tmp_path / "version"  # of a registry, where the record has the threshold
    shutil.copytree(taught_student, version)
    record = Record(
        name="c", task="colours", form="classification", student="scratch", adapter=False, iteration=1,
        seeds=Rows(n=1, generated=0, digest=""), training=Rows(n=1, generated=0, digest=""),
        validation=Rows(n=1, generated=0, digest=""), accuracy={}, baseline={}, random_seed=0, config_digest="",
        code="", threshold=Threshold(label="red", threshold=0.02, max_false_positive_rate=0.05, recall=1.0,
                            false_positive_rate=0.0),
    )  # fmt: skip
    (version / RECORD).write_bytes(to_document(record))
    code, out, err = run("predict", "--student", version, "--input", source)
    assert (code, [json.loads(line) for line in out.splitlines()]) == (0, found)
    code, _, err = run("predict", "--student", version, "--input", source, "--mode", "generate")
    assert (code, "flagged" in err) == (0, False)


def test_answers_with_fields_have_their_f1_in_the_summary(colours: Task) -> None:
    schema = {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b"]}}
    task = load_task({"name": "x", "form": "json", "answer_schema": schema})

    def asked(prediction: str | None, answer: str | None) -> Asked:
        return Asked(
            id="", source="", source_id=None, question="", choices=[], answer=answer, prediction=prediction,
            outcome="wrong" if answer else None, completion="", truncated=False, confidence=None, flag_probability=None,
            flagged=None,
        )  # fmt: skip

    told = _summary([asked('["a"]', '["a","b"]'), asked(None, '["b"]'), asked('["a"]', None)], task)
    assert told.endswith("2 wrong, 0 unparseable; F1 of the fields 50.0%")
    assert "fields" not in _summary([asked("red", "red")], colours)
