"""`filter_errors.generated_rows`: errors on generated rows, the comparison of the paper's ablation."""

from collections.abc import Callable

import pytest
from pydantic import ValidationError

from llm2llm.components.filter_errors.filter_errors import Filtered, filter_errors
from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, Reject, Split
from tests.support.builders import prediction, score
from tests.support.builders import reject as made_reject

BOTH = FilterErrorsSettings(selection="wrong", generated_rows=True)


@pytest.fixture
def rows(example: Callable[..., Example]) -> list[Example]:
    """Two seeds, and a row written from the first."""
    seeds = [example(f"thing {i}", "blue", rationale=None) for i in range(2)]
    return [*seeds, example("a new thing", "blue", rationale=None, parent_id=seeds[0].id, iteration=1)]


def found(rows: list[Example], settings: FilterErrorsSettings, answers: tuple[str | None, ...], **more) -> Filtered:
    splits: tuple[Split, ...] = ("seeds", "seeds", "generated")
    asked = [prediction(row, said, split, 1) for row, said, split in zip(rows, answers, splits, strict=False)]
    looked_at = [row for row in rows if settings.generated_rows or not row.generated]
    history = [score(0, "validation", 5, 10), score(1, "validation", 5, 10)]
    return filter_errors(looked_at, asked, history, 1, 3, settings, training_set=rows, **more)


def test_a_generated_row_that_is_answered_wrongly_is_an_error_only_if_asked_for(rows) -> None:
    answers = ("blue", "red", "red")
    with_them = found(rows, BOTH, answers)
    assert {error.example_id for error in with_them.errors} == {rows[1].id, rows[2].id}
    assert with_them.decision.reason == "2 rows still need help; 1 of them generated rows"
    alone = found(rows, FilterErrorsSettings(selection="wrong"), answers[:2])
    assert {error.example_id for error in alone.errors} == {rows[1].id}
    assert alone.decision.reason == "1 seed still needs help"


def test_with_none_left_the_reason_names_both(rows) -> None:
    decision = found(rows, BOTH, ("blue", "blue", "blue")).decision
    assert (decision.go_on, decision.reason) == (False, "no errors left on the seeds and the generated rows")


def test_the_control_draws_from_generated_rows_too(rows) -> None:
    settings = FilterErrorsSettings(selection="random", random_as="wrong", generated_rows=True)
    drawn = {
        error.example_id
        for seed in range(20)
        for error in found(rows, settings, ("blue", "red", "blue"), random_seed=seed).errors
    }
    assert drawn == {row.id for row in rows}


def test_a_student_that_was_not_asked_the_generated_rows_is_refused(rows) -> None:
    with pytest.raises(UserError, match="generated_rows: 0 predictions for 1 generated rows: evaluate must be given"):
        found(rows, BOTH, ("blue", "red"))


def test_a_row_retires_by_what_was_written_from_it_alone(rows, example) -> None:
    """Nothing came of the generated row; that of its seed, which has the same seed, was kept."""

    def rejected(iteration: int) -> Reject:
        return made_reject(iteration, "invalid", f"bad {iteration}", parent_id=rows[0].id, by_way_of=rows[2].id)

    settings = BOTH.model_copy(update={"retire_after": 2})
    decision = found(rows, settings, ("red", "red", "red"), rejects=[rejected(1), rejected(2)]).decision
    assert (decision.errors, decision.retired) == (2, 1)
    kept = example("one more", "blue", rationale=None, parent_id=rows[0].id, by_way_of=rows[2].id, iteration=2)
    asked = [prediction(row, "red", "generated" if row.generated else "seeds", 2) for row in rows]
    history, rejects = [score(2, "validation", 5, 10)], [rejected(1), rejected(2)]
    again = filter_errors(rows, asked, history, 2, 3, settings, training_set=[*rows, kept], rejects=rejects)
    assert again.decision.retired == 0


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({}, "selection 'auto' by more than that; set selection: wrong"),
        ({"selection": "out_of_fold"}, "selection 'out_of_fold'"),
        ({"selection": "hard"}, "selection 'hard'"),
        ({"selection": "skills"}, "selection 'skills'"),
        ({"selection": "random"}, "random_as 'auto' by more than that; set random_as: wrong"),
    ],
)
def test_a_selection_that_needs_more_than_answers_is_refused(settings, named) -> None:
    with pytest.raises(ValidationError, match=named):
        FilterErrorsSettings(generated_rows=True, **settings)
