"""Which of some texts, the labels of a task or the choices of a question, an answer is. Nothing is an index here.

>>> option_of(3, ["1.0", "3.0"]), option_of("3", ["1.0", "3.0"]), option_of(True, ["false", "true"])
(1, 1, 1)
"""

import re
import unicodedata
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction

_NUMBER = re.compile(r"[+-]?(?:\d{1,30}(?:\.\d{0,30})?|\.\d{1,30})(?:[eE][+-]?\d{1,2})?")
_INVISIBLE = "\u200b\u200c\u200d\u2060\ufeff\u00ad\u200e\u200f"


def option_of(value: object, options: Sequence[str]) -> int | None:
    """The place of the option that a value is; None when it is none.

    The same text wins. Else the only option that is the same but for Unicode form, for invisible characters at the
    ends, for how a number is written (`3`, `3.0`, `+3`) or for the case of `true` and `false`.
    """
    text = text_of_value(value)
    if text in options:
        return options.index(text)
    for key in (_shown, number_in, _truth):
        wanted = key(text)
        found = [place for place, option in enumerate(options) if wanted is not None and key(option) == wanted]
        if found:
            return found[0] if len(found) == 1 else None
    return None


def text_of_value(value: object) -> str:
    """A value as a person writes it: 3 for 3.0, no exponent where the number is whole."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, Decimal) and value.is_finite():
        return f"{value.normalize():f}"
    return str(value).strip()


def number_in(text: str) -> Fraction | None:
    """The value of a text that is nothing but a number in digits; None for any other."""
    text = text.strip().replace("\u2212", "-")
    return Fraction(text.rstrip(".")) if _NUMBER.fullmatch(text) else None


def _shown(text: str) -> str | None:
    return unicodedata.normalize("NFC", text).strip(_INVISIBLE + " \t\r\n\u00a0") or None


def _truth(text: str) -> str | None:
    return text.casefold() if text.casefold() in ("true", "false") else None
