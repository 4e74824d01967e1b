"""`filter_errors`: which seeds are errors, and whether the loop goes on."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.filter_errors.component import filter_errors as stage
from llm2llm.components.filter_errors.decision import best_iteration
from llm2llm.components.filter_errors.filter_errors import filter_errors
from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.journal import read_journal
from llm2llm.components.shared.data.schemas import Decision, Example, Prediction, Reject, Score, StudentError
from llm2llm.components.shared.tasks.forms.metrics import CLASS_METRICS
from llm2llm.components.shared.tasks.measured import matrix
from tests.support.builders import content, journal_artifact, outputs_of, prediction, rows_artifact

WRONG = FilterErrorsSettings(selection="wrong", format_only="set_apart")
WRITE = {"format_only": "write"}
OUT_OF_FOLD = FilterErrorsSettings(selection="out_of_fold")


def score(iteration: int, accuracy: float, split: str = "validation") -> Score:
    return Score(
        iteration=iteration,
        split=split,
        n=100,
        correct=round(accuracy * 100),
        unparseable=0,
        accuracy=accuracy,
        low=0.0,
        high=1.0,
        training_rows=10,
    )


def history(*validation: float) -> list[Score]:
    return [score(iteration, accuracy) for iteration, accuracy in enumerate(validation)]


def answered(row: Example, outcome: str, iteration: int = 0, fold: int | None = None) -> Prediction:
    parsed = {"correct": row.answer, "wrong": "red", "unparseable": None}[outcome]
    completion = f" {parsed}" if parsed else "???"
    return prediction(row, parsed, iteration=iteration, fold=fold, completion=completion, outcome=outcome)


@pytest.fixture
def seeds(example: Callable[..., Example]) -> list[Example]:
    return [example(f"thing {i}", "blue", rationale=None) for i in range(6)]


def decide(seeds, predictions, past, iteration=0, max_iterations=3, settings=WRONG, **others) -> Decision:
    return filter_errors(seeds, predictions, past, iteration, max_iterations, settings, **others).decision


def reject(parent: Example, iteration: int, reason: str = "invalid") -> Reject:
    return Reject(
        iteration=iteration,
        stage="teacher_augment",
        reason=reason,
        id=f"{parent.id}-{iteration}",
        question="",
        answer="",
        parent_id=parent.id,
    )


class TestErrors:
    def test_wrong_answers_are_errors_and_unreadable_ones_are_counted(self, seeds) -> None:
        outcomes = ["correct", "wrong", "unparseable", "correct", "correct", "wrong"]
        predictions = [answered(row, outcome) for row, outcome in zip(seeds, outcomes, strict=True)]
        found = filter_errors(seeds, predictions, history(0.5), 0, 3, WRONG)
        assert [error.example_id for error in found.errors] == sorted([seeds[1].id, seeds[5].id])
        assert found.decision == Decision(
            iteration=0,
            selection="wrong",
            errors=2,
            go_on=True,
            reason="2 seeds still need help; 1 more give no answer that can be read (filter_errors.format_only: write "
            "takes them too)",
            best_iteration=0,
            reference_iteration=0,
        )
        written = filter_errors(seeds, predictions, history(0.5), 0, 3, WRONG.model_copy(update=WRITE)).errors
        assert {error.example_id: error.difficulty for error in written} == {
            seeds[1].id: "unsolved", seeds[2].id: "format_only", seeds[5].id: "unsolved"
        }  # fmt: skip

    def test_an_error_holds_the_seed_and_the_answer(self, example) -> None:
        seed = example("2+2?", "4", rationale="2+2 = 4")
        prediction = replace(answered(seed, "wrong", iteration=2, fold=1), completion=" five", parsed="5")
        found = filter_errors([seed], [], history(0, 0, 0), 2, 9, OUT_OF_FOLD, fold_predictions=[prediction])
        assert found.errors == [
            StudentError(
                iteration=2,
                example_id=seed.id,
                question="2+2?",
                choices=[],
                rationale="2+2 = 4",
                answer="4",
                completion=" five",
                parsed="5",
                outcome="wrong",
                fold=1,
                difficulty="unsolved",
                hardness=1.0,
            )
        ]

    def test_predictions_of_other_splits_are_passed_over(self, seeds) -> None:
        predictions = [answered(row, "correct") for row in seeds]
        others = [replace(answered(seeds[0], "wrong"), split=split) for split in ("validation", "test")]
        assert filter_errors(seeds, [*others, *predictions], history(0.5), 0, 3, WRONG).errors == []

    def test_the_predictions_of_all_folds_cover_the_seeds_together(self, seeds) -> None:
        folds = [[answered(row, "wrong", fold=fold) for row in seeds[fold::3]] for fold in range(3)]
        answers = [p for fold in folds for p in fold]
        found = filter_errors(seeds, [], history(0.5), 0, 3, OUT_OF_FOLD, fold_predictions=answers)
        assert len(found.errors) == 6
        assert {error.fold for error in found.errors} == {0, 1, 2}
        assert found.decision.selection == "out_of_fold"

    def test_the_decision_holds_what_judging_the_folds_cost(self, seeds) -> None:
        """What judging the student's own answers cost is in the history."""
        cost = {"judge_calls": 2, "judge_input_tokens": 20, "judge_output_tokens": 3, "judge_usd": 0.25}
        folds = [replace(answered(row, "wrong", fold=0), **cost) for row in seeds]
        own = [replace(answered(row, "wrong"), **cost) for row in seeds]
        found = decide(seeds, own, history(0.5), settings=OUT_OF_FOLD, fold_predictions=folds)
        sums = (found.judge_calls, found.judge_input_tokens, found.judge_output_tokens, found.judge_usd)
        assert sums == (12, 120, 18, 1.5)
        assert decide(seeds, own, history(0.5)).judge_calls == 0

    @pytest.mark.parametrize("change", ["missing", "twice", "unknown"])
    def test_predictions_that_do_not_cover_the_seeds_are_refused(self, seeds, example, change: str) -> None:
        predictions = [answered(row, "wrong") for row in seeds]
        if change == "missing":
            predictions.pop()
        elif change == "twice":
            predictions.append(predictions[0])
        else:
            predictions[0] = answered(example("of another run", "blue"), "wrong")
        with pytest.raises(UserError, match=r"\d predictions for 6 seeds, .* must cover every seed exactly once"):
            decide(seeds, predictions, history(0.5))

    def test_predictions_of_another_iteration_are_refused(self, seeds) -> None:
        predictions = [answered(row, "wrong", iteration=1) for row in seeds]
        with pytest.raises(UserError, match="the predictions are of iteration 1, expected 2"):
            decide(seeds, predictions, history(0.1, 0.2, 0.3), iteration=2)


