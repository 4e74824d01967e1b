"""Texts as vectors, by a model in a local folder."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llm2llm.components.shared.base.errors import UserError

BATCH = 64
LONGEST = 256  # tokens of a text that a sentence-transformers model reads, as all-MiniLM-L6-v2 was trained
BLOCK = 1_000  # queries compared at once

Vectors = NDArray[np.float32]


def embed(texts: Sequence[str], model: str, key: str = "semantic.model") -> Vectors:
    """One vector of length 1 for each text: shape (texts, dimensions).

    Args:
        texts: As they are.
        model: Folder of a Model2Vec model, or of a transformers encoder whose token vectors are averaged, as
            sentence-transformers models do (Reimers and Gurevych 2019). Nothing is fetched, and no code in the folder
            is run.
        key: The setting that names the model, for messages.

    Raises:
        UserError: No such folder, or a package that it needs is not installed.
    """
    try:
        config = json.loads((Path(model) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise UserError(f"{key} {model}: not the folder of an embedding model: {problem}") from None
    try:
        vectors = _model2vec(texts, model) if config.get("model_type") == "model2vec" else _transformers(texts, model)
    except ModuleNotFoundError as missing:
        fix = "model2vec" if missing.name == "model2vec" else "'llm2llm[train]'"
        raise UserError(f"{key} {model}: needs the package {missing.name}: pip install {fix}") from None
    except (OSError, ValueError) as problem:
        raise UserError(f"{key} {model}: cannot be loaded: {str(problem).splitlines()[0]}") from problem
    return np.asarray(vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12), dtype=np.float32)


def close_pairs(queries: Vectors, texts: Vectors, threshold: float) -> list[tuple[int, int, float]]:
    """(query, text, cosine) of every pair whose cosine is at least `threshold`, in order."""
    found = []
    for start in range(0, len(queries), BLOCK):
        cosines = queries[start : start + BLOCK] @ texts.T
        for i, j in zip(*np.nonzero(cosines >= threshold), strict=True):
            found.append((start + int(i), int(j), min(1.0, float(cosines[i, j]))))
    return found


def _model2vec(texts: Sequence[str], model: str) -> Vectors:
    from model2vec import StaticModel

    return np.asarray(StaticModel.from_pretrained(model).encode(list(texts)), dtype=np.float32)


def _transformers(texts: Sequence[str], model: str) -> Vectors:
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model, local_files_only=True, trust_remote_code=False)
    encoder: Any
    encoder, found = AutoModel.from_pretrained(
        model,
        local_files_only=True,
        trust_remote_code=False,
        use_safetensors=True,
        dtype=torch.float32,
        output_loading_info=True,
    )
    # A head that an encoder was trained with may be left over; its last layer's pooler is not used.
    if missing := sorted(name for name in found["missing_keys"] if not name.startswith("pooler.")):
        raise ValueError(f"{len(missing)} weights are missing, such as {missing[0]}")
    encoder.eval()
    # Texts of one length together, so that little is padded.
    order = sorted(range(len(texts)), key=lambda place: len(texts[place]))
    vectors = np.zeros((len(texts), encoder.config.hidden_size), dtype=np.float32)
    with torch.inference_mode():
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            batch = tokenizer(
                [texts[i] for i in some], padding=True, truncation=True, max_length=LONGEST, return_tensors="pt"
            )
            mask = batch["attention_mask"].unsqueeze(-1)
            hidden = encoder(**batch).last_hidden_state
            vectors[some] = ((hidden * mask).sum(1) / mask.sum(1).clamp(min=1)).numpy()
    return vectors
