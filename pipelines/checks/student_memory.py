"""How much GPU memory a student needs, from its config.json: an estimate, made before any weight is downloaded.

Parameters, for width h, L layers, vocabulary V, a query heads of width d, k key-value heads, MLP width i and e experts:

    embeddings   V h, twice where input and output are not tied
    attention    L (2 h a d + 2 h k d)
    MLP          L e 3 h i where it is gated (Llama, Qwen, Gemma, Mistral), L e 2 h i where it is not (GPT-2, OPT, Phi)

Bytes, with N = b s tokens in a pass (b rows of s), on a GPU that has bfloat16:

    full         18 for each parameter: weights 4, and their copies to multiply with 2; gradients 4, AdamW's two moments
                 4 each (`training.methods.weights_dtype`). With `bf16_weights` 8: 2 of each. Another `optim` keeps 2
                 for the moments (8-bit), none (paged, Adafactor) ...: `MOMENTS`
    HFT          6 for each parameter, and 12 for each but half of the blocks'
    LoRA         2 for each parameter, and 16 for each of the adapter's, which PEFT keeps in float32
    QLoRA        as LoRA, but 0.516 for each of the blocks' (NF4 and its scales, rounded twice: Dettmers et al. 2023),
                 4 for each of the embeddings', which PEFT makes float32, and one layer's largest matrix unpacked. The
                 experts of a mixture are no linear layers, and become float32 too
    activations  of each layer, as measured: N (34 h + 8 i) with float32 weights, whose residual stream is float32 too;
                 N (24 h + 8 i) with bfloat16 ones and under an adapter, whose dropout adds N (6 h + i). i counts every
                 expert that a token goes through. With `activation_checkpointing` the layer's input alone, 4 N h or
                 2 N h, and one whole layer; beside the layers 12 N h or 8 N h
    logits       a tile of at most 4096 tokens and 32768 words, 2 bytes each, as TRL computes them in pieces; and
                 4 V h for the head's gradient where it is trained
    distillation 2 for each parameter of the teacher, and logits whole, as TRL computes them: 48 N V for both models'
                 log-probabilities, their mixture, the divergences and what the way back keeps of them
    answering    2 for each parameter, and the cache of keys and values: 4 L k d for each of b tokens

A classifier (`train.head`) has no output embeddings, no logits of words and no cache: answering, it keeps 24 h + 8 i of
one layer for each token.

and 1 GiB for CUDA and 10% for what lies between allocations. Of several GPUs each holds all of it. With `fsdp` each
holds its share of 16 bytes for each parameter (under an adapter: of its own), and whole, in 16 bits with their
gradients, two blocks and the embeddings. In the pod's own memory each process first loads the whole
student, with `fsdp` the first process alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from llm2llm.components.shared.training.settings import FineTuneSettings, ScratchSettings

GIB = 2**30
TILE_TOKENS, TILE_WORDS = 4096, 32768
"""The pieces in which TRL computes logits."""
MOMENTS = {"paged": 0.0, "adafactor": 0.0, "sgd": 0.0, "4bit": 1.0, "8bit": 2.0, "lion": 4.0}
"""Bytes for each trained weight that an optimiser keeps on the GPU, by a part of its name; the first found counts."""
NOT_GATED = {"gpt2", "gpt_neo", "gpt_neox", "gptj", "gpt_bigcode", "opt", "bloom", "falcon", "phi", "mpt", "codegen",
             "bert", "camembert", "deberta", "deberta-v2", "distilbert", "electra", "ernie", "mpnet", "roberta",
             "xlm-roberta", "xlnet", "roformer", "layoutlm"}  # fmt: skip


@dataclass(frozen=True)
class Shape:
    """The numbers of a language model, a decoder or an encoder, that its memory depends on."""

    hidden: int
    layers: int
    vocabulary: int
    heads: int
    key_value_heads: int
    head_width: int
    mlp: int
    experts: int
    active: int
    """Experts that a token goes through."""
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
    def expert_weights(self) -> int:
        """How many of them are a mixture's experts."""
        one = (3 if self.gated else 2) * self.hidden * self.mlp
        return self.layers * self.experts * one if self.experts > 1 else 0

    @property
    def parameters(self) -> int:
        """How many weights, but for norms, biases and positions: within 2% for the usual models."""
        return self.blocks + self.vocabulary * self.hidden * (1 if self.tied else 2)

    def lora_parameters(self, rank: int, experts: bool = False) -> int:
        """The weights of an adapter on all linear layers: rank (inputs + outputs) of each. Of a mixture's MLPs only
        with `experts`."""
        query, key = self.heads * self.head_width, self.key_value_heads * self.head_width
        attention = 2 * (self.hidden + query) + 2 * (self.hidden + key)
        mlp = self.experts * (3 if self.gated else 2) * (self.hidden + self.mlp) if experts or self.experts == 1 else 0
        return rank * self.layers * (attention + mlp)


