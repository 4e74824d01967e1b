"""vLLM's engine: whether it is there, how it is started and stopped. Imports it only where it is used."""

import gc
import importlib.util
import os
from typing import Any

from llm2llm.components.shared.base.errors import UserError

PYTHON_VARIABLE = "LLM2LLM_VLLM_PYTHON"
"""Names the Python that has vLLM, where it is not the stage's own."""

PRIVATE = {"VLLM_NO_USAGE_STATS": "1", "DO_NOT_TRACK": "1"}
"""Environment variables: vLLM reports nothing about its use."""


def vllm_is_here() -> bool:
    """Whether there is a Python that has vLLM: the stage's own, or the one that `LLM2LLM_VLLM_PYTHON` names."""
    return bool(os.environ.get(PYTHON_VARIABLE)) or importlib.util.find_spec("vllm") is not None


def require_engine(setting: str, otherwise: str) -> None:
    """Checks, before anything is loaded, that vLLM can be imported and has a device.

    Args:
        setting: What asked for vLLM, for messages, such as `teacher 'vllm'`.
        otherwise: The setting that does without.

    Raises:
        UserError: vLLM cannot be imported, or sees no GPU.
    """
    for name, value in PRIVATE.items():
        os.environ.setdefault(name, value)
    try:
        from vllm.platforms import current_platform
    except ImportError as problem:
        raise UserError(
            f"{setting}: vLLM cannot be imported ({problem}); run the stage in the image `vllm`, install "
            f"'llm2llm[vllm]', or {otherwise}"
        ) from problem
    if current_platform.is_unspecified():
        raise UserError(f"{setting}: vLLM sees no GPU here: give the stage one (placement), or {otherwise}")


def start_engine(**options: Any) -> Any:
    """A `vllm.LLM` that loads safetensors only; `require_engine` comes before.

    Args:
        options: Of `vllm.LLM`. `dtype` "precision": bfloat16 on a GPU that has it, float16 on an older one, float32 on
            a CPU, as transformers loads a student.

    Raises:
        OSError, ValueError, RuntimeError: It cannot load the model.
    """
    from vllm import LLM
    from vllm.platforms import current_platform

    on_cpu = current_platform.is_cpu()
    if options.get("dtype") == "precision":
        new = not on_cpu and current_platform.has_device_capability(80)
        options["dtype"] = "float32" if on_cpu else "bfloat16" if new else "float16"
    # Compiling pays on a GPU; on a CPU, where this is only tried out, it takes minutes.
    return LLM(load_format="safetensors", enforce_eager=on_cpu, **options)


def stop_engine(llm: Any) -> None:
    """Ends the engine's own process, which keeps the GPU's memory until then."""
    llm.llm_engine.engine_core.shutdown()
    gc.collect()
