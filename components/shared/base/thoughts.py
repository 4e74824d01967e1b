"""Thoughts that a reasoning model writes before its answer: `<think> ... </think> billing` answers `billing`.

Recognised, at the beginning of a text only:

    <think> </think>, <thinking>, <thought>, <reasoning>, <seed:think>, [THINK] [/THINK]    Qwen3, DeepSeek, Magistral
    <|channel|>analysis<|message|> ... <|channel|>final<|message|>                       gpt-oss
    <|channel>thought ... <channel|>                                                     Gemma 4

A thought whose beginning is in the prompt (DeepSeek R1) has only an end. A thought that never ends leaves no answer.
"""

import re

_TAG = r"(?:think|thinking|thought|reasoning|seed:think)"
_OPEN = re.compile(rf"\s*(?:<({_TAG})>|\[(THINK)\])", re.IGNORECASE)
_ONLY_END = re.compile(rf"(?:^|\n)[ \t]*(?:</{_TAG}>|\[/THINK\])|(?:</{_TAG}>|\[/THINK\])[ \t]*(?:\n|$)", re.IGNORECASE)
_CHANNEL = re.compile(r"\s*(?:<\|start\|>assistant)?<\|channel\|>\s*(\w+)[^<]*(?:<\|constrain\|>[^<]*)?<\|message\|>")
_GEMMA = re.compile(r"\s*<\|channel>\s*thought\b")


def without_thoughts(text: str) -> str:
    """The text after the thoughts that it begins with; the text itself where there are none.

    White space is left as it is, but for what stands between the thoughts and the answer.
    """
    begun = False
    while True:
        if found := _OPEN.match(text):
            tag = found[1] or found[2]
            end = re.compile(rf"</{re.escape(tag)}>|\[/{re.escape(tag)}\]", re.IGNORECASE).search(text, found.end())
            text = text[end.end() :] if end else ""
        elif found := _GEMMA.match(text):
            text = text[found.end() :].partition("<channel|>")[2]
        elif found := _CHANNEL.match(text):
            if found[1] == "final":
                return text[found.end() :]
            after = text[found.end() :]
            following = re.search(r"<\|start\|>|<\|channel\|>", after)
            text = after[following.start() :] if following else ""
        elif not begun and (found := _ONLY_END.search(text)):
            text = text[found.end() :]
        else:
            return text.lstrip() if begun else text
        begun = True
