"""What fits: the estimates are those of real trainings, and what is proposed fits."""

import dataclasses
from pathlib import Path

import pytest

import llm2llm.components.train
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.training.devices import share
from llm2llm.components.shared.training.settings import SCRATCH, FineTuneSettings
from llm2llm.pipelines.checks.memory_fit import STUDENTS, USABLE, as_overrides, fit, proposals, table
from llm2llm.pipelines.checks.student_memory import (
    GIB,
    bytes_of_token,
    loading_memory,
    shape_of,
    training_memory,
)
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.config.loading import shipped_configs
from llm2llm.pipelines.config.placement import shipped_profiles
from llm2llm.pipelines.config.placement_values import quantity_bytes

LLAMA_7B = STUDENTS["Llama-2-7B"]


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("kind", ["full", "bf16_weights", "lora"])
def test_activations_are_estimated_as_autograd_keeps_them(kind: str, recompute: bool) -> None:
    """Every tensor that a backward pass waits for, of a tiny Llama as TRL trains it, under autocast."""
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM
    from trl.trainer.utils import add_fused_lm_head

    config = LlamaConfig(hidden_size=96, num_hidden_layers=6, num_attention_heads=4, num_key_value_heads=4,
                         intermediate_size=256, vocab_size=512, use_cache=False)  # fmt: skip
    settings = FineTuneSettings.model_validate(
        {"full": {}, "bf16_weights": {"bf16_weights": True}, "lora": {"method": "lora", "lora_dropout": 0.0}}[kind]
    )
    model = LlamaForCausalLM(config).to(torch.float32 if kind == "full" else torch.bfloat16)
    add_fused_lm_head(model, outputs=("log_probs", "entropy", "is_top1"))
    weights = {tuple(one.shape) for one in model.parameters()}
    if kind == "lora":
        model = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", task_type="CAUSAL_LM"))
    if recompute:
        model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        model.enable_input_require_grads()
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tuple(tensor.shape) not in weights and tuple(tensor.shape)[::-1] not in weights:  # copies of weights aside
            kept[tensor.untyped_storage().data_ptr()] = tensor
        return tensor

    tokens = torch.arange(600).reshape(2, 300) % 512
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor), torch.autocast("cpu", torch.bfloat16):
        model.train()(input_ids=tokens, labels=tokens, fused_lm_head=True)
    of_token = sum(one.untyped_storage().nbytes() for one in kept.values()) / 600
    shape = shape_of(config.to_dict())
    wanted = bytes_of_token(shape, settings, recompute)
    if recompute:  # the one layer that is there again on the way back
        fewer = dataclasses.replace(shape, layers=shape.layers - 1)
        wanted -= bytes_of_token(shape, settings, False) - bytes_of_token(fewer, settings, False)
    assert of_token == pytest.approx(wanted, rel=0.12)


def test_logits_are_never_there_whole() -> None:
    settings = FineTuneSettings(method="lora")
    small, large = (STUDENTS[name] for name in ("Llama-2-7B", "Qwen3-14B"))
    for shape in (small, large):
        need = training_memory(shape, shape.parameters, settings, 8)
        without = 8 * settings.max_length * bytes_of_token(shape, settings, False) / GIB
        assert need.activations - without < 0.3


def test_a_sharded_training_holds_its_share_and_two_blocks_whole() -> None:
    settings = FineTuneSettings(sharding="fsdp")
    alone = training_memory(LLAMA_7B, LLAMA_7B.parameters, FineTuneSettings(), 1)
    eight = training_memory(LLAMA_7B, LLAMA_7B.parameters, settings, 1, 8)
    whole = 4 * (2 * LLAMA_7B.blocks / 32 + 2 * 32000 * 4096) / GIB
    share_of_one = 16 * LLAMA_7B.parameters / 8 / GIB
    assert eight.weights + eight.optimiser == pytest.approx(share_of_one + whole)
    assert alone.weights + alone.optimiser == pytest.approx(18 * LLAMA_7B.parameters / GIB)
    assert training_memory(LLAMA_7B, LLAMA_7B.parameters, settings, 1, 1).weights == alone.weights, "nothing to share"


