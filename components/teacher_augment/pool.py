"""Teacher `pool`: takes the most similar rows that are not used yet from a larger labelled pool.

For people who have one, and in experiments the honest stand-in for an ideal teacher: its rows are real, its answers
right, and only the choice of rows is tested.
"""

from collections.abc import Sequence

from llm2llm.components.rows.kinds import Call, Example
from llm2llm.components.similarity import rouge_l
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request, call_key


def write(
    requests: Sequence[Request], pool: Sequence[Example], used: set[str], same_answer: bool, iteration: int
) -> list[Reply]:
    """Answers every request with the pool rows whose questions are most like the parent's by ROUGE-L.

    Args:
        requests: Served in order; a row that one of them takes is gone for the next.
        pool: Labelled rows.
        used: Ids of rows that were taken in earlier iterations, or rejected.
        same_answer: Whether to take only rows with the parent's answer, as for labels.
        iteration: For the calls.
    """
    free = sorted((row for row in pool if row.id not in used), key=lambda row: row.id)
    taken: set[str] = set()
    replies = []
    for request in requests:
        parent = request.parent
        fitting = [row for row in free if row.id not in taken and (not same_answer or row.answer == parent.answer)]
        scores = rouge_l([parent.question], [row.question for row in fitting])[0] if fitting else []
        ranked = sorted(range(len(fitting)), key=lambda i: (-scores[i], fitting[i].id))
        chosen = [fitting[i] for i in ranked[: request.count]]
        taken |= {row.id for row in chosen}
        missing = request.count - len(chosen)
        replies.append(
            Reply(
                request,
                Call(
                    key=call_key("pool", parent.id, [row.id for row in chosen]),
                    iteration=iteration,
                    parent_id=parent.id,
                    teacher="pool",
                    model="",
                    outcome="answered",
                    attempts=1,
                ),
                [Draft(row.question, row.answer, row.choices, row.rationale) for row in chosen],
                [Problem("exhausted", "the pool has no unused row left that fits")] * missing,
            )
        )
    return replies
