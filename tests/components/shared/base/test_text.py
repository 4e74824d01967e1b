"""What comparison ignores and what it keeps, negations, swallowed TeX commands, encodings."""

import json
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.text import (
    decode_text,
    folded,
    is_negated,
    repair_control_characters,
    with_first_command,
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10²", "10^2"), ("2⁻³", "2^-3"), ("x₂", "x2"), ("10₂", "10_2"), ("log₂8", "log_2 8"), ("H₂O", "h2o"),
        ("5㎡", "5m^2"), ("1½", "1 1/2"), ("½", "1/2"), ("ＡＢ", "ab"), ("ﬁn", "fin"), ("Ａ．", "a"),
        ("「東京」。", "東京"), ("¿Qué?", "qué"), ("القاهرة؟", "القاهرة"), ("दिल्ली।", "दिल्ली"), ("„Wort“", "wort"),
        ("‚x‘", "x"), ("«слово»", "слово"), ("»x«", "x"), ("ჩაი።", "ჩაი"), ("x…", "x"), ("**x**", "x"), ("<x>", "x"),
        (".5", ".5"), ("-5", "-5"), ("<5", "<5"), ("5%", "5%"), ("5!", "5!"), ("5'", "5'"), ("5.", "5"), ("#1", "#1"),
        ("(0, 1]", "(0, 1]"), ("[0, 1)", "[0, 1)"), ("(x)", "x"), ("f(x)", "f(x)"), ("Paris (France).",
        "paris (france)"), ("(a) x", "(a) x"), ("C++", "c++"), ("...", ""), ("()", ""), ('"x."', "x"),
        ("Don’t", "don't"), ("say “x” now", 'say "x" now'),
    ],
)  # fmt: skip
def test_folded(text: str, expected: str) -> None:
    assert folded(text) == expected
    assert folded(folded(text)) == folded(text)


SCRIPTS = ["東京", "القاهرة", "दिल्ली", "тест", "αβγ", "서울", "word", "กรุงเทพ", "שלום"]
MEANT = "%‰‱#&@/\\§¶†‡′″‴٪؉؊"
OUTER = [
    mark
    for mark in map(chr, range(0x10000))
    if unicodedata.category(mark) in ("Po", "Ps", "Pe", "Pi", "Pf")
    and mark not in MEANT
    and unicodedata.normalize("NFKC", mark) == mark
]


@given(
    st.sampled_from(SCRIPTS), st.text(st.sampled_from(OUTER), max_size=3), st.text(st.sampled_from(OUTER), max_size=3)
)
def test_outer_punctuation_of_every_script_is_ignored(word: str, before: str, after: str) -> None:
    assert folded(before + word + after) == folded(word)


@given(st.integers(0, 999), st.integers(0, 99))
def test_a_superscript_is_never_a_digit_of_the_number(base: int, power: int) -> None:
    raised = str(power).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    assert folded(f"{base}{raised}") == f"{base}^{power}" != folded(f"{base}{power}")


@pytest.mark.parametrize(
    "text",
    ["no [spam]", "not [spam]", "isn't [spam]", "isn’t really about [spam]", "non-[spam]", "not a [spam]",
     "*not* [spam]", "neither ham nor [spam]", "I don't think this is [spam]", "rather than [spam]", "nicht [gut]",
     "kein [Spam]",
     "n'est pas [bon]", "no es [bueno]", "не [спам]", "не очень [хорошо]", "这不是[垃圾邮件]",
     "这不是一个[垃圾邮件]",
     "[スパム]ではない", "[스팸]이 아니다", "[spam] değil", "[स्पैम] नहीं", "[spam] isn't it", "[spam] is wrong",
     "ليس [جيد]", "không phải [tốt]", "anything but [spam]", "[Spam]: no", "[spam]? No."],
)  # fmt: skip
def test_negated(text: str) -> None:
    assert is_negated(text.replace("[", "").replace("]", ""), text.index("["), text.index("]") - 1)


@pytest.mark.parametrize(
    "text",
    ["[spam]", "It's [spam]", "No, [spam]", "not only [spam]", "no doubt [spam]", "not ham but [spam]",
     "nicht ham, sondern [spam]", "It is not ham. It is [spam]", "a knot [spam]", "a note: [spam]", "[spam], not ham",
     "this [spam] filter", "not just [spam]", "[spam]? No doubt", "[spam]: not ham"],
)  # fmt: skip
def test_not_negated(text: str) -> None:
    assert not is_negated(text.replace("[", "").replace("]", ""), text.index("["), text.index("]") - 1)


