"""Finds rows that match a validation or test row, and names the check that found them.

    exact      the same text but for case, white space, Unicode form and punctuation at the ends
    ROUGE-L    the words, in their order, from a threshold on that depends on the task's form
    words      the same words in another order
    n-grams    a passage of the protected row, anywhere in the row, also in its rationale or answer (`ngrams`)
    meaning    close embeddings, if a model is configured and the words are alike as well

In a numeric task ROUGE-L and n-grams compare the words with the numbers masked: a test question with other numbers in
it is a leak, as a student that has seen the solution's steps is not tested by the same steps with other numbers. A row
of few words besides its numbers is compared as it stands: without them `What is 17 + 4?` is every other such question.
What is compared is the question with its choices; rationale and answer are only searched for passages.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from llm2llm.components.shared.data.schemas import Example, Reason, Reject
from llm2llm.components.shared.leakage.ngrams import Passages
from llm2llm.components.shared.leakage.settings import LeakSettings, SemanticSettings
from llm2llm.components.shared.similarity import (
    is_template,
    masked,
    question_key,
    rouge_l_of_pairs,
    spaced,
    text_of,
    words,
)
from llm2llm.components.shared.similarity.near import near_pairs
from llm2llm.components.shared.similarity.sketches import sketch
from llm2llm.components.shared.tasks.forms import FORMS

Split = Literal["test", "validation"]

FEW = 4  # words, fewer of which say too little for their order not to matter
CHUNK = 20_000  # rows compared at once: bounds the memory


@dataclass(frozen=True)
class Leak:
    """A protected row that a row matches."""

    split: Split
    protected: Example
    check: Literal["exact", "rouge_l", "words", "ngrams", "meaning"]
    score: float
    """In [0, 1]: 1 for exact and words, ROUGE-L F1, the share of the n-grams, or the cosine."""
    detail: str
    """The check and its score, for a person."""

    @property
    def reason(self) -> Reason:
        """The reject's reason."""
        return "in_test" if self.split == "test" else "in_validation"


def find_leaks(
    rows: Sequence[Example],
    test: Sequence[Example],
    validation: Sequence[Example],
    form: str | None,
    settings: LeakSettings,
) -> list[Leak | None]:
    """For each row the protected row that it matches, if any: of test rather than validation, and the nearest by the
    first check above that catches it (of equally near ones that with the smallest id).

    Args:
        rows: What is to be kept clean, in any order.
        test: Protected.
        validation: Protected likewise.
        form: The task's form; None when no task is known: nothing is masked.
        settings: See `LeakSettings`.
    """
    sides = [Protected("test", test, form, settings), Protected("validation", validation, form, settings)]
    found: list[Leak | None] = []
    for start in range(0, len(rows), CHUNK):
        chunk = rows[start : start + CHUNK]
        in_test, in_validation = (side.matches(chunk) for side in sides)
        found += [one or other for one, other in zip(in_test, in_validation, strict=True)]
    return found


def masks_numbers(form: str | None) -> bool:
    """Whether rows of a form are compared without their numbers; not where no task is known."""
    return form is not None and FORMS[form].masks_numbers


def compared_words(row: Example, without_numbers: bool) -> list[str]:
    """The words of a row that are compared: of its question and choices."""
    return compared_text(row, without_numbers).split()


def compared_text(row: Example, without_numbers: bool) -> str:
    """`compared_words` with white space between them."""
    text = text_of(row)
    return " ".join(masked(words(text))) if without_numbers else spaced(text)


def searched_texts(row: Example, without_numbers: bool) -> list[list[str]]:
    """The words of each text of a row that is searched for passages, all of them: question with choices, rationale,
    answer."""
    texts = [spaced(text, None).split() for text in (text_of(row), row.rationale, row.answer) if text]
    return [masked(some) for some in texts] if without_numbers else texts


def bag_of(some: list[str], form: str | None) -> tuple[str, ...]:
    """Words without their order; none for fewer than `FEW`, and where numbers are the question: 5 - 3 is not 3 - 5."""
    return () if len(some) < FEW or (masks_numbers(form) and not is_template(some)) else tuple(sorted(some))


def leak_reject(row: Example, leak: Leak, stage: Literal["prepare", "dedupe"], iteration: int) -> Reject:
    """The reject of a row that leaks."""
    return reject(row, stage, iteration, leak.reason, leak.detail, leak.score, leak.protected)


