"""A tiny pretrained-looking student: saved to a folder, so that it is loaded as any model is."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.settings import FineTuneSettings, ScratchSettings

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TINY = ScratchSettings(vocabulary=300, hidden_size=32, layers=2, heads=2, context=128)


@pytest.fixture(scope="session")
def quick() -> FineTuneSettings:
    """Settings under which the tiny student learns the colours in a second."""
    return FineTuneSettings(epochs=30, learning_rate=5e-3, batch_size=4, max_length=64, scratch=TINY)


@pytest.fixture(scope="session")
def small_training(colours: Task, quick: FineTuneSettings) -> dict[str, Any]:
    """A stage's settings: one epoch from random weights, half of the rows general ones."""
    return {
        "task": colours.model_dump(mode="json"),
        "student": "scratch",
        "train": {
            "epochs": 1.0,
            "learning_rate": 1e-3,
            "batch_size": 4,
            "max_length": 64,
            "replay_fraction": 0.5,
            "scratch": quick.scratch.model_dump(),
        },
        "random_seed": 0,
    }


@pytest.fixture(scope="session")
def quick_lora(quick: FineTuneSettings) -> FineTuneSettings:
    return quick.model_copy(update={"method": "lora", "learning_rate": 1e-2, "lora_rank": 8, "lora_dropout": 0.0})


@pytest.fixture(scope="session")
def rows(example: Callable[..., Example]) -> list[Example]:
    """24 rows whose text names its colour in one of several ways."""
    shapes = ["a {} ball", "the door is {}", "{} is nice", "paint it {}", "my {} coat", "look, {}", "{}!", "so {}"]
    return [example(shape.format(colour), colour) for shape in shapes for colour in ("red", "green", "blue")]


@pytest.fixture(scope="session")
def tiny_student(tmp_path_factory: pytest.TempPathFactory, rows: list[Example], colours: Task) -> Path:
    """The folder of an untrained tiny Llama with its tokenizer."""
    from llm2llm.components.shared.training.scratch import build_student

    folder = tmp_path_factory.mktemp("student") / "tiny"
    model, tokenizer = build_student(rows, colours, TINY, random_seed=7)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_bert(tmp_path_factory: pytest.TempPathFactory, tiny_student: Path) -> Path:
    """The folder of an untrained tiny BERT, which fills in words, with its tokenizer."""
    from llm2llm.components.shared.models.load import load_tokenizer
    from tests.support.tiny_models import save_encoder

    return save_encoder("bert", load_tokenizer(tiny_student), tmp_path_factory.mktemp("bert") / "tiny")


@pytest.fixture(scope="session")
def quick_classifier(quick: FineTuneSettings) -> FineTuneSettings:
    return quick.model_copy(update={"head": "classifier"})


@pytest.fixture(scope="session")
def taught_classifier(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Example],
    colours: Task,
    tiny_bert: Path,
    quick_classifier: FineTuneSettings,
) -> Path:
    """The tiny BERT as a classifier of the colours, which it has learnt."""
    from llm2llm.components.shared.training.fine_tune import fine_tune

    folder = tmp_path_factory.mktemp("taught-bert") / "student"
    folder.mkdir()
    fine_tune(rows, colours, str(tiny_bert), quick_classifier, 0, folder)
    return folder


@pytest.fixture(scope="module", params=["plain", "chat"])
def tokenizer(request: pytest.FixtureRequest, tiny_student: Path) -> Any:
    """The tiny student's tokenizer, once as it is and once with a chat template."""
    from llm2llm.components.shared.models.load import load_tokenizer

    loaded = copy.deepcopy(load_tokenizer(tiny_student))
    if request.param == "chat":
        loaded.add_special_tokens({"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>"]})
        loaded.chat_template = CHATML
    return loaded


@pytest.fixture(scope="session")
def taught_student(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    quick: FineTuneSettings,
) -> Path:
    """The tiny student after it has learnt the colours: something that an adapter can adapt."""
    from llm2llm.components.shared.training.fine_tune import fine_tune

    folder = tmp_path_factory.mktemp("taught") / "student"
    folder.mkdir()
    fine_tune(rows, colours, str(tiny_student), quick, 0, folder)
    return folder


@pytest.fixture(scope="session")
def other_rows(example: Callable[..., Example], rows: list[Example]) -> list[Example]:
    """The same texts with the answers moved on by one: red is green, green is blue, blue is red."""
    following = {"red": "green", "green": "blue", "blue": "red"}
    return [example(row.question, following[row.answer]) for row in rows]
