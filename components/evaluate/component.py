"""The face of `evaluate`."""

from typing import List

from kfp import dsl
from kfp.dsl import ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def evaluate(
    seeds_set: Input[Dataset],
    task: dict,
    predictions: Output[Dataset],
    history: Output[Dataset],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    model: Input[Model] = None,
    validation_set: Input[Dataset] = None,
    test_set: Input[Dataset] = None,
    shard_predictions: Input[List[Dataset]] = None,
    first_predictions: Input[Dataset] = None,
    previous_history: Input[Dataset] = None,
    iteration: int = 0,
    settings: dict = {},
):
    """Asks the student every seed, validation and test question, grades the answers, and scores them.

    Args:
        seeds_set: For the errors (examples).
        task: The task: {"name": "snips"} for a shipped one, or all its fields.
        predictions: Every answer with its grade (predictions).
        history: The scores of all iterations so far (scores).
        metrics: Accuracy with its 95% Wilson interval, unparseable answers, calibration error and gain over iteration
            0, for each split; with several answers to each seed pass@k and the shares of solved, flaky, unsolved and
            format-only seeds; rows/s and the seconds that importing, loading and the first token took.
        confusion: Right labels against answers, of validation, else of the seeds; for labels and choices.
        model: The student, as train saved it; not needed with shard_predictions.
        validation_set: For decisions (examples).
        test_set: For the report (examples).
        shard_predictions: What the shards of answer have answered (predictions): then nobody is asked here.
        first_predictions: Those of iteration 0, to compare with row by row (predictions).
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
        shard_predictions=shard_predictions,
        first_predictions=first_predictions,
        task=task,
        previous_history=previous_history,
        iteration=iteration,
        settings=settings,
        predictions=predictions,
        history=history,
        metrics=metrics,
        confusion=confusion,
    )
