"""Arithmetic that a text states, evaluated exactly: every `<<48/2=24>>` and every `48 / 2 = 24` in the prose.

    >>> evaluate("(1 + 1/2) * 4")
    Fraction(6, 1)
    >>> wrong_equations("She sold 48/2 = <<48/2=25>>25 clips, and 2 + 2 = 5 more.")
    ['48/2=25', '48/2 = 25', '2 + 2 = 5']

Expressions are read by Python's own parser and computed over `Fraction`, without `eval`: numbers, `+ - * / ^`,
parentheses and a percent sign. What is too long, too deep or too large is given up.

Every annotation must be arithmetic. In prose only what is surely an equation is looked at: words may stand between a
number and the next operator (`3 boxes * 4 = 12 eggs`), but not a variable, a list, a clock time or a formula cut in
two. A result may be rounded or cut off to the digits that it has (`10/3=3.33`, `17/5=3`), and in an equation with a
percent, currency or cent sign it may be a hundred times as much or as little (`20% * 50 = 10`, `$1 / 2 = 50 cents`).

Of GSM8K's 8,792 solutions 8,766 hold; the others are listed, and explained, in the tests.
"""

import ast
import operator
import re
from fractions import Fraction

from llm2llm.components.shared.tasks.markup import plain
from llm2llm.components.shared.tasks.numbers import CURRENCY, fraction, tidy

MAX_LENGTH = 400
"""Characters of an expression; the longest in GSM8K has 76."""
MAX_DEPTH = 20
"""Parentheses and signs inside one another."""
MAX_EXPONENT = 64
MAX_BITS = 512
"""Of a numerator or denominator, at every step: `9^9^9` is refused before it is computed."""

_TOKEN = re.compile(r"\s*(?:(?P<number>[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?|\.[0-9]+)|(?P<symbol>\*\*|[-+*/^()%]))")
_COMPUTED = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}
_OPERATORS = {"x": "*", "X": "*", "×": "*", "·": "*", "÷": "/"}


_ANNOTATION = re.compile(r"<<([^<>\n]*)>>")
_SIGNS = f"[{CURRENCY}]"
_DIGITS = "[0-9]{1,30}"
_NUMBER = (
    rf"(?:[0-9]{{1,3}}(?:,[0-9]{{3}}){{1,9}}(?:\.{_DIGITS})?|{_DIGITS} (?:and )?{_DIGITS}/{_DIGITS}"
    rf"|{_DIGITS}(?:\.{_DIGITS})?|\.{_DIGITS})%?"
)
_OPERAND = rf"-?\({{0,9}}{_SIGNS}?-?{_NUMBER}\){{0,9}}"
_WORDS = r"(?:[ -]?[a-z]{2,20}){0,2}"
_OPERATOR = r"(?:\*\*|[-+*/^×÷]|[xX](?=[\s$(\d.]))"
_EQUATION = re.compile(
    rf"(?<![0-9]){_OPERAND}{_WORDS}(?: {{0,3}}{_OPERATOR} {{0,3}}{_OPERAND}{_WORDS}){{1,30}}"
    rf"(?: {{0,3}}= {{0,3}}{_OPERAND}(?: {{0,3}}{_OPERATOR} {{0,3}}{_OPERAND}){{0,30}}){{1,9}}"
)
# What shows that an equation began earlier ("5 apples + 3 + 2 = 10", "X * 2 - 4 = 6", "a third of 6 + 3 = 5") or goes
# on.
_BEGAN_BEFORE = re.compile(r"[-+*/xX×÷^=)%$\d.,] *$|[\w:]$|(?:^|\W)\w +$|\b(?:of|than|every) +$")
_GOES_ON = re.compile(r" *[-+*/×÷^=(]|\.?\d|,\d| +\d|\.\.\.|…| *and\s| *[xX]\s|\)| ?[a-zA-Z](?![a-zA-Z])| ?%")
_MIXED = re.compile(r"(\d+) (?:and )?(\d+/\d+)")
_MIXED_PART = re.compile(r"\d and (\d+)/(\d+)")  # "10/3=3 and 20/3=6" is no mixed number
_COUNTING = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"]
_COUNTED = re.compile(rf"\b(?:{'|'.join(_COUNTING)})\b", re.IGNORECASE)
_ORDINAL_ENDING = re.compile(r"(?<=\d)(?:st|nd|rd|th)\b")
_SPACED_THOUSANDS = re.compile(r"(?<=\d) (?=\d{3}(?!\d))")
# Twelve divided by one half, or twelfths halved?
_AMBIGUOUS = re.compile(r"/\s*[0-9.]+\s*/")


