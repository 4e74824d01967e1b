"""Near copies by ROUGE-L among very many texts: bounds first, the subsequence last.

Two texts of m and n words whose ROUGE-L F1 is at least t share t(m + n)/2 words or more, so at most d = (1 - t)(m + n)
words are in one text and not in the other. Two bounds follow, and a pair that fails one is never compared:

    length   |m - n| <= d
    words    the 256 bits of the two sketches differ in at most d places
             (a bitmap filter for set similarity joins: Sandes, Teodoro and Melo 2020)

Of 10,000 GSM8K questions, 50 million pairs, hardly more are left for rapidfuzz than are near. Nothing is lost: both are
bounds, not estimates. Beyond some 50,000 texts `minhash` proposes the pairs, which have to pass the same bounds.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from llm2llm.components.shared.similarity import minhash
from llm2llm.components.shared.similarity.rouge import rouge_l_of_pairs
from llm2llm.components.shared.similarity.sketches import Places, Sketches

BLOCK = 1 << 22  # pairs looked at at once: bounds the memory to some dozens of megabytes
COMPARED = 1 << 14  # pairs whose words are in memory at once

Words = Callable[[int], list[str]]
"""Gives the words of the text at a place; asked for the few texts that the bounds leave."""


@dataclass(frozen=True)
class Pairs:
    """Pairs of a query and a text that are near, as three arrays of equal length, in the order of their places."""

    queries: Places
    texts: Places
    scores: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.queries)


def near_pairs(queries: Sketches, texts: Sketches, query_words: Words, text_words: Words, threshold: float) -> Pairs:
    """The pairs of a query and a text with a ROUGE-L F1 of at least `threshold`, in (0, 1].

    All of them, unless the sketches have bands: then those that agree in a band, each of them compared exactly. If
    `queries` is `texts`, each pair comes once, the text before the query.
    """
    by_bands = queries.bands.shape[1] > 0
    possible = minhash.pairs_in_a_band(queries, texts) if by_bands else _pairs_by_length(queries, texts, threshold)
    bounded = ((i[near], j[near]) for i, j in possible if (near := _may_be_near(queries, texts, i, j, threshold)).any())
    return _compared(bounded, query_words, text_words, threshold)


def _pairs_by_length(queries: Sketches, texts: Sketches, threshold: float) -> Iterator[tuple[Places, Places]]:
    """The pairs that pass the bound of the length and of the first bits, as arrays of places, block by block."""
    used = 1 if threshold >= 0.9 else 3  # of the four numbers that the bits are in; the counts must fit 8 bits
    query_order = np.argsort(queries.lengths, kind="stable")
    text_order = np.argsort(texts.lengths, kind="stable")
    lengths = texts.lengths[text_order].astype(np.int64)
    bits = np.ascontiguousarray(texts.bits[text_order, :used].T)
    start = int(np.searchsorted(queries.lengths[query_order], 1))  # texts without words are like nothing
    while start < len(query_order):
        # Queries of about one length, and the texts that are neither too short nor too long for any of them.
        shortest = int(queries.lengths[query_order[start]])
        low, high = np.searchsorted(lengths, _partners(shortest, threshold))
        stop = min(len(query_order), start + max(1, min(256, BLOCK // max(1, int(high - low)))))
        longest = int(queries.lengths[query_order[stop - 1]])
        high = np.searchsorted(lengths, _partners(longest, threshold)[1])
        some = query_order[start:stop]
        start = stop
        step = max(1, BLOCK // len(some))
        for left in range(int(low), int(high), step):
            window = slice(left, min(int(high), left + step))
            allowed = np.minimum(_allowed(lengths[window] + longest, threshold), 255).astype(np.uint8)
            differ = np.bitwise_count(queries.bits[some, 0][:, None] ^ bits[0, window])
            for word in range(1, used):
                differ += np.bitwise_count(queries.bits[some, word][:, None] ^ bits[word, window])
            i, j = np.nonzero(differ <= allowed)
            i, j = some[i], text_order[window][j]
            yield (i[j < i], j[j < i]) if queries is texts else (i, j)


def _may_be_near(queries: Sketches, texts: Sketches, i: Places, j: Places, threshold: float) -> NDArray[np.bool_]:
    """Which of the pairs `i[k]`, `j[k]` pass both bounds."""
    m, n = queries.lengths[i].astype(np.int64), texts.lengths[j].astype(np.int64)
    differ = np.bitwise_count(queries.bits[i] ^ texts.bits[j]).sum(axis=1, dtype=np.int64)
    return np.asarray((np.maximum(differ, np.abs(m - n)) <= _allowed(m + n, threshold)) & (m > 0) & (n > 0))


def _allowed(lengths: Places, threshold: float) -> Places:
    """How many words may be in one text only, for texts that are so long together."""
    return np.asarray(np.floor((1 - threshold) * lengths + 1e-6), dtype=np.int64)


def _partners(length: int, threshold: float) -> tuple[float, float]:
    """From which length to below which a text can be near one of `length` words."""
    return max(1.0, length * threshold / (2 - threshold) - 1e-6), length * (2 - threshold) / threshold + 1e-6


def _compared(
    possible: Iterable[tuple[Places, Places]], query_words: Words, text_words: Words, threshold: float
) -> Pairs:
    """Those of the possible pairs whose ROUGE-L F1 is at least `threshold`."""
    empty = np.empty(0, dtype=np.int64)
    found = [(empty, empty, np.empty(0))]
    for all_i, all_j in possible:
        for start in range(0, len(all_i), COMPARED):
            i, j = all_i[start : start + COMPARED], all_j[start : start + COMPARED]
            left = {place: query_words(place) for place in np.unique(i).tolist()}
            right = {place: text_words(place) for place in np.unique(j).tolist()}
            scores = rouge_l_of_pairs([left[place] for place in i.tolist()], [right[place] for place in j.tolist()])
            near = scores >= threshold
            found.append((i[near], j[near], scores[near]))
    queries, texts, scores = (np.concatenate(parts) for parts in zip(*found, strict=True))
    order = np.lexsort((texts, queries))
    return Pairs(queries[order], texts[order], scores[order])
