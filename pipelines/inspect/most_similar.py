"""Exact nearest texts by ROUGE-L among very many, with bounds that skip most comparisons.

Two texts of m and n words of which c are in both have a ROUGE-L F1 of at most 2c / (m + n). The texts are compared in
the order of this bound, until no other can be among the nearest.
"""

from collections.abc import Sequence

from llm2llm.components.shared.similarity import rouge_l_of_pairs, spaced

STEP = 1_000  # texts compared at once


def most_similar(text: str, others: Sequence[str], count: int) -> list[tuple[int, float]]:
    """(place, ROUGE-L F1) of the `count` texts most like one, the nearest first, of equal ones that with the lowest
    place; fewer where so few have a word in common with it."""
    words = spaced(text).split()
    known = set(words)
    bounds: list[tuple[float, int]] = []
    for place, other in enumerate(others):
        some = spaced(other).split()
        # The words of the other that are in this text, however often each is: no fewer than are in both.
        if common := sum(map(known.__contains__, some)):
            bounds.append((-2 * min(common, len(words)) / (len(words) + len(some)), place))
    bounds.sort()
    found: list[tuple[float, int]] = []
    for start in range(0, len(bounds), STEP):
        if len(found) == count and bounds[start][0] > found[-1][0]:
            break
        places = [place for _, place in bounds[start : start + STEP]]
        scores = rouge_l_of_pairs([words] * len(places), [spaced(others[place]).split() for place in places])
        found += [(-float(score), place) for place, score in zip(places, scores, strict=True) if score > 0]
        found = sorted(found)[:count]
    return [(place, -negative) for negative, place in found]
