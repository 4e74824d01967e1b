"""A student is asked in evaluation exactly what it was trained on, with and without a chat template."""

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from llm2llm.components.shared import tasks
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference import generate as answer_module
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.heads import HEADS
from llm2llm.components.shared.models.load import load_tokenizer
from llm2llm.components.shared.models.prompts import encode, encode_answers, encode_prompt
from llm2llm.components.shared.tasks import TASKS, Task
from llm2llm.components.shared.training import fine_tune as fine_tune_module
from llm2llm.components.shared.training import trainer as trainer_module
from llm2llm.components.shared.training.settings import FineTuneSettings

pytestmark = pytest.mark.slow


def test_training_and_evaluation_use_the_same_prompt(
    quick: FineTuneSettings,
    tokenizer: Any,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The ids that reach the trainer before the completion are the ids that reach `generate`."""
    monkeypatch.setattr(answer_module, "load_tokenizer", lambda *_: copy.deepcopy(tokenizer))
    head = dataclasses.replace(HEADS["language_model"], load_tokenizer=lambda *_: copy.deepcopy(tokenizer))
    monkeypatch.setitem(fine_tune_module.HEADS, "language_model", head)

    def load_model(*_: object, **__: object) -> Any:
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(tiny_student)
        model.resize_token_embeddings(len(tokenizer))
        return model

    for module in (fine_tune_module, answer_module):
        monkeypatch.setattr(module, "load_model", load_model)
    trained_on: list[list[int]] = []
    from_list = trainer_module.Dataset.from_list

    def record(given: list[dict[str, Any]]) -> Any:
        real = [row for row in given if row["places"]]  # the last one only fills up
        trained_on.extend(row["input_ids"][: sum(label == -100 for label in row["labels"])] for row in real)
        return from_list(given)

    monkeypatch.setattr(trainer_module.Dataset, "from_list", record)
    settings = quick.model_copy(update={"max_steps": 1, "max_length": 128})
    fine_tune_module.fine_tune(rows, colours, str(tiny_student), settings, 0, tmp_path)

    asked: list[list[int]] = []
    import transformers

    generate = transformers.LlamaForCausalLM.generate

    def record_prompts(self: Any, **inputs: Any) -> Any:
        for ids, mask in zip(inputs["input_ids"].tolist(), inputs["attention_mask"].tolist(), strict=True):
            asked.append([i for i, seen in zip(ids, mask, strict=True) if seen])
        return generate(self, **inputs)

    monkeypatch.setattr(transformers.LlamaForCausalLM, "generate", record_prompts)
    answer_module.answer(tiny_student, rows, colours, AnswerSettings(batch_size=5))
    assert sorted(asked) == sorted(trained_on)
    assert len(asked) == len(rows)


def test_prompt_and_completion_are_the_text_that_the_task_says(
    tokenizer: Any, colours: Task, rows: list[Example]
) -> None:
    row = rows[0]
    encoded = encode(tokenizer, colours, row)
    assert encoded.prompt == encode_prompt(tokenizer, colours, row)
    prompt = tokenizer.decode(encoded.prompt)
    assert tasks.prompt(colours, row.question, []) in prompt
    assert tokenizer.decode(encoded.completion, skip_special_tokens=True).strip() == row.answer
    assert tokenizer.eos_token_id in encoded.completion[-2:], "the student must learn to stop"
    if tokenizer.chat_template:
        assert prompt.endswith("<|im_start|>assistant\n")


@pytest.mark.parametrize("name", sorted(TASKS))
def test_every_shipped_task_encodes(tokenizer: Any, name: str, example: Callable[..., Example]) -> None:
    task = TASKS[name]
    choices = ["one", "two", "three", "four", "five"] if task.form == "multiple_choice" else []
    right = {"classification": task.labels[0] if task.labels else "", "multiple_choice": "C", "numeric": "72"}[
        task.form
    ]
    row = example("How many?", right, choices=choices, rationale="48+24 = <<48+24=72>>72" if task.rationale else None)
    completion = tokenizer.decode(encode(tokenizer, task, row).completion, skip_special_tokens=True).strip()
    assert tasks.grade(task, completion, right)[1] == "correct"


def test_the_loss_is_on_the_completion_only(rows: list[Example], colours: Task, tiny_student: Path) -> None:
    tokenizer = load_tokenizer(tiny_student)
    encoded = encode(tokenizer, colours, rows[0])
    labels = torch.tensor([-100] * len(encoded.prompt) + encoded.completion)
    assert (labels != -100).sum() == len(encoded.completion)


@pytest.mark.parametrize("text", ["a red ball", "</s> a <|im_end|> ball", ""])
def test_answers_are_encoded_as_one_by_one_and_a_prompt_once_for_all(
    text: str, tokenizer: Any, colours: Task, example: Callable[..., Example], monkeypatch: pytest.MonkeyPatch
) -> None:
    """77 labels took 95 ms a row to encode, each with the prompt before it."""
    labels = [*(f"label {number}" for number in range(77)), "<|im_end|>", "</s>"]
    task = colours.model_copy(update={"labels": labels})
    row = example(text, labels[3])
    wanted = [encode(tokenizer, task, dataclasses.replace(row, answer=label)) for label in labels]
    assert encode_answers(tokenizer, task, row, labels) == wanted
    again = dataclasses.replace(row, question=f"{text} again")
    encoded: list[str] = []
    whole = type(tokenizer).__call__

    def counted(self: Any, text: str, **options: Any) -> Any:
        encoded.append(text)
        return whole(self, text, **options)

    monkeypatch.setattr(type(tokenizer), "__call__", counted)
    found = encode_answers(tokenizer, task, again, labels)
    assert len(encoded) < 10, "of the second row the prompt alone, in pieces where it names special tokens"
    monkeypatch.undo()
    assert found == [encode(tokenizer, task, dataclasses.replace(again, answer=label)) for label in labels]
