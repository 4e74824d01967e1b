"""Which rows to choose: every selection is one function from graded answers to rows in order of preference.

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
all, random          the controls
"""

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from llm2llm.components.filter_errors.settings import FilterErrorsSettings, needs
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.sampling import largest_remainder, seeded_key
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.inference.difficulty import difficulty, error_rate


@dataclass(frozen=True, slots=True)
class Chosen:
    """A row to write from."""

    answered: Prediction
    hardness: float | None
    """What it was ranked by, higher for harder; None where nothing ranked it."""


def fails(answered: Prediction, settings: FilterErrorsSettings) -> bool:
    """Whether a row counts as wrong."""
    found = difficulty(answered)
    return found in ("unsolved", "flaky") or (found == "format_only" and settings.format_only == "write")


def select(
    name: str,
    answered: Sequence[Prediction],
    seeds: Mapping[str, Example],
    settings: FilterErrorsSettings,
    labels: Sequence[str],
    draw_seed: str,
) -> list[Chosen]:
    """The chosen rows in order of preference, before any cap; the order of `answered` changes nothing.

    Args:
        name: Any selection but `auto`.
        answered: One prediction for each seed that may be chosen.
        seeds: The seeds by id.
        settings: See `FilterErrorsSettings`.
        labels: The label set of a label task, for `skills`: a row without skills is of the skill that its label is.
        draw_seed: Decides the draws of `skills` and `random`.

    Raises:
        UserError: Predictions without what the selection ranks by, naming the setting to switch on.
    """
    if name == "skills":
        return _skills(answered, seeds, settings, labels, draw_seed)
    if name == "random":
        return _random(answered, settings, draw_seed)
    if name == "all":
        return _all(answered)
    return {"wrong": _wrong, "out_of_fold": _wrong, "hard": _hard, "learnable": _learnable}[name](answered, settings)


def _wrong(answered: Sequence[Prediction], settings: FilterErrorsSettings) -> list[Chosen]:
    failed = [row for row in answered if fails(row, settings)]
    failed.sort(key=lambda row: (tier(row), -error_rate(row), -(row.loss or 0.0), row.example_id))
    return [Chosen(row, error_rate(row)) for row in failed]


def tier(answered: Prediction) -> int:
    """Unsolved rows go before flaky ones, and those before solved ones."""
    return {"unsolved": 0, "format_only": 0, "flaky": 1, "solved": 2}[difficulty(answered)]


def _hard(answered: Sequence[Prediction], settings: FilterErrorsSettings) -> list[Chosen]:
    measure = {
        "loss": lambda row: _given(row, settings, row.loss),
        "el2n": lambda row: _given(row, settings, row.el2n),
        "margin": lambda row: -_given(row, settings, row.margin),
        "learning_percentage": lambda row: 1 - _learning_percentage(row, settings),
    }[settings.hard_by]
    return _top(answered, settings, measure)


def _learnable(answered: Sequence[Prediction], settings: FilterErrorsSettings) -> list[Chosen]:
    return _top(answered, settings, lambda row: _given(row, settings, row.base_loss) - _given(row, settings, row.loss))


def _learning_percentage(row: Prediction, settings: FilterErrorsSettings) -> float:
    """The share of the whole fall in perplexity that the first epoch brought: a small one is learnt late."""
    base, early, last = (
        math.exp(min(_given(row, settings, loss), 100.0)) for loss in (row.base_loss, row.early_loss, row.loss)
    )
    # A row whose perplexity did not fall was not learnt at all: the hardest there is.
    return (base - early) / (base - last) if base > last else -math.inf


def _skills(
    answered: Sequence[Prediction],
    seeds: Mapping[str, Example],
    settings: FilterErrorsSettings,
    labels: Sequence[str],
    draw_seed: str,
) -> list[Chosen]:
    failed = _wrong(answered, settings)
    wanted = min(len(failed), settings.max_errors or len(failed))
    skills = {row.example_id: _skills_of(seeds[row.example_id], labels) for row in answered}
    missing: dict[str, int] = defaultdict(int)
    for row in failed:
        for skill in skills[row.answered.example_id]:
            missing[skill] += 1
    chosen: dict[str, Chosen] = {}
    drawn = sorted(answered, key=lambda row: seeded_key(draw_seed, row.example_id))
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


def _all(answered: Sequence[Prediction]) -> list[Chosen]:
    ranked = sorted(answered, key=lambda row: (tier(row), -error_rate(row), -(row.loss or 0.0), row.example_id))
    return [Chosen(row, None) for row in ranked]


def _random(answered: Sequence[Prediction], settings: FilterErrorsSettings, draw_seed: str) -> list[Chosen]:
    wanted = sum(fails(row, settings) for row in answered)
    drawn = sorted(answered, key=lambda row: seeded_key(draw_seed, row.example_id))
    return [Chosen(row, None) for row in drawn[: min(wanted, settings.max_errors or wanted)]]


def _top(
    answered: Iterable[Prediction], settings: FilterErrorsSettings, measure: Callable[[Prediction], float]
) -> list[Chosen]:
    ranked = sorted(
        (Chosen(row, measure(row)) for row in answered),
        key=lambda row: (-(row.hardness or 0.0), row.answered.example_id),
    )
    return ranked[: math.ceil(settings.fraction * len(ranked))]


def _given(row: Prediction, settings: FilterErrorsSettings, value: float | None) -> float:
    if value is None:
        by = f" by {settings.hard_by!r}" if settings.selection == "hard" else ""
        wanted = ", ".join(
            f"{key}: {str(values[0]).lower() if isinstance(values[0], bool) else ' or '.join(values)}"
            for key, values in needs(settings).items()
        )
        raise UserError(
            f"filter_errors.selection: {settings.selection!r}{by} needs what the predictions do not hold, as for seed "
            f"{row.example_id}; it takes {wanted}"
        )
    return value