class TestDecision:
    def test_stops_without_errors(self, seeds) -> None:
        decision = decide(seeds, [answered(row, "correct") for row in seeds], history(0.5))
        assert (decision.go_on, decision.errors, decision.reason) == (False, 0, "no errors left on the seeds")

    @pytest.mark.parametrize(("iteration", "go_on"), [(0, True), (1, True), (2, False), (3, False)])
    def test_stops_at_the_limit(self, seeds, iteration: int, go_on: bool) -> None:
        predictions = [answered(row, "wrong", iteration) for row in seeds]
        decision = decide(seeds, predictions, history(0.1, 0.2, 0.3, 0.4)[: iteration + 1], iteration, 2)
        assert decision.go_on is go_on
        if not go_on:
            assert decision.reason == "iteration limit 2 reached"
            assert decision.errors == 6

    def test_at_the_limit_nothing_has_to_be_answered(self, seeds) -> None:
        found = filter_errors(seeds, [], history(0.1, 0.2), 1, 1, OUT_OF_FOLD)
        assert found.errors == []
        decision = found.decision
        assert (decision.errors, decision.go_on, decision.reason) == (None, False, "iteration limit 1 reached")

    @pytest.mark.parametrize("selection", ["auto", "random"])
    def test_at_the_limit_a_student_that_knows_its_seeds_is_not_said_to_have_no_errors(self, seeds, selection) -> None:
        """The folds would show them, and none is trained after the last iteration."""
        right = [answered(row, "correct", 1) for row in seeds]
        settings = FilterErrorsSettings(selection=selection)
        known = [*history(0.1, 0.2), score(1, 1.0, "seeds")]
        found = filter_errors(seeds, right, known, 1, 1, settings)
        assert (found.decision.errors, found.decision.reason) == (None, "iteration limit 1 reached")
        assert found.errors == []
        in_folds = [answered(row, "correct", 1, fold=place % 3) for place, row in enumerate(seeds)]
        assert filter_errors(seeds, right, known, 1, 1, settings, fold_predictions=in_folds).decision.errors == 0
        one_wrong = [answered(seeds[0], "wrong", 1), *right[1:]]
        seen = filter_errors(seeds, one_wrong, known, 1, 1, FilterErrorsSettings())
        assert (seen.decision.errors, seen.decision.reason) == (1, "iteration limit 1 reached")

    @pytest.mark.parametrize(
        ("patience", "validation", "go_on"),
        [
            (0, (0.9, 0.1, 0.1, 0.1), True),
            (1, (0.5, 0.6), True),
            (1, (0.5, 0.5), False),
            (2, (0.5, 0.4), True),
            (2, (0.5, 0.4, 0.45), False),
            (2, (0.5, 0.4, 0.6), True),
            (3, (0.5, 0.6, 0.4, 0.5), True),
            (3, (0.6, 0.5, 0.4, 0.6), False),
        ],
    )
    def test_patience(self, seeds, patience: int, validation: tuple[float, ...], go_on: bool) -> None:
        iteration = len(validation) - 1
        predictions = [answered(row, "wrong", iteration) for row in seeds]
        settings = WRONG.model_copy(update={"patience": patience})
        decision = decide(seeds, predictions, history(*validation), iteration, 9, settings)
        assert decision.go_on is go_on
        if not go_on:
            best = validation.index(max(validation))
            assert decision.reason == f"validation has not improved since iteration {best} (patience {patience})"

    def test_the_best_iteration_is_the_earliest_of_equals(self) -> None:
        assert best_iteration(history(0.5, 0.7, 0.6, 0.7)) == 1
        assert best_iteration(history(0.5, 0.7, 0.6, 0.7)[::-1]) == 1

    def test_a_history_without_validation_is_refused(self, seeds) -> None:
        with pytest.raises(UserError, match="no validation scores to decide by"):
            decide(seeds, [answered(row, "wrong") for row in seeds], [score(0, 0.5, "test")])

    @given(
        validation=st.lists(st.sampled_from([0.1, 0.5, 0.9]), min_size=1, max_size=6),
        test=st.lists(st.floats(0, 1), min_size=6, max_size=6),
        patience=st.integers(0, 4),
    )
    def test_test_scores_decide_nothing(self, example, validation, test, patience) -> None:
        seeds = [example("thing", "blue")]
        iteration = len(validation) - 1
        predictions = [answered(seeds[0], "wrong", iteration)]
        settings = WRONG.model_copy(update={"patience": patience})
        past = history(*validation)
        others = [score(i, test[i], "test") for i in range(len(validation))]
        without = decide(seeds, predictions, past, iteration, 9, settings)
        assert decide(seeds, predictions, [*others, *past], iteration, 9, settings) == without


