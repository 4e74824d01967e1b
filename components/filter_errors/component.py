"""The face of `filter_errors`."""

from typing import List

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def filter_errors(
    training_set: Input[Dataset],
    predictions: Input[Dataset],
    history: Input[Dataset],
    errors: Output[Dataset],
    decisions: Output[Dataset],
    reference: Output[Dataset],
    fold_predictions: Input[List[Dataset]] = None,
    previous_errors: Input[Dataset] = None,
    previous_decisions: Input[Dataset] = None,
    previous_reference: Input[Dataset] = None,
    rejects: Input[Dataset] = None,
    task: dict = {},
    iteration: int = 0,
    max_iterations: int = 1,
    patience: int = 0,
    random_seed: int = 0,
    settings: dict = {},
) -> bool:
    """Finds the seeds that the student needs help with; returns whether another iteration follows.

    Args:
        training_set: What the student was trained on (examples). It holds the seeds, whose answers are looked at; its
            generated rows say, with the rejects, which seeds the teacher has failed on.
        predictions: The student's answers (predictions).
        history: The scores of all iterations so far (scores).
        errors: The errors of all iterations so far, suspected labels among them (errors).
        decisions: The decisions of all iterations so far, each with its reason (decisions).
        reference: The answers on validation that the next iteration must beat (predictions).
        fold_predictions: For selection: out_of_fold or auto, the answers of every fold's student (predictions).
        previous_errors: The errors that the iteration before left (errors).
        previous_decisions: The decisions that the iteration before left (decisions).
        previous_reference: The reference that the iteration before left (predictions); without it patience compares
            accuracies as they are.
        rejects: The rejects of all iterations so far (rejects).
        task: The task: {"name": "snips"} for a shipped one, or all its fields; its labels are skills, and classes in
            the search for wrong labels.
        iteration: Which iteration this is, from 0.
        max_iterations: The last iteration that may run.
        patience: Stop when validation is no better, beyond noise, than so many iterations ago; 0: never for that.
        random_seed: Decides the draws of selection: skills and random.
        settings: The other keys of the config's `filter_errors` section.
    """
    from llm2llm.components.filter_errors.run import run

    return run(
        training_set=training_set,
        predictions=predictions,
        history=history,
        fold_predictions=fold_predictions,
        previous_errors=previous_errors,
        previous_decisions=previous_decisions,
        previous_reference=previous_reference,
        rejects=rejects,
        task=task,
        iteration=iteration,
        max_iterations=max_iterations,
        patience=patience,
        random_seed=random_seed,
        settings=settings,
        errors=errors,
        decisions=decisions,
        reference=reference,
    )
