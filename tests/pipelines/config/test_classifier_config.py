"""`train.head: classifier` in a config: what it brings along, and what has no meaning with it is refused by name."""

from typing import Any

import pytest

from llm2llm.components.shared.base.errors import UserError
from llm2llm.pipelines.config import check_config, load_config

TASK = {"name": "mine", "form": "classification", "labels": ["a", "b"]}


def config(train: dict[str, Any] | None = None, **values: Any) -> dict[str, Any]:
    return {
        "name": "mine",
        "student": "org/encoder",
        "task": TASK,
        "data": {"seeds": "seeds.jsonl"},
        "train": {"head": "classifier", **(train or {})},
        "teacher_augment": {"teacher": "openai", "model": "m", "url": "http://localhost:8000/v1"},
    } | values


def test_what_is_not_set_is_as_a_classifier_needs_it() -> None:
    made = check_config(config(), "mine")
    assert (made.evaluate.mode, made.train.learning_rate, made.train.merge) == ("score", 3e-5, False)
    assert made.has_controls
    assert not made.controls.with_untrained(made.train, made.student, made.task)
    adapted = check_config(config({"method": "lora"}), "mine")
    assert (adapted.train.learning_rate, adapted.train.merge) == (2e-4, True)
    own = check_config(config({"learning_rate": 1e-5}, evaluate={"hardness": True}), "mine")
    assert (own.train.learning_rate, own.evaluate.mode, own.evaluate.hardness) == (1e-5, "score", True)
    # What a run writes down is read again as the same.
    assert check_config(adapted.model_dump(mode="json"), "mine") == adapted


def test_a_language_model_is_what_it_was() -> None:
    made = check_config(config(train={"head": "language_model"}), "mine")
    assert (made.evaluate.mode, made.train.learning_rate, made.train.merge) == ("generate", 2e-5, False)
    assert made.controls.with_untrained(made.train, made.student, made.task)


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"train": {"method": "qlora"}}, "train: method: 'qlora' is not for head 'classifier'"),
        ({"train": {"method": "lora", "merge": False}}, "set merge: true, or head: language_model"),
        ({"train": {"sharding": "fsdp"}}, "train: sharding: 'fsdp' is not for head 'classifier'"),
        ({"train": {"packing": True}}, "train: packing: 'true' is not for head 'classifier'"),
        ({"train": {"loss_on": "all"}}, "set loss_on: completion, or head: language_model"),
        ({"train": {"replay_fraction": 0.1}}, "general rows have no label; set replay_fraction: 0"),
        ({"train": {"liger": True}}, "train: liger: 'true' is"),
        (
            {"train": {"own_answers": {"samples": 4}, "preference": {"epochs": 1}}},
            "own_answers.samples: '4' is not for head 'classifier', which writes no answers",
        ),
        ({"evaluate": {"mode": "generate"}}, "evaluate.mode: 'generate' needs a student that writes"),
        ({"evaluate": {"mode": "generate", "samples": 4}}, "set evaluate.mode: score"),
        ({"evaluate": {"backend": "vllm"}}, "evaluate.backend: 'vllm' needs a student that writes"),
        ({"evaluate": {"max_new_tokens": 8}}, "evaluate.max_new_tokens: 8 needs"),
        ({"evaluate": {"gpus": 2}}, "set evaluate.gpus: 1, and evaluate.shards if need be"),
        ({"controls": {"untrained": True}}, "controls.untrained: True needs"),
        (
            {"promote": {"registry": "r", "guards": [{"file": "g.jsonl", "task": TASK}]}},
            "promote.guards: 'rows of other tasks' needs a student that writes",
        ),
        (
            {"promote": {"registry": "s3://b/r", "serve": {"kind": "llm_inference_service"}}},
            "promote.serve.kind: 'llm_inference_service' needs",
        ),
        (
            {"teacher_augment": {"teacher": "transformers", "strategy": "self"}},
            "teacher_augment.strategy: 'self' needs a student that writes, and train.head is 'classifier'",
        ),
        ({"task": "gsm8k"}, "task 'gsm8k' of form 'numeric' has none that are known before the training"),
        ({"task": {"name": "t", "form": "text"}}, "or a task of form 'classification'"),
        ({"task": "casehold"}, "train.head: 'classifier' scores the labels of a task"),
        ({"task": {**TASK, "rationale": True}}, "writes no rationales, and task 'mine' has rationale"),
        ({"task": {**TASK, "chat": {"system": "x"}}}, "has no chat template, and task 'mine' has chat; remove"),
        (
            {"task": {**TASK, "label_descriptions": {"a": "x"}, "describe_labels_to": "both"}},
            "reads the question alone, and task 'mine' has describe_labels_to: both; set",
        ),
    ],
)
def test_what_has_no_meaning_is_refused_by_name(values: dict[str, Any], said: str) -> None:
    train = values.pop("train", {})
    with pytest.raises(UserError) as caught:
        check_config(config(train, **values), "mine")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_overrides_come_before_the_mode_is_chosen() -> None:
    made = load_config("quickstart", ["train.head=classifier"])
    assert made.evaluate.mode == "score"
    assert load_config("tickets-classifier").train.classifies
