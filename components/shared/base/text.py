"""Text helpers that the forms share."""

import re
import unicodedata

_EDGES = " \t\r\n.,;:!?\"'`*_()[]{}<>“”‘’«»"

# "The answer is", "Answer:", "Answer - ", "Answer" on its own line, "answer 18", "answer B"; "A:" at the start of a
# line. Not "to find the answer, we ..." and not "the answer is not 18".
_ANSWER_CUE = re.compile(
    r"""
    (?<![\w/])answer\b\**
    (?: \s+(?:is|was|choice|equals|(?:would|will|should|must)\s+be)\b (?!\s+not\b) (?:\s*[:=\u2013\u2014])?
      | \s*[:=\u2013\u2014]
      | \s+-(?=\s)
      | [ \t]*\n
      | (?=\ [($\[-]*(?:\d|(?-i:[A-Z])\b))
    )
    | ^[ \t]*(?-i:A)[ \t]*:
    """,
    re.IGNORECASE | re.MULTILINE | re.VERBOSE,
)


def folded(text: str) -> str:
    """Text without what a comparison should ignore: Unicode form (NFKC), case, white space, punctuation at the ends."""
    return " ".join(unicodedata.normalize("NFKC", text).casefold().split()).strip(_EDGES)


def after_cues(text: str) -> list[str]:
    """What follows each `Answer:`, `The answer is` or `A:` of a text, up to the next; empty when there is none."""
    cues = [match.span() for match in _ANSWER_CUE.finditer(text)]
    next_starts = [start for start, _ in cues[1:]] + [len(text)]
    return [text[end:start] for (_, end), start in zip(cues, next_starts, strict=False)]
