"""A row's difficulty for a student, without gradients: its loss and the probabilities of its labels.

label_probability   that of the right label; see `score`
margin              the right label's probability less that of its likeliest rival
el2n                the L2 norm of (label probabilities - one-hot right label): Paul, Ganguli and Dziugaite, "Deep
                    learning on a data diet: finding important examples early in training", NeurIPS 2021. They average
                    it over several networks a few epochs into training; here it is of the one student as it is.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.label_scoring import completions_of, labels_of, probabilities
from llm2llm.components.shared.models.likelihood import log_likelihoods
from llm2llm.components.shared.models.prompts import Encoded
from llm2llm.components.shared.tasks import Task


@dataclasses.dataclass(frozen=True, slots=True)
class Hardness:
    """What a student makes of one row; the last four are None where the task has neither labels nor choices."""

    loss: float
    label_probability: float | None = None
    margin: float | None = None
    rival: str | None = None
    """The likeliest wrong label; of equals the first in the task's order."""
    el2n: float | None = None


def hardness(model: Any, tokenizer: Any, examples: Sequence[Example], task: Task, batch_size: int) -> list[Hardness]:
    """The hardness of each example, in their order.

    Args:
        model: A causal language model.
        tokenizer: Its tokenizer.
        examples: Rows with their right answers.
        task: Gives prompts, completions and labels.
        batch_size: Completions in one forward pass; a label task has one for each label of a row.

    Raises:
        UserError: A row whose answer is none of the task's labels.
    """
    measured = [completions_of(tokenizer, task, example) for example in examples]
    values = iter(log_likelihoods(model, tokenizer, [one for row in measured for one in row], batch_size))
    return [
        hardness_of(task, example, completions, [next(values) for _ in completions])
        for example, completions in zip(examples, measured, strict=True)
    ]


def hardness_of(task: Task, example: Example, completions: Sequence[Encoded], likelihoods: Sequence[float]) -> Hardness:
    """The hardness of a row, from the log-likelihoods of its `completions_of`."""
    labels = labels_of(task, example)
    right = labels.index(example.answer) if labels else 0
    loss = -likelihoods[right] / len(completions[right].completion)
    return _of_labels(loss, likelihoods, labels, right) if labels else Hardness(loss)


def _of_labels(loss: float, likelihoods: Sequence[float], labels: Sequence[str], right: int) -> Hardness:
    shares = probabilities(likelihoods)
    others = [i for i in range(len(labels)) if i != right]
    if not others:  # a row with one choice
        return Hardness(loss, 1.0, 1.0, None, 0.0)
    rival = max(others, key=lambda i: (shares[i], -i))
    return Hardness(
        loss=loss,
        label_probability=shares[right],
        margin=shares[right] - shares[rival],
        rival=labels[rival],
        el2n=math.sqrt(sum((p - (i == right)) ** 2 for i, p in enumerate(shares))),
    )