COMMANDS = ["frac{1}{2}", "forall x", "beta", "bar{x}", "binom{n}{k}", "begin{x}", "times 2", "theta", "text{m}",
            "triangle", "neq 3", "nabla f", "notin A", "right)", "rho", "rightarrow", "rangle"]  # fmt: skip


@given(st.lists(st.sampled_from(COMMANDS), min_size=1, max_size=4), st.sampled_from(["", "so ", "we get $x$ and\n"]))
def test_commands_that_json_has_swallowed_come_back(commands: list[str], before: str) -> None:
    meant = before + " ".join("\\" + command for command in commands)
    read = json.loads('"' + meant.replace("\n", "\\n") + '"')
    assert repair_control_characters(read) == meant
    assert repair_control_characters(meant) == meant


@pytest.mark.parametrize("command", ["tan x", "to 0", "tau", "top", "nu", "ne 0", "not =", "mid"])
def test_what_could_be_white_space_and_a_word_comes_back_inside_tex(command: str) -> None:
    read = json.loads(f'"${{x}} = \\{command}$"') if command != "mid" else "$x \\mid y$"
    assert "\\" + command in repair_control_characters(read)


@pytest.mark.parametrize(
    "text",
    [
        "a\tan apple",
        "it is $\t5$ or\n$6",
        "first\nu and\ne",
        "x\r\nright\r\n",
        "cost $5 and\nu got $3",
        "\tint x;\n\treturn x;",
        "a\tb",
    ],
)
def test_white_space_stays(text: str) -> None:
    assert repair_control_characters(text) == text


@pytest.mark.parametrize(
    "text", ["two resistors in\nparallel", "let\nu = x + 1", "a colour,\neg red", "take\ne 5 and add 1", "a\nnew line"]
)
def test_a_line_that_begins_with_a_word_or_a_letter_stays(text: str) -> None:
    assert repair_control_characters(text) == text
    assert with_first_command("\n" + text.partition("\n")[2]) == "\n" + text.partition("\n")[2]


def test_a_page_break_becomes_a_line_break() -> None:
    assert repair_control_characters("the end.\n\fChapter 2") == "the end.\nChapter 2"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a\0b", r"U\+0000"),
        ("\bad", r"U\+0008 before 'ad'"),
        ("a\x1b[1m", r"U\+001B"),
        ("\foo", r"U\+000C before 'oo'"),
    ],
)
def test_other_control_characters_are_refused(text: str, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        repair_control_characters(text)


@given(st.text())
def test_repaired_text_is_stable_and_has_no_control_character(text: str) -> None:
    try:
        repaired = repair_control_characters(text)
    except ValueError:
        return
    assert repair_control_characters(repaired) == repaired
    assert not any(unicodedata.category(c) == "Cc" and ord(c) < 32 for c in repaired if c not in "\t\n\r")


@pytest.mark.parametrize(
    ("content", "codec"),
    [
        ("naïve".encode(), "utf-8"),
        ("naïve".encode("utf-8-sig"), "utf-8"),
        ("naïve".encode("utf-16"), "utf-16"),
        ("naïve text".encode("utf-16-le"), "utf-16-le"),
        ("naïve text".encode("utf-16-be"), "utf-16-be"),
        ("naïve".encode("utf-32"), "utf-32"),
        ("naïve\r\n“text” – 5 €".encode("cp1252"), "cp1252"),
        ("naïve\rÄpfel".encode("mac-roman"), "mac-roman"),
    ],
)
def test_the_encoding_is_found(content: bytes, codec: str) -> None:
    text, found = decode_text(content)
    assert found == codec
    assert "naïve" in text
    assert not text.startswith("\ufeff")


@pytest.mark.parametrize(
    ("text", "codec"),
    [("привет мир", "cp1251"), ("привет", "koi8-r"), ("東京へ行く", "shift-jis"), ("你好世界", "gb18030"),
     ("안녕하세요", "euc-kr"),
     ("Καλημέρα", "cp1253"), ("Źródło i zażółć gęślą", "cp1250"), ("İyi akşamlar, ağaç", "cp1254")],
)  # fmt: skip
def test_other_8_bit_encodings_are_not_guessed(text: str, codec: str) -> None:
    with pytest.raises(UnicodeDecodeError):
        decode_text(text.encode(codec))
    assert decode_text(text.encode(codec), codec) == (text, codec)


def test_an_unknown_encoding() -> None:
    with pytest.raises(LookupError):
        decode_text(b"x", "latin-99")
