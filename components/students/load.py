"""Loading a student: a Hugging Face name, a folder of safetensors, or a PEFT adapter with its base named."""

import json
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from llm2llm.components.problems import UserError

ADAPTER_CONFIG = "adapter_config.json"


def device() -> str:
    """`cuda` where there is a GPU, else `cpu`."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def precision() -> torch.dtype:
    """bfloat16 on GPUs that have it, float32 elsewhere: float16 training needs loss scaling, and CPUs emulate it."""
    return torch.bfloat16 if torch.cuda.is_available() and torch.cuda.is_bf16_supported() else torch.float32


def load_tokenizer(student: str | Path, trust_remote_code: bool = False) -> Any:
    """The student's tokenizer, with a padding token and padding on the left, as generation needs.

    Raises:
        UserError: No such folder or model.
    """
    name = _checked(student)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name, trust_remote_code=trust_remote_code)
    except (OSError, ValueError) as problem:
        raise _not_loadable(name, problem) from problem
    if tokenizer.eos_token_id is None:
        raise UserError(f"student {name}: its tokenizer has no end-of-sequence token; choose another student")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def load_model(student: str | Path, trust_remote_code: bool = False, train_adapter: bool = False) -> Any:
    """The student's weights on the best device, an adapter put onto its base; never from a pickle.

    An adapter's weights are frozen unless `train_adapter`.

    Raises:
        UserError: No such folder or model, or no safetensors in it.
    """
    name = _checked(student)
    config = Path(name) / ADAPTER_CONFIG
    try:
        if config.is_file():
            from peft import PeftModel

            base = json.loads(config.read_text())["base_model_name_or_path"]
            model = PeftModel.from_pretrained(load_model(base, trust_remote_code), name, is_trainable=train_adapter)
        else:
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=precision(), use_safetensors=True, trust_remote_code=trust_remote_code
            )
    except (OSError, ValueError) as problem:
        raise _not_loadable(name, problem) from problem
    return model.to(device())


def _checked(student: str | Path) -> str:
    """The student as transformers takes it: something that looks like a folder must be one with a model in it."""
    name = str(student)
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file() and not (folder / ADAPTER_CONFIG).is_file():
            raise UserError(f"student {name}: the folder holds no model (neither config.json nor {ADAPTER_CONFIG})")
        return str(folder)
    if name.startswith(("/", ".", "~")) or name.count("/") > 1:
        raise UserError(f"student {name}: no such folder")
    return name


def _not_loadable(name: str, problem: Exception) -> UserError:
    first_line = str(problem).strip().split("\n", 1)[0]
    return UserError(
        f"student {name}: cannot be loaded: {first_line} "
        "(a student is a Hugging Face model name, a folder with safetensors, or 'scratch')"
    )
