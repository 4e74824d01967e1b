"""Which rows are trained on, and what of them."""

import dataclasses
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.load import load_model, load_tokenizer
from llm2llm.components.shared.models.prompts import Encoded
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.encoding import (
    IGNORED,
    SHORTEST_PROMPT,
    balanced_weights,
    draw_replay,
    encode_rows,
    fitted,
)
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.settings import FineTuneSettings
from tests.support.tiny_models import save_tiny


@given(st.integers(0, 80), st.integers(1, 80), st.integers(16, 100))
def test_truncation_keeps_both_ends_of_the_prompt_and_all_of_the_completion(
    prompt: int, completion: int, limit: int
) -> None:
    row = Encoded(list(range(prompt)), list(range(1000, 1000 + completion)))
    cut = fitted(row, limit, truncate=True)
    if prompt + completion <= limit:
        assert cut is row
        assert fitted(row, limit, truncate=False) is row
        return
    assert fitted(row, limit, truncate=False) is None
    if limit - completion < SHORTEST_PROMPT:
        assert cut is None
        return
    assert cut is not None
    assert cut.completion == row.completion
    assert len(cut.prompt) + completion == limit
    assert (cut.prompt[0], cut.prompt[-1]) == (row.prompt[0], row.prompt[-1])
    assert cut.prompt == sorted(set(cut.prompt))


