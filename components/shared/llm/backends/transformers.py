"""Teacher `transformers`: a model in this process, for a machine without vLLM.

A random answer is drawn with a seed from the request's key (`models.sampling`), so that it does not depend on what is
asked with it, nor on the order.
"""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.backends.in_process import (
    Completion,
    EncodedRequest,
    answer_in_chunks,
    encode_requests,
    find_model,
    not_loadable,
)
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.client import Send
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse
from llm2llm.components.shared.llm.settings import ModelSettings


@contextmanager
def opened(settings: ModelSettings) -> Iterator[Send]:
    """Loads a causal language model: a Hugging Face name, a folder of safetensors, or a LoRA adapter with its base.

    The form of an answer is asked for in words. The most likely tokens at temperature 0, else a draw; see the module.

    Raises:
        UserError: There is no such model, or it cannot be loaded; a batch does not fit into the GPU's memory.
    """
    import torch
    from transformers.utils import logging as transformers_logging

    from llm2llm.components.shared.models.load import load_model, load_tokenizer
    from llm2llm.components.shared.models.padding import in_batches, together

    transformers_logging.set_verbosity_error()
    name = find_model(settings)
    try:
        tokenizer = load_tokenizer(name, settings.trust_remote_code)
        model = load_model(name, settings.trust_remote_code).eval()
    except UserError as problem:
        raise not_loadable(settings, problem) from problem
    context = model.config.get_text_config().to_dict().get("max_position_embeddings")

    def send(requests: Sequence[LLMRequest], settings: ModelSettings, tracker: SpendTracker) -> list[LLMResponse]:
        encoded = encode_requests(tokenizer, requests, settings, "transformers", context, in_words=True)
        # Longest first: little padding, and what does not fit into memory shows at once.
        encoded.sort(key=lambda item: (-len(item.prompt), item.key))
        allowed = together(model, tokenizer, encoded[0].prompt, "teacher") if encoded else "any"

        def generate(batch: list[EncodedRequest]) -> list[Completion]:
            try:
                return in_batches(
                    batch, lambda item: len(item.prompt), allowed, lambda some: _generate(model, tokenizer, some)
                )
            except torch.OutOfMemoryError as problem:
                raise UserError(
                    f"model {settings.model!r}: {len(batch)} requests at once do not fit into the GPU's memory; lower "
                    "batch_size or max_tokens"
                ) from problem

        answers = answer_in_chunks(encoded, settings, tracker, "transformers", settings.batch_size, generate)
        keys = {id(item.request): item.key for item in encoded}
        return [answers[keys[id(request)]] for request in requests]

    try:
        yield send
    finally:
        model = None  # `send`, which may live on, still knows it
        gc.collect()
        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def _generate(model: Any, tokenizer: Any, batch: Sequence[EncodedRequest]) -> list[Completion]:
    import torch

    from llm2llm.components.shared.models.load import end_tokens
    from llm2llm.components.shared.models.sampling import GumbelSampling

    padded = tokenizer.pad({"input_ids": [item.prompt for item in batch]}, return_tensors="pt").to(model.device)
    seeds = [item.seed if item.request.temperature else None for item in batch]
    ends = end_tokens(tokenizer.eos_token_id, model.generation_config.eos_token_id)
    with torch.inference_mode():
        tokens = model.generate(
            **padded,
            do_sample=False,
            temperature=None,
            top_p=None,
            top_k=None,
            max_new_tokens=max(item.limit for item in batch),
            eos_token_id=ends,
            pad_token_id=tokenizer.pad_token_id,
            logits_processor=[
                GumbelSampling(
                    seeds,
                    [item.request.temperature or 0.0 for item in batch],
                    [item.request.top_p for item in batch],
                )
            ],
        )
    written = []
    for item, row in zip(batch, tokens[:, padded["input_ids"].shape[1] :].tolist(), strict=True):
        generated = row[: item.limit]
        length = next((n for n, token in enumerate(generated) if token in ends), None)
        text = tokenizer.decode(generated[:length], skip_special_tokens=True)
        written.append(Completion(text, length is None, len(generated) if length is None else length + 1))
    return written
