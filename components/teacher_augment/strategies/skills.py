"""Strategy `skills`: rows for the skills that the student lacks (He et al. 2025, STAT: Skill-Targeted Adaptive
Training).

    name      the teacher names the task's skills, once
    label     it says which skills each seed takes, once
    profile   how many errors lack each skill
    write     new rows for each skill, as many as its share of the profile, from examples of the skill

Seeds that come with skills of the user's own need no label, and where there are such, theirs are the skills. Names and
labels are asked for with the same requests in every iteration and so come from the ledger; without one they are paid
for again each time.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.text import folded
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.llm.requests import LLMResponse
from llm2llm.components.teacher_augment.context import Context, Rows, example_data, reply
from llm2llm.components.teacher_augment.parsing import object_in, objects_schema, read_drafts
from llm2llm.components.teacher_augment.prompt_files import about, render
from llm2llm.components.teacher_augment.replies import Reply, Request
from llm2llm.components.teacher_augment.requests import in_parts
from llm2llm.components.teacher_augment.strategies.base import Strategy
from llm2llm.components.teacher_augment.until_usable import Query, QueryResult, Unusable, query_until_usable

MAX_NAME = 120
"""Characters of a skill's name."""


def write(context: Context) -> list[Reply]:
    """A reply for each part of each skill's rows; when no skills can be named, a problem for every row wanted."""
    seeds = sorted(context.seeds, key=lambda seed: seed.id)
    names = sorted({skill for seed in seeds for skill in seed.skills})
    if not names:
        named = _name(context, seeds)
        if named.value is None:
            assert named.problem is not None, "a value or a problem"
            return [
                Reply(request, named.call, [], [named.problem] * request.count, named.teacher.name)
                for request in context.requests
            ]
        names = named.value
    skills_of = _label(context, [seed for seed in seeds if not seed.skills], names)
    skills_of |= {seed.id: seed.skills for seed in seeds if seed.skills}
    lacking = [request.parent for request in context.requests]
    counts = shares(profile(lacking, skills_of), sum(request.count for request in context.requests))
    parts = [
        (skill, part)
        for skill, count in counts.items()
        for part in _parts(context, [row for row in lacking if skill in skills_of.get(row.id, [])] or lacking, count)
    ]
    told = query_until_usable(
        context.call_log,
        [_rows(context, skill, part, skills_of) for skill, part in parts],
    )
    return [reply(part, one) for (_, part), one in zip(parts, told, strict=True)]


def profile(lacking: Sequence[Example], skills_of: Mapping[str, Sequence[str]]) -> dict[str, float]:
    """The missing-skill profile: how many errors lack each skill, an error with several counting a part for each;
    errors without a label count for the skill `""`, any."""
    counts: dict[str, float] = {}
    for row in lacking:
        skills = skills_of.get(row.id) or [""]
        for skill in skills:
            counts[skill] = counts.get(skill, 0.0) + 1 / len(skills)
    return dict(sorted(counts.items()))


def shares(profile: Mapping[str, float], rows: int) -> dict[str, int]:
    """`rows` dealt out in proportion to the profile, by largest remainders; skills without any are left out."""
    total = sum(profile.values())
    exact = {skill: rows * weight / total for skill, weight in profile.items()}
    counts = {skill: int(share) for skill, share in exact.items()}
    by_remainder = sorted(exact, key=lambda skill: (counts[skill] - exact[skill], skill))
    for skill in by_remainder[: rows - sum(counts.values())]:
        counts[skill] += 1
    return {skill: count for skill, count in counts.items() if count}


def _parts(context: Context, parents: Sequence[Example], count: int) -> list[Request]:
    """`count` rows of one skill in parts, whose parents take turns."""
    error_of = {error.example_id: error for error in context.errors}
    parts = in_parts(Request(parents[0], None, count), context.settings.rows_per_call)
    turns = [parents[number % len(parents)] for number in range(len(parts))]
    return [replace(part, parent=row, error=error_of.get(row.id)) for part, row in zip(parts, turns, strict=True)]


