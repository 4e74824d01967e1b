"""Teacher `vllm`: vLLM's engine in the stage's own GPU pod, the whole batch at once; there is no server to run.

The form of an answer is a JSON schema that decoding is bound to. Each request has a seed from its key, so that on one
machine it mostly gets the same answer again; vLLM batches as it sees fit, which can change the last bits of the logits.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
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
from llm2llm.components.shared.models.vllm import require_engine, start_engine, stop_engine

CHUNK = 512
"""Requests that are given to the engine at once: enough to keep a GPU busy, few enough to lose to a kill."""


@contextmanager
def opened(settings: ModelSettings) -> Iterator[Send]:
    """Loads a model into vLLM: a Hugging Face name or a folder, safetensors only; its memory is freed at the end.

    Raises:
        UserError: vLLM is not installed or cannot load the model; it refuses a request's JSON schema.
    """
    from llm2llm.components.shared.models.load import load_tokenizer
    from llm2llm.components.shared.models.weight_files import ADAPTER_CONFIG

    name = find_model(settings)
    if (Path(name) / ADAPTER_CONFIG).is_file():
        raise UserError(f"model {settings.model!r}: is a LoRA adapter; set teacher: transformers, which can load it")
    require_engine("teacher 'vllm'", "set teacher: transformers")
    try:
        tokenizer = load_tokenizer(name, settings.trust_remote_code)
    except UserError as problem:
        raise not_loadable(settings, problem) from problem
    try:
        llm = start_engine(
            model=name,
            trust_remote_code=settings.trust_remote_code,
            tensor_parallel_size=settings.gpus,
            max_model_len=settings.max_model_len or None,
            enable_prefix_caching=True,
            # White space may be written without end under a schema, and a weak model does. vLLM forbids it only with a
            # backend that is named.
            structured_outputs_config={"backend": "xgrammar", "disable_any_whitespace": True},
        )
    except (OSError, ValueError, RuntimeError) as problem:
        raise not_loadable(settings, problem) from problem
    context = llm.llm_engine.model_config.max_model_len

    def send(requests: Sequence[LLMRequest], settings: ModelSettings, tracker: SpendTracker) -> list[LLMResponse]:
        in_words = settings.structured == "words"
        encoded = encode_requests(tokenizer, requests, settings, "vllm", context, in_words)

        def generate(chunk: list[EncodedRequest]) -> list[Completion]:
            return _generate(llm, chunk, settings, in_words)

        answers = answer_in_chunks(encoded, settings, tracker, "vllm", CHUNK, generate)
        return [answers[item.key] for item in encoded]

    try:
        yield send
    finally:
        stop_engine(llm)
        llm = None


def _generate(llm: Any, chunk: list[EncodedRequest], settings: ModelSettings, in_words: bool) -> list[Completion]:
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    sampling = [
        SamplingParams(
            temperature=item.request.temperature,
            top_p=item.request.top_p,
            max_tokens=item.limit,
            seed=item.seed,
            structured_outputs=None
            if in_words or item.request.schema is None
            else StructuredOutputsParams(json=dict(item.request.schema)),
        )
        for item in chunk
    ]
    try:
        outputs = llm.generate([{"prompt_token_ids": item.prompt} for item in chunk], sampling, use_tqdm=False)
    except ValueError as problem:
        raise UserError(
            f"model {settings.model!r}: vLLM refuses a request: {str(problem).strip().splitlines()[0]}; when it is the "
            "JSON schema, set structured: words"
        ) from problem
    written = []
    for output in outputs:
        one = output.outputs[0]
        written.append(Completion(one.text, one.finish_reason == "length", len(one.token_ids)))
    return written
