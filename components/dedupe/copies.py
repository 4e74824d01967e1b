"""Which candidates copy a training row or another candidate: nearly, by ROUGE-L, or by meaning; and, in a numeric task,
which are too many of one template."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.leakage.firewall import compared_words, same_meaning
from llm2llm.components.shared.similarity import numbers_of, text_of, words
from llm2llm.components.shared.similarity.near import Words, near_pairs
from llm2llm.components.shared.similarity.sketches import Sketches

FIRST_CHUNK = 250  # candidates compared with one another at once; each chunk is twice the one before
SAMPLE = 300  # candidates on which recall is measured

Kind = Literal["near_copy", "template", "semantic_copy"]


@dataclass(frozen=True)
class Neighbour:
    """A row that a candidate is like; of kind `template` if only their numbers differ."""

    row: Example
    kind: Kind
    score: float
    """ROUGE-L F1, with the numbers masked if `masked`; for `semantic_copy` the cosine."""
    masked: bool

    @property
    def detail(self) -> str:
        """The score, for a person."""
        measure = "cosine" if self.kind == "semantic_copy" else "ROUGE-L"
        return f"{measure} {self.score:.3f}" + (", numbers masked" if self.masked and measure == "ROUGE-L" else "")


def find_copies(
    rows: Sequence[Example],
    sketches: Sketches,
    training: Sequence[Example],
    known: Sketches,
    masked: bool,
    settings: DedupeSettings,
) -> dict[int, Neighbour]:
    """The places of the candidates that go, each with the nearest of the rows that it copies.

    Candidates are taken in order, and only those that were kept count against later ones. They are compared in chunks
    that grow: a teacher that repeats itself is caught in the first, and later ones meet the few rows that were kept.

    Args:
        rows: The candidates, those that win first.
        sketches: Of the candidates.
        training: Rows that stay, whatever they are like.
        known: Sketches of these.
        masked: Whether rows are compared without their numbers; copies must then have the same numbers.
        settings: See `DedupeSettings`.
    """
    neighbours: dict[int, list[Neighbour]] = defaultdict(list)
    fallen: dict[int, Neighbour] = {}

    def compare(places: Sequence[int], with_rows: Sequence[Example], their_sketches: Sketches) -> None:
        """Adds to the neighbours of the candidates at `places`, and to the fallen."""
        some = [rows[place] for place in places]
        for i, j, kind, score in _pairs(some, sketches.take(places), with_rows, their_sketches, masked, settings):
            neighbours[places[i]].append(Neighbour(with_rows[j], kind, score, masked))
        fallen.update(_judged(places, neighbours, settings))

    compare(range(len(rows)), training, known)
    kept: list[int] = []
    start, size = 0, FIRST_CHUNK
    while start < len(rows):
        chunk = [place for place in range(start, min(len(rows), start + size)) if place not in fallen]
        start, size = start + size, 2 * size
        compare(chunk, [rows[place] for place in kept], sketches.take(kept))
        chunk = [place for place in chunk if place not in fallen]
        some, theirs = [rows[place] for place in chunk], sketches.take(chunk)
        earlier: dict[int, list[tuple[int, Kind, float]]] = defaultdict(list)
        for i, j, kind, score in _pairs(some, theirs, some, theirs, masked, settings):
            if j < i:
                earlier[chunk[i]].append((chunk[j], kind, score))
        for place in chunk:
            before = [one for one in earlier[place] if one[0] not in fallen]
            neighbours[place] += [Neighbour(rows[other], kind, score, masked) for other, kind, score in before]
            fallen.update(_judged([place], neighbours, settings))
            if place not in fallen:
                kept.append(place)
    return fallen


def _judged(
    places: Iterable[int], neighbours: Mapping[int, Sequence[Neighbour]], settings: DedupeSettings
) -> dict[int, Neighbour]:
    """Those of the places that copy one of their neighbours, or are one too many of a template, with the nearest."""
    fallen = {}
    for place in places:
        copied = [one for one in neighbours.get(place, ()) if one.kind != "template"]
        same_template = [one for one in neighbours.get(place, ()) if one.kind == "template"]
        against = copied or (same_template if len(same_template) >= settings.max_per_template else [])
        if against:
            fallen[place] = min(against, key=lambda one: (one.kind == "semantic_copy", -one.score, one.row.id))
    return fallen


def _pairs(
    rows: Sequence[Example],
    sketches: Sketches,
    others: Sequence[Example],
    known: Sketches,
    masked: bool,
    settings: DedupeSettings,
) -> list[tuple[int, int, Kind, float]]:
    """(row, other, kind, score) of the pairs that are alike."""
    found: list[tuple[int, int, Kind, float]] = []
    if settings.near_copy is not None:
        pairs = near_pairs(sketches, known, words_of(rows, masked), words_of(others, masked), settings.near_copy)
        for i, j, score in zip(pairs.queries.tolist(), pairs.texts.tolist(), pairs.scores.tolist(), strict=True):
            same = not masked or _numbers(rows[i]) == _numbers(others[j])
            found.append((i, j, "near_copy" if same else "template", score))
    if settings.semantic is not None:
        for i, j, cosine in same_meaning(rows, others, masked, settings.semantic):
            if not masked or _numbers(rows[i]) == _numbers(others[j]):
                found.append((i, j, "semantic_copy", cosine))
    return found


def words_of(rows: Sequence[Example], masked: bool) -> Words:
    """Gives the compared words of the row at a place."""
    return lambda place: compared_words(rows[place], masked)


def _numbers(row: Example) -> list[str]:
    return numbers_of(words(text_of(row)))


def measured_recall(
    rows: Sequence[Example],
    sketches: Sketches,
    training: Sequence[Example],
    known: Sketches,
    masked: bool,
    threshold: float,
) -> float | None:
    """Which share of the near copies of some candidates MinHash proposes; None when they have none.

    The candidates are evenly spaced in the order of their ids, which are hashes, so they are a random sample.
    """
    chosen = np.unique(np.linspace(0, len(rows) - 1, min(SAMPLE, len(rows)), dtype=np.int64))
    sample = words_of([rows[place] for place in chosen], masked)
    proposed = everything = 0
    for others, theirs in ((training, known), (rows, sketches)):
        other_words = words_of(others, masked)
        proposed += len(near_pairs(sketches.take(chosen), theirs, sample, other_words, threshold))
        without_bands = sketches.take(chosen).without_bands(), theirs.without_bands()
        everything += len(near_pairs(*without_bands, sample, other_words, threshold))
    # Each row of the sample is found near itself, by itself.
    with_words = int(np.count_nonzero(sketches.lengths[chosen]))
    return (proposed - with_words) / (everything - with_words) if everything > with_words else None
