"""A model's folder, looked at without loading it: are its safetensors files there and whole?

    8 bytes      length of the header, little-endian
    header       JSON: {name: {"dtype", "shape", "data_offsets": [begin, end]}}
    tensors      as many bytes as the highest `end`

See https://huggingface.co/docs/safetensors. Imports neither torch nor transformers.
"""

import json
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError

INDEX = "model.safetensors.index.json"
WEIGHTS = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
LFS = b"version https://git-lfs"


def check_weight_files(folder: Path, who: str) -> None:
    """Checks that the weights in a folder are whole.

    Args:
        folder: Of a model or an adapter.
        who: What to call it in messages, such as `student path/to/it`.

    Raises:
        UserError: No safetensors, a shard that is missing, a file that is a pointer of Git LFS or that was cut off.
    """
    index = folder / INDEX
    if (folder / ADAPTER_CONFIG).is_file():
        names = [ADAPTER_WEIGHTS]
    elif index.is_file():
        names = sorted(set(_index(index, who)["weight_map"].values()))
    else:
        names = [WEIGHTS]
    for name in names:
        if (folder / name).is_file():
            read_header(folder / name, who)
        elif len(names) > 1:
            raise UserError(f"{who}: {name}, which {INDEX} names, is not there; download the model again")
        else:
            others = sorted(path.name for path in folder.glob("*.bin"))
            pickles = f"; {others[0]} is a pickle, and pickles are not loaded" if others else ""
            raise UserError(f"{who}: the folder holds no {name}{pickles}; save the model as safetensors")


def read_header(path: Path, who: str) -> dict[str, Any]:
    """The header of a safetensors file: `{name: {"dtype": ..., "shape": [...], "data_offsets": [begin, end]}}`.

    Raises:
        UserError: The file is none, or was cut off.
    """
    with path.open("rb") as file:
        start = file.read(8)
        if LFS.startswith(start) and start:
            raise UserError(
                f"{who}: {path.name} is a pointer of Git LFS instead of the weights; run `git lfs pull` in that folder"
            )
        length = int.from_bytes(start, "little")
        size = path.stat().st_size
        if len(start) < 8 or length > size:
            raise UserError(f"{who}: {path.name} is no safetensors file, or was cut off; download the model again")
        try:
            header: dict[str, Any] = json.loads(file.read(length))
            tensors = {name: of for name, of in header.items() if name != "__metadata__"}
            whole = 8 + length + max((of["data_offsets"][1] for of in tensors.values()), default=0)
        except (ValueError, KeyError, TypeError, AttributeError) as problem:
            raise UserError(
                f"{who}: {path.name} is no safetensors file ({problem}); download the model again"
            ) from None
    if size != whole:
        raise UserError(
            f"{who}: {path.name} has {size:,} bytes, and its header says {whole:,}: it was cut off or is damaged; "
            "download the model again"
        )
    return tensors


def quantisation(config: dict[str, Any]) -> str:
    """How a model's weights are quantised, such as `bitsandbytes` or `gptq`; empty where they are not.

    Args:
        config: The model's `config.json`.
    """
    values = config.get("quantization_config") or {}
    return str(values.get("quant_method") or "quantised") if values else ""


def _index(path: Path, who: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(values["weight_map"], dict) and values["weight_map"]:
            return dict(values)
    except (ValueError, KeyError, TypeError):
        pass
    raise UserError(f"{who}: {path.name} is damaged; download the model again")
