"""Each method changes the weights that it says, learns, and gives the same student when saved, loaded and merged."""

import json
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers
from peft import get_peft_model
from safetensors.torch import load_file
from transformers import (
    AutoModelForCausalLM,
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    Gemma3TextConfig,
    JetMoeConfig,
    JetMoeForCausalLM,
    LlamaForCausalLM,
    SiglipVisionConfig,
    Zamba2Config,
    Zamba2ForCausalLM,
)

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.inference.generate import answer
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.load import load_model, load_tokenizer, precision, refuse_other_base
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training import fine_tune as fine_tune_module
from llm2llm.components.shared.training.devices import Share
from llm2llm.components.shared.training.fine_tune import TRAININGS, _arguments, fine_tune
from llm2llm.components.shared.training.methods import (
    attention,
    beside_decoder,
    check_kernels,
    in_float32,
    new_adapter,
    other_half,
    prepare,
    recomputes,
)
from llm2llm.components.shared.training.settings import FineTuneSettings, rate_hint
from llm2llm.components.shared.training.training_log import TrainingLog
from tests.support.tiny_models import ARCHITECTURES, save_tiny

pytestmark = pytest.mark.slow

ADAPTERS: dict[str, dict[str, Any]] = {
    "lora": {"method": "lora"},
    "dora": {"method": "lora", "dora": True},
    "rslora": {"method": "lora", "rslora": True},
    "qlora": {"method": "qlora"},
}


def with_settings(settings: FineTuneSettings, **changes: Any) -> FineTuneSettings:
    """The settings with some changed, and checked."""
    return FineTuneSettings.load({**settings.model_dump(), **changes}, "train")


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in folder.glob("*.safetensors") for name, tensor in load_file(file).items()}


def trained(
    folder: Path, rows: list[Example], task: Task, student: Path, settings: FineTuneSettings, **more: Any
) -> TrainingLog:
    folder.mkdir()
    return fine_tune(rows, task, str(student), settings, 0, folder, **more)


def said(folder: Path, rows: list[Example], task: Task) -> list[str]:
    return [one.completion for one in answer(folder, rows, task, AnswerSettings())]


def alike(one: list[str], other: list[str]) -> float:
    """The share of the answers that are the same."""
    return sum(a == b for a, b in zip(one, other, strict=True)) / len(one)


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        found: torch.Tensor = model.eval()(torch.arange(5, 45)[None]).logits
    return found


def needs(method: str) -> None:
    if method == "qlora" and find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")


@pytest.fixture(params=["llama", "gpt2", "qwen2", "qwen3", "gemma2"])
def student(request: pytest.FixtureRequest, tiny_student: Path, tmp_path: Path) -> Path:
    """One tiny student of each architecture."""
    return save_tiny(request.param, load_tokenizer(tiny_student), tmp_path / "base")


def test_full_trains_every_weight_of_any_architecture(
    student: Path, quick: FineTuneSettings, rows: list[Example], colours: Task, tmp_path: Path
) -> None:
    before = weights(student)
    log = trained(tmp_path / "model", rows, colours, student, with_settings(quick, epochs=10))
    after = weights(tmp_path / "model")
    assert after.keys() == before.keys()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert log.loss_curve[-1][1] < 0.6 * log.loss_curve[0][1]
    assert len(said(tmp_path / "model", rows, colours)) == len(rows)