def on_validation(outcomes: str, iteration: int) -> Score:
    """A score with one answer for each letter: `+` is right."""
    right = [f"v{place:03d}" for place, outcome in enumerate(outcomes) if outcome == "+"]
    accuracy = len(right) / len(outcomes)
    return replace(score(iteration, accuracy), n=len(outcomes), correct=len(right), correct_ids=right)


class TestPatienceBeyondNoise:
    PATIENT = WRONG.model_copy(update={"patience": 2})

    def run_through(self, seeds, answers: list[str], settings=PATIENT) -> list[Decision]:
        """Decides iteration after iteration until the loop stops, handing the decisions on."""
        decisions: list[Decision] = []
        scores: list[Score] = []
        for iteration, outcomes in enumerate(answers):
            predictions = [answered(row, "wrong", iteration) for row in seeds]
            scores.append(on_validation(outcomes, iteration))
            found = filter_errors(seeds, predictions, scores, iteration, 9, settings, past_decisions=decisions)
            decisions.append(found.decision)
            if not found.decision.go_on:
                break
        return decisions

    def test_small_improvements_do_not_reset_it(self, seeds) -> None:
        decisions = self.run_through(seeds, ["-" * 40, "+" * 2 + "-" * 38, "+" * 4 + "-" * 36])
        assert [decision.go_on for decision in decisions] == [True, True, False]
        assert [decision.reference_iteration for decision in decisions] == [0, 0, 0]
        assert decisions[-1].best_iteration == 2, "the best student is still the best one"
        assert decisions[-1].reason == (
            "validation is not better than in iteration 0 beyond noise (10.0% against 0.0%, McNemar p = 0.12), "
            "2 iterations later (patience 2)"
        )

    def test_small_improvements_that_add_up_do(self, seeds) -> None:
        decisions = self.run_through(seeds, ["-" * 40, "+" * 3 + "-" * 37, "+" * 6 + "-" * 34, "+" * 7 + "-" * 33])
        assert [decision.go_on for decision in decisions] == [True] * 4, "6 of 6 differing rows: p = 0.03"
        assert [decision.reference_iteration for decision in decisions] == [0, 0, 2, 2]

    def test_iterations_are_compared_row_by_row(self, seeds) -> None:
        """Six more rows are right each time: noise where 20 others went wrong, and none where nothing else changed."""
        before = "+" * 20 + "-" * 30
        for outcomes, go_on in (("-" * 20 + "+" * 26 + "-" * 4, False), ("+" * 26 + "-" * 24, True)):
            assert self.run_through(seeds, [before, before, outcomes])[-1].go_on is go_on

    def test_the_level_decides_what_noise_is(self, seeds) -> None:
        answers = ["-" * 40, "+" * 3 + "-" * 37, "+" * 3 + "-" * 37]
        assert not self.run_through(seeds, answers)[-1].go_on
        lenient = self.PATIENT.model_copy(update={"patience_level": 0.3})
        assert self.run_through(seeds, answers, lenient)[-1].go_on

    def test_a_significant_fall_is_no_improvement(self, seeds) -> None:
        decisions = self.run_through(seeds, ["+" * 40, "-" * 40, "-" * 40])
        assert [decision.go_on for decision in decisions] == [True, True, False]

    def test_answers_to_other_rows_are_refused(self, seeds) -> None:
        with pytest.raises(UserError, match="3 answers on validation cannot be paired with the 2 of iteration 0"):
            self.run_through(seeds, ["--", "+++"])

    def test_an_iteration_without_validation_is_refused(self, seeds) -> None:
        (first,) = self.run_through(seeds, ["--"])
        predictions = [answered(row, "wrong", 2) for row in seeds]
        with pytest.raises(UserError, match="no validation scores of iteration 2 to decide by"):
            decide(seeds, predictions, [on_validation("--", 0)], 2, 9, self.PATIENT, past_decisions=[first])


