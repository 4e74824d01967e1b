"""Fine-tuning methods: which weights are trained and which are saved.

full    every weight
lora    low-rank matrices beside the linear layers of the blocks: Hu et al. 2021 (arXiv:2106.09685)
qlora   the same, on a base in 4-bit NormalFloat: Dettmers et al. 2023 (arXiv:2305.14314)
hft     half of each block's weight matrices: Hui et al. 2024 (arXiv:2404.18466)
"""

import json
import random
import re
from collections import defaultdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from peft import LoraConfig, PeftModel, prepare_model_for_kbit_training
from peft.utils import CONFIG_NAME
from safetensors import SafetensorError
from transformers import AutoConfig
from transformers.pytorch_utils import Conv1D
from transformers.training_args import OptimizerNames
from transformers.utils import is_flash_attn_2_available, is_flash_attn_3_available, is_liger_kernel_available

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.models.experts import experts_of
from llm2llm.components.shared.models.load import base_name, head_modules, load_model, local_name, precision
from llm2llm.components.shared.models.weight_files import quantisation
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.stochastic_adamw import StochasticAdamW


def weights_dtype(settings: FineTuneSettings) -> torch.dtype:
    """In what a student's weights are kept while it is trained.

    Weights that are trained are kept in float32, and multiplied in bfloat16 where the hardware has it, else in float16
    with the loss scaled: a step of 2e-5 on a weight of 0.02 is below what bfloat16 resolves, and would be lost.
    """
    return precision() if settings.adapts or settings.bf16_weights else torch.float32


def in_float32(model: Any) -> None:
    """Keeps the weights that are trained in float32 where the arithmetic is in float16, in place: TRL puts the adapters
    of a 4-bit base into bfloat16, and the scaling of the loss takes neither it nor float16."""
    if precision() is torch.float16:
        for weight in model.parameters():
            if weight.requires_grad:
                weight.data = weight.data.float()


def check_optimiser(settings: FineTuneSettings) -> None:
    """Checks that transformers knows the optimiser.

    Raises:
        UserError: It does not.
    """
    known = [one.value for one in OptimizerNames]
    if settings.optim and settings.optim not in known:
        raise UserError(
            f"train.optim: {settings.optim!r} is no optimiser of transformers"
            f"{did_you_mean(settings.optim, known)}; it has {', '.join(known)}"
        )


def stochastic(settings: FineTuneSettings, random_seed: int) -> tuple[type[StochasticAdamW], dict[str, Any]] | None:
    """The optimiser for weights that are kept in bfloat16, as the trainer takes it; None for others."""
    if not settings.bf16_weights:
        return None
    options = {"lr": settings.learning_rate, "weight_decay": settings.weight_decay, "seed": random_seed}
    return StochasticAdamW, options


def refuse_quantised(student: str, settings: FineTuneSettings) -> None:
    """Checks, before anything is loaded, that the method can train a student whose weights are quantised.

    Raises:
        UserError: It cannot, or the result could not be merged.
    """
    base = base_name(student)
    try:
        config = AutoConfig.from_pretrained(local_name(base), trust_remote_code=settings.trust_remote_code)
    except (OSError, ValueError):  # loading the student says what is wrong with it
        return
    kind = quantisation(config.to_dict())
    if not kind:
        return
    if not settings.adapts:
        raise UserError(
            f"train.method: {settings.method!r} trains the weights, and those of {base} are quantised ({kind}); set "
            "train.method: qlora, or name the model that is not quantised"
        )
    if settings.sharding == "fsdp":
        raise UserError(
            f"train.sharding: 'fsdp' does not share out {base}, whose weights are quantised ({kind}); set "
            "train.sharding: ddp, or name the model that is not quantised"
        )
    if settings.merge:
        raise UserError(
            f"train.merge: an adapter cannot be merged into {base}, whose weights are quantised ({kind}); set "
            "train.merge: false, or name the model that is not quantised"
        )


FLASH = {"flash_attention_2": is_flash_attn_2_available, "flash_attention_3": is_flash_attn_3_available}
"""Implementations of attention that need a package and a GPU, and whether they are there."""


