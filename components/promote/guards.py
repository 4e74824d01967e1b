"""What a student has forgotten: it answers rows of other tasks, beside the model that it was fine-tuned from."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llm2llm.components.promote.compare import ROUNDING
from llm2llm.components.promote.incumbent import ask
from llm2llm.components.promote.lm_eval_tasks import answers as lm_eval_answers
from llm2llm.components.promote.lm_eval_tasks import check_lm_eval
from llm2llm.components.promote.verdict import Check, GuardChange
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import holm, mcnemar_p
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.ingest.read_inputs import read_inputs
from llm2llm.components.shared.ingest.settings import RowsSettings
from llm2llm.components.shared.registry import digests
from llm2llm.components.shared.registry.records import TrainedOn
from llm2llm.components.shared.registry.settings import Guard, PromoteSettings
from llm2llm.components.shared.storage import fetched, is_remote
from llm2llm.components.shared.tasks import Task


def guard_changes(
    candidate: Path, base: str, trained_on: TrainedOn, config: Mapping[str, Any], settings: PromoteSettings
) -> list[GuardChange]:
    """What each guard set loses from the model that the student was fine-tuned from to the student.

    Args:
        candidate: The student's folder.
        base: What it was fine-tuned from: a folder, a name on the hub, an s3:// prefix.
        trained_on: What the student has seen; a guard row with such a question is left out, but for those of lm-eval.
        config: The run's: how students are asked.
        settings: `guards`.

    Raises:
        UserError: A guard set cannot be read, or has no row that the student has not seen; a model cannot be loaded;
            lm-eval or its data are not here.
    """
    before_folder: Path = fetched(base) if is_remote(base) else Path(base)
    check_lm_eval(settings)
    found = []
    for guard in settings.guards:
        before, after = _answers(guard, (before_folder, candidate), set(trained_on.questions), config)
        ids = sorted(before)
        pair = [before[row] for row in ids], [after[row] for row in ids]
        found.append(
            GuardChange(
                name=guard.name,
                n=len(ids),
                before=sum(pair[0]) / len(ids),
                after=sum(pair[1]) / len(ids),
                max_loss=guard.max_loss,
                p=mcnemar_p(*pair, "worse"),
            )
        )
    return found


def guard_check(changes: Sequence[GuardChange], settings: PromoteSettings) -> Check:
    """Whether no guard set loses more than it may, beyond chance (Holm's method over all of them)."""
    adjusted = holm([one.p for one in changes])
    lost = [
        one
        for one, p in zip(changes, adjusted, strict=True)
        if one.before - one.after > one.max_loss + ROUNDING and p <= settings.slice_level
    ]
    shown = "; ".join(
        f"{one.name} {one.before:.1%} to {one.after:.1%} of {one.n:,} rows (p = {one.p:.2g}; "
        f"{100 * one.max_loss:.1f} points may be lost)"
        for one in lost or changes
    )
    word = "it has forgotten too much" if lost else "it has forgotten no more than it may"
    return Check(name="guards", passed=not lost, text=f"{word}: {shown}")


def _answers(
    guard: Guard, students: tuple[Path, Path], seen: set[str], config: Mapping[str, Any]
) -> list[dict[str, bool]]:
    """Whether each of the students is right, by row."""
    if guard.task is None:
        print(f"promote: asking the lm-eval task {guard.lm_eval}, before and after", flush=True)
        return [lm_eval_answers(student, guard, config) for student in students]
    rows, task = _rows(guard, guard.task, seen), guard.task
    print(f"promote: asking {len(rows):,} rows of the guard set {guard.name}, before and after", flush=True)
    return [
        {one.example_id: one.outcome == "correct" for one in ask(student, rows, task, config, "guards")}
        for student in students
    ]


def _rows(guard: Guard, task: Task, seen: set[str]) -> list[Example]:
    rows = {row.id: row for row in read_inputs({"guard": guard.file}, task, RowsSettings())["guard"].examples}
    fresh = [row for row in rows.values() if digests.of_question(row.question, row.choices) not in seen]
    if not fresh:
        raise UserError(
            f"promote.guards: {guard.file} has no row that the student was not trained on; name rows of another task"
        )
    return sorted(fresh, key=lambda row: row.id)
