"""Training throughput: tokens per second, memory, model FLOPs utilisation.

Model FLOPs utilisation (MFU): Chowdhery et al., "PaLM: scaling language modeling with pathways", 2022, appendix B: the
tokens per second that were seen, divided by those that the device could see if it did nothing but the matrix
multiplications that the model needs, at its peak.
"""

import importlib.util
import os
from collections.abc import Sequence
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.training.devices import this_process
from llm2llm.components.shared.training.settings import FineTuneSettings

CURVE_POINTS = 100
"""About how many points a loss curve has."""

PEAK_FLOPS = {
    "B200": 2250e12,
    "H200": 989e12,
    "GH200": 989e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "A100": 312e12,
    "A40": 150e12,
    "A30": 165e12,
    "A10G": 70e12,
    "A10": 125e12,
    "L40S": 362e12,
    "L40": 181e12,
    "L4": 121e12,
    "T4": 65e12,
    "V100": 125e12,
}
"""Dense 16-bit FLOPs per second with tensor cores, from NVIDIA's data sheets, by a part of the device's name. The first
that is found counts, so that a longer name stands before its beginning."""


def peak_flops(device_name: str) -> float | None:
    """The device's peak in FLOPs per second; None for one that is not in the table."""
    return next((peak for part, peak in PEAK_FLOPS.items() if part in device_name), None)


def flops_per_token(model: Any, lengths: Sequence[int]) -> float:
    """FLOPs that training on one token takes, forward and backward.

    PaLM's 6 N + 12 L H Q T: two for each weight in the forward pass and two each for the gradients of activations and
    weights; frozen weights need no gradient of their own. An embedding that is no output layer too is looked up, not
    multiplied. Recomputed activations do not count.

    Args:
        model: The student, with its adapter if it has one.
        lengths: Tokens of each row: T is what one token sees, on average over the tokens.
    """
    inputs, outputs = model.get_input_embeddings(), model.get_output_embeddings()
    looked_up = inputs.weight if outputs is None or outputs.weight is not inputs.weight else None
    weights = [weight for weight in model.parameters() if weight is not looked_up]
    used = sum(_numbers(weight) for weight in weights)
    trained = sum(_numbers(weight) for weight in weights if weight.requires_grad)
    config = model.config.get_text_config()
    layers = range(config.num_hidden_layers)
    widths = sum(_attention_width(config.per_layer_config[i] if config.is_heterogeneous else config) for i in layers)
    seen = sum(length * length for length in lengths) / sum(lengths)
    attention = 12 * widths * seen
    return float(4 * used + 2 * trained + attention)


def _attention_width(layer: Any) -> int:
    """Of all heads of a layer together; they differ from layer to layer in some, such as Gemma 4."""
    heads = getattr(layer, "num_attention_heads", 0)  # none in a recurrent architecture such as Mamba's
    return int(heads * (getattr(layer, "head_dim", None) or (layer.hidden_size // heads if heads else 0)))


def _numbers(weight: Any) -> int:
    """How many a tensor holds; bitsandbytes keeps two of 4 bits in a byte."""
    return int(weight.quant_state.shape.numel() if type(weight).__name__ == "Params4bit" else weight.numel())


def flops_utilisation(
    tokens_per_second: float, flops_of_token: float, device_names: Sequence[str], sixteen_bit: bool
) -> float | None:
    """MFU in [0, 1]; None without devices, for a device that is not in the table, or in 32-bit.

    Args:
        tokens_per_second: Of all devices together, padding not counted.
        flops_of_token: From `flops_per_token`.
        device_names: One for each device.
        sixteen_bit: Whether it computes in bfloat16 or float16, for which the table holds.
    """
    peaks = [peak_flops(name) for name in device_names]
    if not peaks or None in peaks or not sixteen_bit:
        return None
    return tokens_per_second * flops_of_token / sum(peak for peak in peaks if peak)


LOGGERS = {"tensorboard": "tensorboard", "mlflow": "mlflow", "wandb": "wandb"}
"""The package that each value of `train.report_to` needs."""


def check_loggers(settings: FineTuneSettings) -> None:
    """Refuses a logger that could not log.

    Raises:
        UserError: Its package is not installed, or nothing says where TensorBoard's files go.
    """
    for name in settings.report_to:
        if importlib.util.find_spec(LOGGERS[name]) is None:
            raise UserError(
                f"train.report_to: {name!r} needs the package {LOGGERS[name]}, which is not installed here: install it "
                "(in the cluster: in the image of `train`), or remove it from the list"
            )
        if name == "tensorboard" and "TENSORBOARD_LOGGING_DIR" not in os.environ:
            raise UserError(
                "train.report_to: 'tensorboard' writes files, and nothing says where: set the environment variable "
                "TENSORBOARD_LOGGING_DIR, or remove it from the list"
            )


def loss_curve(state: Any) -> list[tuple[int, float]]:
    """(step, mean loss since the point before), about a hundred points, from the Trainer's state."""
    every = max(1, state.max_steps // CURVE_POINTS)
    curve, since = [], []
    for entry in state.log_history:
        if "loss" not in entry:
            continue
        since.append(entry["loss"])
        if entry["step"] % every == 0 or entry["step"] == state.max_steps:
            curve.append((entry["step"], round(sum(since) / len(since), 6)))
            since = []
    return curve


def device_names() -> list[str]:
    """The names of all devices that train together, which are taken to be alike; none without GPUs."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name()] * this_process().num_processes


def reset_peak_memory() -> None:
    """Starts `peak_memory` anew."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_memory() -> int:
    """The most bytes that this process has held: on its GPU since `reset_peak_memory`, else in main memory since it
    began."""
    import resource
    import sys

    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024
