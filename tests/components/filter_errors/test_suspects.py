"""Labels that are more likely wrong than the student are set apart, and hard rows are not."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.filter_errors.filter_errors import filter_errors
from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.filter_errors.suspects import find_suspects
from llm2llm.components.shared.data.schemas import Example, Prediction, Score, StudentError
from tests.support.builders import student_error

LABELS = ["red", "green"]


def answered(row: Example, parsed: str, right: float | None = None, iteration: int = 1) -> Prediction:
    """An answer, out-of-fold with the right label's probability if there is one; the rest is the other label's."""
    other = LABELS[1 - LABELS.index(row.answer)] if row.answer in LABELS else None
    return Prediction(
        example_id=row.id,
        split="seeds",
        iteration=iteration,
        fold=0 if right is not None else None,
        completion=parsed,
        parsed=parsed,
        outcome="correct" if parsed == row.answer else "wrong",
        label_probability=right,
        margin=None if right is None else 2 * right - 1,
        rival=None if right is None else other,
    )


def before(row: Example, parsed: str, iteration: int = 0) -> StudentError:
    return student_error(row, iteration, parsed)


@pytest.fixture
def seeds(example: Callable[..., Example]) -> list[Example]:
    """Ten red, ten green."""
    return [example(f"thing {i}", LABELS[i // 10]) for i in range(20)]


class TestConfidentLearning:
    def found(self, seeds, red: list[float], green: list[float], after: int = 1, past=()) -> set[str]:
        """The suspects, by question, when the right labels have these probabilities."""
        rows = [
            answered(row, row.answer if p >= 0.5 else LABELS[1 - LABELS.index(row.answer)], p)
            for row, p in zip(seeds, red + green, strict=True)
        ]
        found = find_suspects(rows, {row.id: row for row in seeds}, past, LABELS, after)
        return {row.question for row in seeds if row.id in found}

    def test_a_confident_disagreement_is_suspected_and_an_unsure_one_is_not(self, seeds) -> None:
        """The mean of green is 0.8: a red row that is green with 0.95 is suspected, one with 0.6 is not."""
        assert self.found(seeds, [0.9] * 8 + [0.05, 0.4], [0.8] * 10) == {"thing 8"}

    def test_an_overconfident_class_needs_more(self, seeds) -> None:
        """The thresholds are per class: where the student is always sure of green, 0.95 is not enough."""
        assert self.found(seeds, [0.9] * 9 + [0.05], [0.99] * 10) == set()

    def test_a_threshold_that_is_just_reached_is_reached(self, seeds) -> None:
        assert self.found(seeds, [0.9] * 9 + [0.2], [0.8] * 10) == {"thing 9"}

    def test_a_label_below_its_own_threshold_does_not_compete(self, seeds) -> None:
        """Green 0.45 reaches green's mean, red 0.55 does not reach red's."""
        rows = [answered(row, row.answer, 0.9 if row.answer == "red" else 0.4) for row in seeds]
        rows[0] = answered(seeds[0], "green", 0.55)
        assert find_suspects(rows, {row.id: row for row in seeds}, (), LABELS, 1) == {seeds[0].id}

    def test_clean_and_sure_has_no_suspects(self, seeds) -> None:
        assert self.found(seeds, [0.9] * 10, [0.8] * 10) == set()

    def test_it_must_happen_again_and_again(self, seeds) -> None:
        red, green = [0.9] * 8 + [0.05, 0.05], [0.8] * 10
        assert self.found(seeds, red, green, after=2) == set()
        past = [before(seeds[8], "green"), before(seeds[9], "blue")]
        assert self.found(seeds, red, green, after=2, past=past) == {"thing 8"}
        assert self.found(seeds, red, green, after=3, past=past) == set()

    @given(st.lists(st.floats(0, 1), min_size=20, max_size=20))
    def test_it_counts_what_the_papers_confident_joint_counts(self, example, right: list[float]) -> None:
        """A direct transcription: the label with the highest probability among those at or above their thresholds."""
        seeds = [example(f"thing {i}", LABELS[i // 10]) for i in range(20)]
        probability = [[p, 1 - p] if i < 10 else [1 - p, p] for i, p in enumerate(right)]
        threshold = [sum(right[:10]) / 10, sum(right[10:]) / 10]
        counted = set()
        for i, pair in enumerate(probability):
            above = [label for label in (0, 1) if pair[label] >= threshold[label]]
            guess = max(above, key=lambda label: pair[label]) if above else None
            tie = len(above) == 2 and pair[0] == pair[1]
            if guess is not None and guess != i // 10 and not tie and right[i] < 0.5:
                counted.add(f"thing {i}")
        assert self.found(seeds, right[:10], right[10:]) == counted


class TestAnswersAlone:
    def found(self, seeds, wrong: dict[int, str], past=(), after: int = 2, labels=LABELS) -> set[str]:
        rows = [answered(row, wrong.get(i, row.answer)) for i, row in enumerate(seeds)]
        past = past or [before(seeds[i], parsed) for i, parsed in wrong.items()]
        found = find_suspects(rows, {row.id: row for row in seeds}, past, labels, after)
        return {row.question for row in seeds if row.id in found}

    def test_the_same_wrong_answer_again(self, seeds) -> None:
        assert self.found(seeds, {3: "green"}) == {"thing 3"}
        assert self.found(seeds, {3: "green"}, past=[before(seeds[3], "blue")]) == set()
        assert self.found(seeds, {3: "green"}, past=[before(seeds[3], "green", iteration=-1)]) == set()

    def test_a_class_that_the_student_does_not_know_is_no_noise(self, seeds) -> None:
        assert self.found(seeds, dict.fromkeys(range(6), "green")) == set()

    def test_open_answers_need_a_student_that_is_mostly_right(self, example) -> None:
        seeds = [example(f"sum {i}", str(i)) for i in range(10)]
        assert self.found(seeds, {3: "7"}, labels=[]) == {"sum 3"}
        assert self.found(seeds, dict.fromkeys(range(6), "77"), labels=[]) == set()

    def test_an_answer_that_was_sometimes_right_is_not_suspected(self, seeds) -> None:
        rows = [answered(row, "green" if i == 3 else row.answer) for i, row in enumerate(seeds)]
        rows[3] = replace(rows[3], samples=4, samples_correct=1)
        by_id = {row.id: row for row in seeds}
        assert find_suspects(rows, by_id, [before(seeds[3], "green")], LABELS, 2) == set()


class TestSetApart:
    def run(self, seeds, **settings: object):
        rows = [answered(row, "green" if i in (3, 4) else row.answer) for i, row in enumerate(seeds)]
        validation = [
            Score(iteration=i, split="validation", n=1, correct=0, unparseable=0, accuracy=0, low=0, high=1,
                  training_rows=1)
            for i in (0, 1)
        ]  # fmt: skip
        checked = FilterErrorsSettings(selection="wrong", suspect_after=2, **settings)
        return filter_errors(
            seeds, rows, validation, 1, 9, checked, past_errors=[before(seeds[3], "green")], labels=LABELS
        )

    def test_suspects_are_listed_and_not_written_from(self, seeds) -> None:
        found = self.run(seeds)
        assert {error.question: error.suspect for error in found.errors} == {"thing 3": True, "thing 4": False}
        assert (found.decision.errors, found.decision.suspects) == (1, 1)
        assert found.decision.reason == "1 seed still needs help; 1 set apart, as their labels may be wrong"

    def test_unless_nobody_is_to_look(self, seeds) -> None:
        found = self.run(seeds, suspects="ignore")
        assert [error.suspect for error in found.errors] == [False, False]
        assert (found.decision.errors, found.decision.suspects) == (2, 0)
