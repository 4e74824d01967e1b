"""Strategy `contrast`: rows on either side of the border between two labels that the student takes for one another.

    pair      an error's label, and the one that the student gave it; else the one most often confused with it
    tell      what tells the two apart, in the teacher's words, once for each pair
    write     rows near the border, with the two labels in turn
    doubt     a row that is more like the seeds of another label than like those of its own is ambiguous (Castillo-Lopez
              et al. 2026, DDAIR, arXiv 2601.11234): it is rewritten so many times, and dropped if it stays so

Contrasting labels as a source of rows: arXiv 2407.00497. DDAIR compares sentence embeddings; here it is TF-IDF, which
every image has: the mean cosine with the nearest seeds of each label.
"""

import random
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from llm2llm.components.shared import tasks
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.llm.requests import LLMResponse
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.shared.tasks.forms import forms_with
from llm2llm.components.teacher_augment.context import Context, Rows, example_data, reply
from llm2llm.components.teacher_augment.parsing import object_in, read_drafts
from llm2llm.components.teacher_augment.prompt_files import about, render, shown
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.strategies.base import Strategy
from llm2llm.components.teacher_augment.until_usable import Query, Unusable, query_until_usable

Pair = tuple[str, str]
"""Two labels, sorted."""

_DIFFERENCE_LIMIT = 2_000
"""Characters of what tells two labels apart."""


def write(context: Context) -> list[Reply]:
    """Replies to each part of each request; rows of another label than the two are dropped as `invalid`, ambiguous ones
    as `ambiguous`."""
    confused = _confusions(context)
    parts = context.parts()
    pairs = [_pair(part, context, confused) for part in parts]
    differences = _differences(context, sorted(set(pairs)))
    queries = [_rows(context, part, pair, differences[pair]) for part, pair in zip(parts, pairs, strict=True)]
    told = query_until_usable(context.call_log, queries)
    replies = [reply(part, one) for part, one in zip(parts, told, strict=True)]
    return _unambiguous(context, replies, pairs, differences)


def _confusions(context: Context) -> Counter[Pair]:
    """How often the student has taken the labels of a pair for one another."""
    counts: Counter[Pair] = Counter()
    for error in context.errors:
        if error.parsed in context.task.labels and error.parsed != error.answer and not error.suspect:
            counts[_sorted(error.answer, error.parsed)] += 1
    return counts


def _pair(part: Request, context: Context, confused: Mapping[Pair, int]) -> Pair:
    own = part.parent.answer
    if part.error is not None and part.error.parsed in context.task.labels and part.error.parsed != own:
        return _sorted(own, part.error.parsed)
    # An answer that could not be read, or a seed that is no error.
    others = [_sorted(own, label) for label in context.task.labels if label != own]
    seeded = Counter(seed.answer for seed in context.seeds)
    return max(others, key=lambda pair: (confused.get(pair, 0), min(seeded[label] for label in pair), pair))


def _sorted(one: str, other: str) -> Pair:
    return (one, other) if one < other else (other, one)


def _shown(context: Context, pair: Pair) -> list[dict[str, Any]]:
    """The value of the placeholder `labels`: the same in every iteration, so that its answer is found again."""
    shown_labels = []
    for label in pair:
        seeds = sorted((seed for seed in context.seeds if seed.answer == label), key=lambda seed: seed.id)
        rng = random.Random(f"{context.random_seed}:{label}")
        drawn = rng.sample(seeds, min(context.settings.contrast.examples, len(seeds)))
        shown_labels.append({"label": label, "examples": [seed.question for seed in drawn]})
    return shown_labels


def _differences(context: Context, pairs: Sequence[Pair]) -> dict[Pair, str]:
    """What tells the labels of each pair apart; empty where the teacher has not said it."""
    prompt = context.prompt("contrast_difference")
    schema = {
        "type": "object",
        "properties": {"difference": {"type": "string"}},
        "required": ["difference"],
        "additionalProperties": False,
    }
    queries = []
    for pair in pairs:
        teacher = context.teachers[0]
        messages = render(prompt, task=about(context.task), labels=_shown(context, pair))
        request = teacher.request(messages, schema, "contrast", None, temperature=0.0)
        queries.append(Query(teacher, request, _read_difference, fresh=False))
    told = query_until_usable(context.call_log, queries)
    return {pair: one.value or "" for pair, one in zip(pairs, told, strict=True)}


def _read_difference(answer: LLMResponse) -> str:
    said = object_in(answer, "difference")["difference"]
    if not isinstance(said, str) or not said.strip():
        raise Unusable("unparseable", "it is not said what tells the labels apart")
    return said.strip()[:_DIFFERENCE_LIMIT]


def _rows(context: Context, part: Request, pair: Pair, difference: str) -> Query[Rows]:
    teacher = context.teacher_for(part.parent.id, part.number)
    other = pair[0] if pair[1] == part.parent.answer else pair[1]
    # The sides take turns; which is first differs from part to part, so that single rows are of both.
    first = random.Random(f"{context.random_seed}:{part.parent.id}:{part.number}").randrange(2)
    sides = [(part.parent.answer, other)[(first + place) % 2] for place in range(part.count)]
    messages = render(
        context.prompt("contrast"),
        task=about(context.task),
        count=part.count,
        example=example_data(part.parent, part.error),
        labels=_shown(context, pair),
        difference=difference,
        answers=sides,
    )
    request = teacher.request(messages, tasks.teacher_schema(context.task, part.count), "write", part.parent.id)
    return Query(teacher, request, partial(_read_rows, task=context.task, count=part.count, allowed=pair))


