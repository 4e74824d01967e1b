"""Stage `train`: fine-tunes the student on the current training set."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Metrics, Model, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def train(
    training_set: Input[Dataset],
    settings: str,
    model: Output[Model],
    metrics: Output[Metrics],
    previous: Input[Model] | None = None,
    replay_set: Input[Dataset] | None = None,
    splits: Input[Dataset] | None = None,
    iteration: int = 0,
) -> None:
    """Fine-tunes the student on the current training set.

    Args:
        training_set: Seeds and generated rows (examples).
        settings: task, student, train and random_seed of the config, as JSON.
        model: The student: a Hugging Face folder in safetensors, or an adapter with its base named.
        metrics: Rows, steps, losses and speed.
        previous: With train.start_from: previous, the student of the iteration before.
        replay_set: General rows (examples), of which train.replay_fraction are mixed in.
        splits: With train.validation_loss, the rows that it is measured on (a folder of examples).
        iteration: Which iteration this is, from 0.
    """
    given = locals()
    from pathlib import Path

    from llm2llm.components.shared.base.errors import UserError
    from llm2llm.components.shared.data.artifacts import read_optional, write_metrics
    from llm2llm.components.shared.data.parquet import read_rows
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.data.splits import read_splits
    from llm2llm.components.shared.stage import running_stage
    from llm2llm.components.train.settings import TrainStage

    with running_stage("train", given, TrainStage) as stage:
        rows = read_rows(training_set.path, "examples", Example)
        if stage.train.start_from == "previous" and iteration > 0 and previous is None:
            raise UserError(
                "train.start_from: 'previous' needs a pipeline that was compiled with it, and this one was compiled "
                "with 'base'; compile the config again"
            )
        if stage.train.validation_loss and splits is None:
            raise UserError(
                "train.validation_loss: true needs a pipeline that was compiled with it, and this one was compiled "
                "without; compile the config again"
            )
        validation = read_splits(splits.path)["validation"] if splits is not None else None
        if stage.train.validation_loss and not validation:
            raise UserError("train.validation_loss: true, and there are no validation rows; remove it, or name some")
        # After the checks: importing torch and trl takes seconds.
        from llm2llm.components.train.train import figures
        from llm2llm.components.train.train import train as fine_tuned

        log = fine_tuned(
            rows,
            stage.task,
            stage.student,
            Path(previous.path) if previous else None,
            stage.train,
            stage.random_seed,
            Path(model.path),
            replay=read_optional(replay_set, "examples", Example),
            iteration=iteration,
            validation=validation,
        )
        model.metadata.update({"kind": "model"})
        write_metrics(metrics, figures(log))
