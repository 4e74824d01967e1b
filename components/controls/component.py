"""Stage `controls`: what the delivered student is held against, measured once, when the loop has ended."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def controls(
    training_set: Input[Dataset],
    splits: Input[Dataset],
    previous_journal: Input[Dataset],
    settings: str,
    journal: Output[Dataset],
    replay_set: Input[Dataset] | None = None,
    iteration: int = 0,
) -> None:
    """Measures the controls after the last iteration; while the loop goes on it only hands the journal on.

    Args:
        training_set: Seeds and generated rows (examples); the controls see the seeds alone.
        splits: Validation and test questions (a folder of examples).
        previous_journal: What the run has found out so far, the decision of this iteration included (a folder).
        settings: task, student, train, evaluate, controls and random_seed of the config, as JSON.
        journal: The journal, with the controls' scores if the loop has ended.
        replay_set: General rows (examples), mixed in as for train.
        iteration: Which iteration this is, from 0.
    """
    given = locals()
    from llm2llm.components.controls.controls import measure
    from llm2llm.components.controls.settings import ControlsStage
    from llm2llm.components.shared.data.artifacts import read_optional
    from llm2llm.components.shared.data.journal import read_journal, write_journal
    from llm2llm.components.shared.data.parquet import read_rows
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.data.splits import read_splits
    from llm2llm.components.shared.stage import running_stage

    with running_stage("controls", given, ControlsStage) as stage:
        so_far = read_journal(previous_journal)
        (decision,) = [one for one in so_far.decisions if one.iteration == iteration]
        found = []
        if decision.go_on:
            print("controls: the loop goes on; they are measured when it has ended", flush=True)
        else:
            rows = read_rows(training_set.path, "examples", Example)
            found = measure(
                [row for row in rows if not row.generated],
                read_splits(splits.path),
                so_far.scores,
                decision.best_iteration,
                stage,
                read_optional(replay_set, "examples", Example),
            )
        write_journal(journal, so_far.with_more(controls=found))