class TestAnotherMetric:
    """Of 100 rows 8 are of class 1. `said` is what a student answers to those, and how many others it takes for one."""

    METRIC = CLASS_METRICS["macro_f1"]

    def score(self, iteration: int, found: int, false: int) -> Score:
        measures = [[1.0, float(i < found)] for i in range(8)] + [[0.0, float(i < false)] for i in range(92)]
        correct = found + 92 - false
        value = float(self.METRIC.value(matrix(self.METRIC, measures).sum(axis=0)))
        flat = [number for one in measures for number in one]
        return replace(score(iteration, correct / 100), metric="macro_f1", value=value, measures=flat)

    def run_through(self, seeds, said: list[tuple[int, int]]) -> list[Decision]:
        decisions: list[Decision] = []
        scores: list[Score] = []
        for iteration, one in enumerate(said):
            scores.append(self.score(iteration, *one))
            found = filter_errors(
                seeds, [answered(row, "wrong", iteration) for row in seeds], scores, iteration, 9,
                WRONG.model_copy(update={"patience": 1}), past_decisions=decisions, metric=self.METRIC,
            )  # fmt: skip
            decisions.append(found.decision)
        return decisions

    def test_the_best_iteration_is_that_of_the_metric(self, seeds) -> None:
        # Accuracies 92%, 93%, 90%: the third finds all of the rare class.
        assert [one.best_iteration for one in self.run_through(seeds, [(0, 0), (1, 0), (8, 10)])] == [0, 1, 2]

    def test_patience_goes_by_it_beyond_noise(self, seeds) -> None:
        worse, better = (self.run_through(seeds, [(0, 0), one])[-1] for one in ((1, 1), (8, 10)))
        assert not worse.go_on
        assert re.search(r"iteration 0 beyond noise \(macro_f1 .* against 47.9%, permutation p = 0\.", worse.reason)
        assert better.go_on
        assert better.reference_iteration == 1

    def test_scores_without_what_it_needs_are_refused(self, seeds) -> None:
        scores = [score(0, 0.5), self.score(1, 5, 0)]
        first = filter_errors(seeds, [answered(row, "wrong") for row in seeds], scores[:1], 0, 9, WRONG).decision
        with pytest.raises(
            UserError, match=r"iteration 0 go by accuracy and hold no measures .* the same in the whole"
        ):
            filter_errors(
                seeds, [answered(row, "wrong", 1) for row in seeds], scores, 1, 9, WRONG,
                past_decisions=[first], metric=self.METRIC,
            )  # fmt: skip


