"""Reading numbers out of text, exactly: a number is a `Fraction`, so 0.5 equals 1/2 and nothing is rounded.

    >>> read_numbers("She paid -$1,234.50, or 1 1/2 of it.")
    [Fraction(-2469, 2), Fraction(3, 2)]

A comma is a thousands separator only where groups of three digits follow; `3,4` and `0,500` are two numbers. Currency
signs, percent signs and units are not part of a number (50% is 50), but magnitudes are: 72k, $1.2M, 7bn, 2.5 million, 5
lakh, 1.5 Mio. and the like in other languages, 3万5千. What may be a magnitude or a unit is read as a unit, and
`unclear_magnitude` names it: 5m, 2 dozen. Not numbers: ordinals (2nd), powers and roots (10^2), dates (5/6/2024),
versions (1.2.3), digits inside a word (B12).
"""

import re
import unicodedata
from fractions import Fraction
from functools import lru_cache

CURRENCY = "$€£¥₹₩₽¢"
# int() of a million digits takes minutes, and no answer has them. Any value below _TOO_LARGE is shown in fewer than
# _MAX_LENGTH characters, so that what `show` writes is read again.
_MAX_LENGTH = 1000
_TOO_LARGE = 10**100

_WORDS = {
    10**2: "hundred hundreds",
    10**3: "thousand thousands tausend tsd. mille mila duizend tusen tusind тысяча тысячи тысяч тыс. tysiąc tysiące "
    "tysięcy tys. ribu nghìn ngàn ألف हज़ार हजार",
    10**5: "lakh lakhs lac lacs लाख",
    10**6: "million millions millionen mio. mln. millón millon millones milione milioni milhão milhões miljoen "
    "miljoner миллион миллиона миллионов млн. milion miliony milionów milyon juta triệu مليون",
    10**7: "crore crores करोड़ करोड",
    10**9: "billion billions bn. milliarde milliarden mrd. milliard milliards mld. miliardo miliardi miljard "
    "miljarder миллиард миллиарда миллиардов млрд. miliard milyar miliar tỷ مليار mil_millones mil_milhões bilhão "
    "bilhões",
    10**12: "trillion trillions billionen billón billones трлн.",
}  # fmt: skip
_SCALES = {word.replace("_", " ").rstrip("."): value for value, words in _WORDS.items() for word in words.split()}
_SUFFIXES = {"k": 10**3, "K": 10**3, "M": 10**6, "B": 10**9}
"""Right after the digits, and before no other letter."""
_MONEY_SUFFIXES = {
    "k": 10**3, "K": 10**3, "m": 10**6, "M": 10**6, "mm": 10**6, "MM": 10**6, "mn": 10**6, "Mn": 10**6, "b": 10**9,
    "B": 10**9, "cr": 10**7, "Cr": 10**7, "t": 10**12, "T": 10**12, "tn": 10**12,
}  # fmt: skip
"""After an amount that begins with a currency sign: what else these letters are units of."""
_CJK_SMALL = {"十": 10, "십": 10, "百": 100, "백": 100, "千": 1000, "천": 1000}
_CJK_LARGE = {"万": 10**4, "萬": 10**4, "만": 10**4, "億": 10**8, "亿": 10**8, "억": 10**8, "조": 10**12}
_CJK = "".join([*_CJK_SMALL, *_CJK_LARGE])
_DIGITS = r"\d++(?:,\d++)*+(?:\.\d++)?+"
_ANY_SCALE = "|".join(re.escape(word) for word in sorted(_SCALES, key=len, reverse=True))
_ANY_MONEY_SUFFIX = "|".join(sorted(_MONEY_SUFFIXES, key=len, reverse=True))
_NUMBER = re.compile(
    rf"""
    (?<!\w)(?<!\d[./])                                # not inside a word, a version or a date
    (?<![√^])(?<!\^-)                                 # no root, no exponent
    (?:(?<![)\]-])(?P<sign>[-+]\ ?|(?:minus|negative)\ )\(?)?                       # "(2)-5" subtracts
    (?P<money>
        (?:[A-Z]{{1,3}})?[{CURRENCY}]\ ?(?P<inner_sign>[-+])?                        # US$5, $-5
      | [A-Z]{{3}}\ (?=\d)                            # USD 5
    )?
    (?:
        (?P<cjk>{_DIGITS}[{_CJK}][\d,.{_CJK}]*+(?<![,.]))
      | (?P<whole>\d++)\ (?P<over_whole>\d++)/(?P<under_whole>\d++)
      | (?P<over>{_DIGITS}|\.\d++)\ ?/\ ?(?P<under>{_DIGITS})
      | (?P<plain>(?:{_DIGITS}|(?<!\.)\.\d++)(?:[eE][-+]?\d{{1,2}}(?!\w))?+)
        (?!(?i:st|nd|rd|th)\b)
    )
    (?:
        (?P<scales>(?:[\ -]?(?i:{_ANY_SCALE})(?![^\W_]))++\.?)
      | (?P<suffix>[kKMB])(?![\w²³])
      | \ (?P<before_money>[kKM])(?=[{CURRENCY}])
      | (?(money)(?!\ [mtTb]\b)\ ?(?P<money_suffix>{_ANY_MONEY_SUFFIX})(?![\w²³^-])|(?!))
      | (?!\.\d|\ ?/\ ?\d|\ ?[\^√π⁰¹²³⁴-⁹⁻]|_\d|[eE][-+]?\d|兆)
    )
    """,
    re.VERBOSE,
)
# A magnitude to one reader and a unit to another.
_UNCLEAR = re.compile(
    rf"\d\ ?(?:(?<=\d)[mtTbG]|(?<=\ )[kKMBT]|(?i:dozen|dozens|dz|gross|mil|bin)|兆)(?![^\W_])(?!\ ?[{CURRENCY}])"
    rf"|[{CURRENCY}]\ ?\d[\d.,]*\ [mtTb](?![\w^-])"
)
# Before a minus with white space behind it that is a sign: "= - 5". In "10 - 5" it subtracts, "apples - 5" is a dash.
_SIGN_MAY_FOLLOW = re.compile(r"(?:^|[=(\[{:$]|\bis) ?$")
# What stands before the last digits of 1.000.000,00, which are no number of their own.
_DOTTED = re.compile(r"\d\.\d+\.\d[\d.]*,$")
_GROUPED = re.compile(r"[1-9]\d{0,2}(?:,\d{3})*(?:\.\d+)?|[^,]*")


