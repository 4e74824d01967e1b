"""`answer` from artifacts to artifacts."""

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.artifacts import Artifact, read_optional, write_artifact
from llm2llm.components.shared.data.schemas import Example, Split
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import load_task
from llm2llm.components.shared.training.settings import AnswerSettings
from llm2llm.components.shared.training.trained import TRAINING_ROWS, rows_trained_on


def run(
    *,
    model: Artifact,
    seeds_set: Artifact,
    validation_set: Artifact | None,
    test_set: Artifact | None,
    task: Mapping[str, Any],
    shard: int,
    shards: int,
    iteration: int,
    settings: Mapping[str, Any],
    predictions: Artifact,
) -> None:
    """See the component."""
    inputs = {"model": model, "seeds_set": seeds_set, "validation_set": validation_set, "test_set": test_set}
    with stage_lifecycle(
        "answer", iteration=iteration, shard=shard, inputs=inputs, outputs={"predictions": predictions}
    ):
        checked = AnswerSettings.load(settings, "evaluate")
        if not 0 <= shard < shards:
            raise UserError(f"answer: shard {shard} of {shards}: shards are numbered from 0 to {shards - 1}")
        splits: dict[Split, list[Example]] = {
            "seeds": read_optional(seeds_set, "examples", Example),
            "validation": read_optional(validation_set, "examples", Example),
            "test": read_optional(test_set, "examples", Example),
        }
        training_rows = rows_trained_on(Path(model.path))
        started = time.monotonic()
        from llm2llm.components.shared.inference.predict import predict_share

        importing = time.monotonic() - started
        rows, figures = predict_share(
            Path(model.path), splits, iteration, None, load_task(task), checked, shard, shards
        )
        # The stage that puts the shards together has no need of the model, but of this.
        write_artifact(predictions, "predictions", rows, notes={TRAINING_ROWS: training_rows})
        figures["import_seconds"] = importing + figures.get("import_seconds", 0.0)
        shown = {name: round(value, 3) for name, value in figures.items()}
        print(f"answer: shard {shard} of {shards}: {len(rows)} rows: {json.dumps(shown)}", flush=True)