def check_kernels(settings: FineTuneSettings) -> None:
    """Checks, before anything is loaded, that this machine has what `attention` and `liger` ask for.

    Raises:
        UserError: It has not.
    """
    wanted = settings.attention
    if wanted in FLASH and not (FLASH[wanted]() and precision() is torch.bfloat16):
        raise UserError(
            f"train.attention: {wanted!r} needs its package (flash-attn) and a GPU with bfloat16, and they are not "
            "here; set train.attention: auto, or add the package to the image of `train`"
        )
    if settings.bf16_weights and precision() is torch.float16:
        raise UserError(
            "train.bf16_weights: true needs a GPU with bfloat16 (compute capability 8.0 or more, such as A100 or L4), "
            "and the one here has none; remove it, or set train.method: lora"
        )
    if settings.liger and not (is_liger_kernel_available() and torch.cuda.is_available()):
        raise UserError(
            "train.liger: true needs the package liger-kernel and a GPU, and they are not here; set train.liger: "
            "false, or add the package to the image of `train`"
        )


def attention(settings: FineTuneSettings) -> str | None:
    """Which implementation of attention a student trains with; None: its own default.

    With packing on a GPU flash attention, where the package is installed: it spends nothing on what is masked.
    """
    if settings.attention != "auto":
        return settings.attention
    flash = settings.packing and precision() is torch.bfloat16 and is_flash_attn_2_available()
    return "flash_attention_2" if flash else None


def recomputes(model: Any, settings: FineTuneSettings, wanted: bool) -> bool:
    """Whether activations are computed again on the way back.

    Args:
        model: The student.
        settings: May ask for it.
        wanted: Whether it would help, as after running out of memory.

    Raises:
        UserError: The settings ask for it, and the architecture cannot.
    """
    can = bool(model.get_base_model().supports_gradient_checkpointing if isinstance(model, PeftModel) else
               model.supports_gradient_checkpointing)  # fmt: skip
    if settings.activation_checkpointing and not can:
        raise UserError(
            "train.activation_checkpointing: this student's architecture cannot compute activations again; set it to "
            "false, and a smaller train.batch_size"
        )
    return can and (wanted or settings.activation_checkpointing)


def prepare(
    model: Any, settings: FineTuneSettings, random_seed: int, iteration: int, recompute: bool
) -> tuple[Any, LoraConfig | None]:
    """(the model with the weights frozen that the method leaves as they are, the adapter that it still lacks).

    Args:
        model: As loaded; an adapter that is to be trained further is on it already.
        settings: Say the method.
        random_seed: With `iteration` decides which half `hft` trains.
        iteration: Of the loop.
        recompute: Whether activations are computed again on the way back.

    Raises:
        UserError: A model that the method does not fit.
    """
    if settings.method == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=recompute)
    if not isinstance(model, PeftModel):
        for module in beside_decoder(model).values():
            module.requires_grad_(False)
    if settings.adapts:
        return model, None if isinstance(model, PeftModel) else new_adapter(model, settings)
    if settings.method == "hft":
        frozen = other_half(model, random_seed, iteration)
        for name, weight in model.named_parameters():
            weight.requires_grad_(weight.requires_grad and name not in frozen)
    return model, None


def beside_decoder(model: Any) -> dict[str, Any]:
    """What of a multimodal student no text goes through, such as its vision tower: the outermost modules, by name.

    They get no gradient: DDP waits for one in vain, and an adapter or half of the weights would be wasted there.
    """
    if model.config.get_text_config() is model.config:
        return {}
    parts = [one for one in (model.get_decoder(), model.get_output_embeddings()) if one is not None]
    used = {id(module) for part in parts for module in part.modules()}
    around = {name for name, module in model.named_modules() if used & {id(one) for one in module.modules()}}
    found: dict[str, Any] = {}
    for name, module in model.named_modules():
        if name not in around and id(module) not in used and name.rpartition(".")[0] in around:
            found[name] = module
    return found


_NAMED_LIKE_EXPERTS = {"gate_proj", "up_proj", "down_proj", "w1", "w2", "w3"}
"""Layers that PEFT takes for the experts of a mixture, by the names that those had before they were put together."""


