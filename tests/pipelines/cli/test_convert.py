"""`llm2llm convert`: a student in another format, asked again. GGUF is written by a stand-in for llama.cpp's script."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models import conversions
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.pipelines.cli.convert import NAMES
from tests.support import gguf_converter
from tests.support.command_line import Run
from tests.support.made_run import make_run


@pytest.fixture
def llama_cpp(tmp_path: Path) -> Path:
    """A folder like llama.cpp's."""
    if find_spec("gguf") is None:
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("needs the package gguf: pip install --no-deps gguf==0.19.0")
    folder = tmp_path / "llama.cpp"
    folder.mkdir()
    shutil.copy(gguf_converter.__file__, folder / conversions.SCRIPT)
    return folder


@pytest.fixture
def with_torchao(tmp_path: Path) -> Callable[..., tuple[int, str]]:
    """The command in a process that finds torchao, which lies in a folder of its own: (exit code, what it says)."""
    place = os.environ.get("LLM2LLM_TORCHAO", "")
    if not Path(place, "torchao").is_dir():
        say = pytest.fail if os.environ.get("CI") else pytest.skip
        say("needs torchao: make torchao, then LLM2LLM_TORCHAO=.torchao")
    environment = {**os.environ, "PYTHONPATH": str(Path(place).absolute()), "OMP_NUM_THREADS": "1"}

    def call(*arguments: object) -> tuple[int, str]:
        command = [sys.executable, "-m", "llm2llm.pipelines", *map(str, arguments)]
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    return call


@pytest.fixture
def asked(tmp_path: Path, rows: list[Example]) -> Path:
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps({"question": row.question, "answer": row.answer}) + "\n" for row in rows))
    return path


def left(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def conversion(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "conversion.json").read_text())
    return found


@pytest.mark.parametrize("kind", ["gguf-f16", "gguf-q8_0"])
def test_a_student_is_written_as_gguf_and_asked_again(
    run: Run, tmp_path: Path, taught_student: Path, llama_cpp: Path, asked: Path, kind: str
) -> None:
    code, out, err = run(
        "convert", taught_student, "--format", kind, "--to", "out", "--input", asked, "--converter", llama_cpp
    )
    assert code == 0, err
    name = f"model-{kind.removeprefix('gguf-').upper()}.gguf"
    assert left(tmp_path / "out") == ["README.md", "conversion.json", name, "training.json"]
    found = conversion(tmp_path / "out")
    (change,) = found["splits"]
    assert (found["format"], change["n"]) == (kind, 24)
    assert change["before"] > 0.8
    assert abs(change["difference"]) <= 0.1, "rounding changes an answer or two at most"
    assert found["bytes_after"] < 0.75 * found["bytes_before"]
    assert f"rows: 24 rows, {change['before']:.1%} before, {change['after']:.1%} after" in out
    assert "McNemar p = " in out
    card = (tmp_path / "out" / "README.md").read_text()
    assert f"These weights are `{kind}`" in card
    assert f"| rows | 24 | {change['before']:.1%} | {change['after']:.1%} |" in card
    assert "were not tried" in card
    assert not [name for name in left(tmp_path) if name.startswith(".")], "nothing else is left behind"


def test_an_adapter_is_merged_first(
    run: Run,
    tmp_path: Path,
    taught_student: Path,
    other_rows: list[Example],
    colours: Task,
    quick_lora: FineTuneSettings,
    llama_cpp: Path,
) -> None:
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    fine_tune(other_rows, colours, str(taught_student), quick_lora, 0, adapter)
    lines = [{"question": row.question, "answer": row.answer} for row in other_rows]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    before = left(adapter)
    for kind, more in (("gguf-f16", ["--converter", llama_cpp]), ("merged", [])):
        code, _, err = run("convert", adapter, "--format", kind, "--to", kind, "--input", "in.jsonl", *more)
        assert code == 0, err
        (change,) = conversion(tmp_path / kind)["splits"]
        assert change["before"] > 0.8
        assert abs(change["difference"]) <= 0.1
    assert left(adapter) == before
    assert {"config.json", "model.safetensors", "tokenizer.json", "training.json"} <= set(left(tmp_path / "merged"))
    assert "adapter_config.json" not in left(tmp_path / "merged")
    # A tool that quantises takes these, and what it makes is asked as any student is.
    code, out, _ = run("predict", "--student", "merged", "--input", "in.jsonl", "--output", "said.jsonl")
    assert (code, "24 with an answer" in out) == (0, True)
    code, _, err = run("convert", "merged", "--format", "merged", "--to", "again", "--input", "in.jsonl")
    assert (code, "has full weights already; copy the folder" in err) == (2, True)


def test_int8_is_asked_as_it_was_saved(
    tmp_path: Path, taught_student: Path, asked: Path, with_torchao: Callable[..., tuple[int, str]]
) -> None:
    code, said = with_torchao("convert", taught_student, "--format", "int8", "--to", "out", "--input", asked)
    assert code == 0, said
    found = conversion(tmp_path / "out")
    assert found["splits"][0]["before"] > 0.8
    assert abs(found["splits"][0]["difference"]) <= 0.1
    assert found["bytes_after"] < found["bytes_before"]
    assert "training.json" in left(tmp_path / "out")
    assert json.loads((tmp_path / "out/config.json").read_text())["quantization_config"]["quant_method"] == "torchao"
    code, said = with_torchao("convert", "out", "--format", "int8", "--to", "again", "--input", asked)
    assert (code, "is quantised already (torchao)" in said) == (2, True)


