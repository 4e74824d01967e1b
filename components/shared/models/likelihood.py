"""The log-likelihood of given completions under a model, and the mean loss of right ones."""

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.models.prompts import Encoded, encode
from llm2llm.components.shared.tasks import Task


def losses(model: Any, tokenizer: Any, examples: Sequence[Example], task: Task, batch_size: int) -> list[float]:
    """The mean negative log-likelihood, in nats, of each right completion's tokens, its end included."""
    encoded = [encode(tokenizer, task, example) for example in examples]
    likelihoods = log_likelihoods(model, tokenizer, encoded, batch_size)
    return [-value / len(row.completion) for value, row in zip(likelihoods, encoded, strict=True)]


def log_likelihoods(model: Any, tokenizer: Any, rows: Sequence[Encoded], batch_size: int) -> list[float]:
    """The log-likelihood, in nats, of each completion after its prompt. The model is left in the mode it was in.

    A prompt that several completions follow, as the labels of a row do, is read once for all of those in a batch.
    """
    prompts = {tuple(row.prompt) for row in rows}
    shared = 2 * len(prompts) <= len(rows) and cache_of_rows(model) is not None and _takes_positions(model)
    if shared:
        order = sorted(range(len(rows)), key=lambda i: (-len(rows[i].prompt), rows[i].prompt, i))
    else:
        order = sorted(range(len(rows)), key=lambda i: -len(rows[i].prompt) - len(rows[i].completion))
    values = [0.0] * len(rows)
    was_training = model.training
    model.eval()
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        measure = _after_shared_prompts if shared else _as_a_whole
        for i, value in zip(batch, measure(model, tokenizer, [rows[i] for i in batch]), strict=True):
            values[i] = value
    model.train(was_training)
    return values


def _as_a_whole(model: Any, tokenizer: Any, rows: Sequence[Encoded]) -> list[float]:
    lengths = [len(row.prompt) + len(row.completion) for row in rows]
    # Padded on the right: positions then need no telling, and what comes after a row does not change it.
    tokens = torch.full((len(rows), max(lengths)), tokenizer.pad_token_id)
    seen = torch.zeros_like(tokens)
    for place, row in enumerate(rows):
        tokens[place, : lengths[place]] = torch.tensor(row.prompt + row.completion)
        seen[place, : lengths[place]] = 1
    # A token's logits stand one place before it. Of a large vocabulary only those that count fit into memory.
    first = min(len(row.prompt) for row in rows) - 1
    kept = torch.arange(first, max(lengths) - 1, device=model.device)
    with torch.no_grad():  # no inference mode: a student that is shared out keeps what it gathers here for training
        logits = model(
            input_ids=tokens.to(model.device), attention_mask=seen.to(model.device), logits_to_keep=kept
        ).logits
        of_tokens = _of_tokens(logits, tokens[:, first + 1 :])
    return [
        float(of_tokens[place, (begin := len(row.prompt) - 1 - first) : begin + len(row.completion)].sum())
        for place, row in enumerate(rows)
    ]


def _after_shared_prompts(model: Any, tokenizer: Any, rows: Sequence[Encoded]) -> list[float]:
    """Reads every prompt once, and goes on from its keys and values with each completion."""
    prompts = sorted({tuple(row.prompt) for row in rows})
    place = {prompt: number for number, prompt in enumerate(prompts)}
    of_row = torch.tensor([place[tuple(row.prompt)] for row in rows], device=model.device)
    # Prompts are padded on the left, so that each completion follows its own at once.
    longest = max(map(len, prompts))
    seen = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    padded = [[tokenizer.pad_token_id] * (longest - len(prompt)) + list(prompt) for prompt in prompts]
    # The last token of a completion is only told, never read.
    width = max(len(row.completion) for row in rows) - 1
    tokens = torch.tensor(
        [row.completion + [tokenizer.pad_token_id] * (width + 1 - len(row.completion)) for row in rows]
    )
    cache = cache_of_rows(model)
    with torch.inference_mode():
        logits = model(
            input_ids=torch.tensor(padded, device=model.device),
            attention_mask=seen,
            position_ids=(seen.cumsum(1) - 1).clamp_min(0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[of_row]
        if width:
            cache.batch_select_indices(of_row)
            seen = seen[of_row]
            # Padding stands still: it must not go beyond the positions that a student has.
            last = torch.tensor([[len(row.completion) - 1] for row in rows], device=model.device)
            further = model(
                input_ids=tokens[:, :width].to(model.device),
                attention_mask=torch.cat([seen, seen.new_ones(len(rows), width)], dim=1),
                position_ids=seen.sum(1, keepdim=True) + torch.arange(width, device=model.device).minimum(last),
                past_key_values=cache,
                use_cache=True,
            ).logits
            logits = torch.cat([logits, further], dim=1)
        of_tokens = _of_tokens(logits, tokens)
    return [float(of_tokens[place, : len(row.completion)].sum()) for place, row in enumerate(rows)]


def _of_tokens(logits: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
    """The log-probability of each token, on the CPU."""
    logs = logits.float().log_softmax(dim=-1)
    return logs.gather(2, tokens[:, :, None].to(logits.device))[:, :, 0].double().cpu()


def cache_of_rows(model: Any) -> Any:
    """An empty cache of keys and values from which rows can be taken; None for a model whose layers keep something
    else, as those with a recurrent state do."""
    if not model._supports_default_dynamic_cache():
        return None
    cache = DynamicCache(config=model.config.get_text_config(decoder=True))
    plain = (DynamicLayer, DynamicSlidingWindowLayer)
    return cache if cache.layers and all(type(layer) in plain for layer in cache.layers) else None


def _takes_positions(model: Any) -> bool:
    """Whether a model can be told where in its row a token stands; one with ALiBi counts padding as well."""
    whole = model if isinstance(model, PreTrainedModel) else model.get_base_model()  # below an adapter
    return "position_ids" in inspect.signature(whole.forward).parameters