class TestStops:
    def test_when_the_budget_is_spent(self, seeds) -> None:
        predictions = [answered(row, "wrong", 1) for row in seeds]
        unpaid = [reject(seeds[0], 1, "over_budget"), reject(seeds[1], 1, "over_budget")]
        decision = decide(seeds, predictions, history(0.1, 0.2), 1, 3, rejects=unpaid)
        assert (decision.go_on, decision.reason) == (
            False, "the teacher's budget is spent: 2 rows of iteration 1 were not written"
        )  # fmt: skip
        earlier = [reject(seeds[0], 0, "over_budget"), reject(seeds[1], 1)]
        assert decide(seeds, predictions, history(0.1, 0.2), 1, 3, rejects=earlier).go_on

    def test_says_what_became_of_the_rest(self, seeds) -> None:
        failed = [reject(row, iteration) for row in seeds for iteration in (1, 2, 3)]
        predictions = [answered(row, "wrong", 3) for row in seeds]
        decision = decide(seeds, predictions, history(0, 0, 0, 0), 3, 9, rejects=failed, training_set=seeds)
        assert (decision.go_on, decision.errors, decision.retired) == (False, 0, 6)
        assert decision.reason == ("no errors left on the seeds; 6 retired, as the teacher failed on them 3 times")


class TestRetirement:
    def retired(self, seeds, rejects, training_set=(), after: int = 2) -> set[str]:
        settings = WRONG.model_copy(update={"retire_after": after})
        predictions = [answered(row, "wrong", 3) for row in seeds]
        found = filter_errors(
            seeds, predictions, history(0, 0, 0, 0), 3, 9, settings, rejects=rejects, training_set=training_set
        )
        written = {error.example_id for error in found.errors}
        assert found.decision.retired == len(seeds) - len(written)
        return {row.id for row in seeds} - written

    def test_iterations_without_a_kept_row_count(self, seeds, example) -> None:
        kept = example("new", "blue", parent_id=seeds[0].id, iteration=2)
        rejects = [
            *[reject(seeds[0], iteration) for iteration in (1, 2)],  # something was kept in the second
            *[reject(seeds[1], iteration) for iteration in (1, 3)],
            *[reject(seeds[2], 1), reject(seeds[2], 1)],  # twice, but in one iteration
            *[reject(seeds[3], iteration, "over_budget") for iteration in (1, 2)],  # nothing was tried
            *[reject(seeds[4], 1, "exhausted"), reject(seeds[4], 2, "near_copy")],
        ]
        assert self.retired(seeds, rejects, [*seeds, kept]) == {seeds[1].id, seeds[4].id}

    def test_never_when_it_is_off_or_nobody_knows_what_was_kept(self, seeds) -> None:
        rejects = [reject(row, i) for row in seeds for i in range(1, 4)]
        assert len(self.retired(seeds, rejects, seeds, after=3)) == 6
        assert self.retired(seeds, rejects, seeds, after=0) == set()
        assert self.retired(seeds, rejects, after=3) == set()


