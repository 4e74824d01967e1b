"""A student that learns from its own answers to the questions of its training set; no teacher is asked.

    supervised step ─► student ─► answers, graded ─┬─► right ones join as rows ─► supervised step again
                                                   └─► wrong ones, each against its row's completion ─► preference step

Right ones: rejection sampling (Yuan et al. 2023, arXiv:2308.01825). Wrong ones: Setlur et al. 2024 (arXiv:2406.14532).
"""

import dataclasses
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.atomic import atomic_folder
from llm2llm.components.shared.data.schemas import Example, content_id
from llm2llm.components.shared.inference.predict import ask_share
from llm2llm.components.shared.inference.settings import AnswerSettings
from llm2llm.components.shared.models.load import load_tokenizer
from llm2llm.components.shared.models.prompts import encode, encode_completion
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.checkpoints import checkpointed
from llm2llm.components.shared.training.job_folder import Pair, TrainingJob
from llm2llm.components.shared.training.row_weights import Train
from llm2llm.components.shared.training.settings import OWN_ANSWERS
from llm2llm.components.shared.training.training_log import TrainingLog

Answers = Mapping[str, Sequence[str]]
"""By row id what the student wrote that ended by itself, in the order drawn."""


def train_on_own_answers(job: TrainingJob, train: Train, output: Path) -> TrainingLog:
    """The supervised step, and what the settings make of the student's own answers, into the empty folder `output`.

    Args:
        job: The supervised training.
        train: Trains a job into an empty folder.
        output: An existing empty folder.

    Returns:
        The log of the last supervised step, with the steps and pairs of the preference step.
    """
    settings = job.settings
    with TemporaryDirectory(prefix=".own-answers-", dir=output.parent) as beside:
        student = Path(beside) / "student"
        log = _into(student, job, train)
        answers = own_answers(student, job)
        rows = right_rows(job.training_set, answers, job.task, settings.own_answers.join)
        if rows:
            shutil.rmtree(student)
            print(f"train: {len(rows)} right answers of the student's own join as rows", flush=True)
            with checkpointed(dataclasses.replace(job, training_set=[*job.training_set, *rows])) as larger:
                log = _into(student, larger, train)
        pairs = pairs_of(student, job, answers) if settings.preference.epochs else []
        if settings.preference.epochs:
            print(f"train: {len(pairs)} pairs of a right and a wrong completion", flush=True)
        if not pairs:
            for path in sorted(student.iterdir()):
                shutil.move(path, output / path.name)
            return log
        step = train(dataclasses.replace(job, student=str(student), pairs=pairs, checkpoints=None), output)
    return dataclasses.replace(
        log,
        steps=log.steps + step.steps,
        preference_pairs=step.rows,
        preference_loss_curve=step.loss_curve,
        peak_memory=max(log.peak_memory, step.peak_memory),
    )


def _into(folder: Path, job: TrainingJob, train: Train) -> TrainingLog:
    with atomic_folder(folder) as partial:
        return train(job, partial)


def own_answers(student: Path, job: TrainingJob) -> Answers:
    """What the student answers to each row of the training set; rows that offer tools are not asked."""
    wanted = job.settings.own_answers
    asked = AnswerSettings(
        samples=wanted.samples,
        draw_seeds=True,
        temperature=wanted.temperature,
        sampling_seed=job.random_seed + job.iteration,
        trust_remote_code=job.settings.trust_remote_code,
    )
    rows = [row for row in job.training_set if not row.tools]
    replies, _ = ask_share(student, {"seeds": rows}, job.task, asked)
    return {
        question.example.id: [one.completion for one in reply.answers if not one.truncated]
        for question, reply in replies
    }


def right_rows(training_set: Sequence[Example], answers: Answers, task: Task, most: int) -> list[Example]:
    """At most `most` rows for each question, from right answers whose rationale is another than those before it."""
    found: list[Example] = []
    for row in training_set:
        known = {_folded(row.rationale or ""), _folded(row.answer)}  # an answer alone is no rationale
        kept = 0
        for completion in answers.get(row.id, ()):
            rationale = tasks.rationale_in(task, completion)
            right = tasks.grade(task, completion, row.answer, row.also_right)[1] == "correct"
            if kept == most or not right or not rationale or _folded(rationale) in known:
                continue
            known.add(_folded(rationale))
            kept += 1
            found.append(
                dataclasses.replace(
                    row,
                    id=content_id(row.question, row.choices, rationale, row.answer, row.tools),
                    rationale=rationale,
                    parent_id=row.parent_id or row.id,
                    strategy=OWN_ANSWERS,
                    teacher=None,
                    call_key=None,
                    checks=["right answer"],
                    confidence=None,
                )
            )
    return found


def pairs_of(student: Path, job: TrainingJob, answers: Answers) -> list[Pair]:
    """For each row its completion against distinct wrong answers, at most `preference.pairs`, in token ids."""
    tokenizer = load_tokenizer(student, job.settings.trust_remote_code)
    if job.task.chat.template:
        tokenizer.chat_template = job.task.chat.template
    found = []
    for row in job.training_set:
        wrong = [
            completion
            for completion in dict.fromkeys(answers.get(row.id, ()))
            if tasks.grade(job.task, completion, row.answer, row.also_right)[1] != "correct"
        ]
        for completion in wrong[: job.settings.preference.pairs]:
            chosen = encode(tokenizer, job.task, row)
            rejected = encode_completion(tokenizer, job.task, row, completion)
            found.append(Pair(row.id, chosen.prompt, chosen.completion, rejected.completion))
    return found


def _folded(text: str) -> str:
    return " ".join(text.split())