class CannotEvaluate(ValueError):
    """The text is no arithmetic expression, or one that is too long, too deep or too large."""


def evaluate(expression: str) -> Fraction:
    """The exact value of an expression of numbers, `+ - * / ^ **`, parentheses and `%` (a hundredth).

    `^` binds tighter than a sign before it and to the right, as in mathematics; `x`, `×` and `÷` are operators too.

    Raises:
        CannotEvaluate: Not such an expression, a division by zero, or beyond the limits above.
    """
    if len(expression) > MAX_LENGTH:
        raise CannotEvaluate(f"more than {MAX_LENGTH} characters")
    text = re.sub(f"[{''.join(_OPERATORS)}]", lambda match: _OPERATORS[match[0]], expression).rstrip()
    if (alone := _TOKEN.fullmatch(text)) and alone["number"]:
        return _checked(fraction(alone["number"]))
    # Python reads it, with names in place of the numbers and a subscript in place of a percent sign.
    source: list[str] = []
    numbers: list[Fraction] = []
    at = depth = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            raise CannotEvaluate(f"{text[at:].lstrip()[:1]!r} is no part of arithmetic")
        if match["number"]:
            source.append(f"n{len(numbers)}")
            numbers.append(_checked(fraction(match["number"])))
        else:
            source.append({"^": "**", "%": "[0]"}.get(match["symbol"], match["symbol"]))
            depth += {"(": 1, ")": -1}.get(match["symbol"], 0)
        if depth > MAX_DEPTH:
            raise CannotEvaluate(f"nested more than {MAX_DEPTH} deep")
        at = match.end()
    try:
        parsed = ast.parse(" ".join(source), mode="eval").body
    except SyntaxError:
        raise CannotEvaluate("it is no whole expression") from None
    return _value(parsed, numbers, 0)


def _value(node: ast.expr, numbers: list[Fraction], depth: int) -> Fraction:
    """The value of a part of an expression; `depth`: signs and powers around it."""
    if depth > MAX_DEPTH:
        raise CannotEvaluate(f"nested more than {MAX_DEPTH} deep")
    match node:
        case ast.Name(id=name):
            return numbers[int(name[1:])]
        case ast.Subscript(value=inner, slice=ast.Constant()):
            return _value(inner, numbers, depth) / 100
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_value(inner, numbers, depth + 1)
        case ast.UnaryOp(op=ast.UAdd(), operand=inner):
            return _value(inner, numbers, depth + 1)
        case ast.BinOp(left=left, op=ast.Pow(), right=right):
            return _power(_value(left, numbers, depth), _value(right, numbers, depth + 1))
        case ast.BinOp(left=left, op=computed, right=right) if type(computed) in _COMPUTED:
            first, second = _value(left, numbers, depth), _value(right, numbers, depth)
            if isinstance(computed, ast.Div) and second == 0:
                raise CannotEvaluate("a division by zero")
            return _checked(_COMPUTED[type(computed)](first, second))
    raise CannotEvaluate("it is no arithmetic")