def _name(context: Context, seeds: Sequence[Example]) -> QueryResult[list[str]]:
    settings = context.settings.skills
    drawn = random.Random(context.random_seed).sample(seeds, min(settings.shown, len(seeds)))
    messages = render(
        context.prompt("skills_name"),
        task=about(context.task),
        count=settings.most,
        examples=[example_data(seed) for seed in drawn],
    )
    schema = objects_schema("skills", {"name": {"type": "string"}}, 1, settings.most)
    teacher = context.teachers[0]
    request = teacher.request(messages, schema, "skills", None, temperature=0.0)
    (told,) = query_until_usable(
        context.call_log, [Query(teacher, request, partial(_read_names, most=settings.most), fresh=False)]
    )
    return told


def _read_names(answer: LLMResponse, most: int) -> list[str]:
    names: dict[str, str] = {}
    items = object_in(answer, "skills")["skills"]
    for item in items if isinstance(items, list) else []:
        name = item.get("name") if isinstance(item, dict) else item
        if isinstance(name, str) and 0 < len(folded(name)) <= MAX_NAME:
            names.setdefault(folded(name), " ".join(name.split()))
    if not names:
        raise Unusable("unparseable", "no skill is named")
    return list(names.values())[:most]


def _label(context: Context, seeds: Sequence[Example], names: Sequence[str]) -> dict[str, list[str]]:
    """Seed id -> its skills; a seed whose label cannot be read has none."""
    at_once = context.settings.skills.labelled_at_once
    prompt = context.prompt("skills_label")
    properties = {
        "number": {"type": "integer"},
        "skills": {"type": "array", "items": {"type": "string", "enum": list(names)}, "minItems": 1, "maxItems": 3},
    }
    teacher = context.teachers[0]
    batches = [seeds[start : start + at_once] for start in range(0, len(seeds), at_once)]
    questions = []
    for batch in batches:
        numbered = [{"number": number, **example_data(seed)} for number, seed in enumerate(batch, 1)]
        messages = render(prompt, task=about(context.task), skills=list(names), examples=numbered)
        schema = objects_schema("labels", properties, len(batch), len(batch))
        request = teacher.request(messages, schema, "skills", None, temperature=0.0)
        questions.append(Query(teacher, request, partial(_read_labels, names=names, count=len(batch)), fresh=False))
    labels: dict[str, list[str]] = {}
    for batch, told in zip(batches, query_until_usable(context.call_log, questions), strict=True):
        for number, skills in (told.value or {}).items():
            labels[batch[number - 1].id] = skills
    return labels


def _read_labels(answer: LLMResponse, names: Sequence[str], count: int) -> dict[int, list[str]]:
    known = {folded(name): name for name in names}
    labels: dict[int, list[str]] = {}
    items = object_in(answer, "labels")["labels"]
    for item in items if isinstance(items, list) else []:
        if not isinstance(item, dict):
            continue
        number, skills = item.get("number"), item.get("skills")
        if isinstance(number, int) and 1 <= number <= count and isinstance(skills, list):
            found = [known[folded(skill)] for skill in skills if isinstance(skill, str) and folded(skill) in known]
            if found:
                labels[number] = list(dict.fromkeys(found))[:3]
    if not labels:
        raise Unusable("unparseable", "no example is labelled")
    return labels


def _rows(context: Context, skill: str, part: Request, skills_of: Mapping[str, Sequence[str]]) -> Query[Rows]:
    teacher = context.teacher_for(skill, part.parent.id, part.number)
    # The part's own error first, then other seeds of the skill.
    others = [
        seed
        for seed in context.seeds
        if seed.id != part.parent.id and (not skill or skill in skills_of.get(seed.id, []))
    ]
    rng = random.Random(f"{context.random_seed}:{skill}:{part.parent.id}:{part.number}")
    wanted = min(context.settings.skills.examples - 1, len(others))
    drawn = rng.sample(sorted(others, key=lambda seed: seed.id), wanted)
    data: list[Any] = [example_data(part.parent, part.error), *map(example_data, drawn)]
    messages = render(
        context.prompt("skills_write"),
        task=about(context.task),
        count=part.count,
        skill=skill or "whatever the examples take",
        examples=data,
    )
    request = teacher.request(messages, tasks.teacher_schema(context.task, part.count), "write", part.parent.id)
    return Query(teacher, request, partial(_read_rows, context=context, count=part.count, skill=skill))


def _read_rows(answer: LLMResponse, context: Context, count: int, skill: str) -> Rows:
    drafts, problems = read_drafts(answer, context.task, count)
    return [replace(draft, skills=[skill] if skill else []) for draft in drafts], problems


STRATEGY = Strategy(about="rows for the skills that the student lacks", write=write)
