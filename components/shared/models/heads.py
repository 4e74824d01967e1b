"""What a student ends in, as a table: how its rows become token ids, and how likely it finds an answer."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models import classifier, likelihood
from llm2llm.components.shared.models.label_scoring import completions_of
from llm2llm.components.shared.models.load import HeadName, load_reader, load_tokenizer
from llm2llm.components.shared.models.prompts import Encoded, encode
from llm2llm.components.shared.tasks import Task


@dataclass(frozen=True, slots=True)
class Head:
    """The functions of a head."""

    load_tokenizer: Callable[..., Any]
    """(student, trust_remote_code) -> its tokenizer."""
    encode: Callable[[Any, Task, Example], Encoded]
    """(tokenizer, task, row) -> prompt and right completion."""
    completions: Callable[[Any, Task, Example], list[Encoded]]
    """(tokenizer, task, row) -> the row with each of its labels as the completion; with the right one where it has
    none."""
    log_likelihoods: Callable[[Any, Any, Sequence[Encoded], int], list[float]]
    """(model, tokenizer, rows, batch size) -> the log-likelihood of each completion, in nats."""
    losses: Callable[[Any, Any, Sequence[Example], Task, int], list[float]]
    """(model, tokenizer, rows, task, batch size) -> the mean negative log-likelihood of each right completion's
    tokens."""


HEADS: Mapping[HeadName, Head] = {
    "language_model": Head(
        load_tokenizer=load_tokenizer,
        encode=encode,
        completions=completions_of,
        log_likelihoods=likelihood.log_likelihoods,
        losses=likelihood.losses,
    ),
    "classifier": Head(
        load_tokenizer=load_reader,
        encode=classifier.encode_label,
        completions=classifier.encode_labels,
        log_likelihoods=classifier.log_likelihoods,
        losses=classifier.losses,
    ),
}