def shape_of(config: Mapping[str, Any], classifier: bool = False) -> Shape:
    """The shape that a model's config.json describes; with `classifier` without output embeddings.

    Raises:
        KeyError: A number is missing that no causal language model is without.
    """
    config = {**config, **(config.get("text_config") or {})}

    def first(*names: str) -> int:
        for name in names:
            if config.get(name):
                return int(config[name])
        raise KeyError(names[0])

    hidden = first("hidden_size", "n_embd", "d_model", "dim")
    heads = first("num_attention_heads", "n_head", "n_heads")
    layers = first("num_hidden_layers", "n_layer", "n_layers")
    experts = int(config.get("num_local_experts") or config.get("num_experts") or 1)
    try:
        mlp = first("moe_intermediate_size", "intermediate_size", "n_inner", "ffn_dim") if experts > 1 else first(
            "intermediate_size", "n_inner", "ffn_dim", "hidden_dim")  # fmt: skip
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
        active=min(experts, int(config.get("num_experts_per_tok") or config.get("experts_per_token") or 1)),
        gated=kind not in NOT_GATED,
        tied=classifier or bool(config.get("tie_word_embeddings", kind in NOT_GATED or kind.startswith("gemma"))),
    )


def scratch_shape(settings: ScratchSettings) -> Shape:
    """The shape of the student that is built from random weights."""
    return Shape(
        hidden=settings.hidden_size, layers=settings.layers, vocabulary=settings.vocabulary, heads=settings.heads,
        key_value_heads=settings.heads, head_width=settings.hidden_size // settings.heads,
        mlp=4 * settings.hidden_size, experts=1, active=1, gated=True, tied=True,
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


def training_memory(
    shape: Shape,
    parameters: int,
    settings: FineTuneSettings,
    rows: int,
    devices: int = 1,
    recompute: bool | None = None,
) -> Memory:
    """See the module.

    Args:
        parameters: As counted, where the exact number is known; else `shape.parameters`.
        rows: In one pass; with packing, sequences.
        devices: GPUs of all nodes together.
        recompute: Whether activations are computed again on the way back; None: as the settings say.
    """
    recompute = settings.activation_checkpointing if recompute is None else recompute
    blocks = min(shape.blocks, parameters)
    rest = parameters - blocks
    adapter = shape.lora_parameters(settings.lora_rank, settings.lora_experts)
    moments = next((size for part, size in MOMENTS.items() if part in settings.optim), 8.0)
    sharded = settings.sharding == "fsdp" and devices > 1
    weights: float
    optimiser: float
    if settings.method == "qlora":
        experts = shape.expert_weights
        unpacked = 2 * shape.hidden * shape.mlp
        weights = 0.516 * max(blocks - experts, 0) + 4 * (rest + experts) + unpacked
        optimiser = (8 + moments) * adapter
    elif settings.method == "lora":
        weights, optimiser = 2 * parameters, (8 + moments) * adapter
    else:
        trained = parameters - blocks / 2 if settings.method == "hft" else parameters
        if settings.bf16_weights:
            weights, optimiser = 2 * parameters, 6 * trained
        else:
            weights, optimiser = (4 if sharded else 6) * parameters, (4 + moments) * trained
    if sharded:
        whole = 2 * blocks / shape.layers + rest  # with the block that is fetched ahead
        weights = weights / devices + 2 * whole
        optimiser = optimiser / devices + (0 if settings.adapts else 2 * whole)
    tokens = rows * settings.max_length
    classifies = settings.head == "classifier"
    logits = 0 if classifies else 2 * min(tokens, TILE_TOKENS) * min(shape.vocabulary, TILE_WORDS)
    if not settings.adapts and not classifies:
        logits += 4 * shape.vocabulary * shape.hidden
    activations = tokens * bytes_of_token(shape, settings, recompute) + logits
    return Memory(weights / GIB, optimiser / GIB, activations / GIB)


def distillation_memory(shape: Shape, teacher: int, rows: int, length: int) -> Memory:
    """What a distillation needs beside the training of the student.

    Args:
        shape: The student's.
        teacher: Parameters of the teacher.
        rows: In one pass.
        length: Tokens of the longest row.
    """
    return Memory(2 * teacher / GIB, 0.0, 48 * rows * length * shape.vocabulary / GIB)


def bytes_of_token(shape: Shape, settings: FineTuneSettings, recompute: bool) -> int:
    """Bytes of activations that training keeps of one token, but for logits."""
    inside = shape.mlp * shape.active
    wide = not (settings.adapts or settings.bf16_weights)
    layer = (34 if wide else 24) * shape.hidden + 8 * inside
    if settings.adapts and settings.lora_dropout:
        layer += 6 * shape.hidden + inside
    stream = 4 if wide or settings.method == "qlora" else 2
    of_layers = stream * shape.hidden * shape.layers + layer if recompute else layer * shape.layers
    return of_layers + (12 if wide else 8) * shape.hidden


def loading_memory(parameters: int, settings: FineTuneSettings, processes: int) -> float:
    """GiB of the training pod's own memory, while its processes load the student.

    With 2 GiB for each process itself; QLoRA's weights go to the GPU as they are read. With `fsdp` the first process
    alone reads them.

    Args:
        processes: GPUs of one node.
    """
    width = 0 if settings.method == "qlora" else 2 if settings.adapts or settings.bf16_weights else 4
    readers = 1 if settings.sharding == "fsdp" else processes
    return readers * width * parameters / GIB + 2 * processes


def answering_memory(shape: Shape, parameters: int, batch_size: int, length: int, classifier: bool = False) -> Memory:
    """See the module."""
    if classifier:
        layer = (24 * shape.hidden + 8 * shape.mlp * shape.active) * batch_size * length
        return Memory(2 * parameters / GIB, 0.0, layer / GIB)
    cache = 4 * shape.layers * shape.key_value_heads * shape.head_width * batch_size * length
    return Memory(2 * parameters / GIB, 0.0, (cache + 4 * batch_size * shape.vocabulary) / GIB)
