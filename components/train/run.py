"""`train` from artifacts to artifacts."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import Artifact, Inputs, MetricsArtifact, read_optional, write_metrics
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import load_task
from llm2llm.components.shared.training.settings import FineTuneSettings


def run(
    *,
    training_set: Artifact,
    student: str,
    task: Mapping[str, Any],
    previous: Artifact | None,
    replay_set: Artifact | None = None,
    iteration: int,
    epochs: float,
    learning_rate: float,
    random_seed: int,
    settings: Mapping[str, Any],
    model: Artifact,
    metrics: MetricsArtifact,
) -> None:
    """See the component."""
    outputs = {"model": model, "metrics": metrics}
    inputs: Inputs = {"training_set": training_set, "previous": previous, "replay_set": replay_set, "student": student}
    with stage_lifecycle("train", iteration=iteration, inputs=inputs, outputs=outputs):
        checked = FineTuneSettings.load(settings, "train", epochs=epochs, learning_rate=learning_rate)
        rows = read_rows(training_set.path, "examples", Example)
        if checked.start_from == "previous" and iteration > 0 and previous is None:
            raise UserError(
                "train.start_from: 'previous' needs a pipeline that was compiled with it, and this one was compiled "
                "with 'base'; compile the config again"
            )
        # After the checks: importing torch and trl takes seconds.
        from llm2llm.components.train.train import figures, train

        log = train(
            rows,
            load_task(task),
            student,
            Path(previous.path) if previous else None,
            checked,
            random_seed,
            Path(model.path),
            replay=read_optional(replay_set, "examples", Example),
            iteration=iteration,
        )
        write_metrics(metrics, figures(log))