def _power(value: Fraction, exponent: Fraction) -> Fraction:
    if exponent.denominator != 1 or abs(exponent) > MAX_EXPONENT:
        raise CannotEvaluate(f"the exponent is no whole number up to {MAX_EXPONENT}")
    if value == 0 and exponent < 0:
        raise CannotEvaluate("a division by zero")
    if _bits(value) * abs(exponent) > MAX_BITS:
        raise CannotEvaluate(f"a number of more than {MAX_BITS} bits")
    return value ** int(exponent)


def _checked(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise CannotEvaluate(f"a number of more than {MAX_BITS} bits")
    return value


def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def wrong_equations(text: str) -> list[str]:
    """The equations of a text that do not hold, as they stand there; annotations first.

    An annotation that cannot be evaluated is wrong; an equation in prose that cannot be is passed over.
    """
    return [*_wrong_annotations(text), *_wrong_in_prose(plain(tidy(text)))]


def _wrong_annotations(text: str) -> list[str]:
    wrong = []
    for match in _ANNOTATION.finditer(tidy(text)):
        try:
            if not _holds(match[1].split("=")):
                wrong.append(match[1])
        except CannotEvaluate:
            wrong.append(match[1])
    return wrong


def _wrong_in_prose(text: str) -> list[str]:
    wrong = []
    for match in _EQUATION.finditer(text):
        if _BEGAN_BEFORE.search(text[max(0, match.start() - 8) : match.start()]) or _GOES_ON.match(text, match.end()):
            continue
        equation = re.sub(r"[ -]?[a-z]{2,20}", "", _MIXED.sub(r"(\1+\2)", match[0]))
        if _AMBIGUOUS.search(equation) or any(int(top) >= int(bottom) for top, bottom in _MIXED_PART.findall(match[0])):
            continue
        in_hundredths = re.search(rf"%|{_SIGNS}|\bcents?\b", text[match.start() : match.end() + 7]) is not None
        try:
            if not _holds(re.sub(_SIGNS, "", equation).split("="), in_hundredths):
                wrong.append(match[0])
        except CannotEvaluate:
            continue
    return wrong


def _holds(sides: list[str], in_hundredths: bool = False) -> bool:
    """Whether every side of an equation equals the next one, or, as people write it, the first number of the next one:
    in `2 + 3 = 5 * 4 = 20` each step goes on from the one before.

    Raises:
        CannotEvaluate: A side is no expression, or there is one side only.
    """
    values = [evaluate(side) for side in sides]
    if len(sides) < 2:
        raise CannotEvaluate("there is no equals sign")
    for value, side, stated in zip(values, sides[1:], values[1:], strict=False):
        meant = (value, value * 100, value / 100) if in_hundredths else (value,)
        if any(close(one, stated, side) for one in meant):
            continue
        first = re.match(r"[\s(]*(-?[0-9.,]*[0-9])", side)
        if first is None or not any(close(one, evaluate(first[1]), first[1]) for one in meant):
            return False
    return True


def close(value: Fraction, stated: Fraction, digits: str) -> bool:
    """Whether `stated`, written as `digits`, is `value` rounded or cut off at its last digit."""
    if value == stated:
        return True
    unit = Fraction(1, 10 ** len(digits.strip().rstrip("%").partition(".")[2]))
    cut_off = value * stated >= 0 and abs(stated) <= abs(value) < abs(stated) + unit
    return cut_off or abs(value - stated) <= unit / 2


def stated_equations(text: str) -> list[str]:
    """Every equation of a text, right or wrong: what annotations hold, and what stands in prose."""
    return [*_ANNOTATION.findall(tidy(text)), *(match[0] for match in _EQUATION.finditer(plain(tidy(text))))]


def with_digits(text: str) -> str:
    """A text without markup whose numbers are all digits: `three`, `4th` and `100 000` are 3, 4 and 100,000."""
    text = _ORDINAL_ENDING.sub("", _SPACED_THOUSANDS.sub(",", plain(tidy(text))))
    return _COUNTED.sub(lambda word: str(_COUNTING.index(word[0].lower())), text)
