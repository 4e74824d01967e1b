"""Selections: each is one function from graded answers to rows in order of preference.

wrong, out_of_fold   those not solved: the unsolved first, then the flaky by error rate (Lee et al., "LLM2LLM: boosting
                     LLMs with novel iterative data enhancement", Findings of ACL 2024; they draw one answer)
hard                 the top fraction by loss; by EL2N (Paul, Ganguli and Dziugaite, "Deep learning on a data diet",
                     NeurIPS 2021); by the smallest margin; or by the smallest learning percentage (Mekala, Nguyen and
                     Shang, "Smaller language models are capable of selecting instruction-tuning training data for
                     larger language models", Findings of ACL 2024)
learnable            the top fraction by the base model's loss less the fine-tuned student's (Zhou et al., "LoBaSS:
                     gauging learnability in supervised fine-tuning data", 2023); the plain difference of mean losses
skills               as many as are wrong, drawn from all rows of each skill in proportion to how often the student
                     fails at it (STAT-Sel: He, Panigrahi, Lin and Arora, "Skill-targeted adaptive training", 2025).
                     There a teacher reads every wrong answer for the skills that it misses; here a failed row misses
                     all of its skills
all                  a control: every seed
random               a control: as many as another selection would choose, drawn from the same answers
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.sampling import largest_remainder, seeded_key
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.inference.difficulty import difficulty, error_rate
from llm2llm.components.shared.tasks.forms import forms_with

if TYPE_CHECKING:  # the settings look selections up here
    from llm2llm.components.filter_errors.settings import FilterErrorsSettings

Needs = dict[str, tuple[Any, ...]]
"""The values that keys of other sections, as `section.key`, may have."""


@dataclass(frozen=True, slots=True)
class SeedAnswers:
    """What a selection is given."""

    rows: Sequence[Prediction]
    """One prediction for each seed that may be chosen."""
    seeds: Mapping[str, Example]
    """The seeds by id; with `generated_rows` the generated rows as well."""
    settings: "FilterErrorsSettings"
    labels: Sequence[str]
    """The label set of a label task."""
    draw_seed: str
    """Decides draws."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A row to write from."""

    answered: Prediction
    hardness: float | None
    """What it was ranked by, higher for harder; None where nothing ranked it."""


def fails(answered: Prediction, settings: "FilterErrorsSettings") -> bool:
    """Whether a row counts as wrong."""
    found = difficulty(answered)
    return found in ("unsolved", "flaky") or (found == "format_only" and settings.format_only == "write")


def select(
    name: str,
    answered: Sequence[Prediction],
    seeds: Mapping[str, Example],
    settings: "FilterErrorsSettings",
    labels: Sequence[str],
    draw_seed: str,
) -> list[Chosen]:
    """The chosen rows in order of preference, before any cap; the order of `answered` changes nothing.

    Args:
        name: A key of `SELECTIONS`.
        answered: One prediction for each seed that may be chosen.
        seeds: The seeds by id.
        settings: See `FilterErrorsSettings`.
        labels: The label set of a label task, for `skills`: a row without skills is of the skill that its label is.
        draw_seed: Decides the draws of `skills` and `random`.

    Raises:
        UserError: Predictions without what the selection ranks by, naming the setting to switch on.
    """
    return SELECTIONS[name].choose(SeedAnswers(answered, seeds, settings, labels, draw_seed))


def _wrong(answers: SeedAnswers) -> list[Chosen]:
    failed = [row for row in answers.rows if fails(row, answers.settings)]
    failed.sort(key=lambda row: (tier(row), -error_rate(row), -(row.loss or 0.0), row.example_id))
    return [Chosen(row, error_rate(row)) for row in failed]


def tier(answered: Prediction) -> int:
    """Unsolved rows go before flaky ones, and those before solved ones."""
    return {"unsolved": 0, "format_only": 0, "flaky": 1, "solved": 2}[difficulty(answered)]


def _hard(answers: SeedAnswers) -> list[Chosen]:
    settings = answers.settings
    measure = {
        "loss": lambda row: _given(row, settings, row.loss),
        "el2n": lambda row: _given(row, settings, row.el2n),
        "margin": lambda row: -_given(row, settings, row.margin),
        "learning_percentage": lambda row: 1 - _learning_percentage(row, settings),
    }[settings.hard_by]
    return _top(answers.rows, settings, measure)


def _learnable(answers: SeedAnswers) -> list[Chosen]:
    settings = answers.settings
    return _top(
        answers.rows, settings, lambda row: _given(row, settings, row.base_loss) - _given(row, settings, row.loss)
    )


def _learning_percentage(row: Prediction, settings: "FilterErrorsSettings") -> float:
    """The share of the whole fall in perplexity that the first epoch brought: a small one is learnt late."""
    base, early, last = (
        math.exp(min(_given(row, settings, loss), 100.0)) for loss in (row.base_loss, row.early_loss, row.loss)
    )
    # A row whose perplexity did not fall was not learnt at all: the hardest there is.
    return (base - early) / (base - last) if base > last else -math.inf


def _skills(answers: SeedAnswers) -> list[Chosen]:
    failed = _wrong(answers)
    wanted = min(len(failed), answers.settings.max_errors or len(failed))
    skills = {row.example_id: _skills_of(answers.seeds[row.example_id], answers.labels) for row in answers.rows}
    missing: dict[str, int] = defaultdict(int)
    for row in failed:
        for skill in skills[row.answered.example_id]:
            missing[skill] += 1
    chosen: dict[str, Chosen] = {}
    drawn = sorted(answers.rows, key=lambda row: seeded_key(answers.draw_seed, row.example_id))
    for skill, share in largest_remainder(dict(sorted(missing.items())), wanted).items():
        of_skill = [row for row in drawn if skill in skills[row.example_id] and row.example_id not in chosen]
        chosen |= {row.example_id: Chosen(row, None) for row in of_skill[:share]}
    # Rows with several skills may leave a skill with fewer rows than its share.
    for row in failed:
        if len(chosen) < wanted:
            chosen.setdefault(row.answered.example_id, Chosen(row.answered, None))
    return list(chosen.values())


