"""Finds texts that contain a passage of a protected text.

A text of validation or test is known by its n-grams, n words in a row. As in GPT-3's check (Brown et al. 2020, appendix
C), n is 13 for a long text and never less than 8: shorter passages are common phrases. For a text of fewer than 16
words it is four fifths of the words, so that a passage is most of the text. A text of fewer than 8 words has no
n-grams; that it was copied shows in its words as a whole. One passage proves little in texts full of set phrases, so a
share of a text's n-grams is asked for, as in PaLM's check (Chowdhery et al. 2022, section 8); 20%, below which Llama 2
calls a sample clean (Touvron et al. 2023, appendix A.6).
"""

from collections import Counter, defaultdict
from collections.abc import Sequence

SHORTEST = 8


def size_for(length: int, longest: int) -> int:
    """The n for a protected text of `length` words; 0: it has no n-grams."""
    return min(longest, max(SHORTEST, -(-4 * length // 5))) if length >= SHORTEST else 0


def ngrams(words: Sequence[str], n: int) -> set[tuple[str, ...]]:
    """The distinct n-grams of a text."""
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


class Passages:
    """The n-grams of the protected texts.

    Args:
        texts: The protected texts as words.
        longest: n for the long ones.
    """

    def __init__(self, texts: Sequence[Sequence[str]], longest: int) -> None:
        self._texts_with: dict[tuple[str, ...], list[int]] = defaultdict(list)
        self._count: list[int] = []
        self._sizes: set[int] = set()
        for place, words in enumerate(texts):
            n = size_for(len(words), longest)
            grams = ngrams(words, n) if n else set()
            self._count.append(len(grams))
            self._sizes |= {n} if n else set()
            for gram in grams:
                self._texts_with[gram].append(place)

    def most_held(self, words: Sequence[str]) -> tuple[int, float] | None:
        """(place, share): the protected text of whose n-grams these words hold the largest share, the first of equals;
        None when they hold no n-gram."""
        held = Counter(
            place
            for n in self._sizes
            for gram in ngrams(words, n) & self._texts_with.keys()
            for place in self._texts_with[gram]
        )
        if not held:
            return None
        place = min(held, key=lambda place: (-held[place] / self._count[place], place))
        return place, held[place] / self._count[place]
