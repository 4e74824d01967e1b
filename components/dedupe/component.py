"""The face of `dedupe`."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def dedupe(
    candidates: Input[Dataset],
    training_set: Input[Dataset],
    next_training_set: Output[Dataset],
    all_rejects: Output[Dataset],
    index: Output[Dataset],
    validation_set: Input[Dataset] = None,
    test_set: Input[Dataset] = None,
    rejects: Input[Dataset] = None,
    previous_index: Input[Dataset] = None,
    task: dict = {},
    iteration: int = 1,
    settings: dict = {},
):
    """Drops copies, near copies and leaks; the rest joins the training set.

    Args:
        candidates: What the teacher wrote (candidates).
        training_set: The training set of the iteration before (examples).
        next_training_set: The training set of this iteration (examples).
        all_rejects: The rejects of all iterations and stages so far (rejects).
        index: What the next iteration need not compute again of the training set.
        validation_set: Protected: nothing like it gets in (examples).
        test_set: Protected likewise (examples).
        rejects: The rejects that teacher_augment left (rejects).
        previous_index: The index that dedupe left in the iteration before; rows that it does not know are added.
        task: The task: numeric ones are compared without their numbers. {}: as if it were not numeric.
        iteration: The iteration whose training set this is, from 1.
        settings: The config's `dedupe` section.
    """
    from llm2llm.components.dedupe.run import run

    run(
        candidates=candidates,
        training_set=training_set,
        validation_set=validation_set,
        test_set=test_set,
        rejects=rejects,
        previous_index=previous_index,
        task=task,
        iteration=iteration,
        settings=settings,
        next_training_set=next_training_set,
        all_rejects=all_rejects,
        index=index,
    )
