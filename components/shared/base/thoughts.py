"""The thoughts of a reasoning model are not its answer: `<think>draft</think> billing` answers `billing`.

Recognised marks:

    <think> </think>, <thinking>, <thought>, <reasoning>, <seed:think>, [THINK] [/THINK]   Qwen3, DeepSeek, Magistral
    <|channel|>analysis<|message|> ... <|channel|>final<|message|>                         gpt-oss
    analysis ... assistantfinal                                                            gpt-oss, marks skipped
    <|channel>thought ... <channel|>                                                       Gemma 4
    <|begin_of_thought|> <|end_of_thought|>, <|START_THINKING|>, ◁think▷                   OpenThinker, Command, Kimi

The answer is what follows the last thought; where nothing follows, what stood before it. A thought whose beginning is
in the prompt (DeepSeek R1) has only an end. A thought that never ends leaves no answer. A mark inside a JSON value, or
in the middle of a sentence, is text.
"""

import json
import re
from collections.abc import Sequence

_NAME = r"(?:think|thinking|thoughts?|reasoning|seed:think)"
_OPEN = rf"<({_NAME})(?:\s[^<>\n]{{0,80}})?>|\[(think)\]|◁(think)▷|<\|(?:begin_of|start)_(thought|thinking)\|>"
_CLOSE = rf"</({_NAME})>|\[/(think)\]|◁/(think)▷|<\|end_(?:of_)?(thought|thinking)\|>"
_GEMMA_OPEN, _GEMMA_CLOSE = r"<\|channel>\s*thought\b", r"<channel\|>"
_MARK = re.compile(rf"(?P<open>{_OPEN}|{_GEMMA_OPEN})|(?P<close>{_CLOSE}|{_GEMMA_CLOSE})", re.IGNORECASE)
_CHANNEL = re.compile(r"(?:<\|start\|>assistant)?<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_CHANNEL_END = re.compile(r"<\|(?:end|return|call|start|channel)\|>")
_ANALYSIS = re.compile(r"\s*analysis(?=[A-Z])")
_FINAL = re.compile(r"assistant(?:commentary)?\s*final")
_WRAPPED = re.compile(
    r"\s*(?:<answer>(.*)</answer>|<\|begin_of_solution\|>(.*)<\|end_of_solution\|>"
    r"|<\|START_RESPONSE\|>(.*)<\|END_RESPONSE\|>)\s*",
    re.DOTALL | re.IGNORECASE,
)
_MAX_VALUES = 200
"""Places at which a JSON value may begin that are tried: each try may read to the end."""


def without_thoughts(text: str) -> str:
    """The answer in what a model wrote; the text itself where it holds no thoughts.

    White space is left as it is, but for what stands between the thoughts and the answer.
    """
    if _CHANNEL.match(text.lstrip()):
        return _final_channel(text)
    if found := _ANALYSIS.match(text):
        parts = _FINAL.split(text)
        return parts[-1].lstrip() if len(parts) > 1 else ""
    if _MARK.search(text) is None:
        return text
    kept = _outside_thoughts(text)
    if kept is None:
        return text
    answer = next((part for part in reversed(kept) if part.strip()), "").lstrip()
    if found := _WRAPPED.fullmatch(answer):
        return next(part for part in found.groups() if part is not None).strip()
    return answer


def _final_channel(text: str) -> str:
    values = _json_spans(text)
    answer = ""
    for found in _marks(_CHANNEL, text, values):
        if found[1] == "final":
            ends = [end.start() for end in _marks(_CHANNEL_END, text, values) if end.start() >= found.end()]
            answer = text[found.end() : min(ends, default=len(text))]
    return answer


def _marks(pattern: re.Pattern[str], text: str, values: Sequence[tuple[int, int]]) -> list[re.Match[str]]:
    """The matches outside JSON values."""
    return [found for found in pattern.finditer(text) if not any(start < found.start() < end for start, end in values)]


def _outside_thoughts(text: str) -> list[str] | None:
    """What stands before, between and after the thoughts; None where there are none."""
    marks = _marks(_MARK, text, _json_spans(text))
    kept: list[str] = []
    start = at = 0
    found = False
    while at < len(marks):
        mark = marks[at]
        if mark["open"]:
            end = _closing(marks, at)
            if _begins(text, start, mark.start()) and (end or _on_new_line(text, start, mark.start())):
                found = True
                kept.append(text[start : mark.start()])
                start, at = (marks[end].end(), end) if end else (len(text), len(marks))
        elif _ends(text, mark):
            found, kept, start = True, [], mark.end()  # it began in the prompt
        at += 1
    return [*kept, text[start:]] if found else None


def _closing(marks: Sequence[re.Match[str]], at: int) -> int | None:
    """The mark that closes the one at `at`: that of the same depth, or the last one where thoughts mention the mark."""
    depth, last = 0, None
    for number, mark in enumerate(marks[at:], at):
        if _family(mark) != _family(marks[at]):
            continue
        depth += 1 if mark["open"] else -1
        if not mark["open"]:
            last = number
            if depth == 0:
                break
    return last


def _family(mark: re.Match[str]) -> str:
    names = [name for name in mark.groups()[1:] if name and name not in (mark["open"], mark["close"])]
    return (mark[0][0] + names[0].lower()) if names else "gemma"


def _begins(text: str, start: int, at: int) -> bool:
    """Whether a thought may begin here: at the start, on a new line, or after a sentence."""
    return _on_new_line(text, start, at) or text[start:at].rstrip()[-1] in ".!?:>}])`"


def _on_new_line(text: str, start: int, at: int) -> bool:
    before = text[start:at].rstrip(" \t")
    return not before.strip() or before.endswith("\n")


def _ends(text: str, mark: re.Match[str]) -> bool:
    """Whether a mark without a beginning ends a thought: at an edge of a line, or with JSON after it."""
    before, after = text[: mark.start()].rstrip(" \t"), text[mark.end() :].lstrip(" \t")
    return not before or before.endswith("\n") or not after or after.startswith(("\n", "\r", "{", "[", "```"))


def _json_spans(text: str) -> list[tuple[int, int]]:
    """Where the JSON objects and lists of a text stand, the outermost ones."""
    decoder, spans, at = json.JSONDecoder(strict=False), [], 0
    for _ in range(_MAX_VALUES):
        begin = re.compile(r"[{\[]").search(text, at)
        if begin is None:
            break
        try:
            _, at = decoder.raw_decode(text, begin.start())
            spans.append((begin.start(), at))
        except (ValueError, RecursionError):
            at = begin.end()
    return spans
