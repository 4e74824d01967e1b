"""A numeric rationale against its question and its answer: every stated step, the number at its end, and its unit.

    >>> wrong_rationale("Ann has 3 pears and buys 2. How many has she?", "3 + 2 = 5 pears, less 1.", "1")
    'the rationale ends at 5, and the answer is 1'

Of GSM8K's 8,792 solutions 45 are refused, most of which are wrong indeed: 27 whose steps do not hold, 16 that do not
end at their answer, and 2 that calculate with no number of the question. Of the solutions of other questions a quarter
calculate with none, and nearly all of the others end elsewhere.
"""

import re
from fractions import Fraction

from llm2llm.components.shared.tasks.arithmetic import close, stated_equations, with_digits, wrong_equations
from llm2llm.components.shared.tasks.markup import plain
from llm2llm.components.shared.tasks.numbers import fraction, read_numbers, tidy

MADE_UP = "no step calculates with a number of the question"
_DIGITS = r"[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+"
_OPERATOR = "plus|minus|times|multiplied by|divided by|added to"
_SPOKEN = re.compile(
    rf"(?P<one>{_DIGITS})(?: [a-z]+)? (?P<operator>{_OPERATOR}) \$?(?P<other>{_DIGITS})(?: [a-z]+)? "
    rf"(?:is(?: equal to)?|equals|gives|makes|are|leaves) \$?(?P<result>{_DIGITS})(?![0-9]*[.,]?[0-9]*\s*[-+*/^x%])"
)
_GOES_ON_BEFORE = re.compile(r"(?:plus|minus|times|by|to|[-+*/^x]) \$?$")
_GOES_ON_AFTER = re.compile(r"[0-9.,]*(?: [a-z]+)? (?:plus|minus|times|multiplied|divided)\b")
_CALCULATES = re.compile(r"[0-9]\s*[a-z ]*[-+*/^×÷]|[0-9]\s*[xX]\s*[0-9]")
_ALGEBRA = re.compile(r"(?<![A-Za-z'’])[b-hj-zB-HJ-Z](?![A-Za-z'’])")
_SENTENCE = re.compile(r"(?<=[.!?;])\s")
_UNITS: tuple[tuple[re.Pattern[str], tuple[Fraction, ...]], ...] = (
    (re.compile(r"[%¢$€£]|\b(?:cents?|dollars?|percent)\b", re.IGNORECASE), (Fraction(1, 100), Fraction(100))),
    (
        re.compile(
            r"\b(?:thousands?|k|kilo\w+|km|kg|met(?:er|re)s?|grams?|ml|milli\w+|lit(?:er|re)s?)\b", re.IGNORECASE
        ),
        (Fraction(1000), Fraction(1, 1000)),
    ),
    (re.compile(r"\bmillions?\b", re.IGNORECASE), (Fraction(10**6),)),
    (re.compile(r"\bbillions?\b", re.IGNORECASE), (Fraction(10**9),)),
)
"""Words that let the end of a rationale be another unit than the answer, and the factors between them."""
_WORDS = {
    "half": 2, "halves": 2, "twice": 2, "double": 2, "doubled": 2, "doubles": 2, "couple": 2, "pair": 2, "pairs": 2,
    "thrice": 3, "triple": 3, "tripled": 3, "third": 3, "thirds": 3, "quarter": 4, "quarters": 4, "fourth": 4,
    "fifth": 5,
    "week": 7, "weeks": 7, "dozen": 12, "dozens": 12, "year": 12, "years": 12, "score": 20, "day": 24, "days": 24,
    "hour": 60, "hours": 60, "minute": 60, "minutes": 60, "thirteen": 13, "fourteen": 14, "fifteen": 15, "sixteen": 16,
    "seventeen": 17, "eighteen": 18, "nineteen": 19, "twenty": 20, "thirty": 30, "forty": 40, "fifty": 50, "sixty": 60,
    "seventy": 70, "eighty": 80, "ninety": 90, "hundred": 100, "thousand": 1000,
}  # fmt: skip
"""Numbers that a question says in words."""