def reject(
    row: Example,
    stage: Literal["prepare", "dedupe"],
    iteration: int,
    reason: Reason,
    detail: str,
    score: float,
    neighbour: Example,
) -> Reject:
    """The reject of a row that collides with another."""
    return Reject(
        iteration=iteration,
        stage=stage,
        reason=reason,
        detail=detail,
        score=score,
        neighbour_id=neighbour.id,
        neighbour=text_of(neighbour),
        id=row.id,
        question=row.question,
        choices=row.choices,
        rationale=row.rationale,
        answer=row.answer,
        parent_id=row.parent_id,
        by_way_of=row.by_way_of,
        strategy=row.strategy,
        teacher=row.teacher,
        call_key=row.call_key,
    )


class Protected:
    """The validation or the test rows, prepared for being compared with."""

    def __init__(self, split: Split, rows: Sequence[Example], form: str | None, settings: LeakSettings) -> None:
        self._split, self._settings = split, settings
        self._form, self._masks = form, masks_numbers(form)
        self._rows = sorted(rows, key=lambda row: row.id)
        self._words = [compared_words(row, self._masks) for row in self._rows]
        self._sketches = sketch(" ".join(some) for some in self._words)
        self._passages = Passages(self._words, settings.ngram)
        self._equal = {question_key(row): row for row in reversed(self._rows)}
        pairs = zip(self._rows, self._words, strict=True)
        self._same_words = {bag: row for row, some in reversed(list(pairs)) if (bag := bag_of(some, form))}

    def matches(self, rows: Sequence[Example]) -> list[Leak | None]:
        """For each row the one of these that it matches, if any."""
        found: list[Leak | None] = [None] * len(rows)
        if not rows or not self._rows:
            return found
        all_words = [compared_words(row, self._masks) for row in rows]
        for place, row in enumerate(rows):
            if same := self._equal.get(question_key(row)):
                found[place] = Leak(self._split, same, "exact", 1.0, "the same text")
        self._by_rouge_l(all_words, found)
        for place, some in enumerate(all_words):
            if found[place] is not None:
                continue
            if same := self._same_words.get(bag_of(some, self._form)):
                found[place] = Leak(self._split, same, "words", 1.0, "the same words in another order")
                continue
            held = [one for text in searched_texts(rows[place], self._masks) if (one := self._passages.most_held(text))]
            nearest, share = max(held, key=lambda one: (one[1], -one[0]), default=(0, 0.0))
            if share >= self._settings.ngram_share:
                detail = f"holds {share:.0%} of its passages"
                found[place] = Leak(self._split, self._rows[nearest], "ngrams", share, detail)
        if self._settings.semantic is not None:
            self._by_meaning(rows, found, self._settings.semantic)
        return found

    def _by_rouge_l(self, all_words: Sequence[list[str]], found: list[Leak | None]) -> None:
        thresholds = [self._settings.rouge_l_for(self._form, is_template(some)) for some in all_words]
        sketches = sketch(" ".join(some) for some in all_words)
        pairs = near_pairs(sketches, self._sketches, all_words.__getitem__, self._words.__getitem__, min(thresholds))
        # The nearest last, so that it stays; of equally near ones the first place, which has the smallest id.
        for k in np.lexsort((-pairs.texts, pairs.scores)):
            place, score = int(pairs.queries[k]), float(pairs.scores[k])
            leak = found[place]
            if score >= thresholds[place] and (leak is None or leak.check == "rouge_l"):
                detail = f"ROUGE-L {score:.3f}" + (", numbers masked" if self._masks else "")
                found[place] = Leak(self._split, self._rows[int(pairs.texts[k])], "rouge_l", score, detail)

    def _by_meaning(self, rows: Sequence[Example], found: list[Leak | None], semantic: SemanticSettings) -> None:
        rest = [place for place, leak in enumerate(found) if leak is None]
        for i, j, cosine in same_meaning([rows[place] for place in rest], self._rows, self._masks, semantic):
            leak = found[rest[i]]
            if leak is None or cosine > leak.score:
                found[rest[i]] = Leak(self._split, self._rows[j], "meaning", cosine, f"cosine {cosine:.3f}")


def same_meaning(
    rows: Sequence[Example], others: Sequence[Example], without_numbers: bool, settings: SemanticSettings
) -> list[tuple[int, int, float]]:
    """(row, other, cosine) of every pair with close embeddings whose words are alike as well, in order."""
    from llm2llm.components.shared.similarity.embeddings import close_pairs, embed

    if not rows or not others:
        return []
    vectors = embed([text_of(row) for row in [*rows, *others]], settings.model)
    close = close_pairs(vectors[: len(rows)], vectors[len(rows) :], settings.threshold)
    alike = rouge_l_of_pairs(
        [compared_words(rows[i], without_numbers) for i, _, _ in close],
        [compared_words(others[j], without_numbers) for _, j, _ in close],
    )
    return [pair for pair, score in zip(close, alike, strict=True) if score >= settings.rouge_l]