class TestAuto:
    AUTO = FilterErrorsSettings()

    def test_uses_the_folds_only_for_a_student_that_knows_its_seeds(self, seeds) -> None:
        folds = [answered(row, "wrong", fold=0) for row in seeds]
        own = [answered(seeds[0], "wrong"), *[answered(row, "correct") for row in seeds[1:]]]
        for solved, selection, errors in ((0.9, "wrong", 1), (0.98, "wrong", 1), (0.99, "out_of_fold", 6)):
            past = [*history(0.5), score(0, solved, "seeds")]
            decision = decide(seeds, own, past, settings=self.AUTO, fold_predictions=folds)
            assert (decision.selection, decision.errors) == (selection, errors)
            assert ("by the answers of students trained without them" in decision.reason) == (selection != "wrong")

    def test_without_folds_it_says_what_would_help(self, seeds) -> None:
        own = [answered(row, "correct") for row in seeds]
        decision = decide(seeds, own, [*history(0.5), score(0, 1.0, "seeds")], settings=self.AUTO)
        assert (decision.selection, decision.go_on) == ("wrong", False)
        assert decision.reason == (
            "no errors left on the seeds; the student solves 100.0% of its seeds: filter_errors.selection: out_of_fold "
            "would show what it has only learnt by heart"
        )

    def test_folds_that_were_not_trained_are_none(self, seeds) -> None:
        own = [answered(row, "wrong") for row in seeds]
        decision = decide(seeds, own, history(0.5), settings=self.AUTO, fold_predictions=[])
        assert decision.errors == 6


