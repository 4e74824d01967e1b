"""Strategy `eda`: easy data augmentation (Wei and Zou 2019), the baseline without a teacher.

Each new row is the parent with one of four edits: replace words by synonyms, insert synonyms, swap two words, delete
words. The first two need a thesaurus (`eda_synonyms`); without one only swaps and deletions are made.
"""

import random
from collections.abc import Mapping, Sequence

import yaml

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.yaml_text import load_yaml
from llm2llm.components.shared.data.schemas import Call
from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request, offline_call_key
from llm2llm.components.teacher_augment.strategies.base import Strategy

TRIES = 20

Synonyms = Mapping[str, list[str]]


def load_synonyms(path: str | None) -> Synonyms:
    """The thesaurus of a YAML file `word: [synonyms]`; empty for None.

    Raises:
        UserError: Unreadable, or of another shape.
    """
    if path is None:
        return {}
    from llm2llm.components.shared.ingest.sources import source_file  # brings pyarrow, which compiling does without

    try:
        with source_file(path) as file:
            value = load_yaml(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as problem:
        raise UserError(f"teacher_augment.eda_synonyms: cannot read {path}: {problem}") from None
    if not isinstance(value, dict) or not all(isinstance(v, list) and v for v in value.values()):
        raise UserError(f"teacher_augment.eda_synonyms: {path} must map each word to a list of synonyms")
    return {str(word).lower(): [str(synonym) for synonym in found] for word, found in value.items()}


def write(
    requests: Sequence[Request], share: float, synonyms: Synonyms, iteration: int, random_seed: int
) -> list[Reply]:
    """Answers every request with edits of the parent's own question."""
    replies = []
    thesaurus = offline_call_key(synonyms)
    for request in requests:
        parent = request.parent
        key = offline_call_key("eda", parent.id, request.count, share, thesaurus, iteration, random_seed)
        rng = random.Random(key)
        drafts: list[Draft] = []
        made = {" ".join(parent.question.split())}
        for _ in range(request.count * TRIES):
            if len(drafts) == request.count:
                break
            text = edit(parent.question, share, synonyms, rng)
            if text not in made:
                made.add(text)
                drafts.append(Draft(text, parent.answer, parent.choices, parent.rationale))
        missing = request.count - len(drafts)
        call = Call(key=key, iteration=iteration, parent_id=parent.id, teacher="eda", model="", outcome="answered",
                    attempts=1)  # fmt: skip
        problems = [Problem("exhausted", "too few words to make another edit")] * missing
        replies.append(Reply(request, call, drafts, problems, "eda"))
    return replies


def edit(text: str, share: float, synonyms: Synonyms, rng: random.Random) -> str:
    """The text after one random edit that changes `share` of its words, one at least."""
    words = text.split()
    if not words:
        return ""
    count = max(1, round(share * len(words)))
    known = [i for i, word in enumerate(words) if word.lower() in synonyms]
    kinds = ["swap", "delete", *(["replace", "insert"] if known else [])]
    kind = rng.choice(kinds)
    if kind == "delete":
        return " ".join(word for word in words if rng.random() > share) or rng.choice(words)
    for _ in range(count):
        if kind == "swap" and len(words) > 1:
            i, j = rng.sample(range(len(words)), 2)
            words[i], words[j] = words[j], words[i]
        elif kind == "replace":
            i = rng.choice(known)
            words[i] = rng.choice(synonyms.get(words[i].lower(), [words[i]]))
        elif kind == "insert":
            synonym = rng.choice(synonyms[text.split()[rng.choice(known)].lower()])
            words.insert(rng.randrange(len(words) + 1), synonym)
    return " ".join(words)


def _write(context: Context) -> list[Reply]:
    settings = context.settings
    synonyms = load_synonyms(settings.eda_synonyms)
    return write(context.requests, settings.eda_share, synonyms, context.iteration, context.random_seed)


STRATEGY = Strategy(
    about="edits of the errors' own words without any teacher, the baseline", write=_write, asks="nobody"
)
