"""A whole run that takes half a minute: three colours, a tiny student, two iterations."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

SHAPES = [
    *["a {} ball", "the door is {}", "{} is nice", "paint it {}"],
    *["my {} coat", "look, {}", "{}!"],
    *["so {}", "{} sky", "very {} shoes", "one {} leaf", "is it {}?"],
]
COLOURS = ("red", "green", "blue")
# Words that no seed holds: the student gets some of these wrong, and the grammar knows them.
OTHER_WORDS = {"red": "scarlet", "green": "emerald", "blue": "azure"}


@pytest.fixture(scope="session")
def small_config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A config file beside its data."""
    folder = tmp_path_factory.mktemp("config")

    def write(name: str, shapes: list[str]) -> None:
        rows = [
            {"text": shape.format(word), "colour": colour}
            for shape in shapes
            for colour in COLOURS
            for word in (colour, OTHER_WORDS[colour])
        ]
        (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))

    write("seeds.jsonl", SHAPES[:4])
    write("validation.jsonl", SHAPES[4:7])
    write("test.jsonl", SHAPES[7:])
    config: dict[str, Any] = {
        "name": "colours",
        "max_iterations": 2,
        "student": "scratch",
        "task": {
            "name": "colours",
            "form": "classification",
            "labels": list(COLOURS),
            "question_cue": "Text",
            "answer_cue": "Colour",
            "columns": {"question": "text", "answer": "colour"},
            "max_new_tokens": 4,
        },
        "data": {"seeds": "seeds.jsonl", "validation": "validation.jsonl", "test": "test.jsonl"},
        "train": {
            "epochs": 4,
            "learning_rate": 0.003,
            "batch_size": 4,
            "scratch": {"vocabulary": 300, "hidden_size": 32, "layers": 1, "heads": 2, "context": 64},
        },
        "filter_errors": {"selection": "wrong"},
        "teacher_augment": {
            "teacher": "grammar",
            "examples_per_error": 2,
            "grammar": {
                "patterns": {c: [f"{{thing}} in {{{c}}}", f"{{{c}}} {{thing}}"] for c in COLOURS},
                "slots": {
                    "thing": ["a hat", "the car", "some paint", "her bag", "a boat", "two cups"],
                    **{c: [c, OTHER_WORDS[c], f"dark {c}", f"pale {OTHER_WORDS[c]}"] for c in COLOURS},
                },
            },
        },
    }
    path = folder / "colours.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


def finished(output: Path) -> dict[tuple[str, int | None], dict[str, Path]]:
    """The outputs of every finished stage of a run, by stage and iteration; of the last time it ran."""
    return {
        (event["stage"], event["iteration"]): {name: Path(path) for name, path in event["outputs"].items()}
        for event in events(output)
        if event["event"] == "finished"
    }


def events(output: Path) -> list[dict[str, Any]]:
    """What the stages of a run have said, but for lines that a kill cut short."""
    found = []
    for line in (output / "events.jsonl").read_text(encoding="utf-8").splitlines():
        with suppress(json.JSONDecodeError):
            found.append(json.loads(line))
    return found
