"""Stage `teacher_augment`: new examples from the errors, from a teacher."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Model, Output

from llm2llm.components.images import CPU


@dsl.component(base_image=CPU, install_kfp_package=False)
def teacher_augment(
    training_set: Input[Dataset],
    previous_journal: Input[Dataset],
    settings: str,
    candidates: Output[Dataset],
    journal: Output[Dataset],
    pool_set: Input[Dataset] | None = None,
    student_model: Input[Model] | None = None,
    iteration: int = 1,
) -> None:
    """Has a teacher write new examples from the errors of the iteration before.

    Args:
        training_set: The training set of the iteration before (examples).
        previous_journal: What the run has found out so far (a folder); the errors of iteration - 1 are written from,
            and what the run has paid counts against the budget.
        settings: task, teacher_augment and random_seed of the config, as JSON.
        candidates: The new examples (candidates).
        journal: The journal, with every request to the teacher and what came and is not usable.
        pool_set: For the teacher `pool`: where it draws from (examples).
        student_model: For the strategies `star` and `self` with a teacher in this pod: the student to ask.
        iteration: The iteration whose training set the examples are for, from 1.
    """
    given = locals()
    from pathlib import Path

    from llm2llm.components.shared.data.artifacts import read_optional, write_artifact
    from llm2llm.components.shared.data.journal import Spending, read_journal, write_journal
    from llm2llm.components.shared.data.parquet import read_rows
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.stage import running_stage
    from llm2llm.components.teacher_augment.augment import teacher_augment as augmented
    from llm2llm.components.teacher_augment.opened import open_spend_tracker, opened_teachers, summary_line
    from llm2llm.components.teacher_augment.settings import TeacherAugmentStage

    with running_stage("teacher_augment", given, TeacherAugmentStage) as stage:
        so_far = read_journal(previous_journal)
        tracker = open_spend_tracker(stage.teacher_augment, so_far)
        student = Path(student_model.path) if student_model else None
        with opened_teachers(stage.teacher_augment, tracker, student) as (teachers, verifier):
            written = augmented(
                [error for error in so_far.errors if error.iteration == iteration - 1],
                read_rows(training_set.path, "examples", Example),
                read_optional(pool_set, "examples", Example),
                {reject.id for reject in so_far.rejects},
                stage.task,
                stage.teacher_augment,
                iteration,
                stage.random_seed,
                teachers,
                verifier,
                {call.key for call in so_far.calls if call.outcome == "answered"},
            )
        write_artifact(candidates, "candidates", written.candidates)
        spent = Spending(usd=tracker.spent.usd, tokens=tracker.spent.tokens, calls=tracker.spent.calls)
        write_journal(journal, so_far.with_more(rejects=written.rejects, calls=written.calls, spent=spent))
        print(summary_line(written, stage.teacher_augment, tracker), flush=True)
