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
    validation_set: Input[Dataset] = None,
    test_set: Input[Dataset] = None,
    rejects: Input[Dataset] = None,
    iteration: int = 1,
    settings: dict = {},
):
    """Drops copies, near copies and leaks; the rest joins the training set.

    Args:
        candidates: What the teacher wrote (candidates).
        training_set: The training set of the iteration before (examples).
        next_training_set: The training set of this iteration (examples).
        all_rejects: The rejects of all iterations and stages so far (rejects).
        validation_set: Protected: nothing like it gets in (examples).
        test_set: Protected likewise (examples).
        rejects: The rejects that teacher_augment left (rejects).
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
        iteration=iteration,
        settings=settings,
        next_training_set=next_training_set,
        all_rejects=all_rejects,
    )
