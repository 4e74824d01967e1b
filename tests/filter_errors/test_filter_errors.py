"""`filter_errors`: which seeds are errors, and whether the loop goes on."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.filter_errors.filter_errors import best_iteration, filter_errors
from llm2llm.components.filter_errors.run import run
from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.problems import UserError
from llm2llm.components.rows.artifacts import LocalArtifact, write_artifact
from llm2llm.components.rows.files import read_rows
from llm2llm.components.rows.kinds import Decision, Example, Prediction, Score, StudentError

WRONG = FilterErrorsSettings()
OUT_OF_FOLD = FilterErrorsSettings(selection="out_of_fold")


def score(iteration: int, accuracy: float, split: str = "validation") -> Score:
    return Score(
        iteration=iteration,
        split=split,  # type: ignore[arg-type]
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
    return Prediction(
        example_id=row.id,
        split="seeds",
        iteration=iteration,
        fold=fold,
        completion=f" {parsed}" if parsed else "???",
        parsed=parsed,
        outcome=outcome,  # type: ignore[arg-type]
    )


@pytest.fixture
def seeds(example: Callable[..., Example]) -> list[Example]:
    return [example(f"thing {i}", "blue", rationale=None) for i in range(6)]


def decide(seeds, predictions, past, iteration=0, max_iterations=3, settings=WRONG) -> Decision:
    return filter_errors(seeds, predictions, past, iteration, max_iterations, settings)[1]


class TestErrors:
    def test_wrong_and_unparseable_answers_are_errors(self, seeds) -> None:
        outcomes = ["correct", "wrong", "unparseable", "correct", "correct", "wrong"]
        predictions = [answered(row, outcome) for row, outcome in zip(seeds, outcomes, strict=True)]
        errors, decision = filter_errors(seeds, predictions, history(0.5), 0, 3, WRONG)
        assert {error.example_id for error in errors} == {seeds[1].id, seeds[2].id, seeds[5].id}
        assert [error.example_id for error in errors] == sorted(error.example_id for error in errors)
        assert decision == Decision(
            iteration=0, selection="wrong", errors=3, go_on=True, reason="3 seeds still need help", best_iteration=0
        )

    def test_an_error_holds_the_seed_and_the_answer(self, example) -> None:
        seed = example("2+2?", "4", rationale="2+2 = 4")
        prediction = replace(answered(seed, "wrong", iteration=2, fold=1), completion=" five", parsed="5")
        errors, _ = filter_errors([seed], [prediction], history(0, 0, 0), 2, 9, OUT_OF_FOLD)
        assert errors == [
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
            )
        ]

    def test_predictions_of_other_splits_are_passed_over(self, seeds) -> None:
        predictions = [answered(row, "correct") for row in seeds]
        others = [replace(answered(seeds[0], "wrong"), split=split) for split in ("validation", "test")]
        assert filter_errors(seeds, [*others, *predictions], history(0.5), 0, 3, WRONG)[0] == []

    def test_the_predictions_of_all_folds_cover_the_seeds_together(self, seeds) -> None:
        folds = [[answered(row, "wrong", fold=fold) for row in seeds[fold::3]] for fold in range(3)]
        errors, decision = filter_errors(seeds, [p for fold in folds for p in fold], history(0.5), 0, 3, OUT_OF_FOLD)
        assert len(errors) == 6
        assert {error.fold for error in errors} == {0, 1, 2}
        assert decision.selection == "out_of_fold"

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
        errors, decision = filter_errors(seeds, None, history(0.1, 0.2), 1, 1, OUT_OF_FOLD)
        assert errors == []
        assert (decision.errors, decision.go_on, decision.reason) == (None, False, "iteration limit 1 reached")

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
        settings = FilterErrorsSettings(patience=patience)
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
        settings = FilterErrorsSettings(patience=patience)
        past = history(*validation)
        others = [score(i, test[i], split) for i in range(len(validation)) for split in ("test", "seeds")]
        without = decide(seeds, predictions, past, iteration, 9, settings)
        assert decide(seeds, predictions, [*others, *past], iteration, 9, settings) == without


class TestRun:
    @pytest.fixture
    def files(self, tmp_path: Path, seeds) -> dict[str, Any]:
        def artifact(name: str, kind: str, rows: list[Any]) -> LocalArtifact:
            made = LocalArtifact(str(tmp_path / name))
            write_artifact(made, kind, rows)
            return made

        outcomes = ["correct", "wrong", "unparseable", "correct", "correct", "wrong"]
        predictions = [answered(row, outcome, 1) for row, outcome in zip(seeds, outcomes, strict=True)]
        folds = [
            artifact(f"fold{fold}", "predictions", [replace(p, fold=fold) for p in predictions[fold::2]])
            for fold in range(2)
        ]
        earlier, decision = filter_errors(seeds, [answered(row, "wrong") for row in seeds], history(0.5), 0, 3, WRONG)
        return {
            "seeds_set": artifact("seeds", "examples", seeds),
            "predictions": artifact("predictions", "predictions", predictions),
            "history": artifact("history", "scores", history(0.5, 0.6)),
            "previous_errors": artifact("previous_errors", "errors", earlier),
            "previous_decisions": artifact("previous_decisions", "decisions", [decision]),
            "folds": folds,
        }

    def go(self, files: dict[str, Any], folder: Path, folds: bool = False, **keywords: Any) -> bool:
        inputs = {name: artifact for name, artifact in files.items() if name != "folds"}
        defaults = {"iteration": 1, "max_iterations": 3, "patience": 0, "settings": {}}
        return run(
            **inputs,
            **defaults | keywords,
            fold_predictions=files["folds"] if folds else None,
            errors=LocalArtifact(str(folder / "errors")),
            decisions=LocalArtifact(str(folder / "decisions")),
        )

    def test_extends_errors_and_decisions(self, files, tmp_path: Path) -> None:
        assert self.go(files, tmp_path / "out") is True
        errors = read_rows(tmp_path / "out" / "errors", "errors", StudentError)
        assert [error.iteration for error in errors] == [0] * 6 + [1] * 3
        decisions = read_rows(tmp_path / "out" / "decisions", "decisions", Decision)
        assert [decision.iteration for decision in decisions] == [0, 1]
        assert decisions[1].errors == 3
        assert decisions[1].best_iteration == 1

    def test_reads_every_fold(self, files, tmp_path: Path) -> None:
        assert self.go(files, tmp_path / "out", folds=True, settings={"selection": "out_of_fold"}) is True
        errors = read_rows(tmp_path / "out" / "errors", "errors", StudentError)[6:]
        assert len(errors) == 3
        assert {error.fold for error in errors} == {0, 1}

    def test_at_the_limit_folds_are_not_needed(self, files, tmp_path: Path, capfd) -> None:
        settings = {"selection": "out_of_fold"}
        assert self.go(files, tmp_path / "out", settings=settings, max_iterations=1) is False
        decision = read_rows(tmp_path / "out" / "decisions", "decisions", Decision)[-1]
        assert decision.errors is None
        assert "not looked for (out_of_fold); stop: iteration limit 1 reached" in capfd.readouterr().out

    @pytest.mark.parametrize(("selection", "folds"), [("wrong", True), ("out_of_fold", False)])
    def test_a_selection_that_does_not_fit_is_refused(self, files, tmp_path, capfd, selection, folds) -> None:
        with pytest.raises(SystemExit) as caught:
            self.go(files, tmp_path / "out", folds=folds, settings={"selection": selection})
        assert caught.value.code == 2
        assert f"filter_errors.selection: '{selection}' does not fit" in capfd.readouterr().err
        assert not (tmp_path / "out").exists()

    def test_twice_gives_the_same_bytes(self, files, tmp_path: Path) -> None:
        for turn in ("one", "two"):
            self.go(files, tmp_path / turn, patience=2)
        for name in ("errors", "decisions"):
            assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
