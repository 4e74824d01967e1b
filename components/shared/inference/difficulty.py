"""A row's state (solved, flaky, unsolved, format only) from all answers that a student gave to it."""

from collections.abc import Sequence

from llm2llm.components.shared.data.schemas import Difficulty, Outcome, Prediction, Score

_OF_ONE: dict[Outcome, Difficulty] = {"correct": "solved", "wrong": "unsolved", "unparseable": "format_only"}


def difficulty(answered: Prediction) -> Difficulty:
    """`solved`: all answers were right; `flaky`: some; `format_only`: none could be read; `unsolved`: the rest."""
    if answered.samples == 1:  # hand-written rows may leave out the counts
        return _OF_ONE[answered.outcome]
    if answered.samples_correct:
        return "solved" if answered.samples_correct == answered.samples else "flaky"
    return "format_only" if answered.samples_unparseable == answered.samples else "unsolved"


def error_rate(answered: Prediction) -> float:
    """The share of the answers that are not right, in [0, 1]."""
    if answered.samples == 1:
        return float(answered.outcome != "correct")
    return 1 - answered.samples_correct / answered.samples


def share_solved(history: Sequence[Score], iteration: int) -> float:
    """The share of its seeds that the student of an iteration solves, by its first answers; 0 when nobody asked."""
    return next((s.accuracy for s in history if s.split == "seeds" and s.iteration == iteration), 0.0)
