"""Answers with vLLM's engine, in a process of its own.

    python -m llm2llm.components.shared.inference.vllm_answers REQUEST.json REPLY.json

vLLM keeps a GPU's memory until its process ends, and pins another PyTorch than the training does: so the stage makes
prompts and reads answers, and this module's own process, under the Python that has vLLM, sees token ids only. An
adapter is served on top of its base, unmerged. The last digits of vLLM's logits depend on what else is in the batch:
answers on the edge between two tokens may differ from those of transformers, or from one run to the next.
"""

import hashlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.children import end_with_parent_pipe, run_children
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.progress import Progress
from llm2llm.components.shared.models.vllm import PRIVATE, PYTHON_VARIABLE, require_engine, start_engine, vllm_is_here
from llm2llm.components.shared.models.weight_files import ADAPTER_CONFIG
from llm2llm.components.shared.storage import fetched, is_remote

CHUNK = 2048
"""Requests that are given to the engine at once: enough to keep it busy to the end, few enough to show progress."""
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""The ranks that vLLM can be told to make room for."""

Request = dict[str, Any]


def ask_vllm(
    student: Path,
    prompts: Sequence[Request],
    rows: Sequence[tuple[list[int], list[int]]],
    ends: Sequence[int],
    gpus: int,
    trust_remote_code: bool,
    schema: Mapping[str, Any] | None = None,
) -> tuple[list[list[int]], list[float], dict[str, float]]:
    """What a student in vLLM writes, and the likelihoods of what it is given.

    Args:
        student: A folder with full weights, or with an adapter whose base is a folder or a Hugging Face name.
        prompts: What to answer: `{"prompt": token ids, "limit": tokens, "temperature": float, "seed": int}`, and
            `"top_p"` where it is below 1; greedily where the temperature is 0.
        rows: (prompt, completion) of which to measure the completion, as token ids.
        ends: The tokens that end an answer.
        gpus: How many GPUs hold the student together.
        trust_remote_code: Whether to run code that a model repository brings along.
        schema: The JSON schema that what is written is held to, without free white space; None: nothing.

    Returns:
        (token ids of each answer, with the end token if it ended; log-likelihood of each completion, in nats; figures:
        `import_seconds`, `load_seconds`, and `first_token_seconds` where anything was written).

    Raises:
        UserError: vLLM is not there, or cannot load the student.
        RuntimeError: vLLM's process failed.
    """
    if not vllm_is_here():
        raise UserError(
            "evaluate.backend 'vllm': there is no vLLM in this Python; run the stage in the image `vllm`, let "
            f"{PYTHON_VARIABLE} name a Python that has it, or set backend: transformers"
        )
    longest = max(
        [len(one["prompt"]) + one["limit"] for one in prompts]
        # One token is written after what is measured; its likelihood is not asked for.
        + [len(prompt) + len(completion) + 1 for prompt, completion in rows]
    )
    request = {
        **_model_of(student, measures=bool(rows)),
        "prompts": list(prompts),
        "rows": list(rows),
        "ends": list(ends),
        "gpus": gpus,
        "trust_remote_code": trust_remote_code,
        "longest": longest,
        "schema": schema,
        "tokenizer": str(student),
    }
    free_gpu_memory()
    with tempfile.TemporaryDirectory(prefix="llm2llm-vllm-") as folder:
        asked, replied = Path(folder) / "request.json", Path(folder) / "reply.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        code = _run([str(asked), str(replied)])
        if not replied.is_file():
            raise RuntimeError(f"evaluate: vLLM's process ended with code {code}; its own messages are above")
        reply = json.loads(replied.read_text(encoding="utf-8"))
    if "user_error" in reply:
        raise UserError(reply["user_error"])
    if len(reply["answers"]) < len(prompts) or len(reply["likelihoods"]) < len(rows):
        raise RuntimeError("evaluate: answers are missing from vLLM's reply")
    return reply["answers"], reply["likelihoods"], reply["figures"]


def seed_of(sampling_seed: int, example_id: str, number: int) -> int:
    """The seed of one sample: it depends on the row, not on what else is asked."""
    digest = hashlib.sha256(f"{sampling_seed}:{example_id}:{number}".encode()).digest()
    return int.from_bytes(digest[:4], "big")


def base_of(student: Path) -> str:
    """Where a student's config and its base weights are: its own folder, or the base of the adapter that it is."""
    from llm2llm.components.shared.models.load import base_name

    base = base_name(student)
    return str(fetched(base)) if is_remote(base) else base


def _model_of(student: Path, measures: bool) -> dict[str, Any]:
    """`model`, and where the student is an adapter its folder, its rank, and the layers that it adapts, as
    `adapter`."""
    config = student / ADAPTER_CONFIG
    if not config.is_file():
        return {"model": str(student)}
    values = json.loads(config.read_text(encoding="utf-8"))
    for key, name in (("use_dora", "a DoRA adapter"), ("modules_to_save", "an adapter with whole layers beside it")):
        if values.get(key):
            raise UserError(
                f"evaluate.backend 'vllm': the student is {name}, which vLLM cannot serve unmerged; merge it when it "
                "is trained (train.merge), or set backend: transformers"
            )
    rank = max([int(values["r"]), *map(int, (values.get("rank_pattern") or {}).values())])
    if rank > RANKS[-1]:
        raise UserError(
            f"evaluate.backend 'vllm': the adapter's rank {rank} is above vLLM's limit {RANKS[-1]}; set backend: "
            "transformers"
        )
    targets = values["target_modules"]
    layers = None if isinstance(targets, str) else sorted({str(target).rpartition(".")[2] for target in targets})
    if measures and (layers is None or "lm_head" in layers):
        raise UserError(
            "evaluate.backend 'vllm': the student is an adapter that may reach the output layer, for which vLLM gives "
            "no likelihoods; set mode: generate and hardness: false, or backend: transformers"
        )
    # Named, as vLLM would prepare every layer, the output layer too, and then fail to give likelihoods.
    adapter = {"folder": str(student), "rank": next(room for room in RANKS if room >= rank), "layers": layers}
    return {"model": base_of(student), "adapter": adapter}


