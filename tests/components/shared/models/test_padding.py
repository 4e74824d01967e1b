"""Padding on the left is left out where it would change what a student says."""

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.generate import answer, load_student
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.requests import LLMRequest
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.shared.models.load import load_tokenizer
from llm2llm.components.shared.models.padding import Together, in_batches, together
from llm2llm.components.shared.tasks import Task
from tests.support.tiny_models import save_tiny

pytestmark = pytest.mark.slow

PROMPT = list(range(40, 60))


def student_of(architecture: str, tiny_student: Path, folder: Path) -> Path:
    """A student whose biases are not zero, as training leaves them, and that says something else to each prompt."""
    save_tiny(architecture, load_tokenizer(tiny_student), folder)
    model, _ = load_student(folder, AnswerSettings())
    torch.manual_seed(0)
    for name, weight in model.named_parameters():
        if name.endswith("bias") or weight.dim() == 2:
            torch.nn.init.normal_(weight, std=0.5)
    model.save_pretrained(folder)
    return folder


@pytest.mark.parametrize(
    ("architecture", "allowed"),
    [
        ("llama", "any"),
        ("gpt2", "any"),
        ("mamba", "any"),
        ("jamba", "any"),
        ("rwkv", "none"),
        ("recurrent_gemma", "of one length"),
    ],
)
def test_which_prompts_may_go_together(architecture: str, allowed: str, tiny_student: Path, tmp_path: Path) -> None:
    model, tokenizer = load_student(student_of(architecture, tiny_student, tmp_path), AnswerSettings())
    assert together(model, tokenizer, PROMPT, "test") == allowed


@pytest.mark.parametrize("architecture", ["rwkv", "recurrent_gemma"])
def test_a_recurrent_student_answers_the_same_whatever_the_batches(
    architecture: str,
    tiny_student: Path,
    rows: list[Example],
    colours: Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = student_of(architecture, tiny_student, tmp_path)
    settings = AnswerSettings(max_new_tokens=8)

    def said(batch_size: int) -> list[str]:
        given = answer(folder, rows, colours, settings.model_copy(update={"batch_size": batch_size}))
        return [one.completion for one in given]

    alone = said(1)
    assert said(24) == alone
    monkeypatch.setattr("llm2llm.components.shared.inference.generate.together", lambda *_: "any")
    assert said(24) != alone, "a batch would have changed them"


def test_a_recurrent_teacher_answers_the_same_whatever_is_asked_with_it(tiny_student: Path, tmp_path: Path) -> None:
    folder = student_of("rwkv", tiny_student, tmp_path / "teacher")
    texts = ["red", "a red ball", "the green door is green and large"]
    settings = ModelSettings.load({"model": str(folder)}, "test")

    def said(*texts: str) -> list[str]:
        asked = [
            LLMRequest(messages=[{"role": "user", "content": text}], temperature=0.0, max_tokens=8) for text in texts
        ]
        with open_teacher(settings, "transformers", SpendTracker(run="r")) as teacher:
            return [one.text for one in teacher(asked)]

    assert said(*texts) == [said(text)[0] for text in texts]


@pytest.mark.parametrize(
    ("allowed", "expected"),
    [
        ("any", [["bb", "a", "cc", "d"]]),
        ("of one length", [["bb", "cc"], ["a", "d"]]),
        ("none", [["bb"], ["a"], ["cc"], ["d"]]),
    ],
)
def test_results_come_in_the_order_of_the_items(allowed: Together, expected: list[list[str]]) -> None:
    pieces: list[list[str]] = []

    def work(piece: Sequence[str]) -> list[str]:
        pieces.append(list(piece))
        return [text.upper() for text in piece]

    assert in_batches(["bb", "a", "cc", "d"], len, allowed, work) == ["BB", "A", "CC", "D"]
    assert pieces == expected


def test_logits_that_are_no_numbers_in_float16_are_an_error(
    tiny_student: Path, rows: list[Example], colours: Task, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a student that leaves the range of float16 on a GPU without bfloat16."""
    monkeypatch.setattr("llm2llm.components.shared.models.load.precision", lambda: torch.float16)
    assert answer(tiny_student, rows[:2], colours, AnswerSettings())
    model, tokenizer = load_student(tiny_student, AnswerSettings())
    with torch.no_grad():
        model.lm_head.weight.fill_(float("nan"))
    monkeypatch.setattr("llm2llm.components.shared.inference.generate.load_student", lambda *_: (model, tokenizer))
    with pytest.raises(UserError, match=r"logits are not numbers in float16.*bfloat16 \(compute capability 8.0"):
        answer(tiny_student, rows[:2], colours, AnswerSettings())
