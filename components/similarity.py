"""What makes two rows the same question, and ROUGE-L between many texts at once.

The values are those of the `rouge_score` package (rougeL, unstemmed; Lin 2004): F1 over the longest common subsequence
of lower-case ASCII words. They come from rapidfuzz, which counts the subsequence with bit operations, after every
distinct word has been mapped to one character.
"""

import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from rapidfuzz import process
from rapidfuzz.distance import LCSseq

from llm2llm.components.rows.kinds import Example
from llm2llm.components.tasks.words import folded

_NOT_A_WORD = re.compile(r"[^a-z0-9]+")
_ANY_WORD = re.compile(r"\w+")


def question_key(example: Example) -> str:
    """What rows with the same question have in common: the text and the choices, whatever the order of the choices, the
    case, spaces and outer punctuation."""
    return "\x1f".join([folded_or_same(example.question), *sorted(map(folded_or_same, example.choices))])


def folded_or_same(text: str) -> str:
    """`folded`, but for text that is nothing but punctuation: folded to nothing, all such texts would be one."""
    return folded(text) or text


def words(text: str) -> list[str]:
    """The words that `rouge_score` compares; for a text without one (other scripts), its Unicode words.

    `rouge_score` finds no words in such a text and calls any two unalike, so a copy of it would pass.
    """
    return _NOT_A_WORD.sub(" ", text.lower()).split() or _ANY_WORD.findall(text.lower())


def rouge_l(queries: Sequence[str], texts: Sequence[str]) -> NDArray[np.float64]:
    """The ROUGE-L F1 of every query with every text: an array of shape (queries, texts), values in [0, 1]."""
    code: dict[str, str] = {}
    left = ["".join(code.setdefault(word, _character(len(code) + 1)) for word in words(text)) for text in queries]
    # Words that no query has all become one character: it matches nothing.
    right = ["".join(code.get(word, _character(0)) for word in words(text)) for text in texts]
    common = process.cdist(left, right, scorer=LCSseq.similarity, dtype=np.uint32, workers=-1)
    lengths = np.add.outer([len(text) for text in left], [len(text) for text in right])
    # With P = common / len(query) and R = common / len(text), 2PR / (P + R) is 2 * common / (sum of the lengths).
    scores: NDArray[np.float64] = 2.0 * common
    return np.divide(scores, lengths, out=scores, where=lengths > 0)


def _character(number: int) -> str:
    """A distinct character for each number, passing over the surrogates."""
    return chr(number if number < 0xD800 else number + 0x800)
