"""Students of several architectures, with random weights and the tiny tokenizer: as any model in a folder."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertForMaskedLM,
    DebertaV2Config,
    DebertaV2ForMaskedLM,
    DistilBertConfig,
    DistilBertForMaskedLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    JambaConfig,
    JambaForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MambaConfig,
    MambaForCausalLM,
    ModernBertConfig,
    ModernBertForMaskedLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3MoeConfig,
    Qwen3MoeForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
    RobertaConfig,
    RobertaForMaskedLM,
    RwkvConfig,
    RwkvForCausalLM,
)

_WIDTHS = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 128,
}

ARCHITECTURES: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "llama": (LlamaConfig, LlamaForCausalLM, _WIDTHS),
    "gpt2": (GPT2Config, GPT2LMHeadModel, {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 128}),
    "qwen2": (Qwen2Config, Qwen2ForCausalLM, {**_WIDTHS, "tie_word_embeddings": True}),
    "qwen3": (Qwen3Config, Qwen3ForCausalLM, _WIDTHS),
    "gemma2": (Gemma2Config, Gemma2ForCausalLM, {**_WIDTHS, "sliding_window": 64}),
    "qwen3_moe": (
        Qwen3MoeConfig,
        Qwen3MoeForCausalLM,
        {**_WIDTHS, "moe_intermediate_size": 32, "num_experts": 4, "num_experts_per_tok": 2},
    ),
    "mamba": (MambaConfig, MambaForCausalLM, {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}),
}

RECURRENT: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "jamba": (
        JambaConfig,
        JambaForCausalLM,
        {
            **_WIDTHS,
            "num_hidden_layers": 4,
            "attn_layer_period": 2,
            "attn_layer_offset": 1,
            "expert_layer_period": 2,
            "expert_layer_offset": 1,
            "num_experts": 2,
            "mamba_d_state": 4,
            "use_mamba_kernels": False,
        },
    ),
    "rwkv": (RwkvConfig, RwkvForCausalLM, {"hidden_size": 32, "num_hidden_layers": 2, "context_length": 128}),
    "recurrent_gemma": (
        RecurrentGemmaConfig,
        RecurrentGemmaForCausalLM,
        {**_WIDTHS, "num_hidden_layers": 3, "lru_width": 32, "attention_window_size": 64},
    ),
}
"""Further ones that keep a state, for tests of just that."""

_ENCODER = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
}

ENCODERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "bert": (BertConfig, BertForMaskedLM, _ENCODER),
    "roberta": (RobertaConfig, RobertaForMaskedLM, {**_ENCODER, "max_position_embeddings": 65}),
    "modernbert": (
        ModernBertConfig,
        ModernBertForMaskedLM,
        {**_ENCODER, "bos_token_id": 1, "cls_token_id": 1, "eos_token_id": 2, "sep_token_id": 2},
    ),
    "distilbert": (
        DistilBertConfig,
        DistilBertForMaskedLM,
        {"dim": 32, "hidden_dim": 64, "n_layers": 2, "n_heads": 2, "max_position_embeddings": 128},
    ),
    "deberta": (DebertaV2Config, DebertaV2ForMaskedLM, _ENCODER),
}
"""Models that were pretrained to fill in words; the tiny tokenizer puts `<s>` and `</s>` around a text for them."""


def save_encoder(architecture: str, tokenizer: Any, folder: Path) -> Path:
    """Saves an encoder and its tokenizer, which has no end of a sequence, to `folder`, the same weights every time."""
    config, model, widths = ENCODERS[architecture]
    torch.manual_seed(11)
    model(config(vocab_size=len(tokenizer), **widths)).save_pretrained(folder)
    own = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(tokenizer.backend_tokenizer.to_str()),
        pad_token="<pad>",
        cls_token="<s>",
        sep_token="</s>",
    )
    own.backend_tokenizer.post_processor = TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    own.save_pretrained(folder)
    return folder


def save_tiny(architecture: str, tokenizer: Any, folder: Path) -> Path:
    """Saves a model of an architecture and its tokenizer to `folder`, the same weights every time."""
    config, model, widths = (ARCHITECTURES | RECURRENT)[architecture]
    torch.manual_seed(11)
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    model(config(vocab_size=len(tokenizer), pad_token_id=None, **ends, **widths)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
