"""One fold: train a student without it, ask the student about it.

A student that has learnt its few seeds by heart answers all of them, and a loop that looks only at those errors stops
with nothing to do. The rows of a held-out fold still show what it has not understood (cross-validation; Stone 1974).
"""

from pathlib import Path
from tempfile import TemporaryDirectory

from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.sampling import fold_of
from llm2llm.components.shared.data.schemas import Example, Prediction
from llm2llm.components.shared.inference.predict import predict_beside_training
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.similarity import question_key
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.checkpoints import checkpointed
from llm2llm.components.shared.training.job_folder import TrainingJob
from llm2llm.components.shared.training.row_weights import weighted
from llm2llm.components.shared.training.settings import FineTuneSettings
from llm2llm.components.shared.training.torchrun import train_on_devices


def out_of_fold(
    training_set: list[Example],
    task: Task,
    student: str,
    train_settings: FineTuneSettings,
    evaluate_settings: AnswerSettings,
    fold: int,
    folds: int,
    iteration: int,
    random_seed: int,
    replay: list[Example] | None = None,
) -> list[Prediction]:
    """The predictions for the seeds of one fold, by a student trained on everything else.

    Generated rows stay in, also those written from seeds of this fold: the question is which seeds still need help
    after what was added for them. `dedupe` sees to it that none of them copies a seed, and other rationales for a
    held-out question (strategies `cot` and `star`) go out with it.

    Args:
        training_set: Seeds and generated rows.
        task: Prompts and grades.
        student: The base model. Training always starts from it: the last student has seen the fold.
        train_settings: As for `train`, but for the losses of seeds, which nobody would read.
        evaluate_settings: As for `evaluate`; without vLLM beside the training, transformers answers.
        fold: Which fold to hold out, from 0.
        folds: How many there are.
        iteration: Which iteration this is.
        random_seed: As for `train`; also deals the folds.
        replay: General rows, mixed in as by `train`: a student must not differ from that one in more than the fold.

    An attempt that was cut off is taken up from the newest checkpoint, as `train` is; when the student has answered
    they are removed.

    Raises:
        UserError: More folds than seeds; or see `train_on_devices` and `predict`.
    """
    seeds = [example for example in training_set if not example.generated]
    if not 0 <= fold < folds or len(seeds) < folds or folds < 2:
        raise UserError(f"out_of_fold: fold {fold} of {folds} of {len(seeds)} seeds: there must be 2 folds or more, "
                        "and no more folds than seeds")  # fmt: skip
    fold_by_id = fold_of({seed.id: seed.answer for seed in seeds}, folds, random_seed)
    held_out = [seed for seed in seeds if fold_by_id[seed.id] == fold]
    # Of strategies `cot` and `star` the rows of a seed have its very question, with the right answer.
    held_out_questions = {question_key(seed) for seed in held_out}
    rest = [example for example in training_set if question_key(example) not in held_out_questions]
    train_settings = train_settings.model_copy(update={"record_losses": False, "validation_loss": False})
    # A scratch student's tokenizer comes from all seeds: the folds differ in what they train on, not in the base.
    job = TrainingJob(rest, task, student, train_settings, random_seed, seeds, replay, iteration)
    job = weighted(job, student, train_on_devices)
    with checkpointed(job) as resumable, TemporaryDirectory(prefix="llm2llm-fold-") as folder:
        trained = Path(folder) / "student"
        with atomic_folder(trained) as partial:
            train_on_devices(resumable, partial)
        return predict_beside_training(trained, {"seeds": held_out}, iteration, fold, task, evaluate_settings)