def test_an_optimiser_of_eight_bits_keeps_less() -> None:
    def optimiser(name: str) -> float:
        return training_memory(LLAMA_7B, LLAMA_7B.parameters, FineTuneSettings(optim=name), 1).optimiser

    parameters = LLAMA_7B.parameters / GIB
    assert optimiser("") == pytest.approx(12 * parameters)
    assert optimiser("adamw_8bit") == pytest.approx(6 * parameters)
    assert optimiser("paged_adamw_8bit") == optimiser("adafactor") == pytest.approx(4 * parameters)


@pytest.mark.parametrize(
    ("gib", "devices", "named"),
    [
        (24, 1, ["train.method=lora train.learning_rate=0.0002", "train.method=qlora train.learning_rate=0.0002"]),
        (40, 1, ["train.method=lora train.learning_rate=0.0002", "train.method=qlora train.learning_rate=0.0002"]),
        (80, 1, ["train.bf16_weights=true", "train.method=lora train.learning_rate=0.0002"]),
        (80, 8, ["train.sharding=fsdp", "train.bf16_weights=true"]),
    ],
)
def test_for_a_7b_the_settings_that_do_are_named(gib: int, devices: int, named: list[str]) -> None:
    settings = FineTuneSettings(batch_size=8, learning_rate=2e-5)
    assert fit(LLAMA_7B, LLAMA_7B.parameters, settings, gib, devices) is None
    found = list(proposals(LLAMA_7B, LLAMA_7B.parameters, settings, gib, devices))
    assert [as_overrides(changes) for changes, _ in found][: len(named)] == named
    for changes, how in found:
        wanted = settings.model_copy(update=changes)
        need = training_memory(LLAMA_7B, LLAMA_7B.parameters, wanted, how.rows, devices, how.recompute)
        assert need == how.need
        assert need.total <= USABLE * gib


def test_a_training_steps_down_as_it_does_when_it_runs() -> None:
    settings = FineTuneSettings(method="lora", batch_size=12, max_length=2048)
    shape, seen = STUDENTS["Llama-3.2-3B"], []
    for gib in range(200, 8, -1):
        found = fit(shape, shape.parameters, settings, gib)
        step = (found.rows, found.recompute) if found else None
        seen += [step] if not seen or seen[-1] != step else []
    assert seen == [(12, False), (12, True), (6, True), (3, True), (1, True), None]
    with pytest.raises(UserError, match="cannot be divided by 5 devices"):
        fit(shape, shape.parameters, settings, 80, 5)


def test_the_readme_has_the_table() -> None:
    readme = Path(llm2llm.components.train.__file__).parent / "README.md"
    assert table() in readme.read_text(encoding="utf-8"), "python -m llm2llm.pipelines.checks.memory_fit"


@pytest.mark.parametrize("profile", [name for name in shipped_profiles() if name != "kind"])
@pytest.mark.parametrize("name", shipped_configs())
def test_the_shipped_configs_fit_the_shipped_profiles_as_they_are(name: str, profile: str) -> None:
    """On kind, which has no GPU, only the quickstart's students run. The paper's train every weight, on 80 GB."""
    large = ["placement.stages.train.accelerator=nvidia-a100-80gb", "placement.stages.train.memory=24Gi"]
    config = load_config(name, [f"placement.profile={profile}", *(large if name.startswith("paper-") else [])])
    if config.student == SCRATCH:
        return
    assert config.student == "meta-llama/Llama-2-7b-hf"
    placed = config.placement.stages["train"]
    gib = config.placement.accelerators[placed.accelerator].memory_gib
    found = fit(LLAMA_7B, LLAMA_7B.parameters, config.train, gib, placed.gpus)
    assert found is not None
    assert found.rows == share(config.train, placed.gpus).rows, "as many rows at once as the config says"
    loading = loading_memory(LLAMA_7B.parameters, config.train, placed.gpus)
    assert loading <= quantity_bytes(placed.memory) / GIB
