"""From examples to training rows: token ids, labels and weights."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.classifier import encode_label, text_ids
from llm2llm.components.shared.models.label_scoring import labels_of
from llm2llm.components.shared.models.prompts import Encoded, encode, encode_general, encode_rationale
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.shared.training.settings import FineTuneSettings

IGNORED = -100
"""The label of a token that nothing is learnt from, as PyTorch's losses and transformers have it."""

SOFT_LABEL = ":soft"
"""What the id of a row's twins ends with, which have the other labels that its votes are for."""

SHORTEST_PROMPT = 16
"""Tokens of a prompt that truncation leaves at least; what is left of a shorter one asks nothing."""


@dataclass(frozen=True, slots=True)
class Row:
    """One example in tokens."""

    id: str
    tokens: list[int]
    labels: list[int]
    """The tokens to learn, `IGNORED` elsewhere."""
    weight: float = 1.0
    """What the row's loss is multiplied with."""
    floor: float = 0.0
    """Above 0: `weight` is divided by the probability that the student gives the completion, this at least."""


@dataclass(frozen=True, slots=True)
class Encoding:
    """The rows of a training, and what had to be left out or cut."""

    rows: list[Row]
    left_out: int
    truncated: int
    second_tasks: int
    """How many of the rows are twins that ask for a rationale."""
    soft: int = 0
    """How many are twins with another label."""


def encode_rows(
    tokenizer: Any,
    task: Task,
    examples: Sequence[Example],
    replay: Sequence[Example],
    limit: int,
    settings: FineTuneSettings,
    row_weights: Mapping[str, float] | None = None,
) -> Encoding:
    """The rows to train on, in the order of `examples`, then of `replay`.

    Args:
        tokenizer: The student's.
        task: Gives prompt and completion of `examples`.
        examples: The training set.
        replay: General rows, which have neither the task's words around them nor a class weight.
        limit: The longest row in tokens.
        settings: `too_long`, `loss_on`, `class_weights`, `row_weights` and `soft_labels` are looked at.
        row_weights: What rows weigh, by id; the others 1. Class weights are multiplied with them.

    Raises:
        UserError: Class weights for a task without labels; a row that is too long when that is refused, or every row.
    """
    given = list(examples)
    shares = [1.0] * len(given)
    if settings.soft_labels:
        given, shares = softened(examples)
    own = [encode(tokenizer, task, row) for row in given]
    of_row = row_weights or {}
    dynamic = of_row if settings.row_weights == "dimp" else {}
    floors = {row.id: 1 / len(labels_of(task, row)) for row in given if row.id in dynamic}
    weights: dict[str, float] = {}
    if settings.class_weights == "balanced":
        completion_only = settings.loss_on == "completion"
        learnt = [
            share * (len(one.completion) + (0 if completion_only else len(one.prompt) - 1))
            for one, share in zip(own, shares, strict=True)
        ]
        weights = balanced_weights(given, task, learnt)
    encoded = [
        (row, one, share * weights.get(row.answer, 1.0) * of_row.get(row.id.removesuffix(SOFT_LABEL), 1.0))
        for row, one, share in zip(given, own, shares, strict=True)
    ]
    if tasks.is_second_task(task):
        encoded += [
            (
                replace(row, id=f"{row.id}{tasks.SECOND_TASK}"),
                encode_rationale(tokenizer, task, row),
                of_row.get(row.id, 1.0),
            )
            for row in examples
            if row.rationale
        ]
    encoded += [(row, encode_general(tokenizer, row, task.chat), 1.0) for row in replay]
    if settings.too_long == "refuse":
        _refuse_long([(row.id, len(one.prompt) + len(one.completion)) for row, one, _ in encoded], limit)
    rows: list[Row] = []
    truncated = 0
    for example, whole, weight in encoded:
        fitting = fitted(whole, limit, truncate=settings.too_long == "truncate")
        if fitting is not None:
            truncated += fitting is not whole
            rows.append(_row(example.id, fitting, settings.loss_on, weight, floors.get(example.id, 0.0)))
    _refuse_none(rows, limit)
    twins = sum(row.id.endswith(tasks.SECOND_TASK) for row in rows)
    soft = sum(row.id.endswith(SOFT_LABEL) for row in rows)
    return Encoding(rows, left_out=len(encoded) - len(rows), truncated=truncated, second_tasks=twins, soft=soft)


