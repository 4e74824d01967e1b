"""The face of `teacher_augment`."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

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
    student_model: Input[Model] = None,
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
        calls: Every request to a teacher, of all iterations so far (calls); metadata: what the run has paid.
        pool_set: For the teacher `pool`: where it draws from (examples).
        previous_rejects: The rejects that dedupe left in the iteration before (rejects).
        previous_calls: The calls that the iteration before left (calls); its metadata says what the run has paid.
        student_model: For the strategies `star` and `self` with a teacher in this pod: the student to ask.
        iteration: The iteration whose training set the examples are for, from 1.
        teacher: openai, batch, vllm, transformers, grammar or pool.
        teacher_model: For a language model: its name at the endpoint, or at Hugging Face.
        teacher_url: For the teachers `openai` and `batch`: the endpoint's base URL.
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
        student_model=student_model,
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
