"""Which prompts may be answered in one batch: those that do not change one another's answers.

Prompts of several lengths are padded on the left, and attention masks the padding. An architecture with a recurrent
state must keep it out of that state, and not all do: RWKV has no mask, and RecurrentGemma's convolution adds its bias
where there is only padding. transformers' RWKV also mixes up the states of a batch's rows.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeVar

import torch

from llm2llm.components.shared.models.likelihood import cache_of_rows

T = TypeVar("T")
R = TypeVar("R")

Together = Literal["any", "of one length", "none"]

TRIED = 32
"""Tokens of padding that are tried before a prompt."""


def together(model: Any, tokenizer: Any, prompt: Sequence[int], who: str) -> Together:
    """Which prompts a student may be given in one batch; where not `any`, it is said.

    Tried on the beginning of a prompt: of the logits of the next three tokens, none may be further from what it is for
    the prompt alone than rounding takes it.

    Args:
        model: In evaluation mode.
        tokenizer: Gives the padding token.
        prompt: Any prompt.
        who: What messages begin with.
    """
    if cache_of_rows(model) is not None:  # nothing but attention
        return "any"
    known = model.get_input_embeddings().num_embeddings
    beginning = list(prompt[:16])
    other = [(token + 1) % known for token in beginning]
    alone = _logits(model, tokenizer, [beginning])
    close = (1e-3 if model.dtype is torch.float32 else 2e-2) * float(alone.std())

    def changed(rows: Sequence[Sequence[int]]) -> bool:  # what is not a number is not close
        return not float((_logits(model, tokenizer, rows) - alone).abs().max()) <= close

    found: Together = "any"
    if changed([beginning, other]):
        found = "none"
        print(f"{who}: in a batch, this model's rows would change one another's answers: one at a time", flush=True)
    elif changed([beginning, other * 2 + other[:1] * TRIED]):
        found = "of one length"
        print(f"{who}: padding would change this model's answers: only prompts of one length go together", flush=True)
    return found


def _logits(model: Any, tokenizer: Any, rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """Of three tokens after the first row, in float32."""
    longest = max(map(len, rows))
    padding = [longest - len(row) for row in rows]
    tokens = [[tokenizer.pad_token_id] * left + list(row) for left, row in zip(padding, rows, strict=True)]
    with torch.inference_mode():
        found = model.generate(
            input_ids=torch.tensor(tokens, device=model.device),
            attention_mask=torch.tensor([[0] * left + [1] * (longest - left) for left in padding], device=model.device),
            do_sample=False,
            max_new_tokens=3,
            min_new_tokens=3,
            output_logits=True,
            return_dict_in_generate=True,
        )
    logits: torch.Tensor = torch.stack([step[0] for step in found.logits]).float()
    return logits


def in_batches(
    items: Sequence[T], length: Callable[[T], int], allowed: Together, work: Callable[[Sequence[T]], list[R]]
) -> list[R]:
    """The results of `work`, which is given only items that may go together, in the order of `items`.

    Args:
        items: What to work on.
        length: Of an item's prompt.
        allowed: See `together`.
        work: Gives one result for each of the items that it is given.
    """
    if allowed == "any":
        return work(items)
    alike: dict[int, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        alike[length(item) if allowed == "of one length" else place].append(place)
    found: dict[int, R] = {}
    for places in alike.values():
        found.update(zip(places, work([items[place] for place in places]), strict=True))
    return [found[place] for place in range(len(items))]
