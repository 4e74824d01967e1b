"""Which rows each selection chooses, and which of them a cap keeps."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil, exp, log
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm2llm.components.filter_errors.filter_errors import Filtered, filter_errors
from llm2llm.components.filter_errors.settings import FilterErrorsSettings, needs
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, Prediction, Score
from llm2llm.components.shared.inference.difficulty import difficulty, error_rate

LABELS = ["red", "green", "blue"]


def given_answers(row: Example, right: int = 0, unreadable: int = 0, samples: int = 1, **fields: Any) -> Prediction:
    """A prediction of which so many samples are right or unreadable."""
    outcome = "correct" if right else "unparseable" if unreadable else "wrong"
    values = {
        "example_id": row.id, "split": "seeds", "iteration": 0, "completion": "?",
        "parsed": None if outcome == "unparseable" else "?", "outcome": outcome,
        "samples": samples, "samples_correct": right, "samples_unparseable": unreadable,
    }  # fmt: skip
    return Prediction(**values | fields)


def run(
    seeds: list[Example], predictions: list[Prediction], labels: list[str] = LABELS, seed: int = 0, **settings: Any
) -> Filtered:
    validation = Score(
        iteration=0, split="validation", n=1, correct=0, unparseable=0, accuracy=0, low=0, high=1, training_rows=1
    )
    checked = FilterErrorsSettings(**settings)
    return filter_errors(seeds, predictions, [validation], 0, 3, checked, labels=labels, random_seed=seed)


def chosen(found: Filtered) -> set[str]:
    return {error.question for error in found.errors if not error.suspect}


@pytest.fixture
def seeds(example: Callable[..., Example]) -> list[Example]:
    """Twelve seeds: 0 to 5 red, 6 to 9 green, 10 and 11 blue."""
    return [example(f"thing {i}", "red" if i < 6 else "green" if i < 10 else "blue") for i in range(12)]


class TestWrong:
    def test_samples_make_rows_unsolved_flaky_or_unreadable(self, seeds) -> None:
        counts = [(4, 0), (3, 0), (1, 3), (0, 0), (0, 2), (0, 4)]
        rows = [given_answers(row, right, bad, 4) for row, (right, bad) in zip(seeds, counts, strict=False)]
        assert [difficulty(row) for row in rows] == ["solved", "flaky", "flaky", "unsolved", "unsolved", "format_only"]
        assert [error_rate(row) for row in rows] == [0, 0.25, 0.75, 1, 1, 1]

    def test_one_answer_needs_no_counts(self, seeds) -> None:
        row = replace(given_answers(seeds[0]), outcome="correct")
        assert (difficulty(row), error_rate(row)) == ("solved", 0)

    def test_unsolved_rows_come_first_then_the_flakiest(self, seeds) -> None:
        right = [4, 3, 1, 0, 2, 0]
        rows = [given_answers(row, count, 0, 4) for row, count in zip(seeds[:6], right, strict=True)]
        for cap, kept in ((1, {"thing 3", "thing 5"}), (3, {"thing 2", "thing 3", "thing 5"})):
            found = run(seeds[:6], rows, selection="wrong", max_errors=cap, cap_by="hardness")
            assert chosen(found) <= kept
            assert len(found.errors) == cap
        found = run(seeds[:6], rows, selection="wrong")
        assert {error.question: error.hardness for error in found.errors} == {
            "thing 1": 0.25, "thing 2": 0.75, "thing 3": 1, "thing 4": 0.5, "thing 5": 1
        }  # fmt: skip
        assert found.decision.reason == "5 seeds still need help; 3 of them flaky"


class TestHard:
    @pytest.fixture
    def measured(self, seeds) -> list[Prediction]:
        """Row i has loss i, EL2N 0.1 (11 - i), margin 0.1 (i - 5) if even, else 0.9, and is learnt the later the nearer
        i is to 3."""
        return [
            given_answers(
                row, 1, loss=float(i), el2n=0.1 * (11 - i), margin=0.1 * (i - 5) if i % 2 == 0 else 0.9,
                base_loss=log(exp(i) + 10), early_loss=log(exp(i) + 10 - abs(i - 3)), label_probability=0.5,
            )
            for i, row in enumerate(seeds)
        ]  # fmt: skip

    @pytest.mark.parametrize(
        ("hard_by", "expected"),
        [("loss", {9, 10, 11}), ("el2n", {0, 1, 2}), ("margin", {0, 2, 4}), ("learning_percentage", {2, 3, 4})],
    )
    def test_the_top_fraction(self, seeds, measured, hard_by: str, expected: set[int]) -> None:
        found = run(seeds, measured, selection="hard", hard_by=hard_by, fraction=0.25)
        assert chosen(found) == {f"thing {i}" for i in expected}
        assert found.decision.reason == "3 seeds chosen (hard)"
        assert {error.difficulty for error in found.errors} == {"solved"}

    def test_learning_percentage_is_the_first_epochs_share_of_the_fall_in_perplexity(self, seeds) -> None:
        row = given_answers(seeds[0], 1, base_loss=log(9), early_loss=log(6), loss=log(1))
        late = given_answers(seeds[1], 1, base_loss=log(9), early_loss=log(8), loss=log(1))
        found = run(seeds[:2], [row, late], selection="hard", hard_by="learning_percentage", fraction=1)
        hardness = {error.question: error.hardness for error in found.errors}
        assert hardness == pytest.approx({"thing 0": 1 - 3 / 8, "thing 1": 1 - 1 / 8})

    def test_a_row_that_was_not_learnt_at_all_is_the_hardest(self, seeds) -> None:
        rows = [given_answers(row, 0, base_loss=1.0, early_loss=1.0, loss=0.5) for row in seeds]
        rows[4] = replace(rows[4], loss=1.0)
        found = run(seeds, rows, selection="hard", hard_by="learning_percentage", fraction=0.01)
        assert chosen(found) == {"thing 4"}

    def test_learnable_is_the_fall_from_the_base_models_loss(self, seeds) -> None:
        falls = [0.1, 2.0, 0.5, 3.0, -1.0, 0.0] * 2
        rows = [given_answers(row, 1, base_loss=5.0, loss=5 - fall) for row, fall in zip(seeds, falls, strict=True)]
        found = run(seeds, rows, selection="learnable", fraction=0.3)
        assert chosen(found) == {"thing 1", "thing 3", "thing 7", "thing 9"}
        assert {error.hardness for error in found.errors} == {2.0, 3.0}

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"selection": "hard"}, r"'hard' by 'loss' needs .* it takes evaluate.hardness: true"),
            (
                {"selection": "hard", "hard_by": "el2n"},
                r"'hard' by 'el2n' .* evaluate.hardness: true, task.form: classification or multiple_choice",
            ),
            ({"selection": "learnable"}, r"'learnable' needs .* evaluate.hardness: true, train.record_losses: true"),
        ],
    )
    def test_predictions_without_the_numbers_are_refused_with_the_fix(self, seeds, settings, message: str) -> None:
        with pytest.raises(UserError, match=message):
            run(seeds, [given_answers(row) for row in seeds], **settings)

    def test_every_need_is_a_key_that_exists(self) -> None:
        from llm2llm.components.shared.inference.settings import AnswerSettings
        from llm2llm.components.shared.tasks.task import Task
        from llm2llm.components.shared.training.settings import FineTuneSettings

        sections: dict[str, Any] = {"evaluate": AnswerSettings, "train": FineTuneSettings, "task": Task}
        asked = 0
        for selection in ("auto", "wrong", "out_of_fold", "hard", "learnable", "skills", "all", "random"):
            for hard_by in ("loss", "el2n", "margin", "learning_percentage"):
                for key in needs(FilterErrorsSettings(selection=selection, hard_by=hard_by)):
                    section, name = key.split(".")
                    assert name in sections[section].model_fields
                    asked += 1
        assert asked == 1 + 2 + 2 + 2 + 2 * 4


class TestSkills:
    def test_rows_are_dealt_out_as_the_student_fails(self, seeds) -> None:
        """Three red, one green wrong: three rows of red and one of green, wrong or not."""
        wrong = {0, 1, 2, 6}
        rows = [given_answers(row, int(i not in wrong)) for i, row in enumerate(seeds)]
        drawn = set()
        for seed in range(8):
            found = run(seeds, rows, selection="skills", seed=seed)
            assert sorted(error.answer for error in found.errors) == ["green", "red", "red", "red"]
            drawn |= chosen(found)
        assert len(drawn) > 4, "the draw is among all rows of a skill, not only the wrong ones"

    def test_named_skills_go_before_labels(self, example) -> None:
        seeds = [example(f"q{i}", "red", skills=["add"] if i % 2 else ["carry"]) for i in range(8)]
        rows = [given_answers(row, int(row.skills == ["add"])) for row in seeds]
        assert {int(q[1]) % 2 for q in chosen(run(seeds, rows, selection="skills"))} == {0}

    def test_skills_with_too_few_rows_are_made_up_for(self, example) -> None:
        seeds = [example(f"q{i}", "1", skills=["a", "b"]) for i in range(4)]
        rows = [given_answers(row, int(i == 3)) for i, row in enumerate(seeds)]
        assert len(run(seeds, rows, labels=[], selection="skills").errors) == 3

    def test_rows_without_a_skill_are_refused(self, seeds) -> None:
        with pytest.raises(UserError, match="'skills' needs the skills of every seed"):
            run(seeds, [given_answers(row) for row in seeds], labels=[], selection="skills")

    def test_nothing_missing_nothing_chosen(self, seeds) -> None:
        assert run(seeds, [given_answers(row, 1) for row in seeds], selection="skills").errors == []


class TestControls:
    def test_all_is_every_seed(self, seeds) -> None:
        assert len(run(seeds, [given_answers(row, 1) for row in seeds], selection="all").errors) == 12

    def test_random_draws_as_many_as_are_wrong(self, seeds) -> None:
        rows = [given_answers(row, int(i >= 4)) for i, row in enumerate(seeds)]
        draws = [frozenset(chosen(run(seeds, rows, selection="random", seed=seed))) for seed in range(5)]
        assert {len(draw) for draw in draws} == {4}
        assert len(set(draws)) > 1
        assert draws[0] == chosen(run(seeds, rows, selection="random", seed=0))

    @pytest.mark.parametrize(
        ("arm", "expected"),
        [
            ({"selection": "hard", "fraction": 0.25}, 3),
            ({"selection": "learnable", "fraction": 0.5}, 6),
            ({"selection": "all"}, 12),
            ({"selection": "wrong"}, 0),
        ],
    )
    def test_random_draws_as_many_as_its_arm_where_the_student_knows_all_seeds(self, seeds, arm, expected: int) -> None:
        """It drew as many as are wrong, which is none, and so ended the control's run at once."""
        rows = [given_answers(row, 1, loss=i / 10, base_loss=2.0) for i, row in enumerate(seeds)]
        settings = {**arm, "random_as": arm["selection"], "selection": "random"}
        assert len(run(seeds, rows, **arm).errors) == expected
        found = run(seeds, rows, **settings)
        assert len(found.errors) == expected
        assert (found.decision.selection, found.decision.go_on) == ("random", expected > 0)

    @pytest.mark.parametrize("arm", ["out_of_fold", "auto"])
    def test_random_draws_as_many_as_the_folds_students_get_wrong(self, seeds, arm: str) -> None:
        known = [given_answers(row, 1) for row in seeds]
        of_folds = [replace(given_answers(row, int(i < 5)), fold=i % 3) for i, row in enumerate(seeds)]
        score = Score(
            iteration=0, split="validation", n=12, correct=12, unparseable=0, accuracy=1, low=0, high=1, training_rows=1
        )
        history = [score, replace(score, split="seeds", correct_ids=sorted(row.id for row in seeds))]
        counts = []
        for settings in ({"selection": arm}, {"selection": "random", "random_as": arm}):
            checked = FilterErrorsSettings(**settings)
            found = filter_errors(seeds, known, history, 0, 3, checked, fold_predictions=of_folds)
            counts.append((len(found.errors), found.decision.selection))
        assert counts == [(7, "out_of_fold"), (7, "random")]

    def test_random_needs_what_its_arm_needs(self) -> None:
        folds = FilterErrorsSettings(selection="random", random_as="out_of_fold", folds=4)
        assert (folds.uses_folds, folds.fold_count, folds.waits_for_known_seeds) == (True, 4, False)
        assert FilterErrorsSettings(selection="random").waits_for_known_seeds
        assert FilterErrorsSettings(selection="random", random_as="wrong").fold_count == 0
        assert needs(FilterErrorsSettings(selection="random", random_as="hard")) == {"evaluate.hardness": (True,)}
        with pytest.raises(ValidationError, match="random_as: 'random' is itself a control"):
            FilterErrorsSettings(selection="random", random_as="random")

    def test_a_cap_leaves_random_rows_random(self, seeds) -> None:
        rows = [given_answers(row) for row in seeds]
        by_both = [
            chosen(run(seeds, rows, selection="random", max_errors=3, cap_by=by)) for by in ("diversity", "hardness")
        ]
        assert by_both[0] == by_both[1]