def new_adapter(model: Any, settings: FineTuneSettings) -> LoraConfig:
    """What PEFT is to put onto the model.

    Raises:
        UserError: `lora_targets` that the model does not have, or no layer for an adapter at all.
    """
    outside = [
        f"{place}.{name}" if name else place
        for place, module in sorted(beside_decoder(model).items())
        for name, inner in module.named_modules()
        if isinstance(inner, torch.nn.Linear | Conv1D)
    ]
    whole = head_modules(model) if settings.classifies else []
    # Of a classifier the head is new, and is trained whole.
    outside += [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear | Conv1D) and f"{name}.".startswith(tuple(f"{one}." for one in whole))
    ]
    names = _linear_layers(model) - set(outside)
    bypassed = {name.rpartition(".")[2] for name in _bypassed(model)}
    experts = experts_of(model)
    of_experts = {place.rpartition(".")[0] + "." for place in experts}
    mixed = _NAMED_LIKE_EXPERTS | {name.rpartition(".")[2] for name in names if name.startswith(tuple(of_experts))}
    targets: str | list[str] = settings.lora_targets
    if settings.lora_targets != "all-linear":
        for target in settings.lora_targets:
            if not any(name == target or name.endswith(f".{target}") for name in names):
                known = sorted({name.rsplit(".", 1)[-1] for name in names})
                raise UserError(
                    f"train.lora_targets: {target!r} is no layer of this student that an adapter goes on; it has "
                    f"{', '.join(known)}; name some of these, or say all-linear"
                )
            if target.rpartition(".")[2] in bypassed:
                raise UserError(
                    f"train.lora_targets: {target!r} is a part of state-space blocks, whose kernels take its weights "
                    "past an adapter; remove it, or say all-linear"
                )
            if experts and target.rpartition(".")[2] in mixed:
                raise UserError(
                    f"train.lora_targets: {target!r} is a part of this student's mixture of experts; remove it, and "
                    "for adapters on the experts set train.lora_experts: true"
                )
    elif bypassed or experts:
        # By name: PEFT refuses some layers of a state-space block, and takes those of an MLP for a mixture's experts.
        left_out = bypassed | (mixed if experts else set())
        # One that only has a number for a name, as in Zamba2, is named in full: blocks are called so as well.
        ends = {name: name.rpartition(".")[2] for name in names}
        targets = sorted({name if end.isdigit() else end for name, end in ends.items() if end not in left_out})
    parameters = [
        f"{place}.{name}"
        for place, module in experts.items()
        for name, weight in module.named_parameters()
        if weight.dim() == 3
    ]
    if settings.lora_experts and not parameters:
        raise UserError(
            "train.lora_experts: true, and this student has no experts that adapters can be put on; remove it"
        )
    if not targets and not settings.lora_experts:
        raise UserError(
            f"train.method: {settings.method!r}, and this student has no layer that an adapter goes on"
            f"{' outside its experts; set train.lora_experts: true, or' if parameters else ';'} set train.method: full"
        )
    if experts and not settings.lora_experts:
        print("train: the experts get no adapters (train.lora_experts: false)", flush=True)
    return LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets,
        target_parameters=parameters if settings.lora_experts else None,
        exclude_modules=outside or None,
        use_dora=settings.dora,
        use_rslora=settings.rslora,
        task_type="SEQ_CLS" if settings.classifies else "CAUSAL_LM",
        modules_to_save=whole or None,
    )


def _bypassed(model: Any) -> set[str]:
    """The linear layers of state-space blocks (Mamba's and Mamba-2's, Jamba's, Bamba's, Zamba's, Falcon-H1's) but for
    the first: fused kernels take their weights and never call them, so an adapter there learns nothing."""
    return {
        f"{place}.{name}"
        for place, module in model.named_modules()
        if hasattr(module, "A_log") and hasattr(module, "in_proj")
        for name, inner in module.named_children()
        if isinstance(inner, torch.nn.Linear) and name != "in_proj"
    }


def other_half(model: Any, random_seed: int, iteration: int) -> set[str]:
    """The names of the weights that `hft` leaves as they are.

    Drawn in each block by category: half of the matrices of attention, half of those of the feed-forward part, half of
    the norms. Of an odd number every other block leaves the larger half, so that it is half in all. A bias goes with
    its matrix. What is outside the blocks (embeddings, last norm, head) is trained.

    Raises:
        UserError: A model in which no blocks are found.
    """
    blocks = _blocks(model)
    draw = random.Random(f"{random_seed}:{iteration}:hft")
    draw.shuffle(blocks)
    frozen: set[str] = set()
    larger: dict[str, bool] = {}
    for prefix, block in blocks:
        for category, units in sorted(_categories(block).items()):
            chosen = sorted(units)
            draw.shuffle(chosen)
            count, odd = divmod(len(chosen), 2)
            if odd:
                larger[category] = not larger.get(category, draw.random() < 0.5)
                count += larger[category]
            frozen |= {f"{prefix}.{name}" for unit in chosen[:count] for name in unit}
    return frozen


