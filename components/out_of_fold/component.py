"""Stage `out_of_fold`: trains a student without one fold of the seeds and asks it about that fold."""

from kfp import dsl
from kfp.dsl import Dataset, Input, Output

from llm2llm.components.images import TRAIN


@dsl.component(base_image=TRAIN, install_kfp_package=False)
def out_of_fold(
    training_set: Input[Dataset],
    settings: str,
    fold: int,
    predictions: Output[Dataset],
    journal: Input[Dataset] | None = None,
    replay_set: Input[Dataset] | None = None,
    iteration: int = 0,
) -> None:
    """Trains a student without one fold of the seeds and asks it about that fold; the student is not kept.

    Args:
        training_set: Seeds and generated rows (examples).
        settings: task, student, train, evaluate, out_of_fold (folds, only_above) and random_seed, as JSON.
        fold: Which fold to hold out, from 0.
        predictions: The answers to the fold's seeds (predictions); none when no student was trained.
        journal: The scores so far (a folder), for only_above.
        replay_set: General rows (examples), mixed in as for train.
        iteration: Which iteration this is, from 0.
    """
    given = locals()
    from llm2llm.components.out_of_fold.settings import OutOfFoldStage
    from llm2llm.components.shared.base.errors import UserError
    from llm2llm.components.shared.base.process import beside_others
    from llm2llm.components.shared.data.artifacts import read_optional, write_artifact
    from llm2llm.components.shared.data.journal import read_journal
    from llm2llm.components.shared.data.parquet import read_rows
    from llm2llm.components.shared.data.schemas import Example
    from llm2llm.components.shared.inference.difficulty import share_solved
    from llm2llm.components.shared.stage import running_stage

    with running_stage("out_of_fold", given, OutOfFoldStage) as stage:
        only_above = stage.out_of_fold.only_above
        if only_above is not None:
            if journal is None:
                raise UserError("out_of_fold.only_above: needs the journal, whose scores say what the student solves")
            solved = share_solved(read_journal(journal).scores, iteration)
            if solved <= only_above:
                print(f"out_of_fold: not needed: the student solves {solved:.1%} of its seeds", flush=True)
                write_artifact(predictions, "predictions", [])
                return
        import torch

        from llm2llm.components.out_of_fold.out_of_fold import out_of_fold as answers_to_fold

        if beside_others():
            torch.set_num_threads(max(1, torch.get_num_threads() // 2))
        answered = answers_to_fold(
            read_rows(training_set.path, "examples", Example),
            stage.task,
            stage.student,
            stage.train,
            stage.evaluate,
            fold,
            stage.out_of_fold.folds,
            iteration,
            stage.random_seed,
            read_optional(replay_set, "examples", Example),
        )
        write_artifact(predictions, "predictions", answered)
