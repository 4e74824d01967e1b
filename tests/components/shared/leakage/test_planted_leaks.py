"""Test questions in disguise among real training rows: which share is caught, and how many rows wrongly."""

from pathlib import Path

import pytest

from tests.bench.leaks import DISGUISES, measure

pytestmark = pytest.mark.data

AT_LEAST = {
    "gsm8k": dict.fromkeys(DISGUISES, 0.99) | {
        "other names": 0.97, "other names and numbers, one word in ten replaced": 0.95,
    },
    # Of a voice command of nine words, the names and numbers are what makes it another example of its intent.
    "snips": {
        "verbatim": 1.0, "re-spaced": 1.0, "one word in ten swapped with the next": 0.95,
        "inside a text twice as long": 0.6,
    },
}  # fmt: skip


# Of all 13,764 clean rows of SNIPS 0.37% are caught, of the 5,000 that are drawn here a few more or less.
@pytest.mark.parametrize(("name", "wrongly"), [("gsm8k", 0.002), ("snips", 0.005)])
def test_planted_leaks_are_caught(real_data: Path, name: str, wrongly: float) -> None:
    shares, caught, clean = measure(real_data, name)
    for kind, least in AT_LEAST[name].items():
        planted, share = shares[kind]
        assert planted >= 250
        assert share >= least, kind
    assert caught <= wrongly * clean