def test_hft_trains_half_of_each_block_and_another_half_in_the_next_iteration(
    student: Path, quick: FineTuneSettings, rows: list[Example], colours: Task, tmp_path: Path
) -> None:
    before = weights(student)
    settings = with_settings(quick, method="hft", epochs=10)
    changed = []
    for iteration in (0, 1):
        folder = tmp_path / f"model-{iteration}"
        log = trained(folder, rows, colours, student, settings, iteration=iteration)
        after = weights(folder)
        frozen = other_half(load_model(student), random_seed=0, iteration=iteration)
        assert {name for name in before if torch.equal(before[name], after[name])} == frozen
        assert log.loss_curve[-1][1] < 0.7 * log.loss_curve[0][1]
        changed.append(before.keys() - frozen)
    assert changed[0] != changed[1]


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "qwen3", "gemma2", "qwen3_moe"])
def test_hft_leaves_half_of_each_category_of_each_block(architecture: str, tiny_student: Path, tmp_path: Path) -> None:
    model = load_model(save_tiny(architecture, load_tokenizer(tiny_student), tmp_path / "base"))
    frozen = other_half(model, random_seed=0, iteration=0)
    assert frozen == other_half(model, random_seed=0, iteration=0)
    assert any(frozen != other_half(model, seed, iteration=0) for seed in range(1, 9))
    assert any(frozen != other_half(model, 0, iteration) for iteration in range(1, 9))
    for part in ("attn", "mlp"):
        names = [name for name, weight in model.named_parameters() if f"{part}." in name and weight.dim() > 1]
        left = sum(name in frozen for name in names)
        assert abs(left - len(names) / 2) <= 0.5, f"{left} of {len(names)} matrices of {part} are left"
    assert not any("emb" in name or "wte" in name or "lm_head" in name for name in frozen)


@pytest.mark.parametrize("method", ADAPTERS)
def test_an_adapter_learns_is_saved_alone_and_merges_to_the_same_student(
    method: str,
    quick_lora: FineTuneSettings,
    other_rows: list[Example],
    colours: Task,
    taught_student: Path,
    tmp_path: Path,
) -> None:
    needs(method)
    settings = with_settings(quick_lora, **ADAPTERS[method])
    before = weights(taught_student)
    log = trained(tmp_path / "adapter", other_rows, colours, taught_student, settings)
    assert log.loss_curve[-1][1] < 0.5 * log.loss_curve[0][1]
    saved = weights(tmp_path / "adapter")
    assert all("lora_" in name for name in saved)
    assert all(tensor.abs().sum() > 0 for name, tensor in saved.items() if "lora_B" in name), "B starts at zero"
    assert any("magnitude" in name for name in saved) == (method == "dora")
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(taught_student)
    assert config["use_rslora"] == (method == "rslora")
    assert all(torch.equal(tensor, before[name]) for name, tensor in weights(taught_student).items())

    trained(tmp_path / "merged", other_rows, colours, taught_student, with_settings(settings, merge=True))
    assert weights(tmp_path / "merged").keys() == before.keys()
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    of_adapter, of_merged = (logits(load_model(tmp_path / name)) for name in ("adapter", "merged"))
    torch.testing.assert_close(of_adapter, of_merged, atol=1e-4, rtol=0)
    # An answer on the edge between two tokens may fall the other way, here or on another CPU.
    told, merged = (said(tmp_path / name, other_rows, colours) for name in ("adapter", "merged"))
    assert alike(told, merged) >= 0.9
    right = [row.answer for row in other_rows]
    assert alike(told, right) > alike(said(taught_student, other_rows, colours), right)


def test_lora_fits_any_architecture(
    student: Path, quick_lora: FineTuneSettings, rows: list[Example], colours: Task, tmp_path: Path
) -> None:
    log = trained(tmp_path / "model", rows, colours, student, with_settings(quick_lora, epochs=10))
    assert log.loss_curve[-1][1] < log.loss_curve[0][1]
    adapted = {name.split(".lora_")[0] for name in weights(tmp_path / "model")}
    blocks = AutoModelForCausalLM.from_pretrained(student).config.num_hidden_layers
    assert len(adapted) >= 4 * blocks
    assert not any("lm_head" in name for name in adapted)


