"""Stage `promote`: the best student of the run enters the registry if it beats the version in production."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Metrics, Model, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def promote(
    model: Input[Model],
    predictions: Input[Dataset],
    training_set: Input[Dataset],
    splits: Input[Dataset],
    journal: Input[Dataset],
    config: Input[Artifact],
    settings: str,
    verdict: Output[Artifact],
    metrics: Output[Metrics],
    iteration: int = 0,
) -> None:
    """Keeps the run's best student, and has it enter the registry if it beats the version in production.

    In the image that answers, as the version in production is asked the validation rows that it has not answered yet.

    Args:
        model: The student of this iteration.
        predictions: Its answers (predictions).
        training_set: What the student was trained on, the seeds among it (examples).
        splits: The validation rows to compare students on (a folder of examples).
        journal: Scores, decisions and calls so far (a folder). The last decision says which student is the best, and
            whether the run stops, which is when it is decided.
        config: The config of this run, as JSON.
        settings: task, promote and random_seed of the config, as JSON.
        verdict: What was decided, with all its numbers, as JSON.
        metrics: Whether it was promoted, both accuracies, the gain with its interval.
        iteration: Which iteration this is, from 0.
    """
    given = locals()
    from pathlib import Path

    from llm2llm.components.promote.lm_eval_tasks import check_lm_eval
    from llm2llm.components.promote.publish import check_publishers, publish
    from llm2llm.components.promote.settings import PromoteStage
    from llm2llm.components.promote.verdict import verdict_figures, verdict_text
    from llm2llm.components.shared.base.atomic import write_text
    from llm2llm.components.shared.base.errors import UserError
    from llm2llm.components.shared.base.process import run_id
    from llm2llm.components.shared.data.artifacts import read_config, write_metrics
    from llm2llm.components.shared.data.journal import read_journal
    from llm2llm.components.shared.data.parquet import read_rows
    from llm2llm.components.shared.data.schemas import Example, Prediction
    from llm2llm.components.shared.data.splits import read_splits
    from llm2llm.components.shared.registry.digests import with_rows
    from llm2llm.components.shared.registry.versions import registry_uri
    from llm2llm.components.shared.stage import running_stage

    with running_stage("promote", given, PromoteStage) as stage:
        if not stage.promote.registry:
            raise UserError("promote.registry: no registry is set; give a folder or an s3:// prefix")
        check_publishers(stage.promote)
        check_lm_eval(stage.promote)
        registry, run = registry_uri(stage.promote.registry), run_id("promote")
        so_far = read_journal(journal)
        decision = so_far.decisions[-1] if so_far.decisions else None
        if decision is None or decision.iteration != iteration:
            last = "there is none" if decision is None else f"the last is of iteration {decision.iteration}"
            raise UserError(f"promote: the journal has no decision of iteration {iteration}; {last}")
        from llm2llm.components.promote.promote import decide, keep_candidate, pending

        run_config = with_rows(read_config(config), splits)
        training, rows = read_rows(training_set.path, "examples", Example), read_splits(splits.path)
        seeds, validation = [row for row in training if not row.generated], rows["validation"]
        if not validation:
            raise UserError("promote: there are no validation rows to compare students on; set data.validation")
        candidate = None
        if decision.best_iteration == iteration:
            candidate = keep_candidate(
                registry,
                run,
                Path(model.path),
                read_rows(predictions.path, "predictions", Prediction),
                so_far.scores,
                training,
                seeds,
                validation,
                so_far.calls,
                run_config,
                iteration,
                stage.random_seed,
            )
        if decision.go_on:
            found, made = pending(registry, run, decision, candidate, stage.promote), None
        else:
            found, made = decide(
                registry,
                run,
                decision,
                so_far.scores,
                seeds,
                validation,
                stage.task,
                run_config,
                stage.promote,
                stage.random_seed,
            )
        write_text(verdict.path, verdict_text(found) + "\n")
        verdict.metadata.update({"kind": "verdict", "schema_version": found["schema_version"]})
        write_metrics(metrics, verdict_figures(found))
        print(f"promote: {found['outcome'].replace('_', ' ')}: {found['reason']}", flush=True)
        if made:
            publish(registry, made, stage.promote)
