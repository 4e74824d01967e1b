"""What is saved can be read by whoever may read the folder, and a full disk is an OSError."""

import errno
import stat
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors import SafetensorError
from transformers import LlamaConfig, LlamaForCausalLM

from llm2llm.components.shared.training.methods import save
from llm2llm.components.shared.training.settings import FineTuneSettings

SMALL = LlamaConfig(vocab_size=16, hidden_size=8, intermediate_size=8, num_hidden_layers=1, num_attention_heads=2)


def test_weights_are_as_readable_as_the_files_beside_them(tmp_path: Path) -> None:
    save(LlamaForCausalLM(SMALL), FineTuneSettings(), "scratch", tmp_path)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in tmp_path.iterdir()}
    assert modes["model.safetensors"] == modes["config.json"]


def test_a_disk_that_is_full_is_an_oserror(tmp_path: Path) -> None:
    """safetensors says it by an exception of its own, which nobody took for what it is."""

    class Model:
        config = SimpleNamespace(get_text_config=SimpleNamespace)

        def to(self, _: Any) -> "Model":
            return self

        def save_pretrained(self, *_: Any, **__: Any) -> None:
            raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    with pytest.raises(OSError) as caught:
        save(Model(), FineTuneSettings(), "scratch", tmp_path)
    assert caught.value.errno == errno.ENOSPC