class TestCap:
    def test_diversity_takes_one_of_each_kind(self, example) -> None:
        kinds = ["play some music by", "will it rain in", "book a table at", "rate this book"]
        seeds = [example(f"{kind} {i}", "red") for kind in kinds for i in range(5)]
        found = run(seeds, [given_answers(row) for row in seeds], selection="wrong", max_errors=4)
        assert {question.rsplit(" ", 1)[0] for question in chosen(found)} == set(kinds)
        assert "the 4 chosen of 20 by diversity" in found.decision.reason
        assert found.decision.errors == 4

    def test_unsolved_rows_are_not_given_up_for_flaky_ones(self, example) -> None:
        seeds = [example(f"alike {i}", "red") for i in range(4)] + [example("quite another", "red")]
        rows = [given_answers(row, 0, 0, 4) for row in seeds[:4]] + [given_answers(seeds[4], 1, 0, 4)]
        assert "quite another" not in chosen(run(seeds, rows, selection="wrong", max_errors=4))

    def test_flaky_rows_are_chosen_unlike_the_unsolved_ones(self, example) -> None:
        seeds = [example("will it rain", "red"), example("will it rain soon", "red"), example("play a song", "red")]
        rows = [given_answers(row, min(i, 1), 0, 4) for i, row in enumerate(seeds)]
        assert chosen(run(seeds, rows, selection="wrong", max_errors=2)) == {"will it rain", "play a song"}


