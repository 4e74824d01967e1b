"""A few numbers for each text, from which most pairs of texts are seen to be unlike without comparing their words."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import chain

import numpy as np
from numpy.typing import NDArray

BITS = 256
SEED = 1  # of the MinHash
HASH_BITS = np.uint64(50)  # of a word's hash that count; the other 14 hold a text's place among `ROWS`
ROWS = 10_000  # texts taken at once, and their characters: bounds the memory to some hundreds of megabytes
CHARACTERS = 1 << 22
BASE = 0x9E3779B97F4A7C15  # of the words' hashes; odd, so that it has an inverse

Places = NDArray[np.int64]
Numbers = NDArray[np.uint64]


@dataclass(frozen=True)
class Sketches:
    """Arrays with one entry for each text."""

    lengths: NDArray[np.uint32]
    """How many words."""
    bits: Numbers
    """Shape (texts, 4): 256 bits, set where an odd number of the text's words falls."""
    bands: Numbers
    """Shape (texts, bands): one number for each band of MinHashes; no columns where none were asked for."""

    def __len__(self) -> int:
        return len(self.lengths)

    def take(self, places: Sequence[int] | Places) -> "Sketches":
        """The sketches of some of the texts."""
        chosen = np.asarray(places, dtype=np.int64)
        return Sketches(self.lengths[chosen], self.bits[chosen], self.bands[chosen])

    def without_bands(self) -> "Sketches":
        """The same, but to be compared pair by pair."""
        return Sketches(self.lengths, self.bits, self.bands[:, :0])

    @staticmethod
    def joined(parts: Sequence["Sketches"]) -> "Sketches":
        """The sketches of several, one after the other; at least one."""
        return Sketches(
            np.concatenate([part.lengths for part in parts]),
            np.concatenate([part.bits for part in parts]),
            np.concatenate([part.bands for part in parts]),
        )


def sketch(texts: Iterable[str], bands: tuple[int, int] = (0, 0)) -> Sketches:
    """The sketches of texts.

    Args:
        texts: Words with white space between them, as `spaced` gives them. They are taken some thousands at a time, so
        an
            iterator of a million is never in memory as a whole.
        bands: How many bands of how many MinHashes each; none of none by default.
    """
    parts = [_sketch([], bands)]
    some: list[str] = []
    size = 0
    for text in texts:
        if some and (len(some) == ROWS or size + len(text) > CHARACTERS):
            parts.append(_sketch(some, bands))
            some, size = [], 0
        some.append(text)
        size += len(text)
    return Sketches.joined([*parts, _sketch(some, bands)])


def _sketch(texts: list[str], bands: tuple[int, int]) -> Sketches:
    tokens, offsets = _tokens(texts)
    rows = np.repeat(np.arange(len(texts)), np.diff(offsets))
    counts = np.bincount(rows * BITS + (tokens % BITS).astype(np.int64), minlength=len(texts) * BITS)
    parity = np.packbits((counts & 1).astype(np.uint8).reshape(len(texts), BITS), axis=1)
    return Sketches(
        lengths=np.diff(offsets).astype(np.uint32),
        bits=parity.view("<u8").astype(np.uint64).reshape(len(texts), BITS // 64),
        bands=_band_keys(tokens, offsets, *bands) if all(bands) else np.empty((len(texts), 0), dtype=np.uint64),
    )


def _tokens(texts: list[str]) -> tuple[Numbers, Places]:
    """(tokens, offsets): a number for every word of every text, one text after the other, and where each text begins.

    The second occurrence of a word in a text has another number than the first: as sets of these numbers, texts
    compare as multisets of words. The numbers are hashes, equal on every machine; within a text they are in any order.
    Should two words share a hash, texts look more alike than they are: the bounds that are drawn from it still hold.
    """
    hashes, offsets = _word_hashes(texts)
    rows = np.repeat(np.arange(len(texts), dtype=np.uint64), np.diff(offsets))
    # Equal words of a text side by side: the text in the upper bits, and as much of the hash as fits below.
    keys = np.sort((rows << HASH_BITS) | (hashes >> (np.uint64(64) - HASH_BITS)))
    places = np.arange(len(keys))
    first_of_its_kind = np.diff(keys, prepend=~keys[:1]) != 0
    occurrence = places - np.maximum.accumulate(np.where(first_of_its_kind, places, 0))
    word = keys & ((np.uint64(1) << HASH_BITS) - np.uint64(1))
    return scrambled(word + occurrence.astype(np.uint64) * np.uint64(BASE)), offsets


def _word_hashes(texts: list[str]) -> tuple[Numbers, Places]:
    """(hashes, offsets): of every word of every text in order, and where each text begins.

    The hash of the bytes b0 b1 b2 ... is the sum of b_i * BASE^i modulo 2^64 (Karp and Rabin 1987), scrambled. It is
    taken from the running sum over all the texts: what a word adds to it, divided by the power of BASE at which it
    begins.
    """
    together = np.frombuffer("\n".join([*texts, ""]).encode("utf-8", "surrogatepass"), dtype=np.uint8)
    in_word = np.concatenate([[False], together > ord(" ")])
    edges = np.flatnonzero(in_word[1:] != in_word[:-1])  # where words begin and end, by turns
    starts, ends = edges[::2], edges[1::2]
    powers, inverses = _powers(1 << max(1, len(together)).bit_length())
    sums = np.concatenate([[np.uint64(0)], np.cumsum(together * powers[: len(together)], dtype=np.uint64)])
    offsets = np.concatenate([[0], np.searchsorted(starts, np.flatnonzero(together == ord("\n")))])
    return scrambled((sums[ends] - sums[starts]) * inverses[starts]), offsets


@cache
def _powers(count: int) -> tuple[Numbers, Numbers]:
    """The first powers of BASE, and of its inverse, modulo 2^64."""
    steps = np.full((2, count), np.uint64(1))
    steps[:, 1:] = np.array([[BASE], [pow(BASE, -1, 1 << 64)]], dtype=np.uint64)
    powers, inverses = np.cumprod(steps, axis=1, dtype=np.uint64)
    return powers, inverses


def _band_keys(tokens: Numbers, offsets: Places, bands: int, rows: int) -> Numbers:
    """MinHash (Broder 1997) by rensa, `rows` hashes of a band folded into one number."""
    from rensa import RMinHash

    texts = len(offsets) - 1
    if texts == 0:
        return np.empty((0, bands), dtype=np.uint64)
    digests = RMinHash.digest_matrix_from_flat_token_hashes(tokens, offsets.astype(np.uint64), bands * rows, SEED)
    every_hash = chain.from_iterable(digests.to_rows())
    hashes = np.fromiter(every_hash, dtype=np.uint64, count=texts * bands * rows).reshape(texts, bands, rows)
    keys = np.zeros((texts, bands), dtype=np.uint64)
    for row in range(rows):
        keys = scrambled(keys * np.uint64(3) + hashes[:, :, row])
    return keys


def scrambled(numbers: Numbers) -> Numbers:
    """Numbers whose every bit depends on every bit of what is given (the end of SplitMix64: Steele et al. 2014)."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return numbers ^ (numbers >> np.uint64(31))
