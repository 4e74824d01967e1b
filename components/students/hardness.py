"""How hard a row is for a student, without gradients: its loss, and the probabilities of its labels.

label_probability   that of the right label; see `score`
margin              the right label's probability less that of its likeliest rival
el2n                the L2 norm of (label probabilities - one-hot right label): Paul, Ganguli and Dziugaite, "Deep
                    learning on a data diet: finding important examples early in training", NeurIPS 2021. They average
                    it over several networks a few epochs into training; here it is of the one student as it is.
"""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from llm2llm.components.problems import UserError
from llm2llm.components.rows.kinds import Example
from llm2llm.components.students.prompts import Encoded, encode
from llm2llm.components.students.score import completions_of, labels_of, probabilities
from llm2llm.components.students.settings import LOSSES_FILE
from llm2llm.components.tasks import Task


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


def losses(model: Any, tokenizer: Any, examples: Sequence[Example], task: Task, batch_size: int) -> list[float]:
    """The mean negative log-likelihood, in nats, of each right completion's tokens, its end included."""
    encoded = [encode(tokenizer, task, example) for example in examples]
    likelihoods = log_likelihoods(model, tokenizer, encoded, batch_size)
    return [-value / len(row.completion) for value, row in zip(likelihoods, encoded, strict=True)]


def log_likelihoods(model: Any, tokenizer: Any, rows: Sequence[Encoded], batch_size: int) -> list[float]:
    """The log-likelihood, in nats, of each completion after its prompt. The model is left in the mode it was in."""
    lengths = [len(row.prompt) + len(row.completion) for row in rows]
    order = sorted(range(len(rows)), key=lambda i: -lengths[i])
    values = [0.0] * len(rows)
    was_training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        longest = max(lengths[i] for i in batch)
        # Padded on the right: positions then need no telling, and what comes after a row does not change it.
        tokens = torch.full((len(batch), longest), tokenizer.pad_token_id)
        seen = torch.zeros_like(tokens)
        for place, i in enumerate(batch):
            tokens[place, : lengths[i]] = torch.tensor(rows[i].prompt + rows[i].completion)
            seen[place, : lengths[i]] = 1
        # A token's logits stand one place before it. Of a large vocabulary only those that count fit into memory.
        first = min(len(rows[i].prompt) for i in batch) - 1
        kept = torch.arange(first, longest - 1, device=model.device)
        with torch.inference_mode():
            logits = model(
                input_ids=tokens.to(model.device), attention_mask=seen.to(model.device), logits_to_keep=kept
            ).logits
            logs = logits.float().log_softmax(dim=-1)
            of_tokens = logs.gather(2, tokens[:, first + 1 :, None].to(model.device))[:, :, 0].double().cpu()
        for place, i in enumerate(batch):
            begin = len(rows[i].prompt) - 1 - first
            values[i] = float(of_tokens[place, begin : begin + len(rows[i].completion)].sum())
    model.train(was_training)
    return values


def save_losses(folder: Path, base: dict[str, float], early: dict[str, float]) -> None:
    """Leaves the losses of a training's seeds, by example id, beside the model."""
    values = {"base": dict(sorted(base.items())), "early": dict(sorted(early.items()))}
    (folder / LOSSES_FILE).write_text(json.dumps(values, indent=1) + "\n", encoding="utf-8")


def read_losses(student: Path) -> tuple[dict[str, float], dict[str, float]]:
    """(loss under the base model, loss after the first epoch) by example id; empty for a student without a record.

    Raises:
        UserError: A file that is not a record of losses.
    """
    file = student / LOSSES_FILE
    if not file.is_file():
        return {}, {}
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
        base, early = ({str(row): float(loss) for row, loss in values[name].items()} for name in ("base", "early"))
    except (ValueError, KeyError, TypeError, AttributeError) as problem:
        raise UserError(f"{file}: not written by llm2llm ({problem})") from None
    return base, early


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
