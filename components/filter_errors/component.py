"""The face of `filter_errors`."""

from typing import List

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def filter_errors(
    seeds_set: Input[Dataset],
    predictions: Input[Dataset],
    history: Input[Dataset],
    errors: Output[Dataset],
    decisions: Output[Dataset],
    fold_predictions: Input[List[Dataset]] = None,
    previous_errors: Input[Dataset] = None,
    previous_decisions: Input[Dataset] = None,
    iteration: int = 0,
    max_iterations: int = 1,
    patience: int = 0,
    settings: dict = {},
) -> bool:
    """Finds the seeds that the student needs help with; returns whether another iteration follows.

    Args:
        seeds_set: The seeds (examples).
        predictions: The student's answers (predictions).
        history: The scores of all iterations so far (scores).
        errors: The errors of all iterations so far (errors).
        decisions: The decisions of all iterations so far, each with its reason (decisions).
        fold_predictions: For selection: out_of_fold, the answers of every fold's student (predictions).
        previous_errors: The errors that the iteration before left (errors).
        previous_decisions: The decisions that the iteration before left (decisions).
        iteration: Which iteration this is, from 0.
        max_iterations: The last iteration that may run.
        patience: Stop when the best validation accuracy is this many iterations old; 0: never for this reason.
        settings: The other keys of the config's `filter_errors` section.
    """
    from llm2llm.components.filter_errors.run import run

    return run(
        seeds_set=seeds_set,
        predictions=predictions,
        history=history,
        fold_predictions=fold_predictions,
        previous_errors=previous_errors,
        previous_decisions=previous_decisions,
        iteration=iteration,
        max_iterations=max_iterations,
        patience=patience,
        settings=settings,
        errors=errors,
        decisions=decisions,
    )
