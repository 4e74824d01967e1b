"""`dedupe` from artifacts to artifacts."""

from collections.abc import Mapping
from typing import Any

from llm2llm.components.dedupe.dedupe import dedupe
from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.rows.artifacts import Artifact, read_optional, write_artifact
from llm2llm.components.rows.files import read_rows
from llm2llm.components.rows.kinds import Example, Reject
from llm2llm.components.stage import stage


def run(
    *,
    candidates: Artifact,
    training_set: Artifact,
    validation_set: Artifact | None,
    test_set: Artifact | None,
    rejects: Artifact | None,
    iteration: int,
    settings: Mapping[str, Any],
    next_training_set: Artifact,
    all_rejects: Artifact,
) -> None:
    """See the component."""
    outputs = {"next_training_set": next_training_set, "all_rejects": all_rejects}
    with stage("dedupe", iteration, outputs=outputs):
        checked = DedupeSettings.load(settings, "dedupe")
        new = read_rows(candidates.path, "candidates", Example)
        training = read_rows(training_set.path, "examples", Example)
        for name, protected in (("validation", validation_set), ("test", test_set)):
            if protected is None:
                print(f"dedupe: no {name} rows are given, so nothing is checked against them", flush=True)
        following, dropped = dedupe(
            new,
            training,
            read_optional(validation_set, "examples", Example),
            read_optional(test_set, "examples", Example),
            checked,
            iteration,
        )
        write_artifact(next_training_set, "examples", following)
        write_artifact(all_rejects, "rejects", [*read_optional(rejects, "rejects", Reject), *dropped])
        print(
            f"dedupe: {len(new)} candidates, {len(dropped)} rejected, {len(following) - len(training)} kept; "
            f"training set {len(training)} to {len(following)} rows",
            flush=True,
        )
