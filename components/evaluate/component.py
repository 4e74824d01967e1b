"""Stage `evaluate`: the student's answers to seeds, validation and test, graded and scored."""

from typing import List

from kfp import dsl
from kfp.dsl import ClassificationMetrics, Dataset, Input, Metrics, Model, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def evaluate(
    splits: Input[Dataset],
    previous_journal: Input[Dataset],
    settings: str,
    predictions: Output[Dataset],
    journal: Output[Dataset],
    metrics: Output[Metrics],
    confusion: Output[ClassificationMetrics],
    model: Input[Model] | None = None,
    shard_predictions: Input[List[Dataset]] | None = None,
    training_set: Input[Dataset] | None = None,
    iteration: int = 0,
) -> None:
    """Asks the student every seed, validation and test question, grades the answers, and scores them.

    Args:
        splits: Seeds for the errors, validation for decisions, test for the report (a folder of examples).
        previous_journal: What the run has found out so far.
        settings: task and evaluate of the config, as JSON.
        predictions: Every answer with its grade (predictions).
        journal: The journal, with one more score for each split.
        metrics: Accuracy with its 95% Wilson interval, the metric that decides, macro-F1 and balanced accuracy (labels
            and choices), unparseable answers, calibration error and gain over iteration 0, for each split; precision
            and recall of each of up to ten labels, on validation, else the seeds; a label's threshold with its recall
            and false-positive rate (evaluate.threshold); for answers with fields the shares of valid JSON and of
            answers that fit the schema, and precision, recall and F1 of the fields; with several answers to each seed
            pass@k and the shares of solved, flaky, unsolved and format-only seeds; rows/s and the seconds that
            importing, loading and the first token took.
        confusion: Right labels against answers, of validation, else of the seeds; for labels and choices.
        model: The student, as train saved it; not needed with shard_predictions.
        shard_predictions: What the shards of predict have answered (predictions): then nobody is asked here.
        training_set: With filter_errors.generated_rows: what the student was trained on (examples); its generated rows
            are asked, too, as the seeds are.
        iteration: Which iteration this is, from 0.
    """
    given = locals()
    import json
    import time
    from dataclasses import replace
    from pathlib import Path

    from llm2llm.components.evaluate.evaluate import (
        LABELS_SHOWN,
        check_asked,
        confusion_of,
        confusions_of,
        field_figures,
        label_figures,
        merged,
        score_figures,
        scored,
        threshold_figures,
        thresholds,
        with_flags,
        with_metrics,
    )
    from llm2llm.components.evaluate.settings import EvaluateStage
    from llm2llm.components.shared.base.errors import UserError
    from llm2llm.components.shared.data.artifacts import write_artifact, write_confusion, write_metrics
    from llm2llm.components.shared.data.journal import read_journal, write_journal
    from llm2llm.components.shared.data.parquet import read_notes, read_rows
    from llm2llm.components.shared.data.schemas import Prediction
    from llm2llm.components.shared.data.splits import read_asked
    from llm2llm.components.shared.models.student_folder import COUNTS, training_counts, validation_losses
    from llm2llm.components.shared.stage import running_stage

    with running_stage("evaluate", given, EvaluateStage) as stage:
        rows = read_asked(splits.path, training_set.path if training_set else None)
        so_far = read_journal(previous_journal)
        check_asked(rows, so_far.scores, iteration)
        figures: dict[str, float] = {}
        if shard_predictions:
            shards = [read_rows(one.path, "predictions", Prediction) for one in shard_predictions]
            answered = merged(shards, rows, iteration)
            notes = read_notes(shard_predictions[0].path)
            counts = {name: int(notes.get(name, 0)) for name in COUNTS}
            losses = [float(loss) for loss in notes.get("validation_losses", [])]
        elif model is not None:
            counts = training_counts(Path(model.path))
            losses = validation_losses(Path(model.path))
            started = time.monotonic()
            from llm2llm.components.shared.inference.predict import predict_share

            importing = time.monotonic() - started
            answered, figures = predict_share(Path(model.path), rows, iteration, None, stage.task, stage.evaluate)
            figures["import_seconds"] = importing + figures.get("import_seconds", 0.0)
        else:
            raise UserError("evaluate: neither a model nor shard_predictions; give one of the two")
        scores = [with_metrics(score, stage.task, rows, answered) for score in scored(so_far.scores, answered, counts)]
        scores = [replace(one, validation_losses=losses) if one.split == "validation" else one for one in scores]
        flags = thresholds(stage.evaluate, stage.task, rows, answered)
        scores = [with_flags(score, flags) for score in scores]
        write_artifact(predictions, "predictions", answered)
        confusions = confusions_of(stage.task, rows, answered)
        write_journal(journal, so_far.with_more(scores=scores, confusions=confusions))
        confused = confusion_of(stage.task, rows, answered)
        write_confusion(confusion, confused)
        by_label = {name: round(value, 4) for name, value in label_figures(confused).items()}
        # Kubeflow shows the metadata, which must stay small.
        write_metrics(
            metrics,
            score_figures(scores, answered)
            | field_figures(stage.task, rows, answered)
            | threshold_figures(flags)
            | (by_label if len(by_label) <= LABELS_SHOWN else {}),
        )
        # Times are shown and not kept in the file: the same student and rows leave the same files.
        for name, value in figures.items():
            metrics.log_metric(name, round(value, 3))
        if figures:
            print("evaluate: " + json.dumps({name: round(value, 3) for name, value in figures.items()}), flush=True)
