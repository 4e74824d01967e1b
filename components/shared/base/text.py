r"""Text helpers that several packages share: comparison, answer cues, negations, control characters.

>>> folded("“Marie  CURIE”。")
'marie curie'
>>> repair_control_characters("a \x0crac{1}{2} of it")
'a \\frac{1}{2} of it'
"""

import re
import unicodedata

# Punctuation that is part of what a text says: 50%, #1, §5, 5′, a/b.
_MEANS_SOMETHING = set("%‰‱#&@/\\§¶†‡′″‴٪؉؊")
_QUOTES = set("\"'`´")
_MARKDOWN = set("*_`~")
_OPENING = {"(": ")", "[": "]", "{": "}", "<": ">"}
_INTERVAL = re.compile(r"[^,;]*\d[^,;]*[,;][^,;]+|[^,;]+[,;][^,;]*\d[^,;]*")
_LONGEST_INTERVAL = 100
_DEEPEST = 1000
"""Marks of punctuation, one inside the other, that are taken off."""
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ", "0123456789+-=()ni")
_SUPERSCRIPT_RUN = re.compile("[⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁼⁽⁾ⁿⁱ]+")
# A subscript that NFKC would run together with digits: 10₂ (binary), log₂8. In H₂O it may.
_SUBSCRIPT_RUN = re.compile("(?:(?<=[0-9])[₀-₉]+|[₀-₉]+(?=[0-9]))")
_SUBSCRIPTS = str.maketrans("₀₁₂₃₄₅₆₇₈₉", "0123456789")
_FRACTION = re.compile(r"[¼-¾⅐-⅟↉]")
_SQUARED_UNITS = re.compile(r"[\u3371-\u33df]")

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


_ONE_QUOTE = str.maketrans("‘’ʼ“”", "'''\"\"")
"""Typographic quotation marks and apostrophes, and those of a typewriter: don’t is don't."""


def folded(text: str) -> str:
    """Text without what a comparison should ignore: Unicode form (NFKC), case, white space, kinds of quotation
    marks, punctuation at the ends, of any script.

    What means something stays: 10² is `10^2` and not 102, 1½ is `1 1/2`, `.5`, `5%`, `<5`, `5!` and the interval
    `(0, 1]` keep their marks.
    """
    return _without_outer_punctuation(" ".join(_compatible(text).translate(_ONE_QUOTE).casefold().split()))


def _compatible(text: str) -> str:
    """Unicode form NFKC, without the compatibility mappings that run a digit into its neighbours."""
    if text.isascii():
        return text
    text = _SQUARED_UNITS.sub(lambda match: _spelled(match[0]), text)
    text = _SUPERSCRIPT_RUN.sub(lambda match: "^" + match[0].translate(_SUPERSCRIPTS), text)
    text = _SUBSCRIPT_RUN.sub(lambda match: f"_{match[0].translate(_SUBSCRIPTS)} ", text)
    text = _FRACTION.sub(lambda match: _spelled_fraction(match, text), text)
    return unicodedata.normalize("NFKC", text).replace("\u2044", "/")


def _spelled(character: str) -> str:
    """One step of the character's own decomposition, which keeps the superscript of ㎡."""
    form = unicodedata.decomposition(character)
    return "".join(chr(int(code, 16)) for code in form.split()[1:]) if form.startswith("<square>") else character


def _spelled_fraction(match: re.Match[str], text: str) -> str:
    blank = " " if match.start() and text[match.start() - 1].isdecimal() else ""
    return blank + unicodedata.normalize("NFKC", match[0])


def _without_outer_punctuation(text: str) -> str:
    for _ in range(_DEEPEST):
        shorter = text.strip()
        first, last = shorter[:1], shorter[-1:]
        if (
            first in "([]"
            and last in ")]["
            and len(shorter) <= _LONGEST_INTERVAL
            and _INTERVAL.fullmatch(shorter[1:-1])
        ):
            return shorter
        if len(shorter) > 1 and _closes(first) == last:
            shorter = shorter[1:-1]
        elif _is_outer(first) and not (first == "." and shorter[1:2].isdecimal()) and not _has_partner(shorter, 0):
            shorter = shorter[max(1, len(shorter) - len(shorter.lstrip(first)) - 1) :]
        elif _is_outer(last) and not (last in "!'\"" and _is_of_number(shorter)) and not _has_partner(shorter, -1):
            shorter = shorter[: -max(1, len(shorter) - len(shorter.rstrip(last)) - 1)]
        if shorter == text:
            return text
        text = shorter
    return text


