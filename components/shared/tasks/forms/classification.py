"""Form `classification`: the answer is one label of a fixed set.

target   "PlayMusic"
read     the label itself, after an answer cue if there is one; else the only label that the text mentions
grade    the same label
"""

import re
from typing import TYPE_CHECKING, Any

from llm2llm.components.shared.base.errors import did_you_mean
from llm2llm.components.shared.base.text import after_cues, folded, is_negated
from llm2llm.components.shared.base.thoughts import without_thoughts
from llm2llm.components.shared.tasks.forms.base import Form, accept
from llm2llm.components.shared.tasks.forms.rationales import (
    after_rationale,
    asked_of_teacher,
    check_rationale_as,
    kept,
    rationale_in,
    with_rationale,
)
from llm2llm.components.shared.tasks.options import number_in, option_of, text_of_value

if TYPE_CHECKING:
    from llm2llm.components.shared.tasks.task import Task

# Between letters and digits only: the labels -1 and 1 differ.
_SEPARATORS = re.compile(r"(?<=[^\W_])[\s_-]+(?=[^\W_])")
_CAMEL_HUMP = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")


def check_labels(task: "Task") -> None:
    """Refuses labels that could not be told apart, or read.

    Raises:
        ValueError: Names the key, the value and what is wrong.
    """
    if len(task.labels) < 2:
        raise ValueError(f"labels: a classification needs at least two labels, got {task.labels}")
    if len(set(task.labels)) < len(task.labels):
        raise ValueError(f"labels: each label once, got {task.labels}")
    if bad := [label for label in task.labels if not label or label != label.strip()]:
        raise ValueError(f"labels: no empty label and no white space around one, got {bad[0]!r}")
    if bad := [label for label in task.labels if without_thoughts(label) != label]:
        raise ValueError(f"labels: {bad[0]!r} marks a thought, which is set aside before an answer is read; rename it")


def check_descriptions(task: "Task") -> None:
    """Refuses descriptions of what is no label, and empty ones.

    Raises:
        ValueError: Names the label and the fix.
    """
    for label, text in task.label_descriptions.items():
        if label not in task.labels:
            raise ValueError(f"label_descriptions: {label!r} is no label{did_you_mean(label, task.labels)}")
        if not text.strip():
            raise ValueError(f"label_descriptions: that of {label!r} is empty; write one, or leave the label out")


def check_described(task: "Task") -> None:
    """Refuses to show the student descriptions that there are not.

    Raises:
        ValueError: Names the key and the fix.
    """
    if task.describe_labels_to == "both" and not task.label_descriptions:
        raise ValueError("describe_labels_to: 'both', and no label has a description; set label_descriptions")


def descriptions(task: "Task") -> str:
    """The labels with what they mean, a line for each; empty where none has a description."""
    if not task.label_descriptions:
        return ""
    known = task.label_descriptions
    lines = [
        f"- {label}: {' '.join(known[label].split())}" if label in known else f"- {label}" for label in task.labels
    ]
    return "\n".join(["Labels:", *lines])


def in_words(task: "Task") -> str:
    """What the teacher is told of the labels."""
    return "" if task.describe_labels_to == "nobody" else descriptions(task)


def before_question(task: "Task") -> str:
    """What the student is shown of the labels."""
    return descriptions(task) if task.describe_labels_to == "both" else ""


def classes(task: "Task", choices: int) -> list[str]:
    """The labels."""
    return list(task.labels)


def target(task: "Task", answer: str, rationale: str | None) -> str:
    """The completion that the student is trained on."""
    return with_rationale(task, answer, rationale)


def parse(task: "Task", completion: str) -> str | None:
    """The label that a completion gives; None when it names none, or several and no telling which."""
    text = after_rationale(task, completion).strip()
    cued = next((part.strip() for part in reversed(after_cues(text))), "")
    for part in (text, cued, text.split("\n", 1)[0], cued.split("\n", 1)[0]):
        if (label := same_label(task, part)) is not None:
            return label
    mentioned = _mentioned(task, cued) or _mentioned(task, text)
    return mentioned.pop() if len(mentioned) == 1 else None


def same_label(task: "Task", text: str) -> str | None:
    """The label that a text is, in any case, with blanks, hyphens or camel humps between its words, and for numbers in
    any spelling; None where it is none."""
    if text in task.labels:
        return text
    key = _key(text)
    if number_in(text) is not None and (place := option_of(text, task.labels)) is not None:
        return task.labels[place]
    return next((label for label in task.labels if key and _key(label) == key), None)


def _key(text: str) -> str:
    """`Add to playlist`, `add_to_playlist` and `AddToPlaylist` are one label."""
    return _SEPARATORS.sub("", folded(_with_minus(text)))


def _with_minus(text: str) -> str:
    """The text with a hyphen for a minus sign: \u22121 is -1, not 1."""
    return text.replace("\u2212", "-")


def _mentioned(task: "Task", text: str) -> set[str]:
    """The labels in a text, as whole words; where one label is a part of another, the longer one only. `not spam` is
    no mention of `spam`."""
    mentioned: set[str] = set()
    rest = _with_minus(text)
    for label in sorted(task.labels, key=len, reverse=True):
        words = _SEPARATORS.sub(" ", _CAMEL_HUMP.sub(" ", _with_minus(label))).split(" ")
        anyhow_joined = r"[\s_-]*".join(map(re.escape, words))
        # Where -1 is no label, the 1 of it is none either; that of "class-1" is.
        unsigned = r"(?<!(?<!\w)-)(?<!\d[.,])" if label[:1].isdigit() else ""
        whole = r"(?![.,]\d)" if label[-1:].isdigit() else ""  # 1.5 is no mention of 1
        pattern = re.compile(rf"(?<!\w){unsigned}{anyhow_joined}{whole}(?!\w)", re.IGNORECASE)
        if any(not is_negated(rest, *match.span()) for match in pattern.finditer(rest)):
            mentioned.add(label)
        rest = pattern.sub("|", rest)
    return mentioned


def matches(task: "Task", parsed: str, answer: str) -> bool:
    """Whether a parsed label is the right one."""
    return parsed == answer


def normalise(task: "Task", answer: Any, choices: list[str], rationale: str | None) -> tuple[str, str | None]:
    """(label, rationale) of a row. A number is a label's own text, in any spelling; it is never an index here.

    Raises:
        ValueError: Not in the label set.
    """
    place = option_of(answer, task.labels)
    if place is not None:
        return task.labels[place], kept(task, rationale)
    text = text_of_value(answer)
    known = task.labels if len(task.labels) <= 20 else [*task.labels[:20], "..."]
    raise ValueError(f"the answer {text!r} is not in the label set {known}{did_you_mean(text, task.labels)}")


def teacher_properties(task: "Task") -> dict[str, Any]:
    """JSON schema of what the teacher returns beside the question."""
    answer = {"type": "string", "enum": task.labels, "description": "the right label"}
    return {**asked_of_teacher(task), "answer": answer}


FORM = Form(
    about="one of a label set",
    target=target,
    parse=parse,
    matches=matches,
    normalise=normalise,
    teacher_properties=teacher_properties,
    rationale_in=rationale_in,
    in_words=in_words,
    before_question=before_question,
    takes={
        "labels": check_labels,
        "label_descriptions": check_descriptions,
        "describe_labels_to": check_described,
        "rationale": accept,
        "rationale_as": check_rationale_as,
    },
    classes=classes,
    has_labels=True,
)