class TestStage:
    @pytest.fixture
    def files(self, tmp_path: Path, seeds) -> dict[str, Any]:
        outcomes = ["correct", "wrong", "unparseable", "correct", "correct", "wrong"]
        predictions = [answered(row, outcome, 1) for row, outcome in zip(seeds, outcomes, strict=True)]
        folds = [
            rows_artifact(tmp_path, f"fold{fold}", "predictions", [replace(p, fold=fold) for p in predictions[fold::2]])
            for fold in range(2)
        ]
        earlier = filter_errors(seeds, [answered(row, "wrong") for row in seeds], history(0.5), 0, 3, WRONG)
        past = {"scores": history(0.5, 0.6), "errors": earlier.errors, "decisions": [earlier.decision]}
        return {
            "training_set": rows_artifact(tmp_path, "seeds", "examples", seeds),
            "predictions": rows_artifact(tmp_path, "predictions", "predictions", predictions),
            "previous_journal": journal_artifact(tmp_path, **past),
            "fold_predictions": folds,
        }

    def go(
        self, files: dict[str, Any], folder: Path, folds: bool = False, max_iterations: int = 3, iteration: int = 1,
        **settings: Any,
    ) -> bool:  # fmt: skip
        inputs = files if folds else {name: one for name, one in files.items() if name != "fold_predictions"}
        text = settings_text({"filter_errors": settings, "max_iterations": max_iterations, "random_seed": 0})
        return stage.python_func(**inputs, settings=text, iteration=iteration, **outputs_of("filter_errors", folder))

    def left(self, folder: Path) -> Any:
        return read_journal(outputs_of("filter_errors", folder)["journal"])

    def test_extends_errors_and_decisions(self, files, tmp_path: Path) -> None:
        assert self.go(files, tmp_path / "out", format_only="set_apart") is True
        journal = self.left(tmp_path / "out")
        assert [error.iteration for error in journal.errors] == [0] * 6 + [1] * 2
        assert [decision.iteration for decision in journal.decisions] == [0, 1]
        assert journal.decisions[1].errors == 2
        assert journal.decisions[1].best_iteration == 1
        assert journal.scores == history(0.5, 0.6), "what others have found out is handed on"

    def test_reads_every_fold(self, files, tmp_path: Path) -> None:
        assert self.go(files, tmp_path / "out", folds=True, selection="out_of_fold", **WRITE) is True
        errors = self.left(tmp_path / "out").errors[6:]
        assert len(errors) == 3
        assert {error.fold for error in errors} == {0, 1}

    def test_at_the_limit_folds_are_not_needed(self, files, tmp_path: Path, capfd) -> None:
        assert self.go(files, tmp_path / "out", selection="out_of_fold", max_iterations=1) is False
        assert self.left(tmp_path / "out").decisions[-1].errors is None
        assert "not looked for (out_of_fold); stop: iteration limit 1 reached" in capfd.readouterr().out

    @pytest.mark.parametrize(("selection", "folds"), [("wrong", True), ("out_of_fold", False)])
    def test_a_selection_that_does_not_fit_is_refused(self, files, tmp_path, capfd, selection, folds) -> None:
        with pytest.raises(SystemExit) as caught:
            self.go(files, tmp_path / "out", folds=folds, selection=selection)
        assert caught.value.code == 2
        assert f"filter_errors.selection: '{selection}' does not fit" in capfd.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_twice_gives_the_same_bytes(self, files, tmp_path: Path) -> None:
        for turn in ("one", "two"):
            self.go(files, tmp_path / turn, patience=2)
        one, two = (content(outputs_of("filter_errors", tmp_path / turn)["journal"]) for turn in ("one", "two"))
        assert one == two

    def test_the_reference_is_carried_from_iteration_to_iteration(self, files, tmp_path: Path, seeds) -> None:
        """Iteration 1 was no better than 0 beyond noise, so 2 is held against 0, though 1 was the best."""
        past = [
            Decision(iteration=i, selection="wrong", errors=6, go_on=True, reason="", best_iteration=i,
                     reference_iteration=0)
            for i in (0, 1)
        ]  # fmt: skip
        scores = [on_validation(outcomes, i) for i, outcomes in enumerate(["--", "+-", "-+"])]
        now = [answered(row, "wrong", 2) for row in seeds]
        changed = files | {
            "predictions": rows_artifact(tmp_path, "now", "predictions", now),
            "previous_journal": journal_artifact(tmp_path, "past", scores=scores, decisions=past),
        }
        assert self.go(changed, tmp_path / "out", iteration=2, patience=2) is False
        decision = self.left(tmp_path / "out").decisions[-1]
        assert decision.reference_iteration == 0
        assert decision.reason.startswith("validation is not better than in iteration 0 beyond noise (50.0% against")

    def test_the_rejects_of_the_journal_count(self, files, tmp_path: Path, seeds) -> None:
        """Those of an iteration without money left end the run; a seed for which nothing was kept is retired."""
        for name, rejects, settings, stopped, retired in (
            ("unpaid", [reject(seeds[0], 1, "over_budget")], {}, "the teacher's budget is spent", 0),
            ("failed", [reject(seeds[1], i) for i in (0, 1)], {"retire_after": 2}, "", 1),
        ):
            past = {"scores": history(0.5, 0.6), "rejects": rejects}
            changed = files | {"previous_journal": journal_artifact(tmp_path, name, **past)}
            assert self.go(changed, tmp_path / f"of {name}", **settings) is not bool(stopped)
            decision = self.left(tmp_path / f"of {name}").decisions[-1]
            assert decision.retired == retired
            assert stopped in decision.reason
