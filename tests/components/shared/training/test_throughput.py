"""Speed and utilisation, by hand."""

import pytest
from transformers import Gemma4ForCausalLM, Gemma4TextConfig, LlamaConfig, LlamaForCausalLM

from llm2llm.components.shared.training.throughput import flops_per_token, flops_utilisation, peak_flops, peak_memory


def tiny(**changes: object) -> LlamaForCausalLM:
    config = {"vocab_size": 50, "hidden_size": 8, "intermediate_size": 16, "num_hidden_layers": 3,
              "num_attention_heads": 2, "num_key_value_heads": 2, "tie_word_embeddings": True}  # fmt: skip
    return LlamaForCausalLM(LlamaConfig(**{**config, **changes}))


def test_flops_of_a_token_follow_the_paper() -> None:
    model = tiny()
    weights = sum(weight.numel() for weight in model.parameters())
    assert flops_per_token(model, [10, 10]) == 6 * weights + 12 * 3 * 2 * 4 * 10
    # A token of a row of 30 sees 30, one of a row of 10 sees 10.
    assert flops_per_token(model, [10, 30]) == 6 * weights + 12 * 3 * 8 * (10 * 10 + 30 * 30) / 40


def test_embeddings_that_are_only_looked_up_do_not_count() -> None:
    model = tiny(tie_word_embeddings=False)
    weights = sum(weight.numel() for weight in model.parameters()) - 50 * 8
    assert flops_per_token(model, [10]) == 6 * weights + 12 * 3 * 8 * 10


def test_layers_with_heads_of_several_widths_count_as_they_are() -> None:
    """Gemma 4: every sixth layer sees the whole text with wider heads."""
    config = Gemma4TextConfig(vocab_size=50, hidden_size=8, intermediate_size=16, num_hidden_layers=6,
                              num_attention_heads=2, num_key_value_heads=1, head_dim=4, global_head_dim=8,
                              hidden_size_per_layer_input=0, num_kv_shared_layers=0)  # fmt: skip
    model = Gemma4ForCausalLM(config)
    weights = sum(weight.numel() for weight in model.parameters())
    assert flops_per_token(model, [10]) == 6 * weights + 12 * (5 * 2 * 4 + 2 * 8) * 10


def test_frozen_weights_have_no_gradient() -> None:
    model = tiny()
    every = sum(weight.numel() for weight in model.parameters())
    for weight in model.model.layers[0].parameters():
        weight.requires_grad = False
    frozen = sum(weight.numel() for weight in model.model.layers[0].parameters())
    assert flops_per_token(model, [1]) == 6 * every - 2 * frozen + 12 * 3 * 8


@pytest.mark.parametrize(
    ("name", "peak"),
    [
        ("NVIDIA H200", 989e12),
        ("NVIDIA H100 80GB HBM3", 989e12),
        ("NVIDIA H100 PCIe", 756e12),
        ("NVIDIA A100-SXM4-80GB", 312e12),
        ("NVIDIA A10G", 70e12),
        ("NVIDIA A10", 125e12),
        ("NVIDIA L4", 121e12),
        ("NVIDIA L40S", 362e12),
        ("NVIDIA L40", 181e12),
        ("Tesla T4", 65e12),
        ("Quadro P400", None),
    ],
)
def test_peaks_by_name(name: str, peak: float | None) -> None:
    assert peak_flops(name) == peak


def test_utilisation() -> None:
    assert flops_utilisation(1e4, 6e9, ["NVIDIA A100-SXM4-80GB"] * 2, True) == pytest.approx(6e13 / 624e12)
    assert flops_utilisation(1e4, 6e9, ["NVIDIA A100-SXM4-80GB"], False) is None, "the table is for 16 bits"
    assert flops_utilisation(1e4, 6e9, ["Quadro P400"], True) is None
    assert flops_utilisation(1e4, 6e9, [], True) is None


def test_peak_memory_is_that_of_the_process() -> None:
    before = peak_memory()
    held = bytearray(64 << 20)
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    assert peak_memory() >= max(before, 64 << 20)