@pytest.mark.slow
def test_too_long_rows_are_dropped_truncated_or_refused_and_counted(
    quick: FineTuneSettings,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    tmp_path: Path,
    example: Callable[..., Example],
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokenizer = load_tokenizer(tiny_student)
    long = example("word " * 200, "red")
    given = [*rows, long]
    settings = quick.model_copy(update={"too_long": "truncate", "max_steps": 1})
    found = encode_rows(tokenizer, colours, given, [], 64, settings)
    assert (len(found.rows), found.left_out, found.truncated) == (len(given), 0, 1)
    cut = found.rows[-1]
    assert len(cut.tokens) == 64
    assert tokenizer.decode(cut.tokens).startswith("Text: word")
    assert "Colour: red" in tokenizer.decode(cut.tokens)
    log = fine_tune(given, colours, str(tiny_student), settings, 0, tmp_path)
    assert (log.rows, log.rows_too_long, log.rows_truncated) == (len(given), 0, 1)
    assert "1 of 25 rows have more than 64 tokens; their prompts are cut" in capsys.readouterr().out
    assert '"rows_truncated": 1' in (tmp_path / "training.json").read_text()

    refusing = settings.model_copy(update={"too_long": "refuse"})
    with pytest.raises(UserError, match=rf"1 of 25 rows have more than 64 tokens: {long.id} \(\d+\); .*train.too_long"):
        encode_rows(tokenizer, colours, given, [], 64, refusing)
    dropping = settings.model_copy(update={"too_long": "drop"})
    assert encode_rows(tokenizer, colours, given, [], 64, dropping).left_out == 1


def test_the_loss_is_on_what_the_settings_say(
    quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path
) -> None:
    tokenizer = load_tokenizer(tiny_student)
    on_completion, on_all = (
        encode_rows(tokenizer, colours, rows, [], 64, quick.model_copy(update={"loss_on": what})).rows[0]
        for what in ("completion", "all")
    )
    assert on_completion.tokens == on_all.tokens
    learnt = [token for token in on_completion.labels if token != IGNORED]
    assert tokenizer.decode(learnt) == f" {rows[0].answer}</s>"
    assert on_all.labels == [IGNORED, *on_all.tokens[1:]]


def test_balanced_weights_make_rare_labels_weigh_as_much_as_common_ones(
    example: Callable[..., Example], colours: Task
) -> None:
    examples = [example(f"{n}", "red") for n in range(6)] + [example("a", "green"), example("b", "green")]
    weights = balanced_weights(examples, colours, [2] * 8)
    assert weights == {"green": 2.0, "red": pytest.approx(2 / 3)}
    assert sum(weights[row.answer] for row in examples) == pytest.approx(len(examples))
    learnt = [1] * 6 + [5, 5]
    weights = balanced_weights(examples, colours, learnt)
    parts = Counter[str]()
    for row, tokens in zip(examples, learnt, strict=True):
        parts[row.answer] += weights[row.answer] * tokens
    assert parts["red"] == pytest.approx(parts["green"]) == pytest.approx(sum(learnt) / 2)
    numeric = Task(name="sums", form="numeric")
    with pytest.raises(UserError, match=r"train.class_weights: .*task 'sums' of form 'numeric' has none"):
        balanced_weights(examples, numeric, learnt)


@given(st.lists(st.text(min_size=1), min_size=1, max_size=30, unique=True), st.floats(0, 3), st.randoms())
def test_replay_rows_are_drawn_whatever_their_order(texts: list[str], fraction: float, chance: Any) -> None:
    rows = [Example(id=text, question=text, answer="x", choices=[], rationale=None) for text in texts]
    shuffled = chance.sample(rows, len(rows))
    drawn = draw_replay(rows, 10, fraction, random_seed=1, iteration=2)
    assert drawn == draw_replay(shuffled, 10, fraction, random_seed=1, iteration=2)
    assert len(drawn) == min(len(rows), round(10 * fraction))
    assert len({row.id for row in drawn}) == len(drawn)


def test_another_iteration_draws_other_replay_rows(example: Callable[..., Example]) -> None:
    rows = [example(str(n), "x") for n in range(50)]
    assert draw_replay(rows, 10, 1.0, 0, 0) != draw_replay(rows, 10, 1.0, 0, 1)
    with pytest.raises(UserError, match=r"train.replay_fraction: 0.5 asks for general rows, and there are none"):
        draw_replay([], 10, 0.5, 0, 0)


@pytest.mark.slow
def test_replay_rows_are_learnt_without_the_tasks_words_and_against_forgetting(
    quick: FineTuneSettings,
    rows: list[Example],
    other_rows: list[Example],
    colours: Task,
    taught_student: Path,
    tmp_path: Path,
    example: Callable[..., Example],
) -> None:
    general = [example(text, "blue blue") for text in ("Say it", "Say it.", "Say it!")]
    settings = quick.model_copy(update={"replay_fraction": 0.125})
    log = fine_tune(other_rows, colours, str(taught_student), settings, 0, tmp_path, replay=general)
    assert (log.rows, log.rows_replayed) == (len(other_rows) + 3, 3)
    model, tokenizer = load_model(tmp_path), load_tokenizer(tmp_path)
    asked = tokenizer("Say it.", return_tensors="pt")
    said = model.generate(**asked, max_new_tokens=8, do_sample=False)[0, asked["input_ids"].shape[1] :]
    assert tokenizer.decode(said, skip_special_tokens=True).strip() == "blue blue"


@pytest.mark.slow
def test_class_weights_turn_an_undecided_student_to_the_rare_label(
    quick: FineTuneSettings,
    colours: Task,
    tiny_student: Path,
    tmp_path: Path,
    example: Callable[..., Example],
) -> None:
    """The same text with nine labels red and three labels green: what is learnt is how often each counts."""
    examples = [
        dataclasses.replace(example("it", label), id=f"{label}-{number}")
        for label, count in (("red", 9), ("green", 3))
        for number in range(count)
    ]
    shares = {}
    for how in ("none", "balanced"):
        settings = quick.model_copy(update={"class_weights": how, "batch_size": 12, "epochs": 60})
        (tmp_path / how).mkdir()
        fine_tune(examples, colours, str(tiny_student), settings, 0, tmp_path / how)
        model, tokenizer = load_model(tmp_path / how), load_tokenizer(tmp_path / how)
        asked = torch.tensor([tokenizer("Text: it\nColour:")["input_ids"]])
        chances = model(input_ids=asked).logits[0, -1].softmax(-1)
        red, green = (float(chances[tokenizer(f" {label}")["input_ids"][0]]) for label in ("red", "green"))
        shares[how] = green / (red + green)
    assert shares["none"] == pytest.approx(0.25, abs=0.05)
    assert shares["balanced"] == pytest.approx(0.5, abs=0.05)


def test_a_tokenizer_of_another_model_is_named(
    quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(tiny_student)
    save_tiny("llama", tokenizer, tmp_path)
    tokenizer.add_tokens(["a red ball"])
    tokenizer.save_pretrained(tmp_path)
    with pytest.raises(UserError, match=r"gives token \d+, and its weights know \d+ tokens"):
        fine_tune(rows, colours, str(tmp_path), quick, 0, tmp_path)
