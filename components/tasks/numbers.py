"""Reading numbers out of text, exactly: a number is a `Fraction`, so 0.5 equals 1/2 and nothing is rounded.

    >>> read_numbers("She paid -$1,234.50, or 1 1/2 of it.")
    [Fraction(-2469, 2), Fraction(3, 2)]

A comma is a thousands separator only where groups of three digits follow. Currency signs, percent signs and units are
not part of a number (50% is 50). Ordinals (2nd) are not numbers.
"""

import re
import unicodedata
from fractions import Fraction

CURRENCY = "$€£¥₹₩₽¢"
_MAX_DIGITS = 400  # int() of a million digits takes minutes, and no answer has them

_INTEGER = r"(?:\d{1,3}(?:,\d{3})+(?![\d,]*\d)|\d+)"
_DECIMAL = rf"(?:{_INTEGER}(?:\.\d+)?|\.\d+)(?:[eE][-+]?\d{{1,3}}(?!\w))?"
_NUMBER = re.compile(
    rf"""
    (?<![\w.])                                        # not inside a word or behind a decimal point
    (?P<sign>[-+]\s*)?
    [{CURRENCY}]?\s?
    (?P<inner_sign>[-+])?                             # $-5
    (?:
        (?P<whole>\d+)\s+(?P<over_whole>\d+)/(?P<under_whole>\d+)
      | (?P<over>{_DECIMAL})\s?/\s?(?P<under>{_INTEGER})(?!/)
      | (?P<plain>{_DECIMAL})
    )
    (?!\d|(?:st|nd|rd|th)\b)
    """,
    re.VERBOSE,
)


def tidy(text: str) -> str:
    """Text with one form for each sign and digit: minus signs and dashes as `-`, `½` as ` 1/2`, full-width as ASCII."""
    out = []
    for char in text:
        if char in "\u2212\u2012\u2013\uff0d":
            char = "-"
        elif (form := unicodedata.decomposition(char)[:6]) == "<fract":
            char = " " + unicodedata.normalize("NFKC", char).replace("\u2044", "/")
        elif form == "<wide>":
            char = unicodedata.normalize("NFKC", char)
        elif char == "\u2044":
            char = "/"
        out.append(char)
    return "".join(out)


def find_numbers(text: str) -> list[tuple[int, int, Fraction]]:
    """Every number of a tidied text as (start, end, value), in order."""
    found = []
    for match in _NUMBER.finditer(text):
        before = text[max(0, match.start() - 16) : match.start()].rstrip()
        value = _value(match, before)
        if value is not None:
            found.append((match.start(), match.end(), value))
    return found


def read_numbers(text: str) -> list[Fraction]:
    """Every number in a text, in order."""
    return [value for _, _, value in find_numbers(tidy(text))]


def _value(match: re.Match[str], before: str) -> Fraction | None:
    """The value of a match; None for a division by zero or more digits than anyone means."""
    if len(match[0]) > _MAX_DIGITS:
        return None
    try:
        if match["plain"]:
            value = Fraction(match["plain"].replace(",", ""))
        elif match["whole"]:
            value = int(match["whole"]) + Fraction(int(match["over_whole"]), int(match["under_whole"]))
        else:
            value = Fraction(match["over"].replace(",", "")) / int(match["under"].replace(",", ""))
    except ZeroDivisionError:
        return None
    sign = match["sign"] or ""
    # "10 - 5" subtracts and "apples - 5" is a dash: a minus with white space behind it counts only at the very start.
    if sign != sign.rstrip() and before:
        sign = ""
    # "(2)-5" and "10 -5" subtract as well.
    if before and (before[-1].isdigit() or before[-1] in ")]"):
        sign = ""
    negative = sign.startswith("-") != (match["inner_sign"] == "-")
    return -value if negative else value


def show(value: Fraction) -> str:
    """A number as a person writes it, exactly: `18`, `-2.5`, `1/3`."""
    if value.denominator == 1:
        return str(value.numerator)
    twos = fives = 0
    rest = value.denominator
    while rest % 2 == 0:
        rest, twos = rest // 2, twos + 1
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest != 1:
        return f"{value.numerator}/{value.denominator}"
    places = max(twos, fives)
    digits = str(abs(value.numerator) * 10**places // value.denominator).rjust(places + 1, "0")
    return ("-" if value < 0 else "") + digits[:-places] + "." + digits[-places:]