def _is_of_number(text: str) -> bool:
    """Whether the last character belongs to a number, in a text without words: the factorial 5!, the lengths 5' and
    5\"."""
    return text[-2:-1].isdecimal() and not any(map(str.isalpha, text))


def _closes(character: str) -> str:
    """The bracket or quotation mark that closes this one; empty for any other character."""
    if character in _QUOTES:
        return character
    if character in _OPENING:
        return _OPENING[character]
    category = unicodedata.category(character)
    return chr(ord(character) + 1) if category in ("Ps", "Pi") and character not in "„‚" else ""


def _is_outer(character: str) -> bool:
    """Whether a character at the end of a text says nothing: punctuation but for dashes, percent signs and the like."""
    if character in _MEANS_SOMETHING or character in "<>":
        return False
    return character in _MARKDOWN or character in _QUOTES or unicodedata.category(character) in _OUTER


_OUTER = ("Po", "Ps", "Pe", "Pi", "Pf", "Pc")


def _has_partner(text: str, at: int) -> bool:
    """Whether the bracket at an end of the text encloses some word of it: that of `f(x)` and of `Paris (France)`."""
    inner = text[1:] if at == 0 else text[:-1]
    category = unicodedata.category(text[at])
    if at == 0 and category == "Ps" and (closing := _closes(text[at])) in inner:
        return bool(closing) and any(map(str.isalnum, inner[: inner.index(closing)]))
    if at == -1 and category == "Pe":
        opening = next(
            (other for other in inner if unicodedata.category(other) == "Ps" and _closes(other) == text[at]), ""
        )
        return bool(opening) and any(map(str.isalnum, inner[inner.rindex(opening) :]))
    return False


def after_cues(text: str) -> list[str]:
    """What follows each `Answer:`, `The answer is` or `A:` of a text, up to the next; empty when there is none."""
    cues = [match.span() for match in _ANSWER_CUE.finditer(text)]
    next_starts = [start for start, _ in cues[1:]] + [len(text)]
    return [text[end:start] for (_, end), start in zip(cues, next_starts, strict=False)]


