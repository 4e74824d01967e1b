"""How much GPU memory a student needs, from its config.json: an estimate, made before any weight is downloaded.

Parameters, for width h, L layers, vocabulary V, a query heads of width d, k key-value heads, MLP width i and e experts:

    embeddings   V h, twice where input and output are not tied
    attention    L (2 h a d + 2 h k d)
    MLP          L e 3 h i where it is gated (Llama, Qwen, Gemma, Mistral), L e 2 h i where it is not (GPT-2, OPT, Phi)

Bytes, with b rows of s tokens in a pass, on a GPU that has bfloat16:

    full         18 for each parameter: weights 4, and their copies to multiply with 2; gradients 4, AdamW's two moments
                 4 each (`training.methods.weights_dtype`). With `bf16_weights` 8: 2 of each
    HFT          6 for each parameter, and 12 for each but half of the blocks'
    LoRA         2 for each parameter, and 16 for each of the adapter's, which PEFT keeps in float32
    QLoRA        as LoRA, but 0.55 for each of the blocks', and 4 for each of the embeddings', which PEFT makes float32
    activations  b s L (17 h + 8 i), as training keeps them all: Korthikanti et al. 2022 (arXiv:2205.05198), equation 1,
                 whose quadratic term fused attention does not have, with a gated MLP; with `activation_checkpointing`
                 2 b s L h, and one layer's
    logits       10 b s V: bfloat16, float32 and its gradient
    answering    2 for each parameter, and the cache of keys and values: 4 L k d for each of b tokens

and 1 GiB for CUDA and 10% for what lies between allocations. Of several GPUs each holds all of it, or with `fsdp` its
share of weights, gradients and moments. In the pod's own memory each process first loads the whole student.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm2llm.components.shared.training.settings import FineTuneSettings, ScratchSettings

GIB = 2**30
NOT_GATED = {"gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "opt", "bloom", "falcon", "phi", "mpt", "codegen"}


@dataclass(frozen=True)
class Shape:
    """The numbers of a causal language model that its memory depends on."""

    hidden: int
    layers: int
    vocabulary: int
    heads: int
    key_value_heads: int
    head_width: int
    mlp: int
    experts: int
    gated: bool
    tied: bool

    @property
    def blocks(self) -> int:
        """How many weights the layers have, but for norms and biases."""
        attention = (
            2 * self.hidden * self.heads * self.head_width + 2 * self.hidden * self.key_value_heads * self.head_width
        )
        mlp = self.experts * (3 if self.gated else 2) * self.hidden * self.mlp
        return self.layers * (attention + mlp)

    @property
    def parameters(self) -> int:
        """How many weights, but for norms, biases and positions: within 2% for the usual models."""
        return self.blocks + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def lora_parameters(self, rank: int) -> int:
        """The weights of an adapter on all linear layers: rank (inputs + outputs) of each."""
        query, key = self.heads * self.head_width, self.key_value_heads * self.head_width
        attention = 2 * (self.hidden + query) + 2 * (self.hidden + key)
        mlp = self.experts * (3 if self.gated else 2) * (self.hidden + self.mlp)
        return rank * self.layers * (attention + mlp)


def shape_of(config: Mapping[str, Any]) -> Shape:
    """The shape that a model's config.json describes.

    Raises:
        KeyError: A number is missing that no causal language model is without.
    """
    config = {**config, **(config.get("text_config") or {})}

    def first(*names: str) -> int:
        for name in names:
            if config.get(name):
                return int(config[name])
        raise KeyError(names[0])

    hidden = first("hidden_size", "n_embd", "d_model")
    heads = first("num_attention_heads", "n_head", "n_heads")
    layers = first("num_hidden_layers", "n_layer", "n_layers")
    experts = int(config.get("num_local_experts") or config.get("num_experts") or 1)
    try:
        mlp = first("moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim") if experts > 1 else first(
            "intermediate_size", "n_inner", "ffn_dim")  # fmt: skip
    except KeyError:
        mlp = 4 * hidden
    kind = str(config.get("model_type", ""))
    return Shape(
        hidden=hidden,
        layers=layers,
        vocabulary=first("vocab_size"),
        heads=heads,
        key_value_heads=int(config.get("num_key_value_heads") or heads),
        head_width=int(config.get("head_dim") or hidden // heads),
        mlp=mlp,
        experts=experts,
        gated=kind not in NOT_GATED,
        tied=bool(config.get("tie_word_embeddings", kind in NOT_GATED or kind.startswith("gemma"))),
    )


def scratch_shape(settings: ScratchSettings) -> Shape:
    """The shape of the student that is built from random weights."""
    return Shape(
        hidden=settings.hidden_size, layers=settings.layers, vocabulary=settings.vocabulary, heads=settings.heads,
        key_value_heads=settings.heads, head_width=settings.hidden_size // settings.heads,
        mlp=4 * settings.hidden_size, experts=1, gated=True, tied=True,
    )  # fmt: skip


@dataclass(frozen=True)
class Memory:
    """GiB that a stage needs on one GPU."""

    weights: float
    optimiser: float
    """Gradients and moments."""
    activations: float
    """With logits; for answering, the cache."""

    @property
    def total(self) -> float:
        return 1.1 * (self.weights + self.optimiser + self.activations) + 1.0


def training_memory(shape: Shape, parameters: int, settings: FineTuneSettings, rows: int, devices: int = 1) -> Memory:
    """See the module.

    Args:
        parameters: As counted, where the exact number is known; else `shape.parameters`.
        rows: In one pass; with packing, sequences.
        devices: GPUs of all nodes together.
    """
    blocks = min(shape.blocks, parameters)
    weights: float
    optimiser: float
    if settings.method == "qlora":
        weights, optimiser = 0.55 * blocks + 4 * (parameters - blocks), 16 * shape.lora_parameters(settings.lora_rank)
    elif settings.method == "lora":
        weights, optimiser = 2 * parameters, 16 * shape.lora_parameters(settings.lora_rank)
    else:
        trained = parameters - blocks / 2 if settings.method == "hft" else parameters
        kept, moved = (2, 6) if settings.bf16_weights else (6, 12)
        weights, optimiser = kept * parameters, moved * trained
    if settings.sharding == "fsdp":
        weights, optimiser = weights / devices, optimiser / devices
    tokens = rows * settings.max_length
    layer = 17 * shape.hidden + 8 * shape.mlp
    kept_of_layers = (
        2 * shape.hidden * shape.layers + layer if settings.activation_checkpointing else layer * shape.layers
    )
    activations = tokens * (kept_of_layers + 10 * shape.vocabulary)
    return Memory(weights / GIB, optimiser / GIB, activations / GIB)


def loading_memory(parameters: int, settings: FineTuneSettings, processes: int) -> float:
    """GiB of the training pod's own memory, while its processes load the student.

    With 2 GiB for each process itself; QLoRA's weights go to the GPU as they are read.

    Args:
        processes: GPUs of one node.
    """
    width = 0 if settings.method == "qlora" else 2 if settings.adapts or settings.bf16_weights else 4
    return processes * (width * parameters / GIB + 2)


def answering_memory(shape: Shape, parameters: int, batch_size: int, length: int) -> Memory:
    """See the module."""
    cache = 4 * shape.layers * shape.key_value_heads * shape.head_width * batch_size * length
    return Memory(2 * parameters / GIB, 0.0, (cache + 4 * batch_size * shape.vocabulary) / GIB)
