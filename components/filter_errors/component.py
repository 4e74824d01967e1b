"""Stage `filter_errors`: chooses the seeds that the student needs help with, and decides whether to go on."""

from typing import List

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def filter_errors(
    training_set: Input[Dataset],
    predictions: Input[Dataset],
    previous_journal: Input[Dataset],
    settings: str,
    journal: Output[Dataset],
    fold_predictions: Input[List[Dataset]] | None = None,
    iteration: int = 0,
) -> bool:
    """Finds the seeds that the student needs help with; returns whether another iteration follows.

    Args:
        training_set: What the student was trained on (examples). It holds the seeds, whose answers are looked at; its
            generated rows say, with the rejects, which seeds the teacher has failed on; with generated_rows their
            answers are looked at, too.
        predictions: The student's answers (predictions).
        previous_journal: What the run has found out so far, this iteration's scores included (a folder).
        settings: task, filter_errors, max_iterations and random_seed of the config, as JSON.
        journal: The journal, with this iteration's errors and its decision with the reason.
        fold_predictions: For selection: out_of_fold or auto, the answers of every fold's student (predictions).
        iteration: Which iteration this is, from 0.
    """
    given = locals()
    from llm2llm.components.filter_errors.filter_errors import filter_errors as filtered
    from llm2llm.components.filter_errors.settings import FilterErrorsStage, check_folds
    from llm2llm.components.shared.data.journal import read_journal, write_journal
    from llm2llm.components.shared.data.parquet import read_rows
    from llm2llm.components.shared.data.schemas import Example, Prediction
    from llm2llm.components.shared.stage import running_stage
    from llm2llm.components.shared.tasks.measured import metric_of

    with running_stage("filter_errors", given, FilterErrorsStage) as stage:
        check_folds(stage.filter_errors, bool(fold_predictions), iteration < stage.max_iterations)
        training, so_far = read_rows(training_set.path, "examples", Example), read_journal(previous_journal)
        found = filtered(
            [row for row in training if stage.filter_errors.generated_rows or not row.generated],
            read_rows(predictions.path, "predictions", Prediction),
            so_far.scores,
            iteration,
            stage.max_iterations,
            stage.filter_errors,
            fold_predictions=[
                row for fold in fold_predictions or [] for row in read_rows(fold.path, "predictions", Prediction)
            ],
            past_errors=so_far.errors,
            past_decisions=so_far.decisions,
            rejects=so_far.rejects,
            training_set=training,
            labels=stage.task.labels if stage.task else [],
            metric=metric_of(stage.task) if stage.task else None,
            random_seed=stage.random_seed,
        )
        write_journal(journal, so_far.with_more(errors=found.errors, decisions=[found.decision]))
        decision = found.decision
        word = "go on" if decision.go_on else "stop"
        count = "not looked for" if decision.errors is None else f"{decision.errors} errors"
        print(f"filter_errors: {count} ({decision.selection}); {word}: {decision.reason}", flush=True)
        return decision.go_on
