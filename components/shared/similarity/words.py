"""What of a row is compared: its text, its words, its words without the numbers."""

import unicodedata

from llm2llm.components.shared.base.text import folded
from llm2llm.components.shared.data.schemas import Example

LONGEST = 10_000
"""Words of a text that are compared; what comes after them is not. A row of a megabyte has some 150,000."""

TEMPLATE = 8
"""Words besides the numbers, from which on a text with other numbers is the same problem again."""

NUMBER = "#"  # stands for every number; no word is written so

_SPACED_ASCII = bytes(ord(chr(code).lower()) if chr(code).isalnum() else ord(" ") for code in range(128)) + bytes(128)
"""For `bytes.translate`: lower case, and a space for what is no letter or digit."""
_NUMBER_WORDS = {
    *["two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"],
    *["fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen", "twenty", "thirty", "forty", "fifty"],
    *["sixty", "seventy", "eighty", "ninety", "hundred", "thousand", "million"],
}
# Scripts that put no space between words: Thai, Lao, Myanmar, Khmer, kana, Han.
_WITHOUT_SPACES = [
    *[(0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF), (0x3040, 0x30FF), (0x31F0, 0x31FF)],
    *[(0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF), (0x20000, 0x3FFFF)],
]


def question_key(example: Example) -> str:
    """What rows with the same question have in common: the text, the choices and the tools, whatever the order of
    these, the case, spaces and outer punctuation."""
    options = [*sorted(map(folded_or_same, example.choices)), *sorted(example.tools)]
    return "\x1f".join([folded_or_same(example.question), *options])


def folded_or_same(text: str) -> str:
    """`folded`, without characters that nobody sees; but text that is nothing but punctuation as it is: folded to
    nothing, all such texts would be one."""
    return folded(text if text.isascii() else text.translate(_SEEN)) or text


def text_of(row: Example) -> str:
    """What of a row is compared: the question and the choices, whose order does not matter."""
    return "\n".join([row.question, *sorted(row.choices, key=folded)]) if row.choices else row.question


def words(text: str) -> list[str]:
    """The words of a text that are compared, at most `LONGEST`.

    Of ASCII text they are those of the `rouge_score` package: lower-case letters and digits. It finds no word in other
    scripts, and of two Russian tickets that name an iPhone 12 it compares the phone alone. Here a text that is not
    ASCII is taken in Unicode form NFKC, case folded, and its words are runs of letters, marks and digits; where a
    script puts no space between words, each character is one. Characters that nobody sees, such as soft hyphens, part
    no words.
    """
    return spaced(text).split()


def spaced(text: str, longest: int | None = LONGEST) -> str:
    """The words of a text with white space between them, and nothing else; of more than `longest` the first."""
    if text.isascii():
        apart = text.encode().translate(_SPACED_ASCII).decode()
    else:
        apart = unicodedata.normalize("NFKC", text).casefold().translate(_SPACED)
    if longest is None or len(apart) < 2 * longest:
        return apart
    return " ".join(apart.split(None, longest)[:longest])


def masked(some: list[str]) -> list[str]:
    """The words with `NUMBER` for each number, in digits or spelled out from `two` on (`one` is rarely a number); as
    they are, if they are no template."""
    return [NUMBER if _is_number(word) else word for word in some] if is_template(some) else some


def is_template(some: list[str]) -> bool:
    """Whether words say something without their numbers: `What is 17 + 4?` does not, its numbers are the question."""
    return sum(not _is_number(word) for word in some) >= TEMPLATE


def numbers_of(some: list[str]) -> list[str]:
    """The words that `masked` hides, in order."""
    return [word for word in some if _is_number(word)]


def _is_number(word: str) -> bool:
    return word.isdecimal() or word in _NUMBER_WORDS


class _Seen(dict[int, str]):
    """A table for `str.translate`, made as characters come up: nothing for a format character (category Cf), such as a
    soft hyphen, a zero-width space or a mark of direction. One in each word would hide a copy."""

    def __missing__(self, code: int) -> str:
        self[code] = "" if unicodedata.category(chr(code)) == "Cf" else chr(code)
        return self[code]


class _Spaced(dict[int, str]):
    """The same, and a space for what is no part of a word, spaces around what is a word by itself."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        if not _SEEN[code]:
            self[code] = ""
        elif unicodedata.category(character)[0] not in "LMN":
            self[code] = " "
        elif any(first <= code <= last for first, last in _WITHOUT_SPACES):
            self[code] = f" {character} "
        else:
            self[code] = character
        return self[code]


_SEEN = _Seen()
_SPACED = _Spaced()
