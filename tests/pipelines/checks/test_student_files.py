"""`llm2llm preflight` opens a student's folder: tokenizer, template, weight headers, the length of right answers."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from tests.pipelines.checks.test_cluster import lines
from tests.support.cluster import Run

ANSWER = "The parcel was sent back to the depot and will be scanned again tomorrow morning."


@pytest.fixture
def config(tiny_student: Path, tmp_path: Path) -> Path:
    """A config whose student is a folder beside it."""
    shutil.copytree(tiny_student, tmp_path / "student")
    rows = [{"question": f"What about parcel {n}?", "answer": f"{ANSWER} {n}"} for n in range(40)]
    (tmp_path / "seeds.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    values = {
        "name": "mine", "student": str(tmp_path / "student"), "data": {"seeds": str(tmp_path / "seeds.jsonl")},
        "task": {"name": "mine", "form": "text", "max_new_tokens": 8}, "prepare": {"seed_count": 20},
        "teacher_augment": {"teacher": "pool"},
    }  # fmt: skip
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    return tmp_path / "mine.yaml"


def files(run: Run, config: Path, *settings: str) -> list[str]:
    """The lines about the student's files."""
    sets = [part for one in settings for part in ("--set", one)]
    _, out, err = run("preflight", str(config), *sets)
    assert "Traceback" not in out + err
    assert "student's files" in lines(out)
    return [line for line in out.splitlines() if "student's files" in line]


def test_a_whole_student_passes_and_its_answers_are_measured(run: Run, config: Path) -> None:
    found = files(run, config)
    assert all(line.startswith("ok") for line in found)
    assert any("no chat template" in line for line in found)
    assert any("instead of task.max_new_tokens 8" in line for line in found)


def test_a_limit_below_the_right_answers_fails(run: Run, config: Path) -> None:
    found = files(run, config, "evaluate.max_new_tokens=9")
    assert found[-1].startswith("fail")
    assert "evaluate.max_new_tokens: 9 is too short" in found[-1]


@pytest.mark.parametrize(
    ("template", "says"),
    [
        ("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}", "leaves out the answer"),
        ("{{ messages[0].content + 1 }}", "refuses what it is given"),
    ],
)
def test_a_chat_template_that_does_not_do_fails(template: str, says: str, run: Run, config: Path) -> None:
    (config.parent / "student" / "chat_template.jinja").write_text(template)
    found = files(run, config)
    assert found[-1].startswith("fail")
    assert says in found[-1]
    good = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
    (config.parent / "good.jinja").write_text(good)
    found = files(run, config, f"task.chat.template={config.parent / 'good.jinja'}")
    assert all(line.startswith("ok") for line in found)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
        (lambda path: path.write_bytes(path.read_bytes()[:-9]), "cut off"),
    ],
)
def test_damaged_weights_fail(damage: object, says: str, run: Run, config: Path) -> None:
    assert callable(damage)
    damage(config.parent / "student" / "model.safetensors")
    found = files(run, config)
    assert found[-1].startswith("fail")
    assert says in found[-1]


def test_a_quantised_student_fails_under_full_training(run: Run, config: Path) -> None:
    file = config.parent / "student" / "config.json"
    quantised = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **quantised}))
    assert "are quantised (awq); set train.method: qlora" in files(run, config)[-1]


def test_a_rate_at_which_an_adapter_hardly_learns_is_a_warning(run: Run, config: Path) -> None:
    _, out, _ = run("preflight", str(config), "--set", "train.method=lora", "--set", "train.learning_rate=2e-5")
    assert "set train.learning_rate: 2.0e-4" in lines(out)["learning rate"][1]
    _, out, _ = run("preflight", str(config), "--set", "train.method=lora")
    assert "learning rate" not in lines(out)


class TestDistillation:
    """The teacher of `train.distill`, a folder as the student is."""

    def found(self, run: Run, config: Path, teacher: str) -> tuple[str, str]:
        _, out, _ = run("preflight", str(config), "--set", f"train.distill.model={teacher}")
        return lines(out)["train.distill.model"]

    def test_one_with_the_students_vocabulary_passes(self, run: Run, config: Path, tiny_student: Path) -> None:
        status, detail = self.found(run, config, str(tiny_student))
        assert status == "ok"
        assert "has the student's 300 tokens" in detail

    def test_one_with_other_tokens_fails(self, run: Run, config: Path, tiny_student: Path) -> None:
        other = config.parent / "other"
        shutil.copytree(tiny_student, other)
        tokenizer = json.loads((other / "tokenizer.json").read_text())
        vocabulary = tokenizer["model"]["vocab"]
        one, two = list(vocabulary)[-2:]
        vocabulary[one], vocabulary[two] = vocabulary[two], vocabulary[one]
        (other / "tokenizer.json").write_text(json.dumps(tokenizer))
        status, detail = self.found(run, config, str(other))
        assert status == "fail"
        assert "has another tokenizer than the student: 2 tokens differ" in detail

    def test_one_without_weights_or_that_is_none_fails(self, run: Run, config: Path, tiny_student: Path) -> None:
        (config.parent / "empty").mkdir()
        assert self.found(run, config, str(config.parent / "empty"))[0] == "fail"
        bare = config.parent / "bare"
        shutil.copytree(tiny_student, bare)
        (bare / "model.safetensors").unlink()
        status, detail = self.found(run, config, str(bare))
        assert status == "fail"
        assert "no safetensors" in detail

    def test_the_memory_of_the_training_counts_it(self, run: Run, config: Path, tiny_student: Path) -> None:
        def needed(*settings: str) -> float:
            sets = [part for one in ("train.max_length=2048", *settings) for part in ("--set", one)]
            _, out, _ = run("preflight", str(config), *sets)
            return float(lines(out)["memory of train"][1].split()[1])

        beside = needed(f"train.distill.model={tiny_student}")
        # 48 bytes for each of 8 x 2048 tokens and 300 words, and a tenth more.
        assert beside - needed() == pytest.approx(1.1 * 48 * 8 * 2048 * 300 / 2**30, abs=0.11)
