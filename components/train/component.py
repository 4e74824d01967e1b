"""The face of `train`."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def train(
    training_set: Input[Dataset],
    student: str,
    task: dict,
    model: Output[Model],
    metrics: Output[Metrics],
    previous: Input[Model] = None,
    replay_set: Input[Dataset] = None,
    iteration: int = 0,
    epochs: float = 3.0,
    learning_rate: float = 2e-5,
    random_seed: int = 0,
    settings: dict = {},
):
    """Fine-tunes the student on the current training set.

    Args:
        training_set: Seeds and generated rows (examples).
        student: The base model: a Hugging Face name, a folder, or scratch.
        task: The task: {"name": "snips"} for a shipped one, or all its fields.
        model: The student: safetensors, tokenizer, training.json with the loss curve.
        metrics: Rows, steps, first and last loss, tokens per second, memory, use of the GPU, checkpoints.
        previous: The student of the iteration before, for start_from: previous.
        replay_set: General rows (examples), of which replay_fraction are mixed in.
        iteration: Which iteration this is, from 0.
        epochs: Passes over the training set.
        learning_rate: Peak learning rate.
        random_seed: Seeds weights, order of rows and dropout.
        settings: The other keys of the config's `train` section.
    """
    from llm2llm.components.train.run import run

    run(
        training_set=training_set,
        student=student,
        task=task,
        previous=previous,
        replay_set=replay_set,
        iteration=iteration,
        epochs=epochs,
        learning_rate=learning_rate,
        random_seed=random_seed,
        settings=settings,
        model=model,
        metrics=metrics,
    )
