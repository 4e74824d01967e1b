"""The face of `report`."""

from kfp import dsl
from kfp.dsl import HTML, Artifact, Dataset, Input, Markdown, Metrics, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def report(
    config: Input[Artifact],
    training_set: Input[Dataset],
    history: Input[Dataset],
    errors: Input[Dataset],
    decisions: Input[Dataset],
    html: Output[HTML],
    markdown: Output[Markdown],
    summary: Output[Artifact],
    metrics: Output[Metrics],
    manifest: Output[Artifact],
    rejects: Input[Dataset] = None,
    calls: Input[Dataset] = None,
    validation_set: Input[Dataset] = None,
    test_set: Input[Dataset] = None,
    predictions: Input[Dataset] = None,
    training_metrics: Input[Metrics] = None,
    promotion: Input[Artifact] = None,
    previous_manifest: Input[Artifact] = None,
    iteration: int = 0,
):
    """Shows what happened in all iterations so far.

    Args:
        config: The run's settings (JSON); shown at the end of the page.
        training_set: The training set of this iteration (examples).
        history: The scores of all iterations so far (scores).
        errors: The errors of all iterations so far (errors).
        decisions: The decisions of all iterations so far (decisions).
        html: The report as one page that needs no network.
        markdown: Its verdict and tables.
        summary: Its numbers (JSON).
        metrics: The main numbers, for comparing runs.
        manifest: What the run has done so far: its config, code and data, and of every stage the artifacts in and out
            with their hashes (JSON).
        rejects: The rejects of all iterations so far, and of prepare (rejects).
        calls: The teacher calls of all iterations so far (calls); iteration 0 has none.
        validation_set: The training set is held against it once more (examples).
        test_set: Likewise (examples).
        predictions: What the student of this iteration answered (predictions): for confusions and confidence.
        training_metrics: What train measured in this iteration: rows that it cut or left out.
        promotion: What promote decided (JSON); iterations without promotion have none.
        previous_manifest: The manifest of the iteration before; iteration 0 has none.
        iteration: Which iteration this is, from 0.
    """
    from llm2llm.components.report.run import run

    run(
        config=config,
        training_set=training_set,
        history=history,
        errors=errors,
        decisions=decisions,
        rejects=rejects,
        calls=calls,
        validation_set=validation_set,
        test_set=test_set,
        predictions=predictions,
        training_metrics=training_metrics,
        promotion=promotion,
        previous_manifest=previous_manifest,
        iteration=iteration,
        html=html,
        markdown=markdown,
        summary=summary,
        metrics=metrics,
        manifest=manifest,
    )