answers = st.tuples(st.integers(0, 4), st.integers(0, 4), st.floats(0, 9), st.floats(0, 9), st.sampled_from(LABELS))


@given(
    rows=st.lists(answers, min_size=1, max_size=20),
    selection=st.sampled_from(["wrong", "hard", "learnable", "skills", "all", "random"]),
    cap=st.integers(0, 6),
    cap_by=st.sampled_from(["diversity", "hardness"]),
    shuffle=st.randoms(use_true_random=False),
)
def test_what_holds_for_every_selection(example, rows, selection, cap, cap_by, shuffle) -> None:
    """The order of the rows changes nothing; the cap holds; nobody stands twice; the number is what it says."""
    seeds = [example(f"{label} thing {i}", label) for i, (*_, label) in enumerate(rows)]
    predictions = [
        given_answers(seed, right, min(bad, 4 - right), 4, loss=loss, base_loss=base, early_loss=base)
        for seed, (right, bad, loss, base, _) in zip(seeds, rows, strict=True)
    ]
    settings = {"selection": selection, "max_errors": cap, "cap_by": cap_by, "format_only": "set_apart"}
    found = run(seeds, predictions, **settings)
    ids = [error.example_id for error in found.errors]
    assert ids == sorted(set(ids))
    assert set(ids) <= {seed.id for seed in seeds}
    assert not cap or len(ids) <= cap
    failing = sum(difficulty(row) in ("unsolved", "flaky") for row in predictions)
    wanted = {"hard": ceil(0.3 * len(rows)), "learnable": ceil(0.3 * len(rows)), "all": len(rows)}.get(
        selection, failing
    )
    assert found.decision.errors == len(ids) == (min(wanted, cap) if cap else wanted)
    if selection == "wrong":
        assert all(error.difficulty in ("unsolved", "flaky") for error in found.errors)
    shuffle.shuffle(seeds)
    shuffle.shuffle(predictions)
    assert run(seeds, predictions, **settings) == found