def test_lora_targets_are_the_layers_that_are_adapted(
    quick_lora: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    settings = with_settings(quick_lora, lora_targets=["q_proj", "v_proj"], max_steps=1)
    trained(tmp_path / "model", rows, colours, tiny_student, settings)
    assert {name.split(".lora_")[0].rsplit(".", 1)[1] for name in weights(tmp_path / "model")} == {"q_proj", "v_proj"}
    for target in ("query", "lm_head"):
        settings = with_settings(quick_lora, lora_targets=[target], max_steps=1)
        with pytest.raises(
            UserError, match=rf"train.lora_targets: '{target}' is no layer .* it has down_proj, .*v_proj"
        ):
            trained(tmp_path / target, rows, colours, tiny_student, settings)


@pytest.mark.parametrize("method", ["full", "hft", "lora", "qlora"])
def test_each_method_gives_the_same_weights_again(
    method: str, quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    needs(method)
    settings = with_settings(quick, method=method, max_steps=3)
    for name in ("one", "same"):
        trained(tmp_path / name, rows, colours, tiny_student, settings)
    one, same = (weights(tmp_path / name) for name in ("one", "same"))
    assert one.keys() == same.keys()
    assert all(torch.equal(one[name], same[name]) for name in one)


def test_activation_checkpointing_and_accumulation_change_nothing(
    quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    """Six steps of the same eight rows each."""
    ways: dict[str, dict[str, Any]] = {
        "plain": {"batch_size": 8},
        "checkpointing": {"batch_size": 8, "activation_checkpointing": True},
        "accumulated": {"batch_size": 2, "gradient_accumulation": 4},
    }
    logs = {
        name: trained(tmp_path / name, rows, colours, tiny_student, with_settings(quick, max_steps=6, **way))
        for name, way in ways.items()
    }
    for name in ("checkpointing", "accumulated"):
        for (step, loss), (other_step, other_loss) in zip(logs["plain"].loss_curve, logs[name].loss_curve, strict=True):
            assert step == other_step
            assert loss == pytest.approx(other_loss, abs=1e-4)


def test_neftune_is_noise_in_training_only(
    quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    for name, alpha in (("plain", 0.0), ("noisy", 5.0)):
        trained(tmp_path / name, rows, colours, tiny_student, with_settings(quick, neftune_alpha=alpha, max_steps=2))
    plain, noisy = (weights(tmp_path / name) for name in ("plain", "noisy"))
    assert any(not torch.equal(plain[name], noisy[name]) for name in plain)
    one, again = (logits(load_model(tmp_path / "noisy")) for _ in range(2))
    assert torch.equal(one, again)


def test_an_adapter_of_another_base_is_refused(
    quick_lora: FineTuneSettings,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    taught_student: Path,
    tmp_path: Path,
) -> None:
    trained(tmp_path / "adapter", rows, colours, taught_student, with_settings(quick_lora, max_steps=1))
    refuse_other_base(tmp_path / "adapter", str(taught_student))
    refuse_other_base(tmp_path / "adapter", str(tmp_path / "adapter"))
    with pytest.raises(
        UserError, match=f"is an adapter of {taught_student}, and the config's student is {tiny_student}"
    ):
        refuse_other_base(tmp_path / "adapter", str(tiny_student))


def test_an_adapter_whose_base_has_changed_or_is_gone_is_refused(
    quick_lora: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    base, tokenizer = tmp_path / "base", load_tokenizer(tiny_student)
    save_tiny("llama", tokenizer, base)
    trained(tmp_path / "adapter", rows, colours, base, with_settings(quick_lora, max_steps=1))
    save_tiny("gpt2", tokenizer, base)
    with pytest.raises(UserError, match=r"adapter does not fit the base that it names, .*base"):
        load_model(tmp_path / "adapter")
    base.rename(tmp_path / "elsewhere")
    with pytest.raises(
        UserError, match=r"student .*adapter: an adapter whose base cannot be had: .*base: no such folder"
    ):
        load_model(tmp_path / "adapter")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_tokenizer_without_padding_token_is_no_obstacle(
    architecture: str, quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    tokenizer = load_tokenizer(tiny_student)
    tokenizer.pad_token = None
    student = save_tiny(architecture, tokenizer, tmp_path / "base")
    assert json.loads((student / "tokenizer_config.json").read_text()).get("pad_token") is None
    log = trained(tmp_path / "model", rows, colours, student, with_settings(quick, max_steps=3))
    assert log.steps == 3
    assert len(said(tmp_path / "model", rows, colours)) == len(rows)


def test_full_training_goes_on_from_an_adapter_with_every_weight(
    quick: FineTuneSettings,
    quick_lora: FineTuneSettings,
    rows: list[Example],
    colours: Task,
    taught_student: Path,
    tmp_path: Path,
) -> None:
    few = {"max_steps": 3}
    trained(tmp_path / "adapter", rows, colours, taught_student, with_settings(quick_lora, **few))
    before = weights(taught_student)
    trained(tmp_path / "full", rows, colours, tmp_path / "adapter", with_settings(quick, **few))
    after = weights(tmp_path / "full")
    assert after.keys() == before.keys()
    assert [name for name in before if torch.equal(before[name], after[name])] == []
    assert not (tmp_path / "full" / "adapter_config.json").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"method": "full"}, r"train\.method: 'full' trains the weights, and those of .* are quantised \(gptq\)"),
        ({"method": "hft"}, r"train\.method: 'hft' trains the weights"),
        ({"method": "lora", "merge": True}, r"train\.merge: an adapter cannot be merged into .*\(gptq\)"),
        ({"method": "qlora", "merge": True}, r"train\.merge: an adapter cannot be merged"),
        ({"method": "lora", "sharding": "fsdp"}, r"train\.sharding: 'fsdp' does not share out .*\(gptq\); .*ddp"),
    ],
)
def test_a_quantised_base_is_refused_before_it_is_loaded(
    changes: dict[str, Any],
    message: str,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder = save_tiny("llama", load_tokenizer(tiny_student), tmp_path / "base")
    file = folder / "config.json"
    quantised = {"quantization_config": {"quant_method": "gptq", "bits": 4}}
    file.write_text(json.dumps({**json.loads(file.read_text()), **quantised}))
    monkeypatch.setattr("llm2llm.components.shared.training.fine_tune.load_model", None)
    with pytest.raises(UserError, match=message):
        trained(tmp_path / "model", rows, colours, folder, FineTuneSettings.load(changes, "train"))


def test_an_optimiser_of_transformers_trains_and_an_unknown_one_is_named(
    quick: FineTuneSettings, rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    before = weights(tiny_student)
    settings = with_settings(quick, optim="adafactor", max_grad_norm=0.5, max_steps=3)
    trained(tmp_path / "model", rows, colours, tiny_student, settings)
    assert [name for name, found in weights(tmp_path / "model").items() if torch.equal(before[name], found)] == []
    with pytest.raises(UserError, match=r"train\.optim: 'adafaktor' .*did you mean 'adafactor'"):
        trained(tmp_path / "none", rows, colours, tiny_student, with_settings(quick, optim="adafaktor"))


def test_weights_in_bfloat16_train_with_stochastic_rounding(
    quick: FineTuneSettings,
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a GPU, where the weights are in bfloat16: steps that it does not resolve change every matrix."""
    monkeypatch.setattr("llm2llm.components.shared.training.fine_tune.weights_dtype", lambda _: torch.bfloat16)
    settings = with_settings(quick, bf16_weights=True, learning_rate=1e-5, max_steps=8, warmup=0.0)
    trained(tmp_path / "model", rows, colours, tiny_student, settings)
    before = {name: found.bfloat16() for name, found in weights(tiny_student).items() if "proj" in name}
    after = {name: found.bfloat16() for name, found in weights(tmp_path / "model").items()}
    assert before
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_the_learning_rate_is_that_of_the_method() -> None:
    for method, rate in (("full", 2e-5), ("hft", 2e-5), ("lora", 2e-4), ("qlora", 2e-4)):
        settings = FineTuneSettings.load({"method": method}, "train")
        assert settings.learning_rate == rate
        assert rate_hint(settings, "org/name") == ""
    assert FineTuneSettings.load({"method": "lora", "learning_rate": 1e-3}, "train").learning_rate == 1e-3
    low = FineTuneSettings.load({"method": "lora", "learning_rate": 2e-5}, "train")
    assert "set train.learning_rate: 2.0e-4" in rate_hint(low, "org/name")
    assert "set train.learning_rate: 1.0e-3" in rate_hint(FineTuneSettings(), "scratch")


def test_what_contradicts_a_method_is_refused() -> None:
    for key, value in (("dora", True), ("rslora", True), ("merge", True), ("lora_targets", ["q_proj"])):
        with pytest.raises(UserError, match=rf"{key}: .* is for an adapter, and method is 'full'"):
            FineTuneSettings.load({key: value}, "train")
    with pytest.raises(UserError, match="bf16_weights: for methods full and hft"):
        FineTuneSettings.load({"method": "lora", "bf16_weights": True}, "train")
    with pytest.raises(UserError, match="bf16_weights: not with sharding 'fsdp'"):
        FineTuneSettings.load({"bf16_weights": True, "sharding": "fsdp"}, "train")
    with pytest.raises(UserError, match="optim: 'sgd' loses small steps on bf16_weights"):
        FineTuneSettings.load({"bf16_weights": True, "optim": "sgd"}, "train")
    with pytest.raises(UserError, match=r"optim_args: .* optim, which is not set"):
        FineTuneSettings.load({"optim_args": "rank=64"}, "train")
    with pytest.raises(UserError, match=r"train\.method"):
        FineTuneSettings.load({"method": "magic"}, "train")


def test_qlora_without_bitsandbytes_says_what_to_install(
    quick: FineTuneSettings, tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llm2llm.components.shared.models.load.find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs bitsandbytes.*install llm2llm\[qlora\], or set train.method: lora"):
        load_model(tiny_student, four_bit=True)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"attention": "flash_attention_2"}, "train.attention: 'flash_attention_2' needs its package .* set train.att"),
        ({"attention": "flash_attention_3"}, "train.attention: 'flash_attention_3' needs its package"),
        ({"liger": True}, "train.liger: true needs the package liger-kernel and a GPU.*set train.liger: false"),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="refuses what a GPU may have")
def test_kernels_that_are_not_here_are_refused_before_anything_is_loaded(changes: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError, match=says):
        check_kernels(FineTuneSettings(**changes))


@pytest.mark.parametrize(
    ("major", "wanted"), [(None, torch.float32), (7, torch.float16), (8, torch.bfloat16), (9, torch.bfloat16)]
)
def test_what_is_computed_in_by_the_gpus_generation(
    major: int | None, wanted: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """V100 and T4 (7.x) emulate bfloat16, and PyTorch calls that supported."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: major is not None)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(major=major))
    assert precision() is wanted
    with monkeypatch.context() as patch:
        patch.setattr(fine_tune_module, "precision", lambda: wanted)
        patch.setattr(torch.cuda, "is_available", lambda: False)
        arguments = _arguments(
            TRAININGS["language_model"], FineTuneSettings(), Share(4, 1), 1, 0, "folder", recompute=False
        )
    assert (arguments.fp16, arguments.bf16) == (wanted is torch.float16, wanted is torch.bfloat16)
    model = torch.nn.Linear(2, 2).to(torch.bfloat16)
    in_float32(model)
    assert model.weight.dtype is (torch.float32 if wanted is torch.float16 else torch.bfloat16)
    if wanted is torch.float16:
        with pytest.raises(UserError, match=r"train.bf16_weights: true needs a GPU with bfloat16"):
            check_kernels(FineTuneSettings(bf16_weights=True))


def test_a_student_trains_with_the_attention_that_is_set(tiny_student: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("eager", "sdpa"):
        settings = FineTuneSettings(attention=name)
        assert load_model(tiny_student, attention=attention(settings)).config._attn_implementation == name
    monkeypatch.setattr(LlamaForCausalLM, "_supports_sdpa", False)
    with pytest.raises(UserError, match=r"train.attention: 'sdpa' is not for student .*; set train.attention: auto"):
        load_model(tiny_student, attention="sdpa")


def test_activation_checkpointing_of_an_architecture_that_cannot(
    tiny_student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Asked for it is refused; as a step on the way to less memory it is left out."""
    model = load_model(tiny_student)
    assert recomputes(model, FineTuneSettings(), wanted=True)
    assert not recomputes(model, FineTuneSettings(), wanted=False)
    monkeypatch.setattr(type(model), "supports_gradient_checkpointing", False)
    assert not recomputes(model, FineTuneSettings(), wanted=True)
    with pytest.raises(UserError, match=r"train.activation_checkpointing: this student's architecture cannot"):
        recomputes(model, FineTuneSettings(activation_checkpointing=True), wanted=False)


def tiny_gemma3() -> Any:
    """A Gemma 3 with a vision tower of as many layers as its decoder."""
    torch.manual_seed(0)
    text = Gemma3TextConfig(vocab_size=300, hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                            num_attention_heads=2, num_key_value_heads=1, head_dim=16, sliding_window=8)  # fmt: skip
    vision = SiglipVisionConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                                image_size=28, patch_size=14)  # fmt: skip
    config = Gemma3Config(text_config=text, vision_config=vision, mm_tokens_per_image=4, image_token_index=299,
                          boi_token_index=298, eoi_token_index=297)  # fmt: skip
    return Gemma3ForConditionalGeneration(config)


@pytest.mark.parametrize("method", ["full", "hft", "lora"])
def test_of_a_multimodal_student_the_decoder_is_trained(method: str) -> None:
    """Every weight that is to be trained has a gradient, which is what DDP waits for."""
    settings = FineTuneSettings(method=method)
    model, adapter = prepare(tiny_gemma3(), settings, 0, 0, recompute=False)
    if adapter is not None:
        model = get_peft_model(model, adapter)
    tokens = torch.arange(20)[None]
    model.train()(input_ids=tokens, attention_mask=torch.ones_like(tokens), labels=tokens).loss.backward()
    trained = {name for name, weight in model.named_parameters() if weight.requires_grad}
    assert trained == {name for name, weight in model.named_parameters() if weight.grad is not None}
    assert not [name for name in trained if "vision" in name or "projector" in name]
    layers = {name.partition("layers.")[2][0] for name in trained if "language_model.layers." in name}
    assert layers == {"0", "1"}


def test_a_student_of_text_alone_has_nothing_beside_its_decoder(tiny_student: Path) -> None:
    assert beside_decoder(load_model(tiny_student)) == {}


@pytest.mark.parametrize(
    ("architecture", "targets"),
    [
        ("qwen3_moe", ["k_proj", "o_proj", "q_proj", "v_proj"]),
        ("mamba", ["in_proj"]),
        ("jamba", ["in_proj", "k_proj", "o_proj", "q_proj", "v_proj"]),
    ],
)
def test_an_adapter_on_a_mixture_or_a_state_space_student_goes_where_it_learns(
    architecture: str,
    targets: list[str],
    rows: list[Example],
    colours: Task,
    tiny_student: Path,
    tmp_path: Path,
) -> None:
    """With the default dropout. Each B, which is zero at first, is not at the end."""
    base = save_tiny(architecture, load_tokenizer(tiny_student), tmp_path / "base")
    settings = FineTuneSettings.load({"method": "lora", "max_steps": 3, "max_length": 64, "batch_size": 4}, "train")
    trained(tmp_path / "adapter", rows, colours, base, settings)
    saved = weights(tmp_path / "adapter")
    assert sorted({name.split(".lora_")[0].rpartition(".")[2] for name in saved}) == targets
    assert all(tensor.abs().sum() > 0 for name, tensor in saved.items() if "lora_B" in name)
    trained(tmp_path / "merged", rows, colours, base, with_settings(settings, merge=True))
    of_adapter, of_merged = (logits(load_model(tmp_path / name)) for name in ("adapter", "merged"))
    torch.testing.assert_close(of_adapter, of_merged, atol=1e-4, rtol=0)


def test_layers_that_are_called_by_a_number_are_named_in_full() -> None:
    """Zamba2's: its blocks are called so as well, and PEFT cannot adapt a block."""
    torch.manual_seed(0)
    config = Zamba2Config(vocab_size=60, hidden_size=32, intermediate_size=64, num_hidden_layers=4, mamba_d_state=8,
                          num_attention_heads=2, num_key_value_heads=1, n_mamba_heads=4, mamba_ngroups=1,
                          layers_block_type=["mamba", "hybrid", "mamba", "hybrid"])  # fmt: skip
    model = Zamba2ForCausalLM(config)
    adapted = get_peft_model(model, new_adapter(model, FineTuneSettings(method="lora")))
    places = {name.partition(".lora_A")[0] for name, _ in adapted.named_parameters() if "lora_A" in name}
    assert any(place.rpartition(".")[2].isdigit() for place in places)
    assert {type(adapted.get_submodule(place).base_layer) for place in places} == {torch.nn.Linear}


@pytest.mark.parametrize("values", [{}, {"method": "lora"}], ids=["full", "lora"])
@pytest.mark.parametrize("architecture", ["Llama4Text", "GraniteMoe", "Phimoe"])
def test_mixtures_of_experts_whose_parts_have_other_names_train(
    architecture: str, values: dict[str, Any], rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    """TRL asks for the decoder of Llama 4, which its class does not tell, and for `num_experts`."""
    tokenizer = load_tokenizer(tiny_student)
    of_llama = {"intermediate_size_mlp": 64, "interleave_moe_layer_step": 1, "head_dim": 16}
    config = getattr(transformers, f"{architecture}Config")(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, num_local_experts=4, pad_token_id=None, **(of_llama if "Llama" in architecture else {}),
    )  # fmt: skip
    model = getattr(transformers, f"{architecture.removesuffix('Text')}ForCausalLM")(config)
    model.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    before = weights(tmp_path / "base")
    settings = FineTuneSettings.load({**values, "max_steps": 2, "max_length": 64, "batch_size": 4}, "train")
    log = trained(tmp_path / "trained", rows, colours, tmp_path / "base", settings)
    assert log.steps == 2
    assert len(said(tmp_path / "trained", rows[:2], colours)) == 2
    if not values:
        after = weights(tmp_path / "trained")
        assert after.keys() == before.keys()
        assert any(not torch.equal(before[name], after[name]) for name in before)
        saved = json.loads((tmp_path / "trained" / "config.json").read_text(encoding="utf-8"))
        assert "num_experts" not in saved, "the student's configuration stays its own"


def test_a_student_with_no_layer_for_an_adapter_is_refused() -> None:
    """JetMoE's attention is a mixture of experts as well."""
    config = JetMoeConfig(vocab_size=60, hidden_size=32, intermediate_size=32, num_hidden_layers=2, kv_channels=16,
                          num_key_value_heads=1, num_local_experts=4, num_experts_per_tok=2)  # fmt: skip
    with pytest.raises(UserError, match=r"no layer that an adapter goes on.* set train\.method: full"):
        new_adapter(JetMoeForCausalLM(config), FineTuneSettings(method="lora"))


def test_experts_get_adapters_where_they_are_asked_for(
    rows: list[Example], colours: Task, tiny_student: Path, tmp_path: Path
) -> None:
    base = save_tiny("qwen3_moe", load_tokenizer(tiny_student), tmp_path / "base")
    before = weights(base)
    values = {"method": "lora", "max_steps": 3, "max_length": 64, "batch_size": 4, "lora_experts": True}
    with pytest.raises(UserError, match=r"lora_dropout: 0.05 is not for adapters on experts .*set lora_dropout: 0"):
        FineTuneSettings.load(values, "train")
    settings = FineTuneSettings.load({**values, "lora_dropout": 0.0}, "train")
    trained(tmp_path / "adapter", rows, colours, base, settings)
    assert sum(".experts." in name for name in weights(tmp_path / "adapter")) == 8, (
        "A and B of two weights of two layers"
    )
    trained(tmp_path / "merged", rows, colours, base, with_settings(settings, merge=True))
    after = weights(tmp_path / "merged")
    assert after.keys() == before.keys()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(name in changed for name in before if ".experts." in name)
    assert not any(name.endswith("gate.weight") for name in changed), "the router stays"
    of_adapter, of_merged = (logits(load_model(tmp_path / name)) for name in ("adapter", "merged"))
    torch.testing.assert_close(of_adapter, of_merged, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("architecture", "changes", "says"),
    [
        ("jamba", {"lora_targets": ["q_proj", "down_proj"]}, "'down_proj' is a part of this student's mixture of expe"),
        ("mamba", {"lora_targets": ["out_proj"]}, "lora_targets: 'out_proj' is a part of state-space blocks"),
        ("llama", {"lora_experts": True}, "lora_experts: true, and this student has no experts"),
    ],
)
def test_adapters_that_would_learn_nothing_are_refused(
    architecture: str, changes: dict[str, Any], says: str, tiny_student: Path, tmp_path: Path
) -> None:
    model = load_model(save_tiny(architecture, load_tokenizer(tiny_student), tmp_path / "base"))
    with pytest.raises(UserError, match=says):
        new_adapter(model, FineTuneSettings(method="lora", lora_dropout=0.0, **changes))
