"""The final leak check of a training set.

It shares what a leak is with the firewall, and no shortcut: every row is compared with every protected row, without the
index, the sketches or the bands that decide elsewhere which pairs are looked at.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.leakage.firewall import bag_of, compared_words, masks_numbers, searched_texts
from llm2llm.components.shared.leakage.ngrams import ngrams, size_for
from llm2llm.components.shared.leakage.settings import LeakSettings
from llm2llm.components.shared.similarity import is_template, question_key
from llm2llm.components.shared.similarity.rouge import rouge_l_of_words

CHUNK = 500  # rows compared at once: bounds the memory


def final_check(
    training_set: Sequence[Example],
    validation: Sequence[Example],
    test: Sequence[Example],
    form: str | None,
    settings: LeakSettings,
) -> dict[str, Any]:
    """The verdict on a training set, ready for JSON.

    Five million pairs of GSM8K's length take some seconds: 10,000 rows against 1,000 protected ones.

    Args:
        training_set: Every row of it, seeds as well.
        validation: Protected.
        test: Protected.
        form: The task's form; None when no task is known.
        settings: Those that `dedupe` had. Comparing by meaning is not repeated.

    Returns:
        `clean` (whether nothing matches), `rows` (how many were checked), `validation` and `test` (against how many),
        and `matches`: for each row and split that match `id`, `split`, `neighbour_id`, `check` (exact, rouge_l, words
        or ngrams) and `score`, sorted by id.
    """
    matches = [
        {"id": row.id, "split": split, "neighbour_id": neighbour.id, "check": check, "score": round(score, 4)}
        for split, protected in (("test", test), ("validation", validation))
        for row, neighbour, check, score in _matches(training_set, protected, form, settings)
    ]
    return {
        "clean": not matches,
        "rows": len(training_set),
        "validation": len(validation),
        "test": len(test),
        "matches": sorted(matches, key=lambda match: (str(match["id"]), str(match["split"]))),
    }


def _matches(
    rows: Sequence[Example], protected: Sequence[Example], form: str | None, settings: LeakSettings
) -> list[tuple[Example, Example, str, float]]:
    if not protected:
        return []
    found = []
    masked = masks_numbers(form)
    keys = {question_key(row): row for row in protected}
    protected_words = [compared_words(row, masked) for row in protected]
    bags = {bag: row for row, some in zip(protected, protected_words, strict=True) if (bag := bag_of(some, form))}
    sizes = [size_for(len(some), settings.ngram) for some in protected_words]
    passages = [ngrams(some, n) if n else set() for some, n in zip(protected_words, sizes, strict=True)]
    known = set().union(*passages)
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        chunk_words = [compared_words(row, masked) for row in chunk]
        scores = rouge_l_of_words(chunk_words, protected_words)
        for row, some, score in zip(chunk, chunk_words, scores, strict=True):
            nearest = int(np.argmax(score))
            if question_key(row) in keys:
                found.append((row, keys[question_key(row)], "exact", 1.0))
            elif score[nearest] >= settings.rouge_l_for(form, is_template(some)):
                found.append((row, protected[nearest], "rouge_l", float(score[nearest])))
            elif bag_of(some, form) in bags:
                found.append((row, bags[bag_of(some, form)], "words", 1.0))
            else:
                shares = np.zeros(len(protected))
                for text in searched_texts(row, masked):
                    if held := {gram for n in set(sizes) - {0} for gram in ngrams(text, n)} & known:
                        of_text = [len(held & grams) / len(grams) if grams else 0.0 for grams in passages]
                        shares = np.maximum(shares, of_text)
                if shares.max() >= settings.ngram_share:
                    found.append((row, protected[int(shares.argmax())], "ngrams", float(shares.max())))
    return found