def _skills_of(seed: Example, labels: Sequence[str]) -> list[str]:
    skills = sorted(set(seed.skills)) or [seed.answer] * (seed.answer in labels)
    if not skills:
        raise UserError(
            f"filter_errors.selection: 'skills' needs the skills of every seed, and seed {seed.id} has none, nor is "
            "its answer a label; give every seed its skills, or choose another selection"
        )
    return skills


def _all(answers: SeedAnswers) -> list[Chosen]:
    ranked = sorted(answers.rows, key=lambda row: (tier(row), -error_rate(row), -(row.loss or 0.0), row.example_id))
    return [Chosen(row, None) for row in ranked]


def _random(answers: SeedAnswers) -> list[Chosen]:
    wanted = len(answers.settings.looked_at.choose(answers))
    drawn = sorted(answers.rows, key=lambda row: seeded_key(answers.draw_seed, row.example_id))
    return [Chosen(row, None) for row in drawn[: min(wanted, answers.settings.max_errors or wanted)]]


def _top(
    answered: Iterable[Prediction], settings: "FilterErrorsSettings", measure: Callable[[Prediction], float]
) -> list[Chosen]:
    ranked = sorted(
        (Chosen(row, measure(row)) for row in answered),
        key=lambda row: (-(row.hardness or 0.0), row.answered.example_id),
    )
    return ranked[: math.ceil(settings.fraction * len(ranked))]


def _given(row: Prediction, settings: "FilterErrorsSettings", value: float | None) -> float:
    if value is None:
        selection = settings.looked_at
        by = f" by {getattr(settings, selection.ranks_by)!r}" if selection.ranks_by else ""
        wanted = ", ".join(
            f"{key}: {str(values[0]).lower() if isinstance(values[0], bool) else ' or '.join(values)}"
            for key, values in selection.needs(settings).items()
        )
        raise UserError(
            f"filter_errors.selection: {settings.selection!r}{by} needs what the predictions do not hold, as for seed "
            f"{row.example_id}; it takes {wanted}"
        )
    return value


def _needs_nothing(settings: "FilterErrorsSettings") -> Needs:
    return {}


def _needs_of_hard(settings: "FilterErrorsSettings") -> Needs:
    by = settings.hard_by
    return {
        "evaluate.hardness": (True,),
        **({"task.form": forms_with("has_classes")} if by in ("el2n", "margin") else {}),
        **({"train.record_losses": (True,)} if by == "learning_percentage" else {}),
    }


def _needs_of_learnable(settings: "FilterErrorsSettings") -> Needs:
    return {"evaluate.hardness": (True,), "train.record_losses": (True,)}


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """A selection's function, and what the stage and the config must know of it."""

    about: str
    """Which seeds it chooses, in a few words: the help says "`NAME` (...)"."""
    choose: Callable[[SeedAnswers], list[Chosen]]
    """The rows to write from, in order of preference."""
    needs: Callable[["FilterErrorsSettings"], Needs] = _needs_nothing
    """What it needs of the config's other sections."""
    needs_folds: bool = False
    """Whether it looks at the answers of students that were trained without the seed's fold."""
    stands_for: tuple[str, str] | None = None
    """Two others that it is by turns: the first, and in the iterations in which the student knows its seeds the second,
    which needs the folds."""
    ranks_by: str = ""
    """The key of `filter_errors` that says what rows are ranked by, where there is one."""
    control_of: str = ""
    """The key of `filter_errors` that names another selection, of which this one is the control: it looks at the same
    answers and chooses as many rows."""
    takes_generated: bool = False
    """Whether it can choose among generated rows, too: it needs of a row no more than the student's answer to it."""
    are_failures: bool = False
    """Whether the chosen are those that the student fails on, rather than a choice that may hold others."""


SELECTIONS: dict[str, Selection] = {
    "auto": Selection(
        about="`wrong`, and `out_of_fold` in the iterations in which the student solves more than `auto_above` of its "
        "seeds",
        choose=_wrong,
        stands_for=("wrong", "out_of_fold"),
        are_failures=True,
    ),
    "wrong": Selection(
        about="those that the student gets wrong: the paper", choose=_wrong, takes_generated=True, are_failures=True
    ),
    "out_of_fold": Selection(
        about="those that students trained without their fold get wrong, for a student that has learnt its seeds by "
        "heart",
        choose=_wrong,
        needs_folds=True,
        are_failures=True,
    ),
    "hard": Selection(about="the hardest by `hard_by`", choose=_hard, needs=_needs_of_hard, ranks_by="hard_by"),
    "learnable": Selection(
        about="those that training taught the student most about", choose=_learnable, needs=_needs_of_learnable
    ),
    "skills": Selection(about="as many as are wrong, spread over skills as the student fails at them", choose=_skills),
    "all": Selection(about="all seeds, a control", choose=_all, takes_generated=True),
    "random": Selection(
        about="as many as `random_as` would choose, drawn at random: its control",
        choose=_random,
        control_of="random_as",
    ),
}
"""Name, as `selection` has it in a config -> selection. A new one is a function above and a line here."""
