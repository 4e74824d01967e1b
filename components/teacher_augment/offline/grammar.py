"""Teacher `grammar`: an offline teacher that fills slots in patterns. Deterministic, for demonstrations and tests.

    patterns:                       # answer -> patterns; {name} stands for one filler of the slot
      refund:
        - "{greeting} I still wait for my money for the {product}."
    slots:                          # fillers may hold slots themselves, but not in a circle
      greeting: ["Hi,", "Hello,", ""]
      product: ["camera", "{colour} tablet"]
      colour: ["black", "silver"]

For an error it writes sentences with the same answer and keeps, of several that it tries, the one most like the error:
the crude form of what a language model does when it is shown the row that went wrong.
"""

import random
import re
from collections.abc import Sequence
from graphlib import CycleError, TopologicalSorter
from typing import TYPE_CHECKING, Any

import yaml
from pydantic import Field

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.base.text import folded
from llm2llm.components.shared.base.yaml_text import load_yaml
from llm2llm.components.shared.data.schemas import Call
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.offline.base import OfflineTeacher
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request, offline_call_key

if TYPE_CHECKING:
    from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings

TRIES = 24
"""Sentences made for each row that is asked for; the one most like the parent is kept."""

_SLOT = re.compile(r"\{(\w+)\}")


class Grammar(Settings):
    """A grammar file."""

    patterns: dict[str, list[str]]
    """Answer -> patterns."""
    slots: dict[str, list[str]] = Field(default_factory=dict)
    """Slot -> fillers."""


def load_grammar(value: str | dict[str, Any]) -> Grammar:
    """A grammar from a file or from its content, with every slot known and no slot inside itself.

    Raises:
        UserError: Names the file and the pattern, slot or filler that is wrong.
    """
    where = value if isinstance(value, str) else "teacher_augment.grammar"
    if isinstance(value, str):
        from llm2llm.components.shared.ingest.sources import source_file  # brings pyarrow, which compiling does without

        try:
            with source_file(value) as file:
                value = load_yaml(file.read_text(encoding="utf-8"))
        except OSError as problem:
            raise UserError(f"cannot read the grammar {where}: {problem.strerror}") from None
        except (UnicodeDecodeError, yaml.YAMLError) as problem:
            raise UserError(f"{where}: not YAML: {problem}") from None
    if not isinstance(value, dict):
        raise UserError(f"{where}: a grammar is a mapping with `patterns` and `slots`")
    grammar = Grammar.load(value, where)
    if not grammar.patterns:
        raise UserError(f"{where}: patterns: empty; give at least one pattern for each answer")
    for name, texts in [*grammar.patterns.items(), *grammar.slots.items()]:
        if not texts:
            raise UserError(f"{where}: {name!r} has no patterns or fillers")
        for text in texts:
            for slot in _SLOT.findall(text):
                if slot not in grammar.slots:
                    raise UserError(
                        f"{where}: {name!r} uses the unknown slot {slot!r}{did_you_mean(slot, grammar.slots)}"
                    )
            if {"{", "}"} & set(_SLOT.sub("", text)):
                raise UserError(f"{where}: {name!r} has a brace that belongs to no slot, in {text!r}")
    try:
        TopologicalSorter({slot: _SLOT.findall(" ".join(texts)) for slot, texts in grammar.slots.items()}).prepare()
    except CycleError as problem:
        raise UserError(f"{where}: slots go in a circle: {' -> '.join(reversed(problem.args[1]))}") from None
    return grammar


def write(
    requests: Sequence[Request], grammar: Grammar, used: Sequence[str], iteration: int, random_seed: int
) -> list[Reply]:
    """Answers every request from the grammar; a sentence that is in `used`, or made before, is not made again."""
    seen = {folded(text) for text in used}
    return [_reply(request, grammar, seen, iteration, random_seed) for request in requests]


def _reply(request: Request, grammar: Grammar, seen: set[str], iteration: int, random_seed: int) -> Reply:
    from llm2llm.components.shared.similarity import rouge_l  # brings NumPy

    parent = request.parent
    key = offline_call_key("grammar", grammar.model_dump(), parent.id, request.count, iteration, random_seed)
    call = Call(key=key, iteration=iteration, parent_id=parent.id, teacher="grammar", model="", outcome="answered",
                attempts=1)  # fmt: skip
    patterns = grammar.patterns.get(parent.answer)
    if patterns is None:
        detail = f"the grammar has no patterns for the answer {parent.answer!r}"
        return Reply(request, call, problems=[Problem("no_patterns", detail)] * request.count, teacher="grammar")
    rng = random.Random(key)
    drafts: list[Draft] = []
    problems: list[Problem] = []
    for _ in range(request.count):
        made = {folded(text): text for text in (_fill(grammar, rng.choice(patterns), rng) for _ in range(TRIES))}
        fresh = [text for same, text in made.items() if same not in seen]
        if not fresh:
            problems.append(Problem("exhausted", f"the grammar has nothing new for the answer {parent.answer!r}"))
            continue
        best = fresh[int(rouge_l([parent.question], fresh)[0].argmax())]
        seen.add(folded(best))
        drafts.append(Draft(question=best, answer=parent.answer))
    return Reply(request, call, drafts, problems, "grammar")


def _fill(grammar: Grammar, text: str, rng: random.Random) -> str:
    while _SLOT.search(text):
        text = _SLOT.sub(lambda match: rng.choice(grammar.slots[match[1]]), text)
    text = re.sub(r"\s+([,.;:!?])", r"\1", " ".join(text.split()))
    return text[:1].upper() + text[1:]


def _write(context: Context) -> list[Reply]:
    assert context.settings.grammar is not None, "TeacherAugmentSettings requires a grammar"
    texts = [row.question for row in context.training_set]
    loaded = load_grammar(context.settings.grammar)
    return write(context.requests, loaded, texts, context.iteration, context.random_seed)


def _check(settings: "TeacherAugmentSettings") -> None:
    if settings.grammar is None:
        raise ValueError("grammar: missing; teacher 'grammar' needs a grammar file")


def _unfit(task: Task) -> str:
    if not FORMS[task.form].has_choices and not task.rationale:
        return ""
    return (
        f"writes a question and its answer only, and task {task.name!r} needs choices or a rationale: use the teacher "
        "openai or pool"
    )


TEACHER = OfflineTeacher(about="a YAML file of patterns and slots", write=_write, check=_check, unfit=_unfit)