@lru_cache(maxsize=1024)
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
    return list(_found(text))


@lru_cache(maxsize=1024)  # the checks of a row read its texts again and again
def _found(text: str) -> tuple[tuple[int, int, Fraction], ...]:
    found: list[tuple[int, int, Fraction]] = []
    for match in _NUMBER.finditer(text):
        if _DOTTED.search(text[max(0, match.start() - _MAX_LENGTH) : match.start()]):
            continue
        found += [(match.start(), match.end(), value) for value in _values(match)]
    return tuple(found)


def read_numbers(text: str) -> list[Fraction]:
    """Every number in a text, in order."""
    return [value for _, _, value in find_numbers(tidy(text))]


def unclear_magnitude(text: str) -> str | None:
    """The number in a text that may be a multiple or have a unit: `5m` is five metres or five millions, `2 dozen`
    two or twenty-four; None where there is none."""
    text = tidy(text)
    for match in _UNCLEAR.finditer(text):
        around = next(
            (found for found in _NUMBER.finditer(text) if found.start() < match.end() and match.start() < found.end()),
            None,
        )
        if around is None or not _scale(around)[1]:
            return text[text.rfind(" ", 0, match.start() + 1) + 1 : match.end()]
    return None


def _scale(match: re.Match[str]) -> tuple[int, bool]:
    """(what a match's magnitude multiplies by, whether it has one)."""
    if suffix := match["suffix"] or match["before_money"]:
        return _SUFFIXES[suffix], True
    if match["money_suffix"]:
        return _MONEY_SUFFIXES[match["money_suffix"]], True
    if not match["scales"]:
        return 1, False
    scale = 1
    for word in re.findall(rf"(?i:{_ANY_SCALE})(?![^\W_])", match["scales"]):
        scale *= _SCALES[word.casefold()]
    return scale, True


def _cjk_value(text: str) -> list[Fraction]:
    """The value of 3万5千 or 1億2000万; none for 3万5, which is 35000 to some and 30005 to others."""
    total = section = Fraction(0)
    number: Fraction | None = None
    last = 0
    for token in re.findall(rf"{_DIGITS}|[{_CJK}]", text):
        if token in _CJK_SMALL:
            section += (1 if number is None else number) * _CJK_SMALL[token]
        elif token in _CJK_LARGE:
            total += (section + (number or 0)) * _CJK_LARGE[token]
            section = Fraction(0)
        elif not _GROUPED.fullmatch(token):
            return []
        else:
            number = fraction(token)
            continue
        number, last = None, (_CJK_SMALL | _CJK_LARGE)[token]
    if number is not None and (len(str(last)) - 1) != len(re.split(rf"[{_CJK}]", text)[-1].partition(".")[0]):
        return []
    return [total + section + (number or 0)]


def _values(match: re.Match[str]) -> list[Fraction]:
    """The value of a match; several for `3,4`, none for a division by zero or more digits than anyone means."""
    if match.end() - match.start() > _MAX_LENGTH:
        return []
    plain = match["plain"]
    try:
        if match["cjk"]:
            values = _cjk_value(match["cjk"])
        elif plain and not _GROUPED.fullmatch(plain):
            values = [Fraction(part) for part in plain.split(",")]
        elif plain:
            values = [fraction(plain)]
        elif match["whole"]:
            values = [int(match["whole"]) + Fraction(int(match["over_whole"]), int(match["under_whole"]))]
        elif _GROUPED.fullmatch(match["over"]) and _GROUPED.fullmatch(match["under"]):
            values = [fraction(match["over"]) / fraction(match["under"])]
        else:
            return []
    except ZeroDivisionError:
        return []
    if len(values) == 1 and (scale := _scale(match)[0]) != 1:
        values = [values[0] * scale]
    if values and _is_negative(match):
        values[0] = -values[0]
    return [value for value in values if max(abs(value.numerator), value.denominator) < _TOO_LARGE]


def fraction(digits: str) -> Fraction:
    """The value of digits with a comma between thousands, and a point."""
    digits = digits.replace(",", "")
    return Fraction(int(digits) if digits.isdecimal() else digits)  # a text takes four times as long


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