# Negations. Some words may stand between the negation and what it negates ("isn't really about billing"), but no clause
# may end between them.
_BEFORE = re.compile(
    r"""
    (?P<negation> \b(?:not|no|never|nor|neither|without|non|isnt|aint|wasnt|cannot|hardly)\b
      | \w+n['’]t\b
      | \b(?:rather\ than|instead\ of|anything\ but|far\ from|free\ of|ruled?\ out|rules\ out)\b
      | \b(?:nicht|kein\w{0,2}|weder|ohne|niemals)\b                                         # German
      | \bn['’](?=\w)|\b(?:ne|pas|aucune?|ni|sans|jamais)\b                                       # French
      | \b(?:ningun[ao]?|ningún|sin|nunca|tampoco|non|senza|nessun[ao]?|né|não|nem|sem|nenhuma?)\b  # Spanish and kin
      | \b(?:не|ни|нет|без|nie|bez|ani|niet|geen|zonder|inte|ikke|ej|ingen)\b                     # Slavic, Germanic
      | \b(?:ليس|ليست|لا|غير|بدون)\b                                                              # Arabic
      | (?:不是|并非|並非|不属于|不屬於|没有|沒有)\w{0,4}|非|không\ phải|bukan|tidak                 # Chinese, others
    )
    ["'`*_]*
    (?:[\s-]+[\w'’]+){0,4}? [\s-]* (?:["'`“”‘’«»*_(\[]*) $
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CANCELS = re.compile(
    r"\b(?:but|so|hence|thus|therefore|because|since|only|just|doubt|question|mistake|sondern|nur|sino|mais|ma|mas|но|только)\b",
    re.I,
)
_SPANISH_NO = re.compile(r"\bno\s+(?:es|son|era|fue|hay|parece|é|foi)\b[\s\w]{0,20}$", re.IGNORECASE)
_AFTER = re.compile(
    r"""
    ["'`“”‘’«»*_)\]]*
    (?: \s*(?:ではな|じゃな|でな|ではありません|じゃありません|[이가은는]\ ?아니)                   # Japanese, Korean
      | \s+(?:değil|nahi[ṇn]?|नहीं|नही)                                                            # Turkish, Hindi
      | \s+(?:is|was|does|do|would|can|could|should|will)(?:\s+not|n['’]t)\b
      | \s+cannot\b
      | \s*[:=?]\s*(?:no|not|nein|false)\b(?!\s+\w)                                                # spam? No.
      | \s+(?:is|was)\s+(?:wrong|incorrect|false|ruled\ out|excluded)\b
      | \s+(?:ist|sind|war|passt)\s+(?:es\s+|das\s+)?nicht\b
    )
    """,
    re.IGNORECASE | re.VERBOSE,
)
_CLAUSE_END = re.compile(r"[.,;:!?\n。，；：！？、।]")


def is_negated(text: str, start: int, end: int) -> bool:
    """Whether a text denies what it mentions at `[start, end)`: `no spam`, `isn't spam`, `non-spam`, `nicht gut`,
    `n'est pas bon`, `不是垃圾邮件`, `スパムではない`, `spam is not it`.

    A negation counts within its clause and four words; `not only`, `no doubt` and a `but` in between cancel it.
    """
    before = text[max(0, start - 120) : start]
    clause = before[max((match.end() for match in _CLAUSE_END.finditer(before)), default=0) :]
    match = _BEFORE.search(clause)
    if match and not _CANCELS.search(clause, match.end("negation")):
        return True
    if _SPANISH_NO.search(clause):
        return True
    return _AFTER.match(text, end) is not None


# Commands that JSON's escapes swallow when a backslash is not doubled: "\frac" is a form feed and "rac". Those of the
# first group are no English words, so they are repaired anywhere; those of the second only inside TeX.
_SWALLOWED: dict[str, tuple[str, str, str]] = {
    "\f": ("f", "rac|orall|lat|loor|box|boxed|rown|ootnote|oreach|rak", ""),
    "\b": (
        "b",
        "eta|ar|inom|egin|f|ig|igl|igr|Big|mod|oldsymbol|ullet|ot|igcup|igcap|igoplus|igotimes|igsqcup|igvee|igwedge|"
        "eth|ecause|etween|oxed|lacksquare|reve|ackslash|oxplus|oxtimes|oldmath|ackprime|acksim|umpeq",
        "",
    ),
    "\t": ("t", "imes|heta|riangle|riangleq|rianglelefteq|ext(?=\\s*\\{)|ext(?:bf|it|rm|sf|tt|sc|normal|style|up|md)|"
                "frac|ilde|herefore|binom|hickapprox|hicksim|woheadrightarrow|anh|an(?=\\s*[({^_\\\\\\d])|o(?=\\s*(?:\\\\infty|∞|0(?!\\d)))|au(?=\\s*[=_^])",
           "o|an|au|op|ag|iny|race|ranspose|hinspace|ext"),
    "\n": ("n", "eq|abla|otin|olimits|onumber|subseteq|supseteq|earrow|warrow|atural|leqslant|geqslant|"
                "Rightarrow|rightarrow|Leftarrow|leftarrow|ewcommand|ewline",
           "u|e|eg|i|ot|mid|parallel|less|eq|geq|leq|prec|succ|sim|cong|exists"),
    "\r": ("r", "ight|ightarrow|ho|angle|floor|ceil|vert|Vert|ightleftharpoons|aisebox|ule|oot|m|ef", ""),
}  # fmt: skip
_TEX = re.compile(r"\$\$(.{1,500}?)\$\$|\$([^$]{1,500}?)\$|\\\((.{1,500}?)\\\)|\\\[(.{1,500}?)\\\]", re.DOTALL)
_LOOKS_LIKE_TEX = re.compile(r"\\[A-Za-z]|[\^_{}=<>+]|^(?:\$\$?|\\[(\[])[\t\n\r]")
_REFUSED = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


def repair_control_characters(text: str) -> str:
    r"""Text whose TeX commands have their backslashes again, where JSON took `\frac`, `\times`, `\beta`, `\neq` or
    `\right` for an escape, because the backslash was not doubled.

    `\tan`, `\nu`, `\to` and the like, which white space and a word could be, are repaired inside `$...$`, `\(...\)` and
    `\[...\]` only. A form feed that begins no command is a page break, and becomes a line break.

    Raises:
        ValueError: Another control character is left, such as NUL or a backspace; it says which.
    """
    if text.isprintable():
        return text
    for control, (letter, anywhere, _) in _SWALLOWED.items():
        if control in text:
            not_crlf = r"(?!\n)" if control == "\r" else ""
            pattern = rf"{control}{not_crlf}(?=(?:{anywhere})(?![A-Za-z]))"
            text = re.sub(pattern, rf"\\{letter}", text)
    if "$" in text or "\\" in text:
        text = _TEX.sub(_repaired_span, text)
    text = re.sub(r"\n?\f(?![a-z])\n?", "\n", text)
    if found := _REFUSED.search(text):
        character, at = found[0], found.start()
        raise ValueError(
            f"holds the control character U+{ord(character):04X} before {text[at + 1 : at + 21]!r}; remove it, or "
            "write a backslash in JSON as two"
        )
    return text


def with_first_command(text: str) -> str:
    r"""Text that begins with what is left of `\frac`, `\times` or `\nabla`, with its backslash again.

    It is for readers who strip outer white space next, which the control character is.
    """
    bare = text.lstrip()
    control = text[-len(bare) - 1 : -len(bare)] if bare and bare != text else ""
    if control not in _SWALLOWED:
        return text
    letter, anywhere, _ = _SWALLOWED[control]
    return f"\\{letter}{bare}" if re.match(rf"(?:{anywhere})(?![A-Za-z])", bare) else text


def _repaired_span(match: re.Match[str]) -> str:
    span = match[0]
    if not _LOOKS_LIKE_TEX.search(span):
        return span
    for control, (letter, _, inside) in _SWALLOWED.items():
        if inside and control in span:
            span = re.sub(rf"{control}(?=(?:{inside})(?![A-Za-z]))", rf"\\{letter}", span)
    return span


def decode_text(content: bytes, encoding: str = "auto") -> tuple[str, str]:
    """(text, encoding) of a file's bytes, without a byte order mark.

    Args:
        content: The bytes.
        encoding: A Python codec's name, or `auto`: UTF-8, or UTF-16 or UTF-32 by its byte order mark or its zeros; else
            Mac OS Roman where lines end with CR alone, as old Excel for Mac writes, and CP1252 where the text looks
            Western European.

    Raises:
        UnicodeDecodeError: None of these, or not of the encoding that was named.
        LookupError: No such codec.
    """
    if encoding != "auto":
        return content.decode(encoding).removeprefix("\ufeff"), encoding
    for mark, codec in _MARKS:
        if content.startswith(mark):
            return content.decode(codec).removeprefix("\ufeff"), codec
    sample = content[:1000]
    for codec, zeros in (("utf-16-le", sample[1::2]), ("utf-16-be", sample[::2])):
        if len(content) % 2 == 0 and len(zeros) > 1 and zeros.count(0) > 0.7 * len(zeros):
            return content.decode(codec), codec
    try:
        return content.decode("utf-8"), "utf-8"
    except UnicodeDecodeError as problem:
        codec = "mac-roman" if b"\r" in content and b"\n" not in content else "cp1252"
        try:
            text = content.decode(codec)
        except UnicodeDecodeError:
            raise problem from None
        if not _looks_western(text):
            raise
        return text, codec


_MARKS = [
    (b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
]  # fmt: skip
_WESTERN = set("àâäáãåæçèéêëìíîïñòóôöõøœùúûüÿßÀÂÄÁÃÅÆÇÈÉÊËÌÍÎÏÑÒÓÔÖÕØŒÙÚÛÜŸ")
_WESTERN_MARKS = set("\u00a0‘’‚“”„–—…•€£¥©®°«»‹›¿¡·§´ºª½¼¾²³±×÷™")


def _looks_western(text: str) -> bool:
    """Whether a text in an 8-bit encoding is likely what CP1252 makes of it. In Cyrillic, Greek or CJK encodings most
    letters are outside ASCII and stand side by side; Polish and Turkish ones put symbols into the middle of words."""
    if re.search(r"[^\x00-\x7f]{4}", text) or re.search(r"[A-Za-z][\u00a2-\u00b8\u00ba-\u00bf][A-Za-z]", text):
        return False
    return all(character.isascii() or character in _WESTERN or character in _WESTERN_MARKS for character in text)


def code_span(text: str) -> str:
    """Text that a user chose, as inline code of Markdown that cannot end early, break a table or open a tag."""
    clean = " ".join(text.replace("`", "'").replace("|", "/").split())
    return f"`{clean or '-'}`"
