"""Samples whose value depends on their own seed alone, whatever else is in the batch.

The argmax of logits / temperature + Gumbel noise is a draw from softmax(logits / temperature) (Gumbel 1954; Maddison,
Tarlow and Minka, "A* sampling", 2014). So a greedy decoder samples, and each row draws from a generator of its own,
where transformers' own sampling draws for the whole batch. Two limits: padding changes the last bits of the logits, and
a draw on the edge between two tokens may then fall the other way; and the noise is drawn where the logits are, so that
a GPU draws other samples than a CPU.
"""

from collections.abc import Sequence

import torch
from transformers import LogitsProcessor, TopPLogitsWarper


class GumbelSampling(LogitsProcessor):
    """Adds each row's noise to its logits.

    Args:
        seeds: One for each row; None: the row stays greedy.
        temperatures: One for each row, above 0 where there is a seed.
        top_ps: One for each row: the share of the probability that the likeliest tokens which may be drawn have
            together, after the temperature; default: 1, all tokens.
    """

    def __init__(
        self, seeds: Sequence[int | None], temperatures: Sequence[float], top_ps: Sequence[float] | None = None
    ) -> None:
        self._seeds = list(seeds)
        self._generators: list[torch.Generator | None] = []
        self._temperatures = list(temperatures)
        self._top_ps = list(top_ps) if top_ps is not None else [1.0] * len(self._temperatures)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        sampled = scores.float()
        if not self._generators:
            # Where the logits are: of a large vocabulary, noise from the CPU takes longer than the step itself.
            self._generators = [
                None if seed is None else torch.Generator(scores.device).manual_seed(seed) for seed in self._seeds
            ]
        rows = zip(self._generators, self._temperatures, self._top_ps, strict=True)
        for row, (generator, temperature, top_p) in enumerate(rows):
            if generator is not None:
                waits = torch.empty_like(sampled[row]).exponential_(generator=generator).clamp_min_(1e-30)
                logits = sampled[row] / temperature
                if top_p < 1:
                    logits = TopPLogitsWarper(top_p)(input_ids[row : row + 1], logits[None])[0]
                sampled[row] = logits - waits.log()
        return sampled

    def keep(self, rows: Sequence[int]) -> None:
        """Goes on with these rows of the batch only."""
        self._seeds = [self._seeds[row] for row in rows]
        self._generators = [self._generators[row] for row in rows] if self._generators else []
        self._temperatures = [self._temperatures[row] for row in rows]
        self._top_ps = [self._top_ps[row] for row in rows]
