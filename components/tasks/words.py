"""Text helpers that the forms share."""

import re
import unicodedata

_EDGES = " \t\r\n.,;:!?\"'`*_()[]{}<>“”‘’«»"

# A hyphen is a separator only with white space behind it: "Answer - 18", but "Answer: -18".
_ANSWER_CUE = re.compile(
    r"(?:\b(?:(?:the|final|correct|right)\s+){0,2}answer\b(?:\s+(?:is|was|choice))?|(?<![\w'])A(?=\s*[:=]))"
    r"(?:\s*(?:[:=\u2013\u2014]|-(?=\s)))?",
    re.IGNORECASE,
)


def folded(text: str) -> str:
    """Text without what a comparison should ignore: Unicode form (NFKC), case, white space, punctuation at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_EDGES)


def after_last_cue(text: str) -> str | None:
    """What follows the last `Answer:`, `The answer is` or `A:` of a text; None when there is none."""
    last = None
    for last in _ANSWER_CUE.finditer(text):
        pass
    return text[last.end() :] if last else None
