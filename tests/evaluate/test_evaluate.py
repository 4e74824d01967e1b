"""What `evaluate` makes of several answers to a row; what its component leaves behind is in the pipeline's tests."""

from llm2llm.components.evaluate.evaluate import sample_figures, score_split
from llm2llm.components.rows.kinds import Prediction
from llm2llm.components.statistics import pass_at_k


def predicted(name: str, right: int, unreadable: int = 0, samples: int = 4, split: str = "seeds") -> Prediction:
    return Prediction(
        example_id=name,
        split=split,  # type: ignore[arg-type]
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
    score = score_split([predicted("a", 4), predicted("b", 0, 4)], 10)
    assert score is not None
    assert (score.n, score.correct, score.unparseable) == (2, 1, 1)
