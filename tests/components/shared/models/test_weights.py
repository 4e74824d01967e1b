"""Weights that are not those of the architecture are an error, never random ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.models.load import check_loadable, load_model, load_tokenizer
from llm2llm.components.shared.models.weight_files import check_weight_files, quantisation, read_header
from llm2llm.components.shared.similarity.embeddings import embed
from tests.support.tiny_models import ARCHITECTURES, save_tiny

Weights = dict[str, Any]


def changed(source: Path, folder: Path, change: Callable[[Weights], Weights], name: str = "model.safetensors") -> Path:
    """A copy of a model whose weights were changed."""
    shutil.copytree(source, folder)
    save_file(change(load_file(folder / name)), folder / name, metadata={"format": "pt"})
    return folder


def renamed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {prefix + name: weight for name, weight in weights.items()}


def first_layer_lost(weights: Weights) -> Weights:
    return {name: weight for name, weight in weights.items() if ".layers.0." not in name}


def narrower(weights: Weights) -> Weights:
    return {
        name: weight[:, 1:].contiguous() if name.endswith("mlp.up_proj.weight") else weight
        for name, weight in weights.items()
    }


CHANGES: list[tuple[Callable[[Weights], Weights], str]] = [
    (renamed("_orig_mod."), r"missing .*_orig_mod\..*torch\.compile"),
    (renamed("base_model.model."), "missing .*merge the adapter"),
    (first_layer_lost, r"11 missing \(model\.layers\.0\."),
    (narrower, r"of another shape \(model\.layers\.0\.mlp\.up_proj\.weight"),
    (lambda weights: {**weights, "v_head.weight": torch.zeros(2)}, r"1 not of its architecture \(v_head\.weight\)"),
]


@pytest.fixture(scope="module")
def qwen(tiny_student: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny("qwen3", load_tokenizer(tiny_student), tmp_path_factory.mktemp("qwen"))


@pytest.mark.parametrize(("change", "message"), CHANGES)
def test_other_weights_are_refused(
    change: Callable[[Weights], Weights], message: str, qwen: Path, tmp_path: Path
) -> None:
    folder = changed(qwen, tmp_path / "m", change)
    for load in (load_model, check_loadable):
        with pytest.raises(UserError, match=f"student {folder}: its weights are not those .*{message}"):
            load(folder)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_whole_models_of_every_architecture_are_taken(architecture: str, tiny_student: Path, tmp_path: Path) -> None:
    folder = save_tiny(architecture, load_tokenizer(tiny_student), tmp_path)
    check_loadable(folder)
    loaded, plain = load_model(folder), AutoModelForCausalLM.from_pretrained(folder)
    assert all(torch.equal(one, plain.get_parameter(name)) for name, one in loaded.named_parameters())


def test_an_adapter_that_lacks_weights_is_refused(qwen: Path, tmp_path: Path) -> None:
    whole = get_peft_model(load_model(qwen), LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    whole.peft_config["default"].base_model_name_or_path = str(qwen)
    whole.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    load_model(tmp_path / "adapter")
    lost = changed(tmp_path / "adapter", tmp_path / "lost", first_layer_lost, "adapter_model.safetensors")
    with pytest.raises(UserError, match=r"an adapter of .*: its weights are not those .*14 missing"):
        load_model(lost)
    other = changed(tmp_path / "adapter", tmp_path / "other", renamed("_orig_mod."), "adapter_model.safetensors")
    with pytest.raises(UserError, match="28 missing"):
        load_model(other)


def test_an_embedding_model_that_lacks_weights_is_refused(tiny_student: Path, tmp_path: Path) -> None:
    from transformers import BertConfig, BertModel

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertModel(BertConfig(vocab_size=400, **sizes)).save_pretrained(tmp_path / "whole")
    load_tokenizer(tiny_student).save_pretrained(tmp_path / "whole")
    assert embed(["red"], str(tmp_path / "whole")).shape == (1, 16)
    lost = changed(tmp_path / "whole", tmp_path / "lost", lambda w: {n: t for n, t in w.items() if "layer.0" not in n})
    with pytest.raises(UserError, match=r"semantic\.model .*16 weights are missing"):
        embed(["red"], str(lost))


def truncate(folder: Path) -> None:
    with (folder / "model.safetensors").open("r+b") as file:
        file.truncate(5000)


def lfs(folder: Path) -> None:
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def shards(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "model-00001-of-00002.safetensors")
    weights = {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weights}))


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def empty(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes(b"")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "has 5,000 bytes, and its header says .*cut off"),
        (lfs, "pointer of Git LFS.*git lfs pull"),
        (shards, r"model-00002-of-00002\.safetensors, which model\.safetensors\.index\.json names, is not there"),
        (pickled, r"no model\.safetensors; pytorch_model\.bin is a pickle"),
        (empty, "no safetensors file, or was cut off"),
    ],
)
def test_damaged_files_are_named_before_they_are_loaded(
    damage: Callable[[Path], None], message: str, qwen: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "m"
    shutil.copytree(qwen, folder)
    check_weight_files(folder, "student x")
    damage(folder)
    for load in (load_model, check_loadable):
        with pytest.raises(UserError, match=message):
            load(folder)


def test_a_tokenizer_of_a_newer_package_is_named(qwen: Path, tmp_path: Path) -> None:
    shutil.copytree(qwen, tmp_path / "m")
    file = tmp_path / "m" / "tokenizer.json"
    values = json.loads(file.read_text())
    file.write_text(json.dumps({**values, "model": {"type": "Quantum", "vocab": {}}}))
    with pytest.raises(UserError, match=r"its tokenizer cannot be loaded: .*newer version of the package tokenizers"):
        load_tokenizer(tmp_path / "m")


def test_the_header_says_what_is_in_the_file(qwen: Path) -> None:
    header = read_header(qwen / "model.safetensors", "student x")
    weights = load_file(qwen / "model.safetensors")
    assert {name: of["shape"] for name, of in header.items()} == {n: list(w.shape) for n, w in weights.items()}
    assert quantisation({}) == ""
    assert quantisation({"quantization_config": {"quant_method": "gptq"}}) == "gptq"
