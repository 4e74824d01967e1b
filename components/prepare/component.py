"""Stage `prepare`: splits a user's rows into checked, distinct and disjoint sets."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def prepare(
    settings: str,
    splits: Output[Dataset],
    training_set: Output[Dataset],
    pool_set: Output[Dataset],
    replay_set: Output[Dataset],
    journal: Output[Dataset],
) -> None:
    """Reads, checks and splits a user's rows.

    Args:
        settings: task, data, prepare and random_seed of the config, as JSON.
        splits: Seeds, validation and test rows (a folder of examples).
        training_set: The seeds, as the training set of iteration 0 (examples).
        pool_set: The rows that are left for the teacher `pool` to draw from (examples).
        replay_set: General rows to mix into training (examples).
        journal: The rows that were refused, with the reason (a folder).
    """
    given = locals()
    from llm2llm.components.prepare.prepare import prepare as prepared_from
    from llm2llm.components.prepare.settings import PrepareStage
    from llm2llm.components.shared.data.artifacts import write_artifact
    from llm2llm.components.shared.data.journal import Journal, write_journal
    from llm2llm.components.shared.data.splits import write_splits
    from llm2llm.components.shared.ingest.read_inputs import read_inputs
    from llm2llm.components.shared.stage import running_stage

    with running_stage("prepare", given, PrepareStage) as stage:
        read = read_inputs(dict(stage.data), stage.task, stage.prepare)
        for name, one in read.items():
            for note in one.notes:
                print(f"prepare: {name}: {note}", flush=True)
        rows = {name: one.examples for name, one in read.items()}
        prepared = prepared_from(
            rows["seeds"],
            rows["validation"],
            rows["test"],
            rows["pool"],
            stage.task,
            stage.prepare,
            stage.prepare.draws_by(stage.random_seed),
            rows["replay"],
        )
        for note in prepared.notes:
            print(f"prepare: {note}", flush=True)
        write_splits(splits, {"seeds": prepared.seeds, "validation": prepared.validation, "test": prepared.test})
        write_artifact(training_set, "examples", prepared.seeds)
        write_artifact(pool_set, "examples", prepared.pool)
        write_artifact(replay_set, "examples", prepared.replay)
        write_journal(journal, Journal(rejects=prepared.rejects))
        for name in ("seeds", "validation", "test", "pool", "replay"):
            print(f"prepare: {name} {len(getattr(prepared, name))} rows", flush=True)
