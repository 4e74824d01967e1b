"""The face of `out_of_fold`."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def out_of_fold(
    training_set: Input[Dataset],
    student: str,
    task: dict,
    fold: int,
    predictions: Output[Dataset],
    history: Input[Dataset] = None,
    replay_set: Input[Dataset] = None,
    only_above: float = 0.0,
    folds: int = 3,
    iteration: int = 0,
    epochs: float = 3.0,
    learning_rate: float = 2e-5,
    random_seed: int = 0,
    train_settings: dict = {},
    evaluate_settings: dict = {},
):
    """Trains a student without one fold of the seeds and asks it about that fold; the student is not kept.

    Args:
        training_set: Seeds and generated rows (examples).
        student: The base model: a Hugging Face name, a folder, or scratch.
        task: The task: {"name": "snips"} for a shipped one, or all its fields.
        fold: Which fold to hold out, from 0.
        predictions: The answers to the fold's seeds (predictions); none when no student was trained.
        history: The scores of all iterations so far (scores), for only_above.
        replay_set: General rows (examples), of which replay_fraction are mixed in, as for train.
        only_above: With history: train only when the student of this iteration solves more than this share of its
            seeds; for selection: auto.
        folds: How many folds there are.
        iteration: Which iteration this is, from 0.
        epochs: Passes over the training set.
        learning_rate: Peak learning rate.
        random_seed: Seeds weights and order of rows, and deals the folds.
        train_settings: The other keys of the config's `train` section.
        evaluate_settings: The config's `evaluate` section.
    """
    from llm2llm.components.out_of_fold.run import run

    run(
        training_set=training_set,
        history=history,
        replay_set=replay_set,
        only_above=only_above,
        student=student,
        task=task,
        fold=fold,
        folds=folds,
        iteration=iteration,
        epochs=epochs,
        learning_rate=learning_rate,
        random_seed=random_seed,
        train_settings=train_settings,
        evaluate_settings=evaluate_settings,
        predictions=predictions,
    )
