"""`teacher_augment` from artifacts to artifacts."""

from collections.abc import Mapping
from typing import Any

from llm2llm.components.rows.artifacts import Artifact, read_optional, write_artifact
from llm2llm.components.rows.files import read_rows
from llm2llm.components.rows.kinds import Call, Example, Reject, StudentError
from llm2llm.components.stage import stage
from llm2llm.components.tasks import load_task
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.teacher_augment.teacher_augment import teacher_augment


def run(
    *,
    errors: Artifact,
    training_set: Artifact,
    pool_set: Artifact | None,
    task: Mapping[str, Any],
    previous_rejects: Artifact | None,
    previous_calls: Artifact | None,
    iteration: int,
    teacher: str,
    teacher_model: str,
    teacher_url: str,
    examples_per_error: int,
    random_seed: int,
    settings: Mapping[str, Any],
    candidates: Artifact,
    rejects: Artifact,
    calls: Artifact,
) -> None:
    """See the component."""
    outputs = {"candidates": candidates, "rejects": rejects, "calls": calls}
    with stage("teacher_augment", iteration, outputs=outputs):
        checked = TeacherAugmentSettings.load(
            settings,
            "teacher_augment",
            teacher=teacher,
            model=teacher_model,
            url=teacher_url,
            examples_per_error=examples_per_error,
        )
        all_errors = read_rows(errors.path, "errors", StudentError)
        past_rejects = read_optional(previous_rejects, "rejects", Reject)
        past_calls = read_optional(previous_calls, "calls", Call)
        written = teacher_augment(
            [error for error in all_errors if error.iteration == iteration - 1],
            read_rows(training_set.path, "examples", Example),
            read_optional(pool_set, "examples", Example),
            {reject.id for reject in past_rejects},
            load_task(task),
            checked,
            iteration,
            random_seed,
        )
        write_artifact(candidates, "candidates", written.candidates)
        write_artifact(rejects, "rejects", [*past_rejects, *written.rejects])
        write_artifact(calls, "calls", [*past_calls, *written.calls])
