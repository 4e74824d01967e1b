"""The loop, once. Fine-tune the student, find the seeds that it gets wrong, have a teacher write new examples from
exactly those, drop near copies and leaks, add the rest to the training set, and again.

    prepare, tune
    train 0, evaluate 0, filter_errors 0
    while there is something to learn:
        teacher_augment, dedupe, train, evaluate, filter_errors
    controls, report

`run` executes a stage by its name and gives back its outputs, or what stands for them. Two runners read this function:
`kubeflow.pipeline` turns every call into a task of a pipeline, `local.in_process` makes the call. What is there only if
the config asks for it: `detect_changes`, `tune`, shards of `predict`, folds of `out_of_fold`, `controls`, `promote`.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol

from llm2llm.pipelines.config import Config


class Outputs(Protocol):
    """What a stage leaves."""

    @property
    def returned(self) -> Any:
        """What its function returns."""

    def __getitem__(self, name: str) -> Any: ...


class Runner(Protocol):
    """Who executes the stages. Their settings are the runner's business; the loop hands on artifacts."""

    def __call__(self, stage: str, **inputs: Any) -> Outputs:
        """Runs a stage with its artifacts and numbers by name; those that are None are not given."""

    def for_each(self, count: int, name: str, body: Callable[[Any], Any]) -> Any:
        """The list of what `body` makes of each number below `count`; these may run at the same time."""

    def only_if(self, condition: Any, name: str, holds: bool = True) -> AbstractContextManager[bool]:
        """A block that is entered if the condition is what `holds` says, and else says so."""


def run_loop(config: Config, run: Runner) -> None:
    """Calls the stages of a run in order, up to `max_iterations` beyond iteration 0."""
    configured = run("configure")["config"]
    prepared = run("prepare")
    splits, training_set, journal = prepared["splits"], prepared["training_set"], prepared["journal"]
    pool = prepared["pool_set"] if config.draws_from_pool else None
    replay = prepared["replay_set"] if config.data.replay else None
    # What nothing but the end of the loop needs is in a block that is entered there alone.
    has_end = config.has_controls or not config.reports_each_iteration
    student = found = promotion = None
    so_far: dict[str, Any] = {}
    with ExitStack() as nested:
        if config.promote.only_if_new:
            news = run("detect_changes", splits=splits, config=configured)
            if not nested.enter_context(run.only_if(news.returned, "something new")):
                return
        if config.tune.tried:
            journal = run("tune", splits=splits, previous_journal=journal, replay_set=replay)["journal"]
        for iteration in range(config.max_iterations + 1):
            if found is not None:
                if not nested.enter_context(run.only_if(found.returned, f"iteration {iteration}")):
                    return
                if has_end and config.reports_each_iteration:
                    run("report", **so_far)
                written = run(
                    "teacher_augment",
                    iteration=iteration,
                    training_set=training_set,
                    previous_journal=journal,
                    pool_set=pool,
                    student_model=student if config.teacher_augment.needs_student else None,
                )
                deduped = run(
                    "dedupe",
                    iteration=iteration,
                    candidates=written["candidates"],
                    training_set=training_set,
                    splits=splits,
                    previous_journal=written["journal"],
                )
                training_set, journal = deduped["next_training_set"], deduped["journal"]
            trained = run(
                "train",
                iteration=iteration,
                training_set=training_set,
                replay_set=replay,
                previous=student if config.train.start_from == "previous" else None,
                splits=splits if config.train.validation_loss else None,
            )
            student = trained["model"]
            learnt = training_set if config.filter_errors.generated_rows else None
            evaluated = _evaluate(config, run, iteration, student, splits, journal, learnt)
            held_out = _out_of_fold(config, run, iteration, training_set, replay, evaluated["journal"])
            found = run(
                "filter_errors",
                iteration=iteration,
                training_set=training_set,
                predictions=evaluated["predictions"],
                previous_journal=evaluated["journal"],
                fold_predictions=held_out,
            )
            journal = found["journal"]
            so_far |= {"iteration": iteration, "config": configured, "training_set": training_set, "splits": splits,
                       "predictions": evaluated["predictions"], "journal": journal}  # fmt: skip
            if config.promote.registry:
                promotion = run("promote", model=student, **so_far)["verdict"]
            if not has_end:
                run("report", **so_far, promotion=promotion)
                continue
            with run.only_if(found.returned, f"end {iteration}", holds=False) as ended:
                if not ended:
                    continue
                told = journal
                if config.has_controls:
                    told = run(
                        "controls", iteration=iteration, splits=splits, previous_journal=journal, replay_set=replay
                    )["journal"]
                run("report", **{**so_far, "journal": told}, promotion=promotion)


def _evaluate(
    config: Config, run: Runner, iteration: int, student: Any, splits: Any, journal: Any, learnt: Any | None
) -> Outputs:
    """The student's answers, graded: asked in one place, or in as many as there are shards. It is asked the generated
    rows of `learnt`, too, where that is given."""
    shards = config.evaluate.shards
    parts = None
    if shards > 1:
        parts = run.for_each(
            shards,
            f"shards {iteration}",
            lambda shard: run(
                "predict", iteration=iteration, shard=shard, model=student, splits=splits, training_set=learnt
            )["predictions"],
        )
    return run(
        "evaluate",
        iteration=iteration,
        model=student if parts is None else None,
        shard_predictions=parts,
        splits=splits,
        training_set=learnt,
        previous_journal=journal,
    )


def _out_of_fold(
    config: Config, run: Runner, iteration: int, training_set: Any, replay: Any, journal: Any
) -> Any | None:
    """What students answer that were trained without the fold they are asked about; None where there are no folds."""
    folds = config.filter_errors.fold_count
    # At the limit nothing would be written from them.
    if not folds or iteration == config.max_iterations:
        return None
    return run.for_each(
        folds,
        f"folds {iteration}",
        lambda fold: run(
            "out_of_fold",
            iteration=iteration,
            fold=fold,
            training_set=training_set,
            replay_set=replay,
            # A condition around the folds could hand nothing on to the outside, so each asks for itself.
            journal=journal if config.filter_errors.waits_for_known_seeds else None,
        )["predictions"],
    )
