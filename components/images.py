"""The container image of each dependency world; a config's `images` section replaces them."""

CPU = "ghcr.io/llm2llm/cpu:0.1.0"
TRAIN = "ghcr.io/llm2llm/train:0.1.0"
VLLM = "ghcr.io/llm2llm/vllm:0.1.0"
