"""`prepare` from artifacts to artifacts."""

from collections.abc import Mapping
from typing import Any

from llm2llm.components.prepare.prepare import prepare
from llm2llm.components.prepare.settings import PrepareSettings
from llm2llm.components.shared.data.artifacts import Artifact, write_artifact
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import Task, load_task

GENERAL = Task(name="general", form="text", match="exact", question_cue="\0")
"""How general rows are read: any text is an answer. No text has the cue, so none is cut where another question begins.
"""


def run(
    *,
    seeds: str,
    validation: str,
    test: str,
    pool: str,
    task: Mapping[str, Any],
    seed_count: int,
    random_seed: int,
    settings: Mapping[str, Any],
    seeds_set: Artifact,
    validation_set: Artifact,
    test_set: Artifact,
    pool_set: Artifact,
    rejects: Artifact,
    replay: str = "",
    replay_set: Artifact | None = None,
) -> None:
    """See the component."""
    outputs = {
        "seeds_set": seeds_set,
        "validation_set": validation_set,
        "test_set": test_set,
        "pool_set": pool_set,
        "rejects": rejects,
    }
    if replay_set is not None:
        outputs["replay_set"] = replay_set
    inputs = {"seeds": seeds, "validation": validation, "test": test, "pool": pool, "replay": replay}
    with stage_lifecycle("prepare", inputs=inputs, outputs=outputs):
        checked = PrepareSettings.load(settings, "prepare", seed_count=seed_count)
        the_task = load_task(task)
        seed_rows, validation_rows, test_rows, pool_rows = (
            read_examples(source, the_task) if source else [] for source in (seeds, validation, test, pool)
        )
        general = read_examples(replay, GENERAL, checked.replay_columns) if replay else []
        prepared = prepare(seed_rows, validation_rows, test_rows, pool_rows, the_task, checked, random_seed, general)
        for note in prepared.notes:
            print(f"prepare: {note}", flush=True)
        for name, artifact, rows in (
            ("seeds", seeds_set, prepared.seeds),
            ("validation", validation_set, prepared.validation),
            ("test", test_set, prepared.test),
            ("pool", pool_set, prepared.pool),
            ("replay", replay_set, prepared.replay),
        ):
            if artifact is None:
                continue
            write_artifact(artifact, "examples", rows)
            print(f"prepare: {name} {len(rows)} rows", flush=True)
        write_artifact(rejects, "rejects", prepared.rejects)
