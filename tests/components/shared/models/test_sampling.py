"""Draws of a row's own, and what nucleus sampling leaves to draw from."""

import pytest
import torch

from llm2llm.components.shared.models.sampling import GumbelSampling

SHARES = [0.5, 0.3, 0.15, 0.05]


def drawn(top_p: float, temperature: float = 1.0, beside: int = 0) -> set[int]:
    """What 300 seeds draw of four tokens, in a batch with other rows."""
    logits = torch.tensor([SHARES] * (beside + 1)).log()
    tokens = set()
    for seed in range(300):
        sampling = GumbelSampling(
            [*range(1000, 1000 + beside), seed], [temperature] * (beside + 1), [1.0] * beside + [top_p]
        )
        ids = torch.zeros((beside + 1, 1), dtype=torch.long)
        tokens.add(int(sampling(ids, logits.clone())[-1].argmax()))
    return tokens


@pytest.mark.parametrize(("top_p", "left"), [(1.0, {0, 1, 2, 3}), (0.9, {0, 1, 2}), (0.7, {0, 1}), (0.4, {0})])
def test_tokens_beyond_the_nucleus_are_never_drawn(top_p: float, left: set[int]) -> None:
    assert drawn(top_p) == left
    assert drawn(top_p, beside=2) == left, "another row's nucleus is its own"


def test_the_nucleus_is_that_after_the_temperature() -> None:
    assert drawn(0.7, temperature=2.0) == {0, 1, 2}  # flatter: 0.38, 0.30, 0.21, 0.12


def test_without_one_the_draws_are_as_before_and_a_row_that_leaves_takes_its_own_along() -> None:
    logits = torch.randn((2, 50), generator=torch.Generator().manual_seed(0))
    ids = torch.zeros((2, 1), dtype=torch.long)
    plain, with_one = GumbelSampling([1, 2], [0.7, 0.7]), GumbelSampling([1, 2], [0.7, 0.7], [1.0, 1.0])
    assert torch.equal(plain(ids, logits.clone()), with_one(ids, logits.clone()))
    left = GumbelSampling([1, 2], [1.0, 1.0], [1.0, 0.01])
    left.keep([1])
    assert int(left(ids[:1], logits[1:])[0].argmax()) == int(logits[1].argmax())
