"""`dedupe` from artifacts to artifacts."""

from collections.abc import Mapping
from typing import Any

from llm2llm.components.dedupe.dedupe import dedupe
from llm2llm.components.dedupe.index import Index, read_index, write_index
from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.shared.data.artifacts import Artifact, read_optional, write_artifact
from llm2llm.components.shared.data.parquet import read_rows
from llm2llm.components.shared.data.schemas import Example, Reject
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import load_task


def run(
    *,
    candidates: Artifact,
    training_set: Artifact,
    validation_set: Artifact | None,
    test_set: Artifact | None,
    rejects: Artifact | None,
    previous_index: Artifact | None,
    task: Mapping[str, Any],
    iteration: int,
    settings: Mapping[str, Any],
    next_training_set: Artifact,
    all_rejects: Artifact,
    index: Artifact,
) -> None:
    """See the component."""
    outputs = {"next_training_set": next_training_set, "all_rejects": all_rejects, "index": index}
    # Without the index: it saves time and decides nothing, and a damaged one is made anew.
    inputs = {
        "candidates": candidates,
        "training_set": training_set,
        "validation_set": validation_set,
        "test_set": test_set,
        "rejects": rejects,
    }
    with stage_lifecycle("dedupe", iteration=iteration, inputs=inputs, outputs=outputs):
        checked = DedupeSettings.load(settings, "dedupe")
        form = load_task(task).form if task else None
        new = read_rows(candidates.path, "candidates", Example)
        training = read_rows(training_set.path, "examples", Example)
        for name, protected in (("validation", validation_set), ("test", test_set)):
            if protected is None:
                _say(f"no {name} rows are given, so nothing is checked against them")
        done = dedupe(
            new,
            training,
            read_optional(validation_set, "examples", Example),
            read_optional(test_set, "examples", Example),
            checked,
            iteration,
            form,
            _index_before(previous_index),
        )
        write_artifact(next_training_set, "examples", done.training_set)
        write_artifact(all_rejects, "rejects", [*read_optional(rejects, "rejects", Reject), *done.rejects])
        write_index(index.path, done.index)
        index.metadata.update({"kind": "index", "rows": len(done.training_set)})
        if previous_index is not None:
            _say(f"{done.reused} of {len(training)} training rows are in the index of the iteration before")
        if done.recall is not None:
            _say(f"MinHash proposed {done.recall:.1%} of the near copies of a sample")
        _say(
            f"{len(new)} candidates, {len(done.rejects)} rejected, {len(done.training_set) - len(training)} kept; "
            f"training set {len(training)} to {len(done.training_set)} rows"
        )


def _index_before(artifact: Artifact | None) -> Index | None:
    found = read_index(artifact.path) if artifact is not None else None
    if isinstance(found, str):
        _say(f"the index of the iteration before is not used: {found}")
        return None
    return found


def _say(what: str) -> None:
    print(f"dedupe: {what}", flush=True)
