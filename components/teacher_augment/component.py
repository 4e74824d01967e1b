"""The face of `teacher_augment`."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def teacher_augment(
    errors: Input[Dataset],
    training_set: Input[Dataset],
    task: dict,
    candidates: Output[Dataset],
    rejects: Output[Dataset],
    calls: Output[Dataset],
    pool_set: Input[Dataset] = None,
    previous_rejects: Input[Dataset] = None,
    previous_calls: Input[Dataset] = None,
    iteration: int = 1,
    teacher: str = "openai",
    teacher_model: str = "",
    teacher_url: str = "https://api.openai.com/v1",
    examples_per_error: int = 1,
    random_seed: int = 0,
    settings: dict = {},
):
    """Has a teacher write new examples from the errors of the iteration before.

    Args:
        errors: The errors of all iterations so far; those of iteration - 1 are written from (errors).
        training_set: The training set of the iteration before (examples).
        task: The task: {"name": "snips"} for a shipped one, or all its fields.
        candidates: The new examples (candidates).
        rejects: What came and is not usable, of all iterations so far (rejects).
        calls: Every request to the teacher, of all iterations so far (calls).
        pool_set: For the teacher `pool`: where it draws from (examples).
        previous_rejects: The rejects that dedupe left in the iteration before (rejects).
        previous_calls: The calls that the iteration before left (calls).
        iteration: The iteration whose training set the examples are for, from 1.
        teacher: openai, grammar or pool.
        teacher_model: For the teacher `openai`: the model's name at the endpoint.
        teacher_url: For the teacher `openai`: the endpoint's base URL.
        examples_per_error: New examples for each error.
        random_seed: Decides which seeds and patterns are drawn.
        settings: The other keys of the config's `teacher_augment` section.
    """
    from llm2llm.components.teacher_augment.run import run

    run(
        errors=errors,
        training_set=training_set,
        pool_set=pool_set,
        task=task,
        previous_rejects=previous_rejects,
        previous_calls=previous_calls,
        iteration=iteration,
        teacher=teacher,
        teacher_model=teacher_model,
        teacher_url=teacher_url,
        examples_per_error=examples_per_error,
        random_seed=random_seed,
        settings=settings,
        candidates=candidates,
        rejects=rejects,
        calls=calls,
    )
