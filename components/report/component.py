"""Stage `report`: what happened in all iterations so far, for a person."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def report(
    config: Input[Artifact],
    training_set: Input[Dataset],
    journal: Input[Dataset],
    html: Output[HTML],
    markdown: Output[Markdown],
    summary: Output[Artifact],
    metrics: Output[Metrics],
    manifest: Output[Artifact],
    splits: Input[Dataset] | None = None,
    predictions: Input[Dataset] | None = None,
    promotion: Input[Artifact] | None = None,
    iteration: int = 0,
) -> None:
    """Shows what happened in all iterations so far.

    Args:
        config: The run's settings (JSON); shown at the end of the page.
        training_set: The training set of this iteration (examples).
        journal: Scores, errors, decisions, rejects and calls so far (a folder).
        html: The report as one page that needs no network.
        markdown: Its verdict and tables.
        summary: Its numbers (JSON).
        metrics: The main numbers, for comparing runs.
        manifest: What the run has done so far: its config, code and data, and of every stage the artifacts in and out
            with their hashes (JSON).
        splits: The training set is held against validation and test once more (a folder of examples).
        predictions: What the student of this iteration answered (predictions): for confusions and confidence.
        promotion: What promote decided (JSON); iterations without promotion have none.
        iteration: Which iteration this is, from 0.
    """
    given = locals()
    import json

    from llm2llm.components.report.inputs import answers, baselines, leakage, metric_figures
    from llm2llm.components.report.mlflow_run import log_finished
    from llm2llm.components.report.promotion import read_promotion
    from llm2llm.components.report.report import render_html, render_markdown
    from llm2llm.components.report.settings import ReportStage
    from llm2llm.components.report.summary import summarise
    from llm2llm.components.shared.base.atomic import write_text
    from llm2llm.components.shared.data.artifacts import read_config, write_metrics
    from llm2llm.components.shared.data.journal import read_journal
    from llm2llm.components.shared.data.parquet import read_rows
    from llm2llm.components.shared.data.schemas import Example, Prediction, Split
    from llm2llm.components.shared.data.splits import read_splits
    from llm2llm.components.shared.lineage.manifest import manifest_of, manifest_text
    from llm2llm.components.shared.stage import running_stage

    with running_stage("report", given, ReportStage):
        settings, so_far = read_config(config), read_journal(journal)
        training = read_rows(training_set.path, "examples", Example)
        rows: dict[Split, list[Example]] = {"seeds": [row for row in training if not row.generated]}
        if splits:
            rows = read_splits(splits.path)
        verdict = read_promotion(promotion.path, iteration) if promotion else None
        answered = read_rows(predictions.path, "predictions", Prediction) if predictions else None
        numbers = summarise(
            training,
            so_far.scores,
            so_far.errors,
            so_far.decisions,
            so_far.rejects,
            so_far.calls,
            leakage(settings, training, rows) if splits else None,
            answers(settings, answered, rows, so_far.scores),
            verdict,
            [*so_far.controls, *baselines(settings, rows, so_far.scores, so_far.decisions[-1].best_iteration)],
            so_far.confusions,
            so_far.trials,
        )
        write_text(html.path, render_html(settings, numbers, training, so_far.errors, so_far.rejects))
        write_text(markdown.path, render_markdown(settings, numbers, so_far.rejects))
        # ASCII only: a row's text may hold half a surrogate pair, which UTF-8 cannot.
        write_text(summary.path, json.dumps(numbers, indent=2, sort_keys=True) + "\n")
        summary.metadata.update({"kind": "summary", "schema_version": numbers["schema_version"]})
        write_metrics(metrics, metric_figures(numbers))
        inputs = {"training_set": training_set, "journal": journal, "splits": splits, "predictions": predictions,
                  "config": config, "promotion": promotion}  # fmt: skip
        made = manifest_of(settings, inputs, so_far.decisions, verdict, iteration)
        write_text(manifest.path, manifest_text(made))
        if not so_far.decisions[-1].go_on:
            files = {"report.html": html, "report.md": markdown, "summary.json": summary, "manifest.json": manifest}
            log_finished(settings, numbers, {name: one.path for name, one in files.items()}, verdict)
        manifest.metadata.update({"kind": "manifest", "schema_version": made["schema_version"]})
