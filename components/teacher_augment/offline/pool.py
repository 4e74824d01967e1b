"""Teacher `pool`: takes the most similar rows that are not used yet from a larger labelled pool.

For people who have one, and in experiments the honest stand-in for an ideal teacher: its rows are real, its answers
right, and only the choice of rows is tested.
"""

from collections.abc import Sequence
from itertools import islice

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Call, Example
from llm2llm.components.shared.tasks import FORMS
from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.offline.base import OfflineTeacher
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request, offline_call_key

CHUNK = 256  # requests compared with the pool at once: bounds the memory of the similarity matrix


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
    import numpy as np  # compiling does without

    from llm2llm.components.shared.similarity import rouge_l

    free = sorted((row for row in pool if row.id not in used), key=lambda row: row.id)
    questions = [row.question for row in free]
    taken: set[str] = set()
    replies = []
    for place, request in enumerate(requests):
        parent = request.parent
        if place % CHUNK == 0:
            scores = rouge_l([other.parent.question for other in requests[place : place + CHUNK]], questions)
        # Of equally similar rows the one with the smallest id comes first.
        ranked = (free[i] for i in np.argsort(-scores[place % CHUNK], kind="stable"))
        fitting = (row for row in ranked if row.id not in taken and (not same_answer or row.answer == parent.answer))
        chosen = list(islice(fitting, request.count))
        taken |= {row.id for row in chosen}
        missing = request.count - len(chosen)
        replies.append(
            Reply(
                request,
                Call(
                    key=offline_call_key("pool", parent.id, [row.id for row in chosen]),
                    iteration=iteration,
                    parent_id=parent.id,
                    teacher="pool",
                    model="",
                    outcome="answered",
                    attempts=1,
                ),
                [Draft(row.question, row.answer, row.choices, row.rationale, tools=row.tools) for row in chosen],
                [Problem("exhausted", "the pool has no unused row left that fits")] * missing,
                "pool",
            )
        )
    return replies


def _write(context: Context) -> list[Reply]:
    if not context.pool:
        raise UserError(
            "teacher_augment.teacher: 'pool' has no rows to draw from; set data.pool, or prepare.seed_count below the "
            "number of seed rows so that the rest becomes the pool"
        )
    not_again = {*context.used, *(row.id for row in context.training_set)}
    same_answer = FORMS[context.task.form].has_labels
    return write(context.requests, context.pool, not_again, same_answer, context.iteration)


TEACHER = OfflineTeacher(
    about="takes the most similar unused rows of a labelled pool: the stand-in for an ideal teacher in experiments",
    write=_write,
    draws_from_pool=True,
)