def wrong_rationale(question: str, rationale: str, answer: str) -> str:
    """What is wrong with a rationale; empty where nothing is found.

    Args:
        question: The question; empty: what is calculated with is not looked at.
        rationale: The steps, with or without annotations.
        answer: The number that they are to end at.
    """
    if wrong := [*wrong_equations(rationale), *wrong_spoken(rationale)]:
        return f"{wrong[0]} does not hold"
    if not ends_at_answer(rationale, answer, question):
        ends = ends_at(rationale)
        shown = str(ends[-1])[:40] if ends else "no number"
        return f"the rationale ends at {shown}, and the answer is {answer}"
    if is_made_up(question, rationale):
        return MADE_UP
    return ""


def wrong_spoken(text: str) -> list[str]:
    """Steps in words that do not hold: `5 times 6 is 32`. Those that belong to a longer one are passed over."""
    text = plain(tidy(text))
    wrong = []
    for match in _SPOKEN.finditer(text):
        if _GOES_ON_BEFORE.search(text[max(0, match.start() - 20) : match.start()]) or _GOES_ON_AFTER.match(
            text, match.end()
        ):
            continue
        one, other, result = (fraction(match[name]) for name in ("one", "other", "result"))
        operator = match["operator"]
        if operator == "divided by" and other == 0:
            wrong.append(match[0])
            continue
        value = {
            "plus": one + other, "added to": one + other, "minus": one - other, "times": one * other,
            "multiplied by": one * other, "divided by": one / (other or 1),
        }[operator]  # fmt: skip
        if not close(value, result, match["result"]):
            wrong.append(match[0])
    return wrong


def ends_at(rationale: str) -> list[Fraction]:
    """The numbers that a rationale may be said to end at: in its last line with a number, the result of the last
    equation and the last number; without an equation the numbers of that line's last sentence."""
    last = next((line for line in reversed(with_digits(rationale).splitlines()) if read_numbers(line)), "")
    sides = last.split("=")
    if len(sides) > 1:
        result = next((numbers[0] for side in reversed(sides[1:]) if (numbers := read_numbers(side))), None)
        return [*([] if result is None else [result]), read_numbers(last)[-1]]
    sentences = reversed(_SENTENCE.split(last))
    return next((numbers for sentence in sentences if (numbers := read_numbers(sentence))), read_numbers(last))


def ends_at_answer(rationale: str, answer: str, question: str = "") -> bool:
    """Whether a rationale ends at the answer, or at the same in a unit that it or the question names: `$0.25` for 25
    cents, `4 million` for 4."""
    wanted = read_numbers(answer)
    if len(wanted) != 1:
        return False
    ends = ends_at(rationale)
    if wanted[0] in ends:
        return True
    last = next((line for line in reversed(rationale.splitlines()) if read_numbers(with_digits(line))), "")
    units: list[Fraction] = []
    for word, factors in _UNITS:
        if word.search(f"{last} {question}"):
            units += factors
    return any(number == wanted[0] * unit for number in ends for unit in units)


def is_made_up(question: str, rationale: str) -> bool:
    """Whether no step of a rationale calculates with any number of its question. Algebra, and a question with fewer
    than two numbers, say nothing."""
    text = plain(tidy(rationale))
    steps = [equation for equation in stated_equations(rationale) if _CALCULATES.search(equation.split("=")[0])]
    if not steps or _ALGEBRA.search(text) or "plus" in text or "minus" in text:
        return False
    used = {number for step in steps for number in _numbers(step.split("=")[0])} | set(_loose_numbers(text))
    used |= {scaled for number in used for scaled in (number * 100, number / 100)}
    known = set(_numbers(with_digits(question)))
    if known & used:
        return False
    known |= {Fraction(_WORDS[word]) for word in re.findall(r"[a-z]+", question.lower()) if word in _WORDS}
    return len(known) > 1 and not known & used


def _loose_numbers(text: str) -> list[Fraction]:
    """Numbers before an operator that no equation was found around, as in `18 inches/collar * 9`."""
    return [number for part in re.findall(rf"(?:{_DIGITS})[^=\n]{{0,30}}[-+*/×÷]", text) for number in _numbers(part)]


def _numbers(text: str) -> list[Fraction]:
    return [fraction(digits) for digits in re.findall(_DIGITS, text)]
