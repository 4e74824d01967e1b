"""The face of `prepare`."""

from kfp import dsl
from kfp.dsl import Dataset, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def prepare(
    seeds: str,
    task: dict,
    seeds_set: Output[Dataset],
    validation_set: Output[Dataset],
    test_set: Output[Dataset],
    pool_set: Output[Dataset],
    replay_set: Output[Dataset],
    rejects: Output[Dataset],
    validation: str = "",
    test: str = "",
    pool: str = "",
    replay: str = "",
    seed_count: int = 0,
    random_seed: int = 0,
    settings: dict = {},
):
    """Reads, checks and splits a user's rows.

    Args:
        seeds: Labelled rows to draw the seeds from: a file (JSON lines, JSON, CSV, Parquet) or a Hugging Face dataset.
        task: The task: {"name": "snips"} for a shipped one, or all its fields.
        seeds_set: The seeds (rows of kind examples).
        validation_set: The validation rows (examples).
        test_set: The test rows (examples).
        pool_set: The pool (examples).
        replay_set: The general rows (examples); none without a source.
        rejects: The rows of seeds, pool and replay that match validation or test rows (rejects).
        validation: Rows to decide by; empty: a share of the seeds is split off.
        test: Rows to report on; may be empty.
        pool: Further labelled rows for the teacher `pool`; may be empty.
        replay: General rows to mix into training, of no task: question and answer; may be empty.
        seed_count: How many rows to draw as seeds; 0: as settings.seed_fraction says.
        random_seed: Decides which rows are drawn.
        settings: The other keys of the config's `prepare` section.
    """
    from llm2llm.components.prepare.run import run

    run(
        seeds=seeds,
        validation=validation,
        test=test,
        pool=pool,
        replay=replay,
        task=task,
        seed_count=seed_count,
        random_seed=random_seed,
        settings=settings,
        seeds_set=seeds_set,
        validation_set=validation_set,
        test_set=test_set,
        pool_set=pool_set,
        replay_set=replay_set,
        rejects=rejects,
    )