def encode_classified(
    tokenizer: Any,
    task: Task,
    examples: Sequence[Example],
    replay: Sequence[Example],
    limit: int,
    settings: FineTuneSettings,
    row_weights: Mapping[str, float] | None = None,
) -> Encoding:
    """The rows to train a classifier on: a text, and as the one label to learn its place among the task's. The
    arguments and errors are those of `encode_rows`; a text that is too long loses its end."""
    assert not replay, "general rows have no label"
    given, shares = softened(examples) if settings.soft_labels else (list(examples), [1.0] * len(examples))
    of_row = row_weights or {}
    floor = 1 / len(task.labels) if settings.row_weights == "dimp" else 0.0
    of_label = balanced_weights(given, task, shares) if settings.class_weights == "balanced" else {}
    encoded = [encode_label(tokenizer, task, row, whole=True) for row in given]
    sizes = [len(one.prompt) for one in encoded]
    if settings.too_long == "refuse":
        _refuse_long([(row.id, size) for row, size in zip(given, sizes, strict=True)], limit)
    cut = settings.too_long == "truncate"
    rows = []
    for row, one, size, share in zip(given, encoded, sizes, shares, strict=True):
        if size > limit and not cut:
            continue
        own = row.id.removesuffix(SOFT_LABEL)
        tokens = one.prompt if size <= limit else text_ids(tokenizer, row)
        weight = share * of_label.get(row.answer, 1.0) * of_row.get(own, 1.0)
        rows.append(Row(row.id, tokens, one.completion, weight, floor if own in of_row else 0.0))
    _refuse_none(rows, limit)
    return Encoding(
        rows,
        left_out=len(given) - len(rows),
        truncated=sum(size > limit for size in sizes) if cut else 0,
        second_tasks=0,
        soft=sum(row.id.endswith(SOFT_LABEL) for row in rows),
    )


def _refuse_long(sizes: Sequence[tuple[str, int]], limit: int) -> None:
    long = [(name, size) for name, size in sizes if size > limit]
    if long:
        shown = ", ".join(f"{name} ({size})" for name, size in long[:5])
        raise UserError(
            f"train: {len(long)} of {len(sizes)} rows have more than {limit} tokens: {shown}; shorten them, raise "
            "train.max_length, or set train.too_long to drop or truncate"
        )


def _refuse_none(rows: Sequence[Row], limit: int) -> None:
    if not rows:
        raise UserError(f"train: every row has more than {limit} tokens; raise train.max_length or shorten the rows")


def softened(examples: Sequence[Example]) -> tuple[list[Example], list[float]]:
    """The rows, each followed by its twins with the other labels that its votes are for, and the share of each label.

    The sum over labels of share x the negative log-likelihood of the label's completion is the cross-entropy of the
    student's completions against the votes, token by token (Hinton et al. 2015 have it for one softmax). A label
    without a vote is left out, but for the row's own, which then has share 0.
    """
    rows: list[Example] = []
    shares: list[float] = []
    for row in examples:
        voted = dict(zip(row.votes, row.vote_shares, strict=True)) or {row.answer: 1.0}
        rows.append(row)
        shares.append(voted.pop(row.answer, 0.0))
        for label, share in voted.items():
            rows.append(replace(row, id=f"{row.id}{SOFT_LABEL}", answer=label, rationale=None))
            shares.append(share)
    return rows, shares


def fitted(row: Encoded, limit: int, truncate: bool) -> Encoded | None:
    """The row itself if it has at most `limit` tokens; else one without the middle of its prompt, or None.

    A prompt begins with the instruction and ends with the cue to answer, and a completion that is cut teaches to stop
    half way, so neither end is touched.
    """
    room = limit - len(row.completion)
    if len(row.prompt) <= room:
        return row
    if not truncate or room < SHORTEST_PROMPT:
        return None
    head = (room + 1) // 2
    return Encoded(row.prompt[:head] + row.prompt[len(row.prompt) - (room - head) :], row.completion)


def balanced_weights(examples: Sequence[Example], task: Task, learnt: Sequence[float]) -> dict[str, float]:
    """The weight of each label: tokens learnt / (labels x those of its rows).

    The loss is a mean over tokens, so a label of five tokens would count five times as much as one of one token: with
    these weights each label's rows have the same part in it together, and the mean over the tokens is 1.

    Args:
        examples: The training set.
        task: Has labels or choices.
        learnt: How many tokens are learnt of each example, times its share where labels are soft.

    Raises:
        UserError: The task has no labels.
    """
    if not FORMS[task.form].has_classes:
        raise UserError(
            f"train.class_weights: 'balanced' weighs labels, and task {task.name!r} of form {task.form!r} has none; "
            "set train.class_weights: none"
        )
    tokens: dict[str, float] = {}
    for row, count in zip(examples, learnt, strict=True):
        tokens[row.answer] = tokens.get(row.answer, 0) + count
    total = sum(tokens.values())
    return {label: total / (len(tokens) * count) for label, count in sorted(tokens.items()) if count}


def draw_replay(
    replay: Sequence[Example], rows: int, fraction: float, random_seed: int, iteration: int
) -> list[Example]:
    """The general rows to mix into `rows` training rows: `fraction` times as many, or all if there are fewer.

    Drawn anew in each iteration, whatever the order of `replay`.

    Raises:
        UserError: A fraction, but no rows.
    """
    if fraction and not replay:
        raise UserError(
            f"train.replay_fraction: {fraction} asks for general rows, and there are none; name some in data.replay, "
            "or set it to 0"
        )

    def order(row: Example) -> bytes:
        return hashlib.sha256(f"{random_seed}:{iteration}:replay:{row.id}".encode()).digest()

    return sorted(replay, key=order)[: round(rows * fraction)]


def _row(name: str, encoded: Encoded, loss_on: str, weight: float, floor: float) -> Row:
    tokens = encoded.prompt + encoded.completion
    # Nothing comes before a row's first token that it could be predicted from.
    unlearnt = len(encoded.prompt) if loss_on == "completion" else 1
    return Row(name, tokens, [IGNORED] * unlearnt + tokens[unlearnt:], weight, floor)
