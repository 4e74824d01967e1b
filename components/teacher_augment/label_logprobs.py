"""The probability of each label from the log-probabilities of an answer's tokens.

    blue     P(blue) = 0.9, P(red) = 0.08, P(gr) = 0.01      the first token tells the labels apart
    Book|Flight                                              P(Book) at the first place, times P(Flight) at the second

At each place every one of the likeliest tokens counts for the only label that goes on with it. A token that several
labels go on with says which only if it is the one that was written: then the next place says it. What is left over, by
tokens of no label, or of several labels on a path that was not taken, is nobody's.
"""

import itertools
import math
import re
from collections import defaultdict
from collections.abc import Sequence

from llm2llm.components.shared.llm.requests import LLMResponse, TokenLogprobs
from llm2llm.components.shared.tasks import FORMS, Task

_BEFORE = " \t\r\n\"'*`"
"""What may stand before a label, unless a label begins with it."""
_END = re.compile(rb"(?:<[|/][^<>]{1,60}>|<eos>)?")
"""The token that ends an answer, which some servers tell as well."""
MOST_LOGPROBS = 20
"""The likeliest tokens at each place that are asked for: the most that OpenAI and vLLM tell."""
LEAST_TOLD = 0.9
"""The share of the probability that must be on labels: of less it is not known how it is spread over them."""
LEAST_SHARE = 0.01
"""A label with less is left out: each is one more row to train on."""


def check_labels(task: Task) -> None:
    """Refuses a task whose labels their tokens cannot tell apart.

    Raises:
        ValueError: Names the labels and the fix.
    """
    form = FORMS[task.form]
    if not form.has_classes:
        raise ValueError(
            f"verification.logprobs: task {task.name!r} has neither labels nor choices (form {task.form!r}); remove it"
        )
    folded = sorted((label.casefold(), label) for label in task.labels) if form.has_labels else []
    for (one, label), (other, longer) in itertools.pairwise(folded):
        if other.startswith(one):
            raise ValueError(
                f"verification.logprobs: label {label!r} begins label {longer!r}, so its tokens do not tell which is "
                "meant; rename one of them, or set logprobs: false, so that samples vote"
            )


def label_shares(response: LLMResponse, labels: Sequence[str]) -> dict[str, float]:
    """The probability of each label that has any, as far as the tokens tell; together at most 1.

    Args:
        response: To a request with `top_logprobs` that asked for one of the labels and nothing else.
        labels: None begins another.

    Returns:
        Empty where it is not told, or the answer's first token is not to be found behind the thoughts.
    """
    answer = response.answer.strip()
    tokens = _answer_tokens(response.logprobs or (), answer)
    known = {label.casefold(): label for label in labels}
    skipped = "".join(mark for mark in _BEFORE if not any(label.startswith(mark) for label in labels))
    shares: dict[str, float] = defaultdict(float)
    before, path = b"", 1.0
    for token in tokens:
        likeliest = dict.fromkeys(((text, value) for text, value in token.likeliest if text != token.text))
        for text, value in [(token.text, token.logprob), *likeliest]:
            found = _goes_on(before + text, known, skipped)
            if len(found) == 1:
                shares[known[found[0]]] += path * math.exp(min(value, 0.0))
        before, path = before + token.text, path * math.exp(min(token.logprob, 0.0))
        if len(_goes_on(before, known, skipped)) < 2:
            break
    return dict(shares)


def soft_label(shares: dict[str, float]) -> tuple[dict[str, float], float]:
    """(label -> share, of labels with `LEAST_SHARE` or more, together 1; the probability of all labels before)."""
    told = math.fsum(shares.values())
    kept = {label: share / told for label, share in shares.items() if told and share >= LEAST_SHARE * told}
    total = math.fsum(kept.values())
    return {label: kept[label] / total for label in sorted(kept)}, told


def _answer_tokens(tokens: Sequence[TokenLogprobs], answer: str) -> Sequence[TokenLogprobs]:
    """The tokens of the answer, which is the end of all that was written; none where it is not, or begins inside of a
    token."""
    own = list(tokens)
    while own and _END.fullmatch(own[-1].text):
        own.pop()
    whole = b"".join(token.text for token in own)
    wanted = answer.encode()
    if not wanted or not whole.rstrip().endswith(wanted):
        return ()
    begin, at = len(whole.rstrip()) - len(wanted), 0
    for place, token in enumerate(own):
        # A token may begin with the white space before the answer; anything else in it is of the thoughts.
        if at + len(token.text) > begin:
            return own[place:] if not whole[at:begin].strip() else ()
        at += len(token.text)
    return ()


def _goes_on(text: bytes, known: dict[str, str], skipped: str) -> list[str]:
    """The labels, in small letters, that an answer which begins so can be."""
    begun = text.decode("utf-8", "ignore").lstrip(skipped).casefold()
    if not begun:
        return list(known)
    whole = [label for label in known if begun.startswith(label) and not begun[len(label) :][:1].isalnum()]
    return whole or [label for label in known if label.startswith(begun)]
