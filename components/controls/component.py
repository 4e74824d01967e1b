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
        settings: task, student, train, evaluate, controls and random_seed of the config, as JSON, and in `ceiling` the
            teacher that is asked, with its ledger and budget.
        journal: The journal, with the controls' scores, and what the teacher was asked and paid, if the loop has ended.
        replay_set: General rows (examples), mixed in as for train.
        iteration: Which iteration this is, from 0.
    """
    given = locals()
    from llm2llm.components.controls.ceiling import ask_teacher
    from llm2llm.components.controls.controls import measure, say, scored
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
        found, calls, spent = [], [], so_far.spent
        if decision.go_on:
            print("controls: the loop goes on; they are measured when it has ended", flush=True)
        else:
            rows = read_rows(training_set.path, "examples", Example)
            asked = read_splits(splits.path)
            # First what is paid for: it is in the ledger if a training then fails.
            if stage.ceiling is not None:
                told = ask_teacher(asked["validation"], stage, so_far, iteration)
                calls, spent = told.calls, told.spent
                found = scored("teacher", decision.best_iteration, told.answered, part=True)
                say(found)
            found += measure(
                [row for row in rows if not row.generated],
                asked,
                so_far.scores,
                decision.best_iteration,
                stage,
                read_optional(replay_set, "examples", Example),
            )
        write_journal(journal, so_far.with_more(controls=found, calls=calls, spent=spent))
