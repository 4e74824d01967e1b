"""Steps that bfloat16 does not resolve are not lost."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.training.stochastic_adamw import StochasticAdamW, rounded_at_random


def descend(optimiser: torch.optim.Optimizer, weight: torch.nn.Parameter, steps: int) -> None:
    for _ in range(steps):
        weight.grad = torch.ones_like(weight)
        optimiser.step()


def test_small_steps_add_up() -> None:
    """100 steps of 2e-5 from 0.02 end at 0.018; rounded to the nearest number, weights stay where they are."""
    plain, careful = (torch.nn.Parameter(torch.full((4096,), 0.02, dtype=torch.bfloat16)) for _ in range(2))
    start = float(plain[0].detach())
    descend(torch.optim.AdamW([plain], lr=2e-5, weight_decay=0.0), plain, 100)
    descend(StochasticAdamW([careful], lr=2e-5), careful, 100)
    assert float(plain[0].detach()) == start
    assert float(careful.detach().float().mean()) == pytest.approx(start - 100 * 2e-5, rel=0.02)


def test_in_float32_it_is_adamw() -> None:
    torch.manual_seed(0)
    one, two = (torch.nn.Parameter(torch.linspace(-1, 1, 64)) for _ in range(2))
    pair = (
        (torch.optim.AdamW([one], lr=1e-2, weight_decay=0.1), one),
        (StochasticAdamW([two], lr=1e-2, weight_decay=0.1), two),
    )
    for _ in range(20):
        gradient = torch.randn(64)
        for optimiser, weight in pair:
            weight.grad = gradient.clone()
            optimiser.step()
    torch.testing.assert_close(one, two)


def test_a_resumed_training_ends_with_the_same_weights() -> None:
    whole = torch.nn.Parameter(torch.linspace(0.01, 1, 512).bfloat16())
    optimiser = StochasticAdamW([whole], lr=1e-4, seed=3)
    descend(optimiser, whole, 5)
    half = torch.nn.Parameter(whole.detach().clone())
    resumed = StochasticAdamW([half], lr=1e-4, seed=3)
    resumed.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    descend(optimiser, whole, 5)
    descend(resumed, half, 5)
    assert torch.equal(whole, half)


@given(st.floats(-(2.0**90), 2.0**90, width=32).filter(lambda value: abs(value) > 1e-30))
def test_a_value_becomes_one_of_its_neighbours_and_itself_on_average(value: float) -> None:
    values = torch.full((4096,), value)
    found = rounded_at_random(values, torch.Generator().manual_seed(1)).float()
    assert ((found - values).abs() <= values.abs() / 128).all()
    assert float(found.double().mean()) == pytest.approx(value, rel=1e-3)
    assert torch.equal(found, rounded_at_random(values, torch.Generator().manual_seed(1)).float())
