"""The face of `evaluate`."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def evaluate(
    model: Input[Model],
    seeds_set: Input[Dataset],
    task: dict,
    predictions: Output[Dataset],
    history: Output[Dataset],
    metrics: Output[Metrics],
    validation_set: Input[Dataset] = None,
    test_set: Input[Dataset] = None,
    previous_history: Input[Dataset] = None,
    iteration: int = 0,
    settings: dict = {},
):
    """Asks the student every seed, validation and test question, and grades the answers.

    Args:
        model: The student, as train saved it.
        seeds_set: For the errors (examples).
        task: The task: {"name": "snips"} for a shipped one, or all its fields.
        predictions: Every answer with its grade (predictions).
        history: The scores of all iterations so far (scores).
        metrics: Accuracy with its 95% Wilson interval, and unparseable answers, for each split; with several answers to
            each seed pass@k and the shares of solved, flaky, unsolved and format-only seeds.
        validation_set: For decisions (examples).
        test_set: For the report (examples).
        previous_history: The history that the iteration before left (scores).
        iteration: Which iteration this is, from 0.
        settings: The config's `evaluate` section.
    """
    from llm2llm.components.evaluate.run import run

    run(
        model=model,
        seeds_set=seeds_set,
        validation_set=validation_set,
        test_set=test_set,
        task=task,
        previous_history=previous_history,
        iteration=iteration,
        settings=settings,
        predictions=predictions,
        history=history,
        metrics=metrics,
    )
