"""The command line as a person meets it: help, errors in one line, exit codes, nothing half written."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest
import yaml

from llm2llm.components.shared.data.parquet import read_rows, write_rows
from llm2llm.components.shared.data.schemas import Example, Prediction, Score
from llm2llm.pipelines.cli.examples import EXAMPLES
from llm2llm.pipelines.cli.main import cli
from llm2llm.pipelines.config import shipped_configs
from llm2llm.pipelines.inspect.tables import summary_table
from tests.support.command_line import Run


def jsonl(path: Path, rows: list[dict[str, object]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def tickets(count: int = 12) -> list[dict[str, object]]:
    colours = ("red", "green", "blue")
    return [{"text": f"number {i} is {colours[i % 3]}", "colour": colours[i % 3]} for i in range(count)]


TASK = {"name": "colours", "form": "classification", "labels": ["red", "green", "blue"],
        "columns": {"question": "text", "answer": "colour"}}  # fmt: skip


def config(path: Path, **values: object) -> Path:
    base: dict[str, object] = {
        "name": "colours",
        "max_iterations": 1,
        "student": "scratch",
        "task": TASK,
        "data": {"seeds": "seeds.jsonl", "test": "test.jsonl"},
        "teacher_augment": {"teacher": "grammar", "grammar": {"patterns": {"red": ["it is red"]}}},
    }
    path.write_text(yaml.safe_dump(base | values))
    return path


def test_help_names_every_command(run: Run) -> None:
    code, out, _ = run("--help")
    assert code == 0
    for command in ("run", "compile", "config", "grade", "inspect", "stage"):
        assert f"\n  {command} " in out


def commands_of(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    if isinstance(command, click.Group) and command.name != "stage":
        for name, inner in command.commands.items():
            if not inner.hidden:
                yield from commands_of(inner, (*words, name))
    else:
        yield words, command


@pytest.mark.parametrize(("words", "line"), [(words, line) for words, lines in EXAMPLES.items() for line in lines])
def test_every_example_is_a_command_that_parses(words: str, line: str) -> None:
    command: click.Command = cli
    given = shlex.split(line.partition(" > ")[0].partition(" >> ")[0])
    assert given[: len(words.split())] == words.split()
    for word in words.split():
        assert isinstance(command, click.Group)
        command = command.commands[word]
    command.make_context(words, given[len(words.split()) :])


def test_every_command_has_an_example_in_its_help(run: Run) -> None:
    for words, _ in commands_of(cli):
        if words != ("stage",):
            assert " ".join(words) in EXAMPLES, "add one to cli/examples.py"
            assert "Examples:" in run(*words, "--help")[1], words


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_prints_a_script(shell: str, run: Run) -> None:
    code, out, _ = run("completion", shell)
    assert code == 0
    assert "_LLM2LLM_COMPLETE" in out


def test_stage_help_lists_stages_and_their_inputs(run: Run) -> None:
    code, out, _ = run("stage", "--help")
    assert code == 0
    assert "out_of_fold" in out
    for stage in (
        "prepare",
        "train",
        "evaluate",
        "out_of_fold",
        "filter_errors",
        "teacher_augment",
        "dedupe",
        "report",
    ):
        code, out, _ = run("stage", stage, "--help")
        assert code == 0
        assert "--output" in out
    assert "--previous" in run("stage", "train", "--help")[1]


def test_mistyped_commands_are_answered_with_the_nearest(run: Run) -> None:
    code, _, err = run("compil", "snips")
    assert (code, "did you mean 'compile'" in err) == (2, True)
    code, _, err = run("stage", "dedup")
    assert (code, "did you mean 'dedupe'" in err) == (2, True)


def test_config_prints_what_it_lists(run: Run) -> None:
    _, out, _ = run("config")
    assert {line.split()[0] for line in out.splitlines()} == set(shipped_configs())
    _, out, _ = run("config", "snips")
    assert yaml.safe_load(out)["name"] == "snips"
    code, _, err = run("config", "snip")
    assert (code, "did you mean 'snips'" in err) == (2, True)


def test_a_folder_does_not_hide_the_shipped_config_of_its_name(run: Run, tmp_path: Path) -> None:
    """`llm2llm run quickstart --output quickstart`, which is how a run is begun, goes on when it is given again."""
    (tmp_path / "quickstart").mkdir()
    code, _, err = run("compile", "quickstart", "--output", "quickstart/pipeline.yaml")
    assert (code, err) == (0, "")
    (tmp_path / "snips").write_text("name: mine")
    code, _, err = run("plan", "snips")
    assert (code, "snips.task" in err or "snips: " in err) == (2, True), "a file does: it is the user's own config"
    code, _, err = run("plan", ".")
    assert (code, "cannot read .: Is a directory" in err) == (2, True)


def test_grade(run: Run, tmp_path: Path) -> None:
    rows: list[dict[str, object]] = [
        {"completion": "2 + 2 = 4\n#### 4", "answer": "two and two\n#### 4", "extra": 1},
        {"completion": "The answer is -5.", "answer": "5"},
        {"completion": "I do not know.", "answer": "12"},
        {"completion": "1/2", "answer": "12"},
    ]
    source = jsonl(tmp_path / "in.jsonl", rows)
    code, out, _ = run("grade", "--task", "gsm8k", "--input", source, "--output", "out.jsonl")
    assert code == 0
    assert "4 rows: 1 correct (25.0%), 2 wrong, 1 unparseable" in out
    graded = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["correct"] for row in graded] == [True, False, False, False]
    assert [row["parsed"] for row in graded] == ["4", "-5", None, "1/2"] or graded[3]["parsed"] == "0.5"
    assert graded[0]["extra"] == 1


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([{"completion": "4"}], "in.jsonl:1: no field 'answer'"),
        ([{"completion": "4", "answer": "four"}], "in.jsonl:1: the answer must be one number, got 'four'"),
        ([], "in.jsonl: no rows"),
    ],
)
def test_grade_names_the_line(run: Run, tmp_path: Path, rows: list[dict[str, object]], message: str) -> None:
    code, _, err = run("grade", "--task", "gsm8k", "--input", jsonl(tmp_path / "in.jsonl", rows), "--output", "o.jsonl")
    assert code == 2
    assert message in err
    assert not (tmp_path / "o.jsonl").exists()


BAD_ROWS: list[tuple[str, list[dict[str, object]], str]] = [
    ("missing column", [{"txt": "a", "colour": "red"}], "seeds.jsonl:1: no column 'text'; did you mean 'txt'?"),
    ("empty file", [], "seeds.jsonl: no rows"),
    ("empty prompt", [*tickets(2), {"text": " ", "colour": "red"}], "seeds.jsonl:3: column 'text' is empty"),
    ("label", [*tickets(2), {"text": "a", "colour": "rad"}], "seeds.jsonl:3: the answer 'rad' is not in the label set"),
    ("contradiction", [*tickets(3), {"text": "Number 0 is red!", "colour": "blue"}], "seeds.jsonl:1 answers 'red' and"),
]


def settings(**sections: Any) -> str:
    """A stage's settings as a user writes them, in YAML's one-line form."""
    return yaml.safe_dump(json.loads(json.dumps(sections, default=str)), default_flow_style=True, width=100_000)


@pytest.mark.parametrize(("rows", "message"), [case[1:] for case in BAD_ROWS], ids=[case[0] for case in BAD_ROWS])
def test_bad_rows_end_the_stage_and_leave_nothing(
    run: Run, tmp_path: Path, rows: list[dict[str, object]], message: str
) -> None:
    seeds = jsonl(tmp_path / "seeds.jsonl", rows)
    code, _, err = run("stage", "prepare", "--settings", settings(task=TASK, data={"seeds": seeds}), "--output", "out")
    assert code == 2
    assert message in err.removeprefix("error: ")
    assert "Traceback" not in err
    assert list((tmp_path / "out").iterdir()) == []


def test_duplicate_ids_are_named(run: Run, tmp_path: Path) -> None:
    rows = [{**row, "key": i % 4} for i, row in enumerate(tickets(5))]
    task = {**TASK, "columns": {"question": "text", "answer": "colour", "id": "key"}}
    seeds = jsonl(tmp_path / "seeds.jsonl", rows)
    code, _, err = run("stage", "prepare", "--settings", settings(task=task, data={"seeds": seeds}), "--output", "out")
    assert code == 2
    assert "seeds.jsonl:5: id '0' (column 'key') stands in seeds.jsonl:1 already" in err


def test_stages_alone_on_json_lines(run: Run, tmp_path: Path, example: Callable[..., Example]) -> None:
    """prepare, filter_errors, teacher_augment and dedupe one after the other, some of it from JSON lines."""
    seeds = jsonl(tmp_path / "seeds.jsonl", tickets(12))
    test = jsonl(tmp_path / "test.jsonl", [{"text": "what a red car", "colour": "red"}])
    asked = settings(task=TASK, data={"seeds": seeds, "test": test}, prepare={"validation_fraction": 0.25})
    code, out, err = run("stage", "prepare", "--settings", asked, "--output", "p")
    assert code == 0, err
    assert "splits" in out
    rows = read_rows(tmp_path / "p" / "training_set.parquet", "examples", Example)
    assert len(rows) == 9

    wrong = [
        Prediction(example_id=row.id, split="seeds", iteration=0, completion="blue", parsed="blue",
                   outcome="correct" if row.answer == "blue" else "wrong")
        for row in rows
    ]  # fmt: skip
    write_rows(tmp_path / "predictions.parquet", "predictions", wrong)
    score = Score(iteration=0, split="validation", n=3, correct=1, unparseable=0, accuracy=1 / 3, low=0.06, high=0.79,
                  training_rows=9)  # fmt: skip
    (tmp_path / "scored").mkdir()
    write_rows(tmp_path / "scored" / "scores.parquet", "scores", [score])
    code, out, err = run("stage", "filter_errors", "--training-set", "p/training_set.parquet", "--predictions",
                         "predictions.parquet", "--previous-journal", "scored", "--settings", "{max_iterations: 1}",
                         "--output", "f")  # fmt: skip
    assert code == 0, err
    assert "returned             true" in out

    grammar = {"patterns": {c: [f"{{it}} is {c}", f"a {c} {{thing}}"] for c in ("red", "green", "blue")},
               "slots": {"it": ["this", "that", "the {thing}"], "thing": ["car", "door", "hat"]}}  # fmt: skip
    augment = {"teacher": "grammar", "examples_per_error": 2, "grammar": grammar}
    code, out, err = run("stage", "teacher_augment", "--previous-journal", "f/journal", "--training-set",
                         "p/training_set.parquet", "--settings", settings(task=TASK, teacher_augment=augment),
                         "--output", "t")  # fmt: skip
    assert code == 0, err

    code, out, _ = run("inspect", "show", "t/candidates.parquet")
    assert code == 0
    candidates = jsonl(tmp_path / "candidates.jsonl", [json.loads(line) for line in out.splitlines()])
    (tmp_path / "only_test").mkdir()
    shutil.copyfile(tmp_path / "p" / "splits" / "test.parquet", tmp_path / "only_test" / "test.parquet")
    code, out, err = run("stage", "dedupe", "--candidates", candidates, "--training-set", "p/training_set.parquet",
                         "--splits", "only_test", "--settings", "{}", "--output", "d")  # fmt: skip
    assert code == 0, err
    assert "no validation rows are given" in out
    following = read_rows(tmp_path / "d" / "next_training_set.parquet", "examples", Example)
    assert {row.id for row in rows} < {row.id for row in following}


def test_a_whole_config_will_do_as_the_settings_of_a_stage(run: Run, tmp_path: Path) -> None:
    jsonl(tmp_path / "seeds.jsonl", tickets(12))
    jsonl(tmp_path / "test.jsonl", [{"text": "what a red car", "colour": "red"}])
    code, _, err = run("stage", "prepare", "--settings", config(tmp_path / "c.yaml"), "--output", "p")
    assert code == 0, err
    assert (tmp_path / "p" / "splits" / "seeds.parquet").is_file()
    code, _, err = run("stage", "dedupe", "--candidates", "p/training_set.parquet", "--training-set",
                       "p/training_set.parquet", "--settings", "{train: {epochs: 1}}", "--output", "d")  # fmt: skip
    assert (code, "--settings: dedupe reads task, dedupe, and not train" in err) == (2, True)


def test_a_parquet_file_of_another_kind_is_refused(run: Run, tmp_path: Path, example: Callable[..., Example]) -> None:
    write_rows(tmp_path / "candidates.parquet", "examples", [example("a", "red")])
    code, _, err = run("stage", "dedupe", "--candidates", "candidates.parquet", "--training-set", "candidates.parquet",
                       "--settings", "{}", "--output", "out")  # fmt: skip
    assert code == 2
    assert "expected 'candidates' rows, found 'examples' rows" in err
    assert list((tmp_path / "out").iterdir()) == []


def test_a_teacher_that_refuses_the_connection(run: Run, tmp_path: Path, example: Callable[..., Example]) -> None:
    seed = example("a", "red")
    write_rows(tmp_path / "seeds.parquet", "examples", [seed])
    error = {"iteration": 0, "example_id": seed.id, "question": "a", "answer": "red", "completion": "blue",
             "parsed": "blue", "outcome": "wrong"}  # fmt: skip
    (tmp_path / "journal").mkdir()
    jsonl(tmp_path / "journal" / "errors.jsonl", [error])
    augment = {"model": "m", "url": "http://127.0.0.1:9/v1", "attempts": 1}
    code, _, err = run("stage", "teacher_augment", "--previous-journal", "journal", "--training-set", "seeds.parquet",
                       "--settings", settings(task=TASK, teacher_augment=augment), "--output", "out")  # fmt: skip
    assert code == 2
    assert "error: teacher http://127.0.0.1:9/v1: cannot connect" in err
    assert "Traceback" not in err
    assert list((tmp_path / "out").iterdir()) == []


def test_run_refuses_bad_configs_before_it_starts(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = config(tmp_path / "c.yaml", train={"epoch": 3})
    code, _, err = run("run", path, "--output", "out")
    assert (code, "c.yaml: train.epoch: unknown key; did you mean 'epochs'?" in err) == (2, True)
    assert not (tmp_path / "out").exists()
    code, _, err = run("run", config(tmp_path / "c.yaml"), "--output", "out")
    assert (code, f"data.seeds: {tmp_path}/seeds.jsonl: no such file" in err) == (2, True)
    for key in ("student", "data.seeds"):
        code, _, err = run("run", path, "--set", "train={}", "--set", f"{key}=", "--output", "out2")
        assert (code, f"--set {key}: " in err) == (2, True), err
    jsonl(tmp_path / "seeds.jsonl", tickets())
    jsonl(tmp_path / "test.jsonl", tickets(3))
    code, _, err = run("run", config(tmp_path / "c.yaml", student="./nowhere"), "--output", "out2")
    assert (code, f"student {tmp_path}/nowhere: no such folder" in err) == (2, True)
    assert not (tmp_path / "out2").exists()
    monkeypatch.delenv("LLM2LLM_VLLM_PYTHON", raising=False)
    code, _, err = run("run", config(tmp_path / "c.yaml", evaluate={"backend": "vllm"}), "--output", "out2")
    assert (code, "evaluate.backend 'vllm': there is no vLLM in this Python" in err) == (2, True)
    assert not (tmp_path / "out2").exists()


def test_run_says_when_no_docker_engine_answers(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    jsonl(tmp_path / "seeds.jsonl", tickets())
    jsonl(tmp_path / "test.jsonl", tickets(3))
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/nowhere.sock")
    code, _, err = run("run", config(tmp_path / "c.yaml"), "--output", "out", "--runner", "docker")
    assert (code, "--runner docker: no Docker engine answers" in err) == (2, True)


def test_run_refuses_an_output_that_it_cannot_use(run: Run, tmp_path: Path) -> None:
    jsonl(tmp_path / "seeds.jsonl", tickets())
    jsonl(tmp_path / "test.jsonl", tickets(3))
    path = config(tmp_path / "c.yaml")
    (tmp_path / "file").write_text("")
    code, _, err = run("run", path, "--output", "file")
    assert (code, "is a file; choose a folder" in err) == (2, True)
    code, _, err = run("run", path, "--output", "/proc/nowhere")
    assert code == 2
    assert "cannot write /proc/nowhere" in err


@pytest.mark.slow
def test_a_full_disk_is_one_clear_error(tmp_path: Path) -> None:
    """A file system of 200 KB, as root can mount; the run stops with exit code 2 and a message, no traceback."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=200k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("mounting a small file system needs root")
    try:
        (disk / "fill").write_bytes(b"x" * 150_000)
        command = [sys.executable, "-m", "llm2llm.pipelines", "run", "quickstart", "--output", str(disk / "out")]
        done = subprocess.run(command, capture_output=True, text=True, env=os.environ, timeout=120)
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert done.returncode == 2, done.stderr
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_package_that_is_not_installed_is_named_with_its_extra(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rapidfuzz", None)
    for name in [
        name for name in sys.modules if name.startswith(("llm2llm.components.dedupe.", "llm2llm.components.shared.sim"))
    ]:
        monkeypatch.delitem(sys.modules, name)
    Path("rows.jsonl").write_text("")
    code, _, err = run("stage", "dedupe", "--candidates", "rows.jsonl", "--training-set", "rows.jsonl",
                       "--settings", "{}", "--output", "o")  # fmt: skip
    assert code == 2
    assert "error: this needs the package rapidfuzz: pip install 'llm2llm[cpu]'" in err


def test_the_readmes_own_config_is_whole(run: Run, tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")
    (tmp_path / "tickets.yaml").write_text(text.partition("```yaml\n")[2].partition("```")[0])
    labels = ("billing", "delivery", "returns")
    rows = "".join(f"number {i} is about {labels[i % 3]} {i * 7},{labels[i % 3]}\n" for i in range(300))
    (tmp_path / "tickets.csv").write_text("body,queue\n" + rows)
    code, out, err = run("preflight", "tickets.yaml")
    assert (code, err, "0 to look at, 0 failed" in out) == (0, "", True)
    assert run("plan", "tickets.yaml")[0] == 0


@pytest.mark.parametrize("general", [{"question": "Who?", "answer": "Me."}, {"instruction": "Who?", "output": "Me."}])
def test_preflight_reads_general_rows_as_prepare_does(run: Run, general: dict[str, object]) -> None:
    jsonl(Path("seeds.jsonl"), tickets(30))
    jsonl(Path("general.jsonl"), [general])
    config(Path("c.yaml"), data={"seeds": "seeds.jsonl", "replay": "general.jsonl"}, train={"replay_fraction": 0.5})
    code, out, err = run("preflight", "c.yaml")
    assert "fail  " not in out, err
    assert "1 rows of" in out
    assert ("as columns" in out.split("data.replay")[1].split("\n")[0]) == ("question" in general)
    assert ", 1 replay" in out
    assert code == 0


def test_preflight_says_how_rows_are_read(run: Run) -> None:
    chat = [{"messages": [{"role": "user", "content": row["text"]}, {"role": "assistant", "content": row["colour"]}]}
            for row in tickets(30)]  # fmt: skip
    jsonl(Path("seeds.jsonl"), chat)
    config(Path("c.yaml"), data={"seeds": "seeds.jsonl"})
    _, out, _ = run("preflight", "c.yaml")
    assert "seeds.jsonl, as messages" in out
    _, out, _ = run("preflight", "c.yaml", "--set", "prepare.format=alpaca")
    assert "seeds.jsonl:1: no column 'instruction', which format 'alpaca' needs" in out


def test_labels_that_yaml_takes_for_something_else_are_named_with_the_fix(run: Run) -> None:
    config(Path("c.yaml"), task={**TASK, "labels": [False, True]})
    code, _, err = run("plan", "c.yaml")
    assert (code, "task.labels.0" in err, "put the word in quotes" in err) == (2, True, True)
    Path("c.yaml").write_text("name: x\n\tform: y\n")
    code, _, err = run("plan", "c.yaml")
    assert (code, "indent with blanks, not with tabs" in err, err.count("\n")) == (2, True, 1)
    text = config(Path("c.yaml")).read_text()
    Path("c.yaml").write_text(text, encoding="utf-16")
    assert run("plan", "c.yaml")[0] == 0
    code, _, err = run("plan", "c.yaml", "--set", "name=My Tickets")
    assert (code, "lower-case letters, digits and dashes" in err, "[a-z0-9]" in err) == (2, True, False)


def test_export_of_a_file_of_rows(run: Run) -> None:
    rows = [Example(id=f"{i}", question=f"number {i}", answer="red") for i in range(3)]
    write_rows("rows.parquet", "examples", rows)
    code, out, _ = run("export", "rows.parquet", "--to", "out/rows.csv")
    assert (code, out) == (0, "wrote 3 rows to out/rows.csv (csv)\n")
    assert Path("out/rows.csv").read_text(encoding="utf-8-sig").startswith('"id","question",')
    assert run("export", "rows.parquet", "--to", "rows.jsonl", "--format", "messages")[0] == 0
    assert json.loads(Path("rows.jsonl").read_text().splitlines()[0])["messages"][1] == {
        "role": "assistant", "content": "red"
    }  # fmt: skip
    code, _, err = run("export", "rows.parquet", "--to", "rows.txt")
    assert (code, "the suffix '.txt' says no format; set --format" in err) == (2, True)
    code, _, err = run("export", "nowhere", "--to", "rows.csv")
    assert (code, "nowhere: no such folder" in err) == (2, True)


def test_export_of_a_run(run: Run, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    seed = Example(id="a", question="a sky", answer="blue")
    written = Example(id="b", question="a sea", answer="blue", parent_id="a", iteration=1)
    write_rows(folder / "prepare" / "seeds_set", "examples", [seed])
    write_rows(folder / "prepare" / "pool_set", "examples", [])
    write_rows(folder / "dedupe" / "next_training_set", "examples", [seed, written])
    (folder / "configure").mkdir()
    (folder / "configure" / "config").write_text(json.dumps({"task": TASK}))
    code, out, err = run("export", folder, "--to", "train.jsonl", "--lineage")
    assert (code, err, out) == (0, "", "wrote 2 rows to train.jsonl (jsonl)\n")
    assert json.loads(Path("train.jsonl").read_text().splitlines()[1])["parent_id"] == "a"
    assert run("export", folder, "--to", "seeds.csv", "--rows", "seeds")[1] == "wrote 1 rows to seeds.csv (csv)\n"
    for plain, prompt in (((), "Question: a sky\nAnswer:"), (("--plain",), "a sky")):
        assert run("export", folder, "--to", "chat.jsonl", "--format", "prompt_completion", *plain)[0] == 0
        assert json.loads(Path("chat.jsonl").read_text().splitlines()[0]) == {"prompt": prompt, "completion": " blue"}
    for name, says in (("pool", "no rows to write"), ("test", "the run has no test rows")):
        code, _, err = run("export", folder, "--to", "x.csv", "--rows", name)
        assert (code, says in err, Path("x.csv").exists()) == (2, True, False)


def test_run_names_what_it_needs_at_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not pyarrow first, and PyTorch after that is installed."""
    monkeypatch.setattr("llm2llm.pipelines.cli.main.find_spec", lambda name: None)
    code, _, err = run("run", "quickstart", "--output", "out")
    assert (code, "pip install 'llm2llm[train]'" in err) == (2, True)


def test_every_command_has_a_whole_line_in_the_help(run: Run) -> None:
    for group in ((), ("schedule",), ("inspect",), ("ledger",), ("registry",), ("stage",)):
        commands = run(*group, "--help")[1].partition("--help ")[2]
        assert commands.strip(), group
        assert "..." not in commands


SCORE = {"value": 0.5, "low": 0.3, "high": 0.7, "n": 60, "unparseable": 0}


@pytest.mark.parametrize(("unparseable", "left_out"), [(0, 0), (31, 50)])
def test_the_table_says_when_a_student_has_learnt_nothing_and_rows_are_missing(unparseable: int, left_out: int) -> None:
    iteration = {"iteration": 0, "training_rows": 60, "errors": 1, "reason": "iteration limit 1 reached",
                 "accuracy": {"validation": {**SCORE, "unparseable": unparseable}}}  # fmt: skip
    rows = {"generated": 0, "kept": 0, "left_out": left_out, "rejected": {"total": 0, "by_reason": {}}}
    text = summary_table({"iterations": [iteration], "best_iteration": 0, "rows": rows, "teacher_calls": {"total": 0}})
    assert ("31 of the 60 validation answers are unparseable" in text) == (unparseable > 0)
    assert ("50 of your rows were left out" in text) == (left_out > 0)
