"""The face of `promote`."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def promote(
    model: Input[Model],
    predictions: Input[Dataset],
    decisions: Input[Dataset],
    history: Input[Dataset],
    training_set: Input[Dataset],
    validation_set: Input[Dataset],
    config: Input[Artifact],
    task: dict,
    verdict: Output[Artifact],
    metrics: Output[Metrics],
    calls: Input[Dataset] = None,
    iteration: int = 0,
    random_seed: int = 0,
    settings: dict = {},
):
    """Keeps the run's best student, and has it enter the registry if it beats the version in production.

    In the image that answers, as the version in production is asked the validation rows that it has not answered yet.

    Args:
        model: The student of this iteration.
        predictions: Its answers (predictions).
        decisions: The decisions of all iterations so far; the last says which is the best and whether the run stops,
            which is when it is decided (decisions).
        history: The scores of all iterations so far (scores).
        training_set: What the student was trained on, the seeds among it (examples).
        validation_set: The rows to compare students on (examples).
        config: The config of this run, as JSON.
        task: The task: {"name": "snips"} for a shipped one, or all its fields.
        verdict: What was decided, with all its numbers, as JSON.
        metrics: Whether it was promoted, both accuracies, the gain with its interval.
        calls: What teachers were asked, for the model card (calls).
        iteration: Which iteration this is, from 0.
        random_seed: Of the bootstrap.
        settings: The config's `promote` section.
    """
    from llm2llm.components.promote.run import run

    run(
        model=model,
        predictions=predictions,
        decisions=decisions,
        history=history,
        training_set=training_set,
        validation_set=validation_set,
        config=config,
        task=task,
        calls=calls,
        iteration=iteration,
        random_seed=random_seed,
        settings=settings,
        verdict=verdict,
        metrics=metrics,
    )
