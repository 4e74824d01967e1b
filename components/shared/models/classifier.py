"""A student that scores labels: texts to token ids, and ids to the log-probability of each label.

It reads a row's question as it stands, as whoever serves it does, and answers with a "completion" of one token: the
place of a label among the task's. So its rows are `Encoded` as those of a language model are, the log-likelihood of a
completion is the log-probability of the label, and a row's loss is its cross-entropy.
"""

from collections.abc import Sequence
from typing import Any

import torch

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.label_scoring import labels_of
from llm2llm.components.shared.models.load import labels_by_place
from llm2llm.components.shared.models.prompts import Encoded
from llm2llm.components.shared.tasks import Task

AFTER_PADDING = {"roberta", "xlm-roberta", "xlm-roberta-xl", "camembert", "data2vec-text", "mpnet"}
"""Architectures that number positions from the padding token's id on: of 514 they can use 512."""


def context_of(config: Any) -> int | None:
    """The most tokens that a classifier can read; None where its config does not say."""
    text = config.get_text_config()
    context: int | None = getattr(text, "max_position_embeddings", None)
    if not context or context < 1:
        return None
    return context - (text.pad_token_id or 0) - 1 if text.model_type in AFTER_PADDING else context


def text_ids(tokenizer: Any, example: Example, whole: bool = False) -> list[int]:
    """A row's question as token ids, with the special tokens that the tokenizer puts around a text.

    Args:
        tokenizer: As `load_reader` gives it.
        example: The row.
        whole: Whether to keep what is beyond the tokenizer's `model_max_length`; otherwise the end is cut off.
    """
    ids: list[int] = tokenizer(example.question, truncation=not whole)["input_ids"]
    return ids


def encode_label(tokenizer: Any, task: Task, example: Example, whole: bool = False) -> Encoded:
    """A row's text, and the place of its label.

    Raises:
        UserError: Its answer is no label.
    """
    place = labels_of(task, example).index(example.answer)
    return Encoded(text_ids(tokenizer, example, whole), [place])


def encode_labels(tokenizer: Any, task: Task, example: Example) -> list[Encoded]:
    """A row's text with each of the labels, in the task's order."""
    text = text_ids(tokenizer, example)
    return [Encoded(text, [place]) for place in range(len(labels_of(task, example)))]


def columns_of(config: Any, task: Task, who: str) -> list[int]:
    """Which of a classifier's scores is that of each of the task's labels.

    Raises:
        UserError: It has other labels.
    """
    found = labels_by_place(config)
    if sorted(found) != sorted(task.labels):
        raise UserError(
            f"{who}: a classifier of the labels {found}, and task {task.name!r} has {list(task.labels) or 'none'}; "
            "ask it with the task that it was trained on"
        )
    return [found.index(label) for label in task.labels]


def label_logs(model: Any, tokenizer: Any, texts: Sequence[Sequence[int]]) -> torch.Tensor:
    """The log-probabilities of the labels for each text, (texts, labels) on the CPU, in the order of the model's
    scores."""
    batch = tokenizer.pad({"input_ids": [list(text) for text in texts]}, return_tensors="pt")
    with torch.no_grad():
        logits = model(
            input_ids=batch["input_ids"].to(model.device), attention_mask=batch["attention_mask"].to(model.device)
        ).logits
    logs: torch.Tensor = logits.float().log_softmax(dim=-1).double().cpu()
    return logs


def log_likelihoods(model: Any, tokenizer: Any, rows: Sequence[Encoded], batch_size: int) -> list[float]:
    """The log-probability of each row's label, where the model's scores are in the task's order. The model is left in
    the mode it was in; a text that several labels follow is read once."""
    texts = sorted({tuple(row.prompt) for row in rows}, key=lambda text: (-len(text), text))
    known: dict[tuple[int, ...], torch.Tensor] = {}
    was_training = model.training
    model.eval()
    for start in range(0, len(texts), batch_size):
        some = texts[start : start + batch_size]
        known.update(zip(some, label_logs(model, tokenizer, some), strict=True))
    model.train(was_training)
    return [float(known[tuple(row.prompt)][row.completion[0]]) for row in rows]


def losses(model: Any, tokenizer: Any, examples: Sequence[Example], task: Task, batch_size: int) -> list[float]:
    """The cross-entropy of each row, in nats."""
    encoded = [encode_label(tokenizer, task, example) for example in examples]
    return [-value for value in log_likelihoods(model, tokenizer, encoded, batch_size)]