def _run(arguments: list[str]) -> int:
    """Runs this module under vLLM's Python; its whole process group ends with this call, whatever happens."""
    python = os.environ.get(PYTHON_VARIABLE) or sys.executable
    environment = {
        **PRIVATE,
        "VLLM_LOGGING_LEVEL": "WARNING",
        **os.environ,
    }
    command = [python, "-m", "llm2llm.components.shared.inference.vllm_answers", *arguments]
    (code,) = run_children([command], [environment])
    assert code is not None, "it was waited for"
    return code


def free_gpu_memory() -> None:
    """Gives back what a training in this process has left on the GPU; vLLM wants nearly all of it."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        import gc

        gc.collect()
        torch.cuda.empty_cache()


def main(asked: str, replied: str) -> None:
    """The process: reads the request, loads the student, writes the reply whole."""
    end_with_parent_pipe()
    request = json.loads(Path(asked).read_text(encoding="utf-8"))
    try:
        reply = _reply(request)
    except UserError as problem:
        reply = {"user_error": str(problem)}
    partial = Path(replied + ".partial")
    partial.write_text(json.dumps(reply), encoding="utf-8")
    partial.replace(replied)


def _reply(request: Request) -> Request:
    started = time.monotonic()
    require_engine("evaluate.backend 'vllm'", "set backend: transformers")
    imported = time.monotonic()
    adapter = request.get("adapter")
    adapting = {}
    if adapter is not None:
        adapting = {"enable_lora": True, "max_lora_rank": adapter["rank"], "lora_target_modules": adapter["layers"]}
    # Token ids come and go; only a schema must be compiled with the words behind them.
    reading: dict[str, Any] = {"skip_tokenizer_init": True}
    if request.get("schema") is not None:
        constrained = {"backend": "xgrammar", "disable_any_whitespace": True}
        reading = {"tokenizer": request["tokenizer"], "structured_outputs_config": constrained}
    try:
        llm = start_engine(
            model=request["model"],
            **reading,
            trust_remote_code=request["trust_remote_code"],
            tensor_parallel_size=request["gpus"],
            max_model_len=request["longest"],
            dtype="precision",
            generation_config="vllm",
            **adapting,
            disable_log_stats=False,
        )
    except (OSError, ValueError, RuntimeError) as problem:
        lines = str(problem).strip().splitlines() or [type(problem).__name__]
        raise UserError(f"evaluate.backend 'vllm': cannot load {request['model']}: {lines[0]}") from problem
    loaded = time.monotonic()
    answers, first_token = _write(llm, request)
    figures = {"import_seconds": imported - started, "load_seconds": loaded - imported}
    if first_token is not None:
        figures["first_token_seconds"] = first_token
    return {"answers": answers, "likelihoods": _measure(llm, request), "figures": figures}


def _write(llm: Any, request: Request) -> tuple[list[list[int]], float | None]:
    """The answers, and the seconds until the first token."""
    from vllm import SamplingParams
    from vllm.sampling_params import StructuredOutputsParams

    prompts = request["prompts"]
    schema = request.get("schema")
    sampling = [
        SamplingParams(
            temperature=one["temperature"],
            top_p=one.get("top_p", 1.0),
            seed=one["seed"],
            max_tokens=one["limit"],
            stop_token_ids=request["ends"],
            detokenize=False,
            structured_outputs=None if schema is None else StructuredOutputsParams(json=schema),
        )
        for one in prompts
    ]
    outputs = _in_chunks(llm, request, [one["prompt"] for one in prompts], sampling, "answers")
    waits = [output.metrics.first_token_latency for output in outputs if output.metrics is not None]
    return [list(output.outputs[0].token_ids) for output in outputs], min(waits, default=None)


def _measure(llm: Any, request: Request) -> list[float]:
    """The log-likelihood of each row's completion: prompt and completion are read as one prompt."""
    from vllm import SamplingParams

    rows = request["rows"]
    sampling = [SamplingParams(temperature=0.0, max_tokens=1, prompt_logprobs=0, detokenize=False)] * len(rows)
    outputs = _in_chunks(llm, request, [prompt + completion for prompt, completion in rows], sampling, "likelihoods")
    values = []
    for (prompt, completion), output in zip(rows, outputs, strict=True):
        of_tokens = output.prompt_logprobs[len(prompt) :]
        values.append(sum(float(place[token].logprob) for place, token in zip(of_tokens, completion, strict=True)))
    return values


def _in_chunks(llm: Any, request: Request, prompts: list[list[int]], sampling: list[Any], unit: str) -> list[Any]:
    from vllm.lora.request import LoRARequest

    adapter = LoRARequest("student", 1, request["adapter"]["folder"]) if "adapter" in request else None
    progress = Progress("evaluate", len(prompts), unit)
    outputs: list[Any] = []
    for start in range(0, len(prompts), CHUNK):
        chunk = [{"prompt_token_ids": prompt} for prompt in prompts[start : start + CHUNK]]
        outputs += llm.generate(chunk, sampling[start : start + CHUNK], lora_request=adapter, use_tqdm=False)
        progress.show(len(outputs))
    return outputs


if __name__ == "__main__":
    main(*sys.argv[1:])
