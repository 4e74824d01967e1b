"""Stage `controls`: what the delivered student is held against, measured once, when the loop has ended."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def controls(
    splits: Input[Dataset],
    previous_journal: Input[Dataset],
    settings: str,
    journal: Output[Dataset],
    replay_set: Input[Dataset] | None = None,
    iteration: int = 0,
) -> None:
    """Measures the controls, after the last iteration.

    Args:
        splits: Seeds, which the controls are trained on, and validation and test questions (a folder of examples).
        previous_journal: What the run has found out so far, the decision of this iteration included (a folder).
        settings: task, student, train, evaluate, controls and random_seed of the config, as JSON, and in `ceiling` the
            teacher that is asked, with its ledger and budget.
        journal: The journal, with the controls' scores, and what the teacher was asked and paid.
        replay_set: General rows (examples), mixed in as for train.
        iteration: Which iteration this is, from 0.
    """
    given = locals()
    from llm2llm.components.controls.ceiling import ask_teacher
    from llm2llm.components.controls.controls import measure, say, scored
    from llm2llm.components.controls.settings import ControlsStage
    from llm2llm.components.shared.data.artifacts import read_optional
    from llm2llm.components.shared.data.journal import read_journal, write_journal
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.data.splits import read_splits
    from llm2llm.components.shared.stage import running_stage

    with running_stage("controls", given, ControlsStage) as stage:
        so_far = read_journal(previous_journal)
        (decision,) = [one for one in so_far.decisions if one.iteration == iteration]
        found, calls, spent = [], [], so_far.spent
        rows = read_splits(splits.path)
        # First what is paid for: it is in the ledger if a training then fails.
        if stage.ceiling is not None:
            told = ask_teacher(rows["validation"], stage, so_far, iteration)
            calls, spent = told.calls, told.spent
            found = scored("teacher", decision.best_iteration, told.answered, part=True)
            say(found)
        found += measure(
            rows["seeds"],
            rows,
            so_far.scores,
            decision.best_iteration,
            stage,
            read_optional(replay_set, "examples", Example),
        )
        write_journal(journal, so_far.with_more(controls=found, calls=calls, spent=spent))