def save(model: Any, settings: FineTuneSettings, student: str, output: Path) -> None:
    """Saves the trained model as safetensors: an adapter with its base named, or with `merge` the whole model.

    Args:
        model: What was trained.
        settings: Say the method, and whether to merge.
        student: What the training started from.
        output: An existing folder.

    Raises:
        OSError: The disk is full, or cannot be written to.
    """
    try:
        _save(model, settings, student, output)
    except SafetensorError as problem:
        if found := re.search(r"\(os error (\d+)\)", str(problem)):  # it is an OSError by another name
            raise OSError(int(found[1]), str(problem)) from problem
        raise
    for weights in output.glob("*.safetensors"):  # the library lets only their owner read them
        weights.chmod(next(output.glob("*config.json")).stat().st_mode)


def _save(model: Any, settings: FineTuneSettings, student: str, output: Path) -> None:
    config = model.config.get_text_config()
    if hasattr(config, "output_router_logits"):  # TRL turns them on for a mixture of experts; `generate` fails on them
        config.output_router_logits = False
    if not settings.adapts:
        model.to(precision()).save_pretrained(output, safe_serialization=True)
    elif settings.merge and settings.method == "lora":
        model.merge_and_unload().save_pretrained(output, safe_serialization=True)
    elif settings.merge:
        # A base of 4 bits has no room for the update: it is worked into the base as it was before the rounding.
        with TemporaryDirectory(prefix="llm2llm-adapter-") as folder:
            _save_adapter(model, student, Path(folder))
            whole = load_model(base_name(student), settings.trust_remote_code)
            merged = PeftModel.from_pretrained(whole, folder).merge_and_unload()
        merged.save_pretrained(output, safe_serialization=True)
    else:
        _save_adapter(model, student, output)


def _save_adapter(model: Any, student: str, output: Path) -> None:
    model.peft_config["default"].base_model_name_or_path = base_name(student)
    # No embedding is ever added, and PEFT would look on the hub whether one was.
    model.save_pretrained(output, safe_serialization=True, save_embedding_layers=False)
    # PEFT keeps layers in sets, whose order is another in each process.
    path = output / CONFIG_NAME
    config = json.loads(path.read_text(encoding="utf-8"))
    for layers in (config["target_modules"], config["exclude_modules"], config["target_parameters"]):
        if isinstance(layers, list):
            layers.sort()
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _linear_layers(model: Any) -> set[str]:
    """The names of what an adapter can be put on: linear layers, GPT-2's among them, but not the head."""
    kinds = (torch.nn.Linear, Conv1D)
    head = model.get_output_embeddings()
    return {name for name, module in model.named_modules() if isinstance(module, kinds) and module is not head}


def _blocks(model: Any) -> list[tuple[str, Any]]:
    """(name, module) of each transformer block."""
    count = model.config.get_text_config().num_hidden_layers
    outside = {id(inner) for module in beside_decoder(model).values() for inner in module.modules()}
    for name, module in model.named_modules():
        if id(module) in outside:
            continue
        if isinstance(module, torch.nn.ModuleList) and len(module) == count:
            return [(f"{name}.{number}", block) for number, block in enumerate(module)]
    raise UserError("train.method: 'hft' finds no blocks in this student's architecture; choose another method")


def _categories(block: Any) -> dict[str, list[tuple[str, ...]]]:
    """The weights of a block by category (`norms`, or the part of the block that they are in): those that are trained
    or left together, each matrix with its bias."""
    found: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    for path, module in block.named_modules():
        own = {f"{path}.{name}" if path else name: weight for name, weight in module.named_parameters(recurse=False)}
        matrices = [name for name, weight in own.items() if weight.dim() > 1]
        vectors = [name for name in own if name not in matrices]
        if not matrices:
            found["norms"] += [tuple(vectors)] if vectors else []
            continue
        # A module with several matrices names a bias after its matrix, as in the experts of a mixture.
        units = {name: [v for v in vectors if v.startswith(name)] for name in matrices}
        units[matrices[0]] += [v for v in vectors if not any(v in biases for biases in units.values())]
        found[path.split(".")[0]] += [(name, *biases) for name, biases in units.items()]
    return found
