"""The rows least like one another: greedy k-center over TF-IDF.

Every next row is the one farthest from those that are chosen (Gonzalez, "Clustering to minimize the maximum
intercluster distance", 1985: at most twice the best radius; for choosing training rows Sener and Savarese, "Active
learning for convolutional neural networks: a core-set approach", ICLR 2018).
"""

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
    vectors = tf_idf(texts)
    nearest = np.full(len(texts), np.inf)
    places = list(range(centres)) or [0]
    chosen: list[int] = [] if centres else [0]
    while True:
        for place in places:
            np.minimum(nearest, 1 - vectors @ vectors[[place]].toarray()[0], out=nearest)
            nearest[place] = -np.inf
        if len(chosen) == count:
            return chosen
        places = [int(np.argmax(nearest))]
        chosen += places


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
