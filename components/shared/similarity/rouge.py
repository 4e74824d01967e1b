"""ROUGE-L between many texts at once.

The values are those of the `rouge_score` package (rougeL, unstemmed; Lin 2004): F1 over the longest common subsequence
of words. They come from rapidfuzz, which counts the subsequence with bit operations (Hyyrö 2004), once every distinct
word has been mapped to one number. What the words are, says `words`.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from llm2llm.components.shared.similarity.words import words


def rouge_l(queries: Sequence[str], texts: Sequence[str]) -> NDArray[np.float64]:
    """The ROUGE-L F1 of every query with every text: an array of shape (queries, texts), values in [0, 1]."""
    return rouge_l_of_words([words(text) for text in queries], [words(text) for text in texts])


def rouge_l_of_words(queries: Sequence[Sequence[str]], texts: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """`rouge_l` of texts that are taken apart already."""
    left, right = _numbered(queries, texts)
    common = process.cdist(left, right, scorer=LCSseq.similarity, dtype=np.uint32, workers=-1)
    return _f1(common, np.add.outer([len(some) for some in queries], [len(some) for some in texts]))


def rouge_l_of_pairs(queries: Sequence[Sequence[str]], texts: Sequence[Sequence[str]]) -> NDArray[np.float64]:
    """The ROUGE-L F1 of the first query with the first text, the second with the second, and so on; of words."""
    left, right = _numbered(queries, texts)
    common = process.cpdist(left, right, scorer=LCSseq.similarity, dtype=np.uint32, workers=-1)
    return _f1(common, np.add([len(some) for some in queries], [len(some) for some in texts]))


def _numbered(queries: Sequence[Sequence[str]], texts: Sequence[Sequence[str]]) -> tuple[list[list[int]], ...]:
    number: dict[str, int] = {}
    return tuple(
        [[number.setdefault(word, len(number)) for word in some] for some in side] for side in (queries, texts)
    )


def _f1(common: NDArray[np.uint32], lengths: NDArray[np.int64]) -> NDArray[np.float64]:
    # With P = common / len(query) and R = common / len(text), 2PR / (P + R) is 2 * common / (sum of the lengths).
    scores = 2.0 * common.astype(np.float64)
    return np.divide(scores, lengths, out=scores, where=lengths > 0)
