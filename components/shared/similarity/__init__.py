"""What makes two rows alike, one pair at a time (`words`, `rouge_l`) and a million rows at once (`near`, `minhash`)."""

from llm2llm.components.shared.similarity.rouge import rouge_l, rouge_l_of_pairs
from llm2llm.components.shared.similarity.words import (
    folded_or_same,
    is_template,
    masked,
    numbers_of,
    question_key,
    spaced,
    text_of,
    words,
)

__all__ = [
    "folded_or_same",
    "is_template",
    "masked",
    "numbers_of",
    "question_key",
    "rouge_l",
    "rouge_l_of_pairs",
    "spaced",
    "text_of",
    "words",
]
