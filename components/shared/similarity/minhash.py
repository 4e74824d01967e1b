"""Candidates for near copies among more texts than can be looked at pair by pair: MinHash-LSH.

Texts with a ROUGE-L F1 of t or more share t(m + n)/2 of their words, so the Jaccard similarity of their words, as
multisets, is at least t / (2 - t). That is what MinHash estimates (Broder 1997), and it sets the bands: with b bands of
r hashes a pair of Jaccard similarity s agrees in a band with probability 1 - (1 - s^r)^b.
"""

from collections.abc import Iterator

import numpy as np

from llm2llm.components.shared.similarity.sketches import Places, Sketches

HASHES = 256  # of each text, at most
LONGEST_BAND = 8  # hashes: of texts with a fifth of their words in common one pair in 400,000 agrees by chance
RECALL = 0.995  # wanted of the pairs that are just at the threshold; of all others it is higher
BLOCK = 1 << 21  # pairs looked at at once: bounds the memory


def bands_for(threshold: float) -> tuple[int, int]:
    """(bands, hashes in each): the longest bands that find a pair at the threshold with probability `RECALL`, out of
    `HASHES` hashes at most. Longer bands agree more rarely by chance."""
    jaccard = threshold / (2 - threshold)
    for rows in range(LONGEST_BAND, 1, -1):
        for bands in range(1, HASHES // rows + 1):
            if 1 - (1 - jaccard**rows) ** bands >= RECALL:
                return bands, rows
    return HASHES, 1


def pairs_in_a_band(queries: Sketches, texts: Sketches) -> Iterator[tuple[Places, Places]]:
    """The pairs that agree in a band, each once, as arrays of places, block by block; as `near_pairs` if `queries` is
    `texts`."""
    for band in range(queries.bands.shape[1]):
        order = np.argsort(texts.bands[:, band])
        query_order = order if queries is texts else np.argsort(queries.bands[:, band])
        keys, query_keys = texts.bands[order, band], queries.bands[query_order, band]
        low = np.searchsorted(keys, query_keys, "left")
        counts = np.searchsorted(keys, query_keys, "right") - low
        counts[queries.lengths[query_order] == 0] = 0  # texts without words agree in every band
        if queries is texts:
            counts[counts == 1] = 0  # each agrees with itself
        ends = np.cumsum(counts)
        start = 0
        while start < len(counts):
            stop = max(start + 1, int(np.searchsorted(ends, ends[start] - counts[start] + BLOCK, "right")))
            some = counts[start:stop]
            i = np.repeat(query_order[start:stop], some)
            nth = np.arange(len(i)) - np.repeat(np.cumsum(some) - some, some)
            j = order[np.repeat(low[start:stop], some) + nth]
            start = stop
            if queries is texts:
                i, j = i[j < i], j[j < i]
            for earlier in range(band):
                new = queries.bands[i, earlier] != texts.bands[j, earlier]
                i, j = i[new], j[new]
            if len(i):
                yield i, j
