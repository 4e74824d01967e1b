"""Stage `detect_changes`: ends a run whose data and config the version in production was already made from."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def detect_changes(
    splits: Input[Dataset],
    config: Input[Artifact],
    settings: str,
    notes: Output[Markdown],
) -> bool:
    """Finds out whether there is anything that the version in production was not made from; returns whether to go on.

    Args:
        splits: Seeds and validation rows (a folder of examples); with validation a run also ends early when another
            has tried the same and it was not good enough.
        config: The config of this run, as JSON.
        settings: promote and notify of the config, as JSON.
        notes: What is new, or that nothing is.
    """
    given = locals()
    import os

    from llm2llm.components.detect_changes.changes import detect_changes as changes
    from llm2llm.components.detect_changes.settings import DetectChangesStage
    from llm2llm.components.shared.base.atomic import write_text
    from llm2llm.components.shared.base.errors import UserError
    from llm2llm.components.shared.base.process import RUN_VARIABLE
    from llm2llm.components.shared.data.artifacts import read_config
    from llm2llm.components.shared.data.splits import read_splits
    from llm2llm.components.shared.registry.digests import with_rows
    from llm2llm.components.shared.registry.nothing_new import write_nothing_new
    from llm2llm.components.shared.registry.versions import registry_uri
    from llm2llm.components.shared.stage import running_stage

    with running_stage("detect_changes", given, DetectChangesStage) as stage:
        if not stage.promote.registry:
            raise UserError("promote.registry: no registry is set; give a folder or an s3:// prefix")
        rows = read_splits(splits.path)
        found, why = changes(
            registry_uri(stage.promote.registry),
            rows["seeds"],
            rows["validation"] or None,
            with_rows(read_config(config), splits),
            stage.promote,
        )
        if not found and stage.notify.kind != "none" and (run := os.environ.get(RUN_VARIABLE)):
            write_nothing_new(registry_uri(stage.promote.registry), run, why)
        ending = "The run goes on." if found else "The run ends here, and that is no failure."
        write_text(notes.path, f"# {'Something new' if found else 'Nothing new'}\n\n{why}. {ending}\n")
        print(f"detect_changes: {why}; {'the run goes on' if found else 'the run ends here'}", flush=True)
        return found