def test_a_classifier_becomes_int8(
    tmp_path: Path, taught_classifier: Path, asked: Path, with_torchao: Callable[..., tuple[int, str]]
) -> None:
    code, said = with_torchao("convert", taught_classifier, "--format", "int8", "--to", "out", "--input", asked)
    assert code == 0, said
    found = conversion(tmp_path / "out")
    assert (found["mode"], found["splits"][0]["before"] > 0.8) == ("score", True)
    assert abs(found["splits"][0]["difference"]) <= 0.1


def test_a_classifier_becomes_no_gguf(run: Run, taught_classifier: Path, llama_cpp: Path, asked: Path) -> None:
    arguments = ("convert", taught_classifier, "--format", "gguf-f16", "--to", "g", "--input", asked)
    code, _, err = run(*arguments, "--converter", llama_cpp)
    assert (code, "the student is a classifier" in err) == (2, True)


def test_a_runs_own_rows_are_asked_and_its_card_goes_on(
    run: Run, tmp_path: Path, taught_student: Path, colours: Task, llama_cpp: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    settings = {"task": colours.model_dump(mode="json"), "evaluate": {"mode": "generate"}}
    output = make_run(tmp_path / "run", held_out=5, config=settings)
    shutil.copytree(taught_student, output / "student")
    (output / "student" / "README.md").write_text("---\nlicense: mit\n---\n\n# The card\n")
    monkeypatch.setenv(conversions.SCRIPT_VARIABLE, str(llama_cpp))
    code, out, err = run("convert", output, "--format", "gguf-f16", "--to", "out")
    assert code == 0, err
    found = conversion(tmp_path / "out")
    assert [(one["split"], one["n"]) for one in found["splits"]] == [("validation", 5), ("test", 5)]
    assert (found["mode"], found["student"]) == ("generate", "run")
    assert out.index("validation: 5 rows") < out.index("test: 5 rows")
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlicense: mit\n---\n\n# The card\n\n## Converted\n")
    # A version in a registry is asked the rows of the run that is named.
    code, _, err = run("convert", taught_student, "--format", "gguf-f16", "--to", "out2", "--run", output)
    assert (code, len(conversion(tmp_path / "out2")["splits"])) == (0, 2), err


def test_code_that_comes_with_a_student_is_not_run(tmp_path: Path, taught_student: Path, llama_cpp: Path) -> None:
    """The real script trusts remote code."""
    student, target = tmp_path / "student", tmp_path / "target"
    shutil.copytree(taught_student, student)
    target.mkdir()
    config = json.loads((student / "config.json").read_text())
    config["auto_map"] = {"AutoConfig": "theirs.Config"}
    (student / "config.json").write_text(json.dumps(config))
    (student / "theirs.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    conversions.convert(student, "gguf-f16", target, str(llama_cpp / conversions.SCRIPT))
    assert not (tmp_path / "ran").exists()
    assert left(target) == ["model-F16.gguf", "training.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--format", "awq"], "--format awq: llm2llm does not run such tools.*llm-compressor"),
        (["--format", "gptq"], "--format gptq: llm2llm does not run such tools"),
        (["--format", "gguf-f16"], "there is no convert_hf_to_gguf.py on the PATH: get llama.cpp"),
        (["--format", "gguf-f16", "--converter", "nowhere"], "there is no convert_hf_to_gguf.py in nowhere"),
        (["--format", "int8", "--converter", "x"], "--converter: only for GGUF"),
        (["--format", "int8", "--to", "full"], "--to full: is there already"),
        (["--format", "int8", "--run", "x"], "--run and --input"),
        (["--format", "int4"], "'int4' is not one of"),
    ],
)  # fmt: skip
def test_what_cannot_be_converted_is_refused_in_one_line(
    run: Run, tmp_path: Path, taught_student: Path, asked: Path, arguments: list[str], words: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv(conversions.SCRIPT_VARIABLE, raising=False)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    before = left(tmp_path)
    code, _, err = run("convert", taught_student, "--to", "out", "--input", asked, *arguments)
    assert code == 2
    assert len([line for line in err.splitlines() if "rror: " in line]) == 1
    assert re.search(words, err)
    assert left(tmp_path) == before


def test_without_torchao_or_rows_it_says_so(
    run: Run, tmp_path: Path, taught_student: Path, asked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conversions, "find_spec", lambda name: None)
    code, _, err = run("convert", taught_student, "--format", "int8", "--to", "out", "--input", asked)
    assert (code, "needs the package torchao: pip install" in err) == (2, True)
    monkeypatch.setattr(conversions, "find_spec", lambda name: object())
    code, _, err = run("convert", taught_student, "--format", "int8", "--to", "out")
    assert (code, "give --run or --input" in err) == (2, True)
    code, _, err = run("convert", "some/model", "--format", "int8", "--to", "out", "--task", "snips")
    assert (code, "not a folder; convert takes a student that was trained" in err) == (2, True)


def test_a_converter_that_fails_leaves_nothing(
    run: Run, tmp_path: Path, taught_student: Path, llama_cpp: Path, asked: Path
) -> None:
    script = llama_cpp / conversions.SCRIPT
    script.write_text("import sys\nopen(sys.argv[3], 'w').write('half')\nraise KeyError('no such\\nmap')\n")
    before = left(tmp_path)
    arguments = ("convert", taught_student, "--format", "gguf-f16", "--to", "out", "--input", asked)
    code, _, err = run(*arguments, "--converter", llama_cpp)
    assert (code, left(tmp_path)) == (2, before)
    assert "cannot convert this student (exit code 1): KeyError: 'no such\\nmap'" in err
    script.write_text("import sys\nopen(sys.argv[3], 'w').write('no GGUF')\n")
    code, _, err = run(*arguments, "--converter", llama_cpp)
    assert (code, left(tmp_path)) == (2, before)
    assert "transformers cannot read the file again" in err
    assert "Traceback" not in err


def test_the_command_names_every_format() -> None:
    assert list(NAMES) == list(conversions.FORMATS)
