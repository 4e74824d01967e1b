"""Answers, graded: what `evaluate` and `out_of_fold` have in common."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from llm2llm.components import tasks
from llm2llm.components.rows.kinds import SPLITS, Example, Prediction, Split
from llm2llm.components.students.answer import draw, load_student
from llm2llm.components.students.hardness import Hardness, hardness, read_losses
from llm2llm.components.students.settings import AnswerSettings
from llm2llm.components.tasks import Task


def predict(
    student: Path,
    splits: Mapping[Split, Sequence[Example]],
    iteration: int,
    fold: int | None,
    task: Task,
    settings: AnswerSettings,
) -> list[Prediction]:
    """The graded answers to every example, sorted by split and example id.

    Seeds are answered `settings.samples` times and, with `settings.hardness`, measured; the losses that `train`
    recorded for them come along. The other splits are answered once, greedily.
    """
    model, tokenizer = load_student(student, settings)
    asked = [(split, example) for split in SPLITS for example in splits.get(split, [])]
    counts = [settings.samples if split == "seeds" else 1 for split, _ in asked]
    answers = draw(model, tokenizer, [example for _, example in asked], counts, task, settings)
    seeds = list(splits.get("seeds", []))
    measured: dict[str, Hardness] = {}
    if settings.hardness:
        of_seeds = hardness(model, tokenizer, seeds, task, settings.batch_size)
        measured = {seed.id: value for seed, value in zip(seeds, of_seeds, strict=True)}
    base, early = read_losses(student)
    predictions = []
    for (split, example), drawn in zip(asked, answers, strict=True):
        graded = [tasks.grade(task, given.completion, example.answer) for given in drawn]
        outcomes = Counter(outcome for _, outcome in graded)
        parsed, outcome = graded[0]
        on_seeds = split == "seeds"
        found = measured.get(example.id) if on_seeds else None
        predictions.append(
            Prediction(
                example_id=example.id,
                split=split,
                iteration=iteration,
                fold=fold,
                completion=drawn[0].completion,
                parsed=parsed,
                outcome=outcome,
                truncated=drawn[0].truncated,
                samples=len(drawn),
                samples_correct=outcomes["correct"],
                samples_unparseable=outcomes["unparseable"],
                loss=found.loss if found else None,
                label_probability=found.label_probability if found else None,
                margin=found.margin if found else None,
                rival=found.rival if found else None,
                el2n=found.el2n if found else None,
                base_loss=base.get(example.id) if on_seeds else None,
                early_loss=early.get(example.id) if on_seeds else None,
            )
        )
    return sorted(predictions, key=lambda p: (SPLITS.index(p.split), p.example_id))
