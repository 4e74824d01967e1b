"""Reading numbers out of text, exactly: a number is a `Fraction`, so 0.5 equals 1/2 and nothing is rounded.

    >>> read_numbers("She paid -$1,234.50, or 1 1/2 of it.")
    [Fraction(-2469, 2), Fraction(3, 2)]

A comma is a thousands separator only where groups of three digits follow; `3,4` is two numbers. Currency signs, percent
signs and units are not part of a number (50% is 50), but `thousand` to `trillion` are. Not numbers: ordinals (2nd),
powers and roots (10^2), dates (5/6/2024), versions (1.2.3), digits inside a word (B12).
"""

import re
import unicodedata
from fractions import Fraction

CURRENCY = "$€£¥₹₩₽¢"
# int() of a million digits takes minutes, and no answer has them. Any value below _TOO_LARGE is shown in fewer than
# _MAX_LENGTH characters, so that what `show` writes is read again.
_MAX_LENGTH = 1000
_TOO_LARGE = 10**100

_SCALES = {"thousand": 10**3, "million": 10**6, "billion": 10**9, "trillion": 10**12}
_DIGITS = r"\d++(?:,\d++)*+(?:\.\d++)?+"
_NUMBER = re.compile(
    rf"""
    (?<!\w)(?<!\d[./])                                # not inside a word, a version or a date
    (?<![√^])(?<!\^-)                                 # no root, no exponent
    (?:(?<![)\]-])(?P<sign>[-+]\ ?|(?:minus|negative)\ )\(?)?                       # "(2)-5" subtracts
    (?:[A-Z]{{1,3}}(?=[{CURRENCY}])|[A-Z]{{3}}\ (?=\d))?                          # US$5, USD 5
    (?:[{CURRENCY}]\ ?(?P<inner_sign>[-+])?)?         # $-5
    (?:
        (?P<whole>\d++)\ (?P<over_whole>\d++)/(?P<under_whole>\d++)
      | (?P<over>{_DIGITS}|\.\d++)\ ?/\ ?(?P<under>{_DIGITS})
      | (?P<plain>(?:{_DIGITS}|(?<!\.)\.\d++)(?:[eE][-+]?\d{{1,2}}(?!\w))?+)
        (?!(?i:st|nd|rd|th)\b)
        (?:\ (?P<scale>{"|".join(_SCALES)})\b)?
    )
    (?!\.\d|\ ?/\ ?\d|\ ?[\^√π⁰¹²³⁴-⁹⁻]|_\d|[eE][-+]?\d)
    """,
    re.VERBOSE,
)
# Before a minus with white space behind it that is a sign: "= - 5". In "10 - 5" it subtracts, "apples - 5" is a dash.
_SIGN_MAY_FOLLOW = re.compile(r"(?:^|[=(\[{:$]|\bis) ?$")
_GROUPED = re.compile(r"\d{1,3}(?:,\d{3})*(?:\.\d+)?|[^,]*")


def tidy(text: str) -> str:
    """Text with one form for what has many: `-` for minus signs and dashes, ` 1/2` for `½`, ASCII for full-width
    characters, `,` for a thin or no-break space between thousands, one blank for several."""
    if not text.isascii():
        text = "".join(_tidy_character(text, at) for at in range(len(text)))
        text = re.sub(r"(?<=\d)[\u00a0\u2009\u202f](?=\d{3}(?!\d))", ",", text)
    return re.sub(r"[^\S\n]+", " ", text)


def _tidy_character(text: str, at: int) -> str:
    character = text[at]
    if character in "\u2010\u2011\u2012\u2013\u2212\ufe63":
        return "-"
    if character == "\u2044":
        return "/"
    form = unicodedata.decomposition(character)
    if form.startswith("<fraction>"):
        blank = " " if at and text[at - 1].isdecimal() else ""
        return blank + unicodedata.normalize("NFKC", character).replace("\u2044", "/")
    return unicodedata.normalize("NFKC", character) if form.startswith("<wide>") else character


def find_numbers(text: str) -> list[tuple[int, int, Fraction]]:
    """Every number of a tidied text as (start, end, value), in order."""
    found = []
    for match in _NUMBER.finditer(text):
        found += [(match.start(), match.end(), value) for value in _values(match)]
    return found


def read_numbers(text: str) -> list[Fraction]:
    """Every number in a text, in order."""
    return [value for _, _, value in find_numbers(tidy(text))]


def _values(match: re.Match[str]) -> list[Fraction]:
    """The value of a match; several for `3,4`, none for a division by zero or more digits than anyone means."""
    if match.end() - match.start() > _MAX_LENGTH:
        return []
    plain = match["plain"]
    try:
        if plain and not _GROUPED.fullmatch(plain):
            values = [Fraction(part) for part in plain.split(",")]
        elif plain:
            values = [_fraction(plain) * _SCALES.get(match["scale"], 1)]
        elif match["whole"]:
            values = [int(match["whole"]) + Fraction(int(match["over_whole"]), int(match["under_whole"]))]
        elif _GROUPED.fullmatch(match["over"]) and _GROUPED.fullmatch(match["under"]):
            values = [_fraction(match["over"]) / _fraction(match["under"])]
        else:
            return []
    except ZeroDivisionError:
        return []
    if _is_negative(match):
        values[0] = -values[0]
    return [value for value in values if max(abs(value.numerator), value.denominator) < _TOO_LARGE]


def _fraction(digits: str) -> Fraction:
    return Fraction(digits.replace(",", ""))


def _is_negative(match: re.Match[str]) -> bool:
    sign = match["sign"] or ""
    if sign in ("- ", "minus ") and not _SIGN_MAY_FOLLOW.search(match.string[: match.start()][-3:]):
        sign = ""
    return sign.startswith(("-", "minus", "negative")) != (match["inner_sign"] == "-")


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
