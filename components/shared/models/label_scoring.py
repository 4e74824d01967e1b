"""Mode `score`: the answer is the label that the student finds likeliest, with its probability.

Each label is measured as a whole completion with its end token: of two labels of which one begins the other, `art` and
`artist`, neither is favoured. The probabilities are the softmax of the labels' log-likelihoods.
"""

import math
from collections.abc import Sequence
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.prompts import Encoded, encode_answers
from llm2llm.components.shared.tasks import FORMS, Task


def labels_of(task: Task, example: Example) -> list[str]:
    """What a row may be answered with: the task's labels, the letters of the row's own choices; none for other forms.

    A row without an answer, which is only asked, may be answered with any.

    Raises:
        UserError: The row's answer is none of them.
    """
    classes = FORMS[task.form].classes
    if classes is None:
        return []
    labels = classes(task, len(example.choices))
    if example.answer and example.answer not in labels:
        raise UserError(f"evaluate: row {example.id}: the answer {example.answer!r} is none of the labels {labels}")
    return labels


def completions_of(tokenizer: Any, task: Task, example: Example) -> list[Encoded]:
    """The row with each of its labels as the answer, in their order; with its right answer where it has no labels."""
    answers = labels_of(task, example) or [example.answer]
    return encode_answers(tokenizer, task, example, answers)


def probabilities(likelihoods: Sequence[float]) -> list[float]:
    """The softmax of log-likelihoods.

    Raises:
        UserError: They are no numbers.
    """
    highest = max(likelihoods)
    if not math.isfinite(highest) or any(math.isnan(value) for value in likelihoods):
        raise UserError(
            "evaluate: the student's probabilities are not numbers: its weights are broken; look at the losses of its "
            "training, and lower train.learning_rate"
        )
    weights = [math.exp(value - highest) for value in likelihoods]
    return [weight / sum(weights) for weight in weights]


def likeliest(labels: Sequence[str], likelihoods: Sequence[float]) -> tuple[str, float]:
    """(label, its probability); of equals the first in the labels' order."""
    shares = probabilities(likelihoods)
    best = max(range(len(labels)), key=lambda i: (shares[i], -i))
    return labels[best], shares[best]
