"""`out_of_fold` from artifacts to artifacts."""

from collections.abc import Mapping
from typing import Any

from llm2llm.components.shared.base.process import beside_others
from llm2llm.components.shared.data.artifacts import Artifact, Inputs, read_optional, write_artifact
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Score
from llm2llm.components.shared.inference.difficulty import share_solved
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import load_task
from llm2llm.components.shared.training.settings import AnswerSettings, FineTuneSettings


def run(
    *,
    training_set: Artifact,
    history: Artifact | None,
    replay_set: Artifact | None = None,
    only_above: float,
    student: str,
    task: Mapping[str, Any],
    fold: int,
    folds: int,
    iteration: int,
    epochs: float,
    learning_rate: float,
    random_seed: int,
    train_settings: Mapping[str, Any],
    evaluate_settings: Mapping[str, Any],
    predictions: Artifact,
) -> None:
    """See the component."""
    outputs = {"predictions": predictions}
    inputs: Inputs = {
        "training_set": training_set,
        "history": history,
        "replay_set": replay_set,
        "student": student,
    }
    with stage_lifecycle("out_of_fold", iteration=iteration, fold=fold, inputs=inputs, outputs=outputs):
        to_train = FineTuneSettings.load(train_settings, "train", epochs=epochs, learning_rate=learning_rate)
        to_answer = AnswerSettings.load(evaluate_settings, "evaluate")
        rows = read_rows(training_set.path, "examples", Example)
        if history is not None:
            solved = share_solved(read_rows(history.path, "scores", Score), iteration)
            if solved <= only_above:
                print(f"out_of_fold: not needed: the student solves {solved:.1%} of its seeds", flush=True)
                write_artifact(predictions, "predictions", [])
                return
        import torch

        from llm2llm.components.out_of_fold.out_of_fold import out_of_fold

        if beside_others():
            torch.set_num_threads(max(1, torch.get_num_threads() // 2))
        general = read_optional(replay_set, "examples", Example)
        answered = out_of_fold(
            rows, load_task(task), student, to_train, to_answer, fold, folds, iteration, random_seed, general
        )
        write_artifact(predictions, "predictions", answered)
