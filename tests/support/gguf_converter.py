"""A stand-in for llama.cpp's convert_hf_to_gguf.py: a Llama's weights and config as GGUF, f16 or q8_0.

Takes the same arguments, and like the real script runs code that comes with the model, if a config.json names it. Left
out: every other architecture, and the tokenizer (the real script refuses those that it does not know).
"""

import argparse
import importlib.util
import json
from pathlib import Path

import gguf
import numpy as np
from safetensors.numpy import load_file

NAMES = {
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
TOP = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}


def renamed(name: str) -> str:
    stem = name.removesuffix(".weight")
    if stem in TOP:
        return f"{TOP[stem]}.weight"
    _, _, number, rest = stem.split(".", 3)
    return f"blk.{number}.{NAMES[rest]}.weight"


def permuted(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rotary pairs side by side, as llama.cpp has them."""
    return weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path)
    parser.add_argument("--outfile", type=Path, required=True)
    parser.add_argument("--outtype", choices=["f16", "q8_0"], required=True)
    given = parser.parse_args()
    config = json.loads((given.model / "config.json").read_text())
    if code := config.get("auto_map", {}).get("AutoConfig"):
        spec = importlib.util.spec_from_file_location("theirs", given.model / f"{code.split('.')[0]}.py")
        spec.loader.exec_module(importlib.util.module_from_spec(spec))
    if config["model_type"] != "llama":
        raise NotImplementedError(f"Model {config['architectures'][0]} is not supported")
    heads, key_heads = config["num_attention_heads"], config["num_key_value_heads"]
    writer = gguf.GGUFWriter(given.outfile, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(heads)
    writer.add_head_count_kv(key_heads)
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_rope_freq_base(config["rope_parameters"]["rope_theta"])
    writer.add_vocab_size(config["vocab_size"])
    kind = {"f16": gguf.GGMLQuantizationType.F16, "q8_0": gguf.GGMLQuantizationType.Q8_0}[given.outtype]
    for name, weight in sorted(load_file(given.model / "model.safetensors").items()):
        weight = weight.astype(np.float32)
        if "q_proj" in name or "k_proj" in name:
            weight = permuted(weight, heads if "q_proj" in name else key_heads)
        used = kind if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
        if used == gguf.GGMLQuantizationType.Q8_0 and weight.shape[-1] % 32:  # as the real script does
            used = gguf.GGMLQuantizationType.F16
        writer.add_tensor(renamed(name), gguf.quants.quantize(weight, used), raw_dtype=used)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


if __name__ == "__main__":
    main()
