"""Suspects: seeds whose label is probably wrong. A person should check them; the teacher never writes from them.

A seed is suspected when it got the same wrong answer in several iterations in a row, never a right one, and the student
is to be believed on both labels:

- with label probabilities of students that have not seen the row (out-of-fold), by confident learning (Northcutt, Jiang
  and Chuang, "Confident learning: estimating uncertainty in dataset labels", JAIR 2021): the wrong label's probability
  reaches the mean that rows of that label have for it, and the given label's does not, or is lower. Those are the
  off-diagonal rows of the paper's confident joint; of the wrong labels only the likeliest is looked at.
- without, answers stand in for probabilities: most of the rows with the given label are answered right, and most of
  the rows answered with the wrong label do have it. This is a rule of ours. Where answers are open there are no
  classes, and most of all rows must be right.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import fmean

from llm2llm.components.shared.data.schemas import Example, Prediction, StudentError
from llm2llm.components.shared.inference.difficulty import error_rate


def find_suspects(
    answered: Sequence[Prediction],
    seeds: Mapping[str, Example],
    past: Sequence[StudentError],
    labels: Sequence[str],
    after: int,
) -> set[str]:
    """The ids of the suspected seeds.

    Args:
        answered: One prediction for each seed, all of the same iteration.
        seeds: The seeds by id.
        past: The errors of the iterations before, suspects included.
        labels: The label set of a label task; empty: answers are open.
        after: How many iterations in a row, this one included, must have given the same wrong answer.
    """
    wrong = {row.example_id: row for row in answered if row.parsed is not None and error_rate(row) == 1}
    before = Counter(
        error.example_id
        for error in past
        for row in [wrong.get(error.example_id)]
        if row and error.parsed == row.parsed and row.iteration - after < error.iteration < row.iteration
    )
    repeated = [row for row in wrong.values() if before[row.example_id] == after - 1]
    if all(row.fold is not None and row.label_probability is not None for row in answered):
        return _confidently_other(repeated, answered, seeds)
    return _where_mostly_right(repeated, answered, seeds, labels)


def _confidently_other(
    repeated: Sequence[Prediction], answered: Sequence[Prediction], seeds: Mapping[str, Example]
) -> set[str]:
    """The rows that confident learning counts to another label than the given one."""
    of_label: dict[str, list[float]] = defaultdict(list)
    for row in answered:
        of_label[seeds[row.example_id].answer].append(row.label_probability or 0.0)
    threshold = {label: fmean(probabilities) for label, probabilities in of_label.items()}
    found = set()
    for row in repeated:
        given = row.label_probability or 0.0
        other = given - (row.margin or 0.0)
        # A label that no row has cannot be told from noise.
        confident = row.rival in threshold and other >= threshold[row.rival]
        if confident and (given < threshold[seeds[row.example_id].answer] or given < other):
            found.add(row.example_id)
    return found


def _where_mostly_right(
    repeated: Sequence[Prediction],
    answered: Sequence[Prediction],
    seeds: Mapping[str, Example],
    labels: Sequence[str],
) -> set[str]:
    """The rows on whose given and answered labels the student is mostly right; for open answers, on all rows."""
    given: dict[str, list[bool]] = defaultdict(list)
    said: dict[str, list[bool]] = defaultdict(list)
    for row in answered:
        answer = seeds[row.example_id].answer
        right = row.outcome == "correct"
        given[answer if labels else ""].append(right)
        if row.parsed is not None:
            said[row.parsed if labels else ""].append(right)
    return {
        row.example_id
        for row in repeated
        if 2 * sum(of := given[seeds[row.example_id].answer if labels else ""]) > len(of)
        and 2 * sum(of := said[str(row.parsed) if labels else ""]) > len(of)
    }
