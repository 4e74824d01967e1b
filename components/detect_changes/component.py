"""The face of `detect_changes`."""

from kfp import dsl
from kfp.dsl import Artifact, Dataset, Input, Markdown, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def detect_changes(
    seeds_set: Input[Dataset],
    config: Input[Artifact],
    notes: Output[Markdown],
    validation_set: Input[Dataset] = None,
    settings: dict = {},
) -> bool:
    """Finds out whether there is anything that the version in production was not made from; returns whether to go on.

    Args:
        seeds_set: The seeds (examples).
        config: The config of this run, as JSON.
        notes: What is new, or that nothing is.
        validation_set: The rows to compare students on (examples); with them a run also ends early when another has
            tried the same and it was not good enough.
        settings: The config's `promote` section.
    """
    from llm2llm.components.detect_changes.run import run

    return run(seeds_set=seeds_set, validation_set=validation_set, config=config, settings=settings, notes=notes)
