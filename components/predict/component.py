"""Stage `predict`: answers one shard of the questions; `evaluate` merges the shards."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def predict(
    model: Input[Model],
    splits: Input[Dataset],
    settings: str,
    predictions: Output[Dataset],
    training_set: Input[Dataset] | None = None,
    shard: int = 0,
    iteration: int = 0,
) -> None:
    """Asks the student one shard's share of the seed, validation and test questions, and grades the answers.

    Args:
        model: The student, as train saved it.
        splits: All seeds, validation and test rows (a folder of examples).
        settings: task and evaluate of the config, as JSON; evaluate.shards says how many shards there are, each with
            about as much work as any other.
        predictions: The answers of this shard with their grades (predictions), for evaluate to put together.
        training_set: With filter_errors.generated_rows: what the student was trained on (examples); its generated rows
            are asked, too.
        shard: Which share to answer, from 0.
        iteration: Which iteration this is, from 0.
    """
    given = locals()
    import json
    import time
    from pathlib import Path

    from llm2llm.components.predict.settings import PredictStage
    from llm2llm.components.shared.base.errors import UserError
    from llm2llm.components.shared.data.artifacts import write_artifact
    from llm2llm.components.shared.data.splits import read_asked
    from llm2llm.components.shared.models.student_folder import training_counts, validation_losses
    from llm2llm.components.shared.stage import running_stage

    with running_stage("predict", given, PredictStage) as stage:
        shards = stage.evaluate.shards
        if not 0 <= shard < shards:
            raise UserError(f"predict: shard {shard} of {shards}: shards are numbered from 0 to {shards - 1}")
        rows = read_asked(splits.path, training_set.path if training_set else None)
        counts = training_counts(Path(model.path))
        notes = {**counts, "validation_losses": validation_losses(Path(model.path))}
        started = time.monotonic()
        from llm2llm.components.shared.inference.predict import predict_share

        importing = time.monotonic() - started
        answered, figures = predict_share(
            Path(model.path), rows, iteration, None, stage.task, stage.evaluate, shard, shards
        )
        # The stage that puts the shards together has no need of the model, but of this.
        write_artifact(predictions, "predictions", answered, notes)
        figures["import_seconds"] = importing + figures.get("import_seconds", 0.0)
        shown = {name: round(value, 3) for name, value in figures.items()}
        print(f"predict: shard {shard} of {shards}: {len(answered)} rows: {json.dumps(shown)}", flush=True)
