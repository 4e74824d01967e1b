"""Stage `dedupe`: drops near copies and leaks; writes the next training set."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def dedupe(
    candidates: Input[Dataset],
    training_set: Input[Dataset],
    settings: str,
    next_training_set: Output[Dataset],
    journal: Output[Dataset],
    splits: Input[Dataset] | None = None,
    previous_journal: Input[Dataset] | None = None,
    iteration: int = 1,
) -> None:
    """Drops copies, near copies and leaks; the rest joins the training set.

    Args:
        candidates: What the teacher wrote (candidates).
        training_set: The training set of the iteration before (examples).
        settings: task and dedupe of the config, as JSON.
        next_training_set: The training set of this iteration (examples).
        journal: The journal, with the rows that were dropped, the reason and the neighbour.
        splits: Validation and test rows are protected: nothing like them gets in (a folder of examples).
        previous_journal: What the run has found out so far (a folder).
        iteration: The iteration whose training set this is, from 1.
    """
    given = locals()
    from llm2llm.components.dedupe.coverage import hardness_by_seed
    from llm2llm.components.dedupe.dedupe import dedupe as deduped
    from llm2llm.components.dedupe.settings import DedupeStage
    from llm2llm.components.shared.data.artifacts import write_artifact
    from llm2llm.components.shared.data.journal import read_journal, write_journal
    from llm2llm.components.shared.data.parquet import read_rows
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.data.splits import read_splits
    from llm2llm.components.shared.stage import running_stage

    with running_stage("dedupe", given, DedupeStage) as stage:
        new = read_rows(candidates.path, "candidates", Example)
        training = read_rows(training_set.path, "examples", Example)
        protected = read_splits(splits.path) if splits else {}
        before = read_journal(previous_journal)
        for name in ("validation", "test"):
            if not protected.get(name):
                print(f"dedupe: no {name} rows are given, so nothing is checked against them", flush=True)
        done = deduped(
            new,
            training,
            protected.get("validation", []),
            protected.get("test", []),
            stage.dedupe,
            iteration,
            stage.task.form if stage.task else None,
            hardness_by_seed(before.errors, iteration),
        )
        write_artifact(next_training_set, "examples", done.training_set)
        write_journal(journal, before.with_more(rejects=done.rejects))
        if done.recall is not None:
            print(f"dedupe: MinHash proposed {done.recall:.1%} of the near copies of a sample", flush=True)
        print(
            f"dedupe: {len(new)} candidates, {len(done.rejects)} rejected, {len(done.training_set) - len(training)} "
            f"kept; training set {len(training)} to {len(done.training_set)} rows",
            flush=True,
        )
