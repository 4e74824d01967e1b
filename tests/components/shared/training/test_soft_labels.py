"""Votes as the target: the loss is the cross-entropy against them, and with one label voted for the plain loss."""

import dataclasses
import json
from pathlib import Path

import pytest

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.likelihood import log_likelihoods
from llm2llm.components.shared.models.load import load_model, load_tokenizer
from llm2llm.components.shared.models.prompts import encode
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.checkpoints import checkpoints_uri
from llm2llm.components.shared.training.encoding import encode_rows, softened
from llm2llm.components.shared.training.fine_tune import fine_tune
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.settings import FineTuneSettings


def voted(row: Example, **shares: float) -> Example:
    return dataclasses.replace(row, votes=sorted(shares), vote_shares=[shares[name] for name in sorted(shares)])


@pytest.mark.slow
def test_a_step_is_the_cross_entropy_against_the_votes(
    quick: FineTuneSettings, rows: list[Example], colours: Task, taught_student: Path, tmp_path: Path
) -> None:
    given = [voted(rows[0], red=0.75, blue=0.25), voted(rows[1], green=0.5, red=0.25, blue=0.25), *rows[2:8]]
    assert [row.answer for row in given[:2]] == ["red", "green"]
    settings = quick.model_copy(update={"soft_labels": True, "max_steps": 1, "batch_size": 16})
    log = fine_tune(given, colours, str(taught_student), settings, 0, tmp_path)
    assert log.rows == len(given)
    tokenizer, model = load_tokenizer(taught_student), load_model(taught_student)
    loss, tokens = 0.0, 0
    for row in given:
        shares = dict(zip(row.votes, row.vote_shares, strict=True)) or {row.answer: 1.0}
        for label, share in shares.items():
            one = encode(tokenizer, colours, dataclasses.replace(row, answer=label))
            (likelihood,) = log_likelihoods(model, tokenizer, [one], 1)
            loss -= share * likelihood
            tokens += len(one.completion)
    assert log.loss_curve[0][1] == pytest.approx(loss / tokens, rel=1e-4)
    assert json.loads((tmp_path / "training.json").read_text())["settings"]["soft_labels"] is True


def test_one_label_voted_for_is_the_plain_loss(
    quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path
) -> None:
    """The very same rows to train on, and so the same loss to the last bit."""
    tokenizer = load_tokenizer(tiny_student)
    certain = [voted(row, **{row.answer: 1.0}) for row in rows]
    soft = quick.model_copy(update={"soft_labels": True})
    plain = encode_rows(tokenizer, colours, rows, [], 64, quick)
    assert encode_rows(tokenizer, colours, certain, [], 64, soft) == plain
    unsure = [voted(rows[0], red=0.5, blue=0.5), *certain[1:]]
    assert encode_rows(tokenizer, colours, unsure, [], 64, quick) == plain, "votes alone change nothing"
    found = encode_rows(tokenizer, colours, unsure, [], 64, soft)
    assert (found.soft, len(found.rows)) == (1, len(rows) + 1)
    assert [(row.id, row.weight) for row in found.rows[:2]] == [(rows[0].id, 0.5), (f"{rows[0].id}:soft", 0.5)]


def test_soft_labels_go_with_the_other_weights(
    quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path
) -> None:
    settings = quick.model_copy(update={"soft_labels": True, "class_weights": "balanced", "row_weights": "confidence"})
    given = [voted(rows[0], red=0.5, blue=0.5), *rows[1:3]]
    found = encode_rows(load_tokenizer(tiny_student), colours, given, [], 64, settings, {rows[0].id: 0.5})
    tokens = [sum(label >= 0 for label in row.labels) for row in found.rows]
    # red has half a row, green one and blue one and a half; each gets a third of the loss before the row's own weight.
    assert [row.answer for row in given] == ["red", "green", "blue"]
    labels = ["red", "blue", "green", "blue"]
    shares = [0.5, 0.5, 1.0, 1.0]
    of_label = {
        label: sum(share * count for one, share, count in zip(labels, shares, tokens, strict=True) if one == label)
        for label in set(labels)
    }
    total = sum(of_label.values())
    expected = [
        share * own * total / (3 * of_label[label])
        for label, share, own in zip(labels, shares, [0.5, 0.5, 1, 1], strict=True)
    ]
    assert [row.weight for row in found.rows] == pytest.approx(expected)


def test_other_votes_are_another_training(quick: FineTuneSettings, rows: list[Example], colours: Task) -> None:
    """An id says nothing of votes, and a checkpoint of other votes must not be taken up."""
    soft = quick.model_copy(update={"soft_labels": True})
    jobs = [
        TrainingJob([one, *rows[1:]], colours, "scratch", soft, 0)
        for one in (rows[0], voted(rows[0], red=0.5, blue=0.5))
    ]
    assert checkpoints_uri(jobs[0]) != checkpoints_uri(jobs[1])


def test_votes_without_the_rows_own_label_leave_it_no_weight(rows: list[Example]) -> None:
    given, shares = softened([voted(rows[0], blue=1.0)])
    assert ([row.answer for row in given], shares) == (["red", "blue"], [0.0, 1.0])