def _read_rows(answer: LLMResponse, task: Task, count: int, allowed: Sequence[str]) -> Rows:
    """Which of the allowed labels a row has is its own affair: it is right all the same."""
    drafts, problems = read_drafts(answer, task, count)
    kept = [draft for draft in drafts if _label(draft, task) in allowed]
    wrong = [
        Problem("invalid", f"its label is none of {', '.join(allowed)}", draft.question)
        for draft in drafts
        if draft not in kept
    ]
    return kept, problems + wrong


def _label(draft: Draft, task: Task) -> str:
    return tasks.normalise(task, draft.answer, [], draft.rationale)[0]


def _unambiguous(
    context: Context, replies: Sequence[Reply], pairs: Sequence[Pair], differences: Mapping[Pair, str]
) -> list[Reply]:
    """The replies with what is ambiguous rewritten, each in a reply of its own, or dropped."""
    settled: list[Reply] = []
    doubtful: list[tuple[Reply, Pair, str]] = []
    """Replies of one row each, with the label whose seeds it is more like."""

    def sort(some: Sequence[tuple[Reply, Pair]]) -> None:
        drafts = [draft for one, _ in some for draft in one.drafts]
        rivals = iter(rivals_of(drafts, context))
        for one, pair in some:
            clear = []
            for draft in one.drafts:
                rival = next(rivals)
                if rival is None:
                    clear.append(replace(draft, checks=[*draft.checks, "not ambiguous"]))
                else:
                    single = replace(one, request=replace(one.request, count=1), drafts=[draft], problems=[])
                    doubtful.append((single, pair, rival))
            left = len(clear) + len(one.problems)
            if left:
                settled.append(replace(one, request=replace(one.request, count=left), drafts=clear))

    sort(list(zip(replies, pairs, strict=True)))
    for _ in range(context.settings.contrast.rewrites):
        asked, doubtful = doubtful, []
        queries = [_rewrite(context, one, pair, differences[pair], rival) for one, pair, rival in asked]
        again = []
        for (one, pair, rival), told in zip(asked, query_until_usable(context.call_log, queries), strict=True):
            if told.value is not None and told.value[0]:
                again.append((Reply(one.request, told.call, told.value[0], [], told.teacher.name), pair))
            else:
                doubtful.append((one, pair, rival))
        unread, doubtful = doubtful, []
        sort(again)
        doubtful += unread
    dropped = [
        replace(
            one,
            drafts=[],
            problems=[Problem("ambiguous", f"more like the seeds of {rival}", one.drafts[0].question)],
        )
        for one, _, rival in doubtful
    ]
    return [*settled, *dropped]


def rivals_of(drafts: Sequence[Draft], context: Context) -> list[str | None]:
    """For each draft the label, other than its own, whose seeds it is most like, if it is less like those of its own.

    How like a label it is: the mean cosine with its nearest seeds of the label, `contrast.neighbours` of them. A label
    without seeds is nobody's rival, and a draft of such a label is not doubted.
    """
    if not drafts:
        return []
    from llm2llm.components.shared.similarity.diversity import tf_idf

    seeds: Sequence[Example] = context.seeds
    vectors = tf_idf([*(seed.question for seed in seeds), *(draft.question for draft in drafts)])
    cosines = (vectors[len(seeds) :] @ vectors[: len(seeds)].T).toarray()
    places: dict[str, list[int]] = defaultdict(list)
    for place, seed in enumerate(seeds):
        places[seed.answer].append(place)
    most = context.settings.contrast.neighbours
    rivals: list[str | None] = []
    for draft, row in zip(drafts, cosines, strict=True):
        like = {}
        for label, own in sorted(places.items()):
            nearest = sorted((float(row[place]) for place in own), reverse=True)[:most]
            like[label] = sum(nearest) / len(nearest)
        label = _label(draft, context.task)
        rival = max(like, key=lambda one: like[one], default=label)
        doubted = label in like and like[rival] > like[label] + context.settings.contrast.margin
        rivals.append(rival if doubted else None)
    return rivals


def _rewrite(context: Context, one: Reply, pair: Pair, difference: str, rival: str) -> Query[Rows]:
    (draft,) = one.drafts
    teacher = context.teacher_for(one.request.parent.id, one.request.number)
    label = _label(draft, context.task)
    messages = render(
        context.prompt("contrast_rewrite"),
        task=about(context.task),
        question=shown(draft.question, []),
        answer=label,
        new_answer=rival,
        labels=_shown(context, pair),
        difference=difference,
    )
    schema = tasks.teacher_schema(context.task, 1)
    request = teacher.request(messages, schema, "write", one.request.parent.id)
    return Query(teacher, request, partial(_read_rows, task=context.task, count=1, allowed=(label,)))


def _unfit(task: Task) -> str:
    if FORMS[task.form].has_labels:
        return ""
    known = " or ".join(map(repr, forms_with("has_labels")))
    return f"tells two labels apart, and form {task.form!r} has none (form {known} has); choose another strategy"


STRATEGY = Strategy(
    about="rows on either side of the border between labels that the student confuses", write=write, unfit=_unfit
)
