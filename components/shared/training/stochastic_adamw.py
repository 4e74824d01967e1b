"""AdamW for bfloat16 weights with stochastic rounding, so that small updates are not lost.

A step of 2e-5 on a weight of 0.02 is below what bfloat16 resolves: rounded to the nearest number, three of four such
steps change nothing. Rounded up or down at random, in proportion to the distance, a weight moves by the step on average
(Zamirai et al. 2021, "Revisiting BFloat16 training"). The moments are kept in the type of the weights, and rounded in
the same way.
"""

from collections.abc import Callable, Iterable
from typing import Any

import torch

MOMENTS = ("exp_avg", "exp_avg_sq")


class StochasticAdamW(torch.optim.Optimizer):
    """See the module; AdamW as in Loshchilov and Hutter 2019.

    Args:
        params: Weights, or groups of them, of any floating type.
        lr, betas, eps, weight_decay: As in `torch.optim.AdamW`.
        seed: Of the rounding.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        seed: int = 0,
    ) -> None:
        self._seed = seed
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Takes a step."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        number = 0
        for group in self.param_groups:
            first, second = group["betas"]
            for weight in group["params"]:
                number += 1
                if weight.grad is None:
                    continue
                state = self.state[weight]
                if not state:
                    state["step"] = 0
                    for name in MOMENTS:
                        state[name] = torch.zeros_like(weight)
                state["step"] += 1
                # From the seed, the step and the place alone: devices that hold the same weights keep them so.
                generator = torch.Generator(weight.device)
                generator.manual_seed((self._seed * 1_000_003 + state["step"]) * 1_000_003 + number)
                gradient = weight.grad.float()
                mean = state["exp_avg"].float().lerp_(gradient, 1 - first)
                square = state["exp_avg_sq"].float().mul_(second).addcmul_(gradient, gradient, value=1 - second)
                spread = (square / (1 - second ** state["step"])).sqrt_().add_(group["eps"])
                moved = weight.float().mul_(1 - group["lr"] * group["weight_decay"])
                moved.addcdiv_(mean, spread, value=-group["lr"] / (1 - first ** state["step"]))
                for kept, exact in ((state["exp_avg"], mean), (state["exp_avg_sq"], square), (weight, moved)):
                    kept.copy_(rounded_at_random(exact, generator) if kept.dtype == torch.bfloat16 else exact)
        return loss


def rounded_at_random(values: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """float32 values as bfloat16, up or down at random: on average the values themselves.

    bfloat16 is the upper half of float32's bits; what is added to the lower half carries over as often as it is large.
    """
    bits = values.contiguous().view(torch.int32)
    noise = torch.randint(0, 1 << 16, bits.shape, generator=generator, device=values.device, dtype=torch.int32)
    return ((bits + noise) & -65536).view(torch.float32).to(torch.bfloat16)
