"""What `evaluate` makes of graded predictions; what its component leaves behind is in the pipeline's tests."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.evaluate.evaluate import (
    NO_LABEL,
    confusion_of,
    field_figures,
    label_figures,
    merged,
    sample_figures,
    score_figures,
    score_split,
    scored,
    with_metrics,
)
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import calibration_error, mcnemar_p, paired_difference, pass_at_k
from llm2llm.components.shared.data.schemas import Example, Prediction, Score
from llm2llm.components.shared.models.student_folder import COUNTS
from llm2llm.components.shared.tasks import TASKS, Task
from tests.support.builders import example as make_example
from tests.support.builders import prediction as made_prediction

TRAINED = {"training_rows": 10}


def predicted(name: str, right: int, unreadable: int = 0, samples: int = 4, split: str = "seeds") -> Prediction:
    return Prediction(
        example_id=name,
        split=split,
        iteration=0,
        completion="",
        parsed="x" if right else None,
        outcome="correct" if right else "unparseable",
        samples=samples,
        samples_correct=right,
        samples_unparseable=unreadable,
    )


def test_pass_at_k_and_the_shares_of_the_seeds() -> None:
    rows = [predicted("a", 4), predicted("b", 1, 3), predicted("c", 0, 2), predicted("d", 0, 4), predicted("e", 2)]
    test = predicted("t", 1, samples=1, split="test")
    assert sample_figures([*rows, test]) == {
        "seeds_pass_at_1": sum(pass_at_k(4, right, 1) for right in (4, 1, 0, 0, 2)) / 5,
        "seeds_pass_at_4": 3 / 5,
        "seeds_solved": 1 / 5,
        "seeds_flaky": 2 / 5,
        "seeds_unsolved": 1 / 5,
        "seeds_format_only": 1 / 5,
    }


def test_one_answer_to_each_row_has_no_such_figures() -> None:
    assert sample_figures([predicted("a", 1, samples=1)]) == {}


def test_a_score_counts_first_answers() -> None:
    score = score_split([predicted("a", 4), predicted("b", 0, 4)], TRAINED)
    assert score is not None
    assert (score.n, score.correct, score.unparseable, score.correct_ids) == (2, 1, 1, ["a"])


def test_a_score_says_what_became_of_the_rows_in_training() -> None:
    counts = {"training_rows": 10, "rows_too_long": 3, "rows_truncated": 2, "rows_replayed": 4, "steps": 9}
    (score,) = scored([], [predicted("a", 1)], counts)
    assert {name: getattr(score, name) for name in COUNTS} == counts


def test_the_calibration_error_is_of_the_answers_that_have_a_confidence() -> None:
    rows = [replace(predicted(name, right), confidence=0.9) for name, right in (("a", 1), ("b", 0), ("c", 1))]
    crowded = predicted("d", 0, 4)
    score = score_split([*rows, crowded], TRAINED)
    assert score is not None
    assert score.calibration_error == pytest.approx(calibration_error([0.9] * 3, [True, False, True]))
    assert (score.n, score.correct) == (4, 2)
    plain = score_split([crowded], TRAINED)
    assert plain is not None
    assert plain.calibration_error is None


class TestCompared:
    def of(self, outcomes: str, iteration: int, split: str = "test") -> list[Prediction]:
        return [
            replace(predicted(f"row{n:02d}", int(right), samples=1, split=split), iteration=iteration)
            for n, right in enumerate(outcomes)
        ]

    def first(self, *outcomes: tuple[str, str]) -> list[Score]:
        """The history after iteration 0, with these answers to the splits."""
        return scored([], [p for split, text in outcomes for p in self.of(text, 0, split)], TRAINED)

    def test_with_iteration_0_row_by_row(self) -> None:
        now = self.of("1111110100", 2)
        (score,) = scored(self.first(("test", "1110000000")), now[::-1], TRAINED)
        before, after = [c == "1" for c in "1110000000"], [c == "1" for c in "1111110100"]
        expected = paired_difference(before, after)
        assert (score.gain, score.gain_low, score.gain_high) == (expected.value, expected.low, expected.high)
        assert score.gain == pytest.approx(0.4)
        assert score.gain_p == mcnemar_p(before, after)

    @given(outcomes=st.lists(st.tuples(st.booleans(), st.booleans()), min_size=1, max_size=30))
    def test_the_history_says_all_that_the_predictions_of_iteration_0_would(self, outcomes) -> None:
        before, after = [one[0] for one in outcomes], [one[1] for one in outcomes]
        first, now = ("".join("01"[right] for right in some) for some in (before, after))
        (score,) = scored(self.first(("test", first)), self.of(now, 1), TRAINED)
        expected = paired_difference(before, after)
        assert (score.gain, score.gain_low, score.gain_high) == (expected.value, expected.low, expected.high)
        assert score.gain_p == mcnemar_p(before, after)

    def test_each_split_with_its_own(self) -> None:
        first = self.first(("validation", "1000"), ("test", "1111"))
        scores = scored(first, [*self.of("1100", 1, "validation"), *self.of("0111", 1)], TRAINED)
        assert [(score.split, score.gain) for score in scores] == [("validation", 0.25), ("test", -0.25)]

    def test_with_iteration_0_and_no_later_one(self) -> None:
        history = self.first(("test", "1000"))
        history += scored(history, self.of("1111", 1), TRAINED)
        (score,) = scored(history, self.of("1100", 2), TRAINED)
        assert score.gain == 0.25

    def test_without_iteration_0_there_is_no_gain(self) -> None:
        (score,) = self.first(("test", "10"))
        assert (score.gain, score.gain_low, score.gain_high, score.gain_p) == (None, None, None, None)

    def test_other_rows_are_refused(self) -> None:
        with pytest.raises(UserError, match="iteration 0 are not for the same test rows: 2 then, 3 now"):
            scored(self.first(("test", "11")), self.of("111", 1), TRAINED)
        others = [replace(p, example_id=f"another {p.example_id}") for p in self.of("11", 1)]
        with pytest.raises(UserError, match="not for the same test rows: 2 then, 2 now, without row00"):
            scored(self.first(("test", "11")), others, TRAINED)


class TestMerged:
    @pytest.fixture
    def splits(self, example: Callable[..., Example]) -> Any:
        return {"seeds": [example(f"s{n}", "x") for n in range(5)], "test": [example(f"t{n}", "x") for n in range(4)]}

    def of(self, splits: Any) -> list[Prediction]:
        return [predicted(row.id, 1, samples=1, split=split) for split in splits for row in splits[split]]

    def test_in_the_order_of_one_shard(self, splits: Any) -> None:
        rows = self.of(splits)
        whole = merged([rows], splits, 0)
        assert whole == merged([rows[1::2], [], rows[::2][::-1]], splits, 0)
        assert [p.split for p in whole] == ["seeds"] * 5 + ["test"] * 4
        assert [p.example_id for p in whole[:5]] == sorted(row.id for row in splits["seeds"])

    def test_a_missing_shard_is_refused(self, splits: Any) -> None:
        rows = self.of(splits)
        with pytest.raises(UserError, match="2 of 9 rows are missing in the predictions of 2 shards, such as test row"):
            merged([rows[:4], rows[4:7]], splits, 0)

    def test_a_shard_given_twice_is_refused(self, splits: Any) -> None:
        rows = self.of(splits)
        with pytest.raises(UserError, match="4 of 9 rows are there twice, or were not asked"):
            merged([rows[:4], rows[4:], rows[:4]], splits, 0)

    def test_rows_that_nobody_asked_are_refused(self, splits: Any) -> None:
        with pytest.raises(UserError, match="1 of 9 rows are there twice, or were not asked"):
            merged([[*self.of(splits), predicted("other", 1, samples=1, split="test")]], splits, 0)

    def test_another_iteration_is_refused(self, splits: Any) -> None:
        with pytest.raises(UserError, match="shard_predictions of iteration 0, and this is iteration 1"):
            merged([self.of(splits)], splits, 1)


class TestConfusion:
    def answered(self, row: Example, parsed: str | None, split: str = "validation") -> Prediction:
        return replace(predicted(row.id, 0, samples=1, split=split), parsed=parsed)

    def test_counts_right_labels_against_answers(self, colours: Task, example: Callable[..., Example]) -> None:
        rows = [example(f"{n}", colour) for n, colour in enumerate(["red", "red", "red", "green", "blue"])]
        seed = example("seed", "red")
        answers = ["red", "green", None, "green", "red"]
        predictions = [self.answered(row, given) for row, given in zip(rows, answers, strict=True)]
        found = confusion_of(
            colours, {"validation": rows, "seeds": [seed]}, [*predictions, self.answered(seed, "blue", "seeds")]
        )
        assert found == (
            ["red", "green", "blue", NO_LABEL],
            [[1, 1, 0, 1], [0, 1, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]],
        )

    def test_of_the_seeds_without_validation(self, colours: Task, example: Callable[..., Example]) -> None:
        seed = example("seed", "red")
        found = confusion_of(colours, {"seeds": [seed], "validation": []}, [self.answered(seed, "blue", "seeds")])
        assert found is not None
        assert sum(map(sum, found[1])) == found[1][0][2] == 1

    def test_letters_of_the_choices(self, example: Callable[..., Example]) -> None:
        task = Task(name="choose", form="multiple_choice")
        rows = [example("?", "B", choices=["x", "y"]), example("??", "C", choices=["1", "2", "3"])]
        found = confusion_of(task, {"validation": rows}, [self.answered(rows[0], "Z"), self.answered(rows[1], "A")])
        assert found == (["A", "B", "C", NO_LABEL], [[0] * 4, [0, 0, 0, 1], [1, 0, 0, 0], [0] * 4])

    def test_none_for_open_answers(self, example: Callable[..., Example]) -> None:
        assert confusion_of(TASKS["gsm8k"], {"validation": [example("?", "1")]}, []) is None

    def test_a_wrong_right_answer_is_one_clear_error(self, colours: Task, example: Callable[..., Example]) -> None:
        row = example("?", "pink")
        with pytest.raises(UserError, match="the answer 'pink' is none of the labels"):
            confusion_of(colours, {"seeds": [row]}, [self.answered(row, "red", "seeds")])


def test_labels_have_their_metrics_and_the_one_that_decides_has_an_interval() -> None:
    rows = [make_example(f"row {i}", "spam" if i % 20 == 0 else "ham") for i in range(100)]
    task = Task(name="mail", form="classification", labels=["ham", "spam"], metric="macro_f1")
    said = [made_prediction(row, "ham", "validation") for row in rows]
    (plain,) = scored([], said, TRAINED)
    score = with_metrics(plain, task, {"validation": rows}, said)
    assert score.macro_f1 == score.value == score.decides == pytest.approx(190 / 195 / 2)
    assert score.balanced_accuracy == 0.5
    assert score.accuracy == 0.95
    assert score.value_low is not None
    assert score.value_high is not None
    assert score.value_low < score.value < score.value_high < 0.5
    assert (len(score.measures), score.metric) == (200, "macro_f1")
    assert score_figures([score], said)["validation_macro_f1"] == 0.4872
    confused = confusion_of(task, {"validation": rows}, said)
    assert label_figures(confused) == {"precision_ham": 0.95, "recall_ham": 1.0, "recall_spam": 0.0}
    by_accuracy = with_metrics(plain, task.model_copy(update={"metric": "accuracy"}), {"validation": rows}, said)
    assert (by_accuracy.value, by_accuracy.measures, by_accuracy.decides) == (None, [], 0.95)
    assert by_accuracy.macro_f1 == score.macro_f1


def test_a_form_without_labels_has_none_of_them() -> None:
    rows = [make_example("row", "1")]
    said = [made_prediction(rows[0], "1")]
    score = with_metrics(scored([], said, TRAINED)[0], Task(name="sums", form="numeric"), {"seeds": rows}, said)
    assert (score.macro_f1, score.balanced_accuracy, score.value) == (None, None, None)
    assert label_figures(None) == {}


def test_figures_of_fields() -> None:
    """Shares of valid JSON and of what fits, and F1 by field; of labels, which have no fields, none."""
    schema = {"type": "array", "uniqueItems": True, "items": {"enum": ["a", "b"]}}
    task = Task(name="topics", form="json", answer_schema=schema)
    pairs: list[tuple[str, str | None]] = [
        ('["a"]', '["a"]'),
        ('["a","b"]', '["b"]'),
        ('["b"]', '["c"]'),
        ('["b"]', None),
    ]
    rows = [Example(id=str(n), question=str(n), answer=right) for n, (right, _) in enumerate(pairs)]
    answers = [
        Prediction(example_id=str(n), split="test", iteration=0, completion="", parsed=parsed, outcome="wrong")
        for n, (_, parsed) in enumerate(pairs)
    ]
    figures = field_figures(task, {"test": rows}, answers)
    assert (figures["test_valid_json"], figures["test_fits_schema"]) == (0.75, 0.5)
    assert figures["test_precision"] == pytest.approx(2 / 3, abs=1e-4)
    assert (figures["test_recall"], figures["test_f1"]) == (0.4, 0.5)
    assert figures["test_f1_items"] == 0.5
    assert figures["test_row_score"] == pytest.approx((1 + 2 / 3) / 4, abs=1e-4)
    assert field_figures(Task(name="x", form="text"), {"test": rows}, answers) == {}
