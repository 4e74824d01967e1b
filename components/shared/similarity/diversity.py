"""The rows that say most of all rows, chosen greedily by cosine similarity of TF-IDF or other vectors.

`k_center`          Every next row is the one farthest from those that are chosen (Gonzalez, "Clustering to minimize the
                    maximum intercluster distance", 1985: at most twice the best radius; for choosing training rows
                    Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach", ICLR
                    2018).
`facility_location` Every next row is the one by which the similarity of each row to the nearest chosen one grows most,
                    summed over all rows (Nemhauser, Wolsey and Fisher, "An analysis of approximations for maximizing
                    submodular set functions", 1978: at least 1 - 1/e of the best sum; for choosing training rows Wei,
                    Iyer and Bilmes, "Submodularity in data subset selection and active learning", ICML 2015).

k-center takes outliers first; facility location takes what stands for many.
"""

import heapq
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from llm2llm.components.shared.base.text import folded

_WORD = re.compile(r"\w+")


def k_center(texts: Sequence[str], count: int, centres: int = 0) -> list[int]:
    """The places of `count` more texts, in the order in which they are chosen.

    Distance is 1 - cosine similarity. Of equally far texts the first is chosen, and the very first when there are no
    centres yet; so `texts` should come in order of preference.

    Args:
        texts: The centres, then the candidates.
        count: How many to choose; all candidates when there are fewer.
        centres: How many texts at the beginning are chosen already.
    """
    count = min(count, len(texts) - centres)
    if count <= 0:
        return []
    return k_center_of(tf_idf(texts), count, centres)


def k_center_of(vectors: Any, count: int, centres: int = 0, weights: Sequence[float] | None = None) -> list[int]:
    """`k_center` of vectors of length 1: an array or a sparse matrix of shape (texts, dimensions).

    Args:
        vectors: Of the centres, then of the candidates.
        count: How many to choose.
        centres: How many are chosen already.
        weights: One for each vector, above 0: a distance counts so many times. None: all alike.
    """
    total = vectors.shape[0]
    count = min(count, total - centres)
    if count <= 0:
        return []
    weigh = np.ones(total) if weights is None else np.asarray(weights, dtype=np.float64)
    nearest = np.full(total, np.inf)
    first = [int(np.argmax(weigh))]  # the first of equals
    places = list(range(centres)) or first
    chosen: list[int] = [] if centres else list(first)
    while True:
        for place in places:
            np.minimum(nearest, 1 - _cosines(vectors, slice(place, place + 1))[:, 0], out=nearest)
            nearest[place] = -np.inf
        if len(chosen) == count:
            return chosen
        places = [int(np.argmax(np.where(np.isinf(nearest), nearest, weigh * np.maximum(nearest, 0))))]
        chosen += places


def facility_location(vectors: Any, count: int, centres: int = 0, weights: Sequence[float] | None = None) -> list[int]:
    """The places of `count` more vectors of length 1, in the order in which they are chosen.

    What is to be covered are the candidates; centres cover, and need no cover. Of equals the first is chosen. A gain is
    counted anew only while it may be the largest (Minoux, "Accelerated greedy algorithms", 1978).

    Args:
        vectors: An array or a sparse matrix of shape (texts, dimensions): the centres, then the candidates.
        count: How many to choose; all candidates when there are fewer.
        centres: How many at the beginning are chosen already.
        weights: One for each vector, above 0: how much it matters that it is covered. None: all alike.
    """
    total = vectors.shape[0]
    count = min(count, total - centres)
    if count <= 0:
        return []
    weigh = np.ones(total - centres) if weights is None else np.asarray(weights, dtype=np.float64)[centres:]
    candidates = vectors[centres:]
    covered = np.zeros(total - centres)
    for start in range(0, centres, BLOCK):
        known = _cosines_between(candidates, vectors[start : min(start + BLOCK, centres)])
        np.maximum(covered, known.max(axis=1), out=covered)

    def gain(start: int, end: int) -> Any:
        cosines = _cosines(candidates, slice(start, end))
        return weigh @ np.maximum(cosines - covered[:, None], 0)

    heap: list[tuple[float, int, int]] = []
    """(gain less than 0, place, number of chosen ones when it was counted)"""
    for start in range(0, total - centres, BLOCK):
        heap += [(-float(one), start + n, 0) for n, one in enumerate(gain(start, start + BLOCK))]
    heapq.heapify(heap)
    chosen: list[int] = []
    while len(chosen) < count:
        _, place, counted = heapq.heappop(heap)
        if counted < len(chosen):
            heapq.heappush(heap, (-float(gain(place, place + 1)[0]), place, len(chosen)))
            continue
        np.maximum(covered, _cosines(candidates, slice(place, place + 1))[:, 0], out=covered)
        chosen.append(centres + place)
    return chosen


def most_alike(vectors: Any, place: int, others: Sequence[int]) -> tuple[float, int]:
    """(cosine, place) of the one of the others that a vector is most like, the first of equals."""
    cosines = _cosines(vectors, slice(place, place + 1))[others, 0]
    best = int(np.argmax(cosines))
    return min(1.0, float(cosines[best])), others[best]


BLOCK = 500
"""Vectors that all others are compared with at once."""


def _cosines(vectors: Any, some: slice) -> Any:
    return _cosines_between(vectors, vectors[some])


def _cosines_between(vectors: Any, others: Any) -> Any:
    """An array of shape (vectors, others)."""
    product = vectors @ others.T
    return product.toarray() if hasattr(product, "toarray") else np.asarray(product)


def tf_idf(texts: Sequence[str]) -> Any:
    """A sparse matrix (texts, words) of unit rows: counts times log((1 + n) / (1 + rows with the word)) + 1."""
    from scipy.sparse import csr_matrix

    code: dict[str, int] = {}
    ends, columns, counts = [0], [], []
    for text in texts:
        for word, times in Counter(_WORD.findall(folded(text))).items():
            columns.append(code.setdefault(word, len(code)))
            counts.append(float(times))
        ends.append(len(columns))
    rows = np.repeat(np.arange(len(texts)), np.diff(ends))
    with_word = np.bincount(columns, minlength=len(code)) if columns else np.zeros(0)
    weights = np.asarray(counts) * (np.log((1 + len(texts)) / (1 + with_word)) + 1)[columns] if columns else []
    lengths = np.sqrt(np.bincount(rows, weights=np.square(weights), minlength=len(texts)))
    return csr_matrix((weights / lengths[rows], columns, ends), shape=(len(texts), len(code)))
