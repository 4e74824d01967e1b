"""Keeps a run's best student as its candidate, and decides once whether it enters production."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from textwrap import shorten
from typing import Any

from llm2llm.components.promote.compare import MeasuresByRow, checks, compare
from llm2llm.components.promote.guards import guard_changes, guard_check
from llm2llm.components.promote.incumbent import Incumbent, read_incumbent
from llm2llm.components.promote.verdict import Check, Contender, GuardChange, Verdict, to_json
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.statistics import wilson_interval
from llm2llm.components.shared.data.schemas import Call, Decision, Example, Prediction, Score
from llm2llm.components.shared.lineage.records import code_version
from llm2llm.components.shared.models.student_folder import head_in
from llm2llm.components.shared.registry import digests, tried, versions
from llm2llm.components.shared.registry.card import render_card
from llm2llm.components.shared.registry.production import Generation, generations, move, rolled_back
from llm2llm.components.shared.registry.records import (
    ANSWERS,
    CARD,
    RECORD,
    TRAINED_ON,
    Accuracy,
    Answers,
    Record,
    Rows,
    Said,
    Teaching,
    Threshold,
    TrainedOn,
    to_document,
)
from llm2llm.components.shared.registry.settings import CardSettings, PromoteSettings
from llm2llm.components.shared.storage import NotThere, delete_folder, fetched
from llm2llm.components.shared.tasks import Task, load_task
from llm2llm.components.shared.tasks.measured import always_given, measured, metric_of
from llm2llm.components.shared.tasks.threshold import ThresholdSettings, choose_threshold, flagged, probabilities

ROUNDS = 100
"""How often a run decides anew because another moved the pointer: each time at least one other run has come through, so
only a hundred runs that end together could reach it."""


def keep_candidate(
    registry: str,
    run: str,
    model: Path,
    predictions: Sequence[Prediction],
    history: Sequence[Score],
    training_set: Sequence[Example],
    seeds: Sequence[Example],
    validation: Sequence[Example],
    calls: Sequence[Call],
    config: Mapping[str, Any],
    iteration: int,
    random_seed: int,
) -> str:
    """Stores an iteration's student as its run's candidate, whole, with card, answers and what it was trained on.

    Returns:
        The name that it would have as a version.

    Raises:
        UserError: Answers to other rows than those of `validation`, a folder without a model, no access.
    """
    correct = _answers(predictions, validation, iteration)
    task = config.get("task") or {}
    metric, measures = "accuracy", {}
    if isinstance(task, Mapping) and task.get("metric", metric) != metric:
        loaded = load_task(task)
        if decides := metric_of(loaded):
            metric = loaded.metric
            asked = [one for one in predictions if one.split == "validation"]
            measures = measured(loaded, decides, validation, asked)
    data = {key: value for key, value in (config.get("data") or {}).items() if isinstance(value, str) and value}
    record = Record(
        name=str(config.get("name") or "student"),
        task=str(task.get("name", "")),
        form=str(task.get("form", "")),
        student=str(config.get("student", "")),
        adapter=(model / "adapter_config.json").is_file(),
        head=head_in(model),
        iteration=iteration,
        seeds=_rows(seeds),
        training=_rows(training_set),
        validation=_rows(validation),
        accuracy=_accuracies(history, iteration),
        baseline=_accuracies(history, 0),
        threshold=_threshold(predictions, validation, config),
        teaching=_teaching([call for call in calls if call.iteration <= iteration]),
        said=_said(config),
        # A run on one machine copies its inputs into a folder of its own; the file's name is what says something.
        data={key: value.rpartition("/")[2] if value.startswith("/") else value for key, value in data.items()},
        random_seed=random_seed,
        config_digest=digests.of_config(config),
        code=code_version(),
    )
    trained_on = TrainedOn(
        seeds=sorted(row.id for row in seeds),
        rows=sorted(row.id for row in training_set),
        questions=sorted(digests.of_question(row.question, row.choices) for row in training_set),
    )
    documents = {
        RECORD: to_document(record),
        ANSWERS: to_document(
            Answers(
                graded_with=digests.of_grading(config),
                correct=correct,
                metric=metric,
                measures=measures,
                always=always_given(validation, [one for one in predictions if one.split == "validation"]),
            )
        ),
        TRAINED_ON: to_document(trained_on),
        CARD: render_card(record).encode("utf-8", "replace"),
    }
    return versions.store_candidate(registry, run, model, documents)


def _said(config: Mapping[str, Any]) -> Said:
    card = (config.get("promote") or {}).get("card") or {}
    return Said(**CardSettings.load(card, "promote.card").model_dump())


def pending(
    registry: str, run: str, decision: Decision, candidate: str | None, settings: PromoteSettings
) -> dict[str, Any]:
    """The verdict while the run goes on."""
    best = f"the best student so far is that of iteration {decision.best_iteration}"
    return to_json(
        Verdict(
            outcome="pending",
            reason=f"nothing is decided before the run stops; {best}" + (f" ({candidate})" if candidate else ""),
            run=run,
            iteration=decision.iteration,
            mode=settings.mode,
            registry=registry,
        )
    )


def decide(
    registry: str,
    run: str,
    decision: Decision,
    scores: Sequence[Score],
    seeds: Sequence[Example],
    validation: Sequence[Example],
    task: Task,
    config: Mapping[str, Any],
    settings: PromoteSettings,
    random_seed: int,
) -> tuple[dict[str, Any], Generation | None]:
    """Decides on the run's candidate, and moves the pointer where it passes and the mode says so.

    When another run moves the pointer in between, the candidate is held against what is in production then. A run that
    has promoted already, as when its stage is tried again, gets the verdict that it had.

    Args:
        registry: Folder or s3:// prefix, as `versions.registry_uri` gives it.
        run: Its id.
        decision: The run's last one.
        scores: Those of all its iterations: the candidate is the best of so many students.
        seeds: The run's, for `tried`.
        validation: The rows to compare on.
        task: Grades, and says whether right answers are slices.
        config: The run's config.
        settings: See `PromoteSettings`.
        random_seed: Of the bootstrap.

    Returns:
        (verdict, as `verdict.to_json` gives it; the generation that it made, if it made one)

    Raises:
        UserError: There is no candidate, or one of another iteration; the version in production is damaged or cannot be
            asked; a file of the candidate is not as its hash says; no access.
    """
    forgotten: dict[str, list[GuardChange]] = {}
    for round_ in range(1, ROUNDS + 1):
        history = generations(registry)
        if mine := next((one for one in history if one.run == run and one.kind == "promote"), None):
            _settle(registry, run, mine.version)
            return mine.verdict or {}, mine
        now = history[-1] if history else None
        version, record, answers = _candidate(registry, run, decision)
        verdict = _judged(
            version, record, answers, scores, history, validation, task, config, settings, random_seed,
            Verdict(
                outcome="kept", reason="", run=run, iteration=decision.iteration, mode=settings.mode,
                registry=registry, incumbent_generation=now.number if now else 0, rounds=round_,
            ),
        )  # fmt: skip
        if settings.guards and verdict.outcome in ("promoted", "would_promote"):
            if version not in forgotten:
                forgotten[version] = _forgotten(registry, run, record, config, settings)
            check = guard_check(forgotten[version], settings)
            verdict = _concluded(
                replace(verdict, guards=forgotten[version]), now.version if now else None, [*verdict.checks, check]
            )
        if verdict.outcome != "promoted":
            break
        versions.enter(registry, run, version)
        versions.verify_version(registry, version)
        after = replace(verdict, generation=now.number + 1 if now else 1)
        made = move(registry, to=version, kind="promote", after=now, run=run, verdict=to_json(after))
        if made:
            _settle(registry, run, version)
            return to_json(after), made
    else:
        verdict = replace(
            verdict, outcome="kept", reason=f"others moved the pointer {ROUNDS} times while this run decided: run again"
        )
        return to_json(verdict), None
    if verdict.outcome == "kept" and settings.mode == "promote":
        uri = tried.tried_uri(
            registry,
            digests.of_ids(row.id for row in seeds),
            digests.of_ids(row.id for row in validation),
            digests.of_config(config),
            digests.of_conditions(settings),
            now.version if now else "",
        )
        tried.write_tried(uri, to_json(verdict))
    return to_json(verdict), None


def _forgotten(
    registry: str, run: str, record: Record, config: Mapping[str, Any], settings: PromoteSettings
) -> list[GuardChange]:
    uri = versions.candidate_uri(registry, run)
    return guard_changes(
        fetched(uri),
        str(config.get("student", record.student)),
        versions.read_document(uri, TrainedOn),
        config,
        settings,
    )


def _candidate(registry: str, run: str, decision: Decision) -> tuple[str, Record, Answers]:
    uri = versions.candidate_uri(registry, run)
    try:
        version = versions.version_of(registry, run)
        record, answers = versions.read_document(uri, Record), versions.read_document(uri, Answers)
    except NotThere:
        raise UserError(
            f"promote: run {run} has no whole candidate in {registry}, which iteration {decision.best_iteration} "
            "should have left: run the stage promote of that iteration again"
        ) from None
    if record.iteration != decision.best_iteration:
        raise UserError(
            f"promote: the candidate of run {run} in {registry} is of iteration {record.iteration}, and the best is "
            f"{decision.best_iteration}: run the stage promote of that iteration again"
        )
    return version, record, answers


def _judged(
    version: str,
    record: Record,
    answers: Answers,
    scores: Sequence[Score],
    history: Sequence[Generation],
    validation: Sequence[Example],
    task: Task,
    config: Mapping[str, Any],
    settings: PromoteSettings,
    random_seed: int,
    verdict: Verdict,
) -> Verdict:
    """The verdict on a candidate against what is in production at the end of `history`."""
    known = {row.id for row in validation}
    if not known <= answers.correct.keys():
        raise UserError(
            f"promote: the candidate of run {verdict.run} has no answers to {len(known - answers.correct.keys()):,} of "
            "the validation rows: the stage promote must see the same validation set in every iteration"
        )
    everything = _contender(version, record, answers.correct, known)
    if version in (out := rolled_back(history)):
        check = Check(
            name="not_rolled_back",
            passed=False,
            text=f"{version} was taken out of production by hand (generation {out[version]}); "
            f"`llm2llm registry rollback {version}` brings it back",
        )
        return _concluded(replace(verdict, candidate=everything), None, [check])
    one_answer = "" if answers.always is None else shorten(answers.always, 80, placeholder=" ...")
    if not history:
        return _concluded(replace(verdict, candidate=everything), None, [_first(everything, one_answer)])
    if history[-1].version == version:
        check = Check(name="new", passed=False, text="the candidate is that very student")
        return _concluded(replace(verdict, candidate=everything, incumbent=everything), version, [check])
    incumbent = read_incumbent(verdict.registry, history[-1].version, validation, task, config)
    rows = [row for row in validation if row.id in incumbent.correct]
    if not rows:
        check = Check(
            name="comparable",
            passed=False,
            text=f"it was trained on all {len(known):,} validation rows, so there is nothing to compare on: keep "
            "validation rows apart from the seeds (data.validation)",
        )
        return _concluded(replace(verdict, candidate=everything), incumbent.version, [check])
    comparison = compare(
        incumbent.correct,
        answers.correct,
        rows,
        task,
        settings,
        random_seed,
        _students(scores, rows),
        _measures(incumbent, answers, scores, validation, task),
        incumbent.left_out,
        incumbent.answered_now,
    )
    same = {row.id for row in rows}
    verdict = replace(
        verdict,
        candidate=_contender(version, record, answers.correct, same),
        incumbent=_contender(incumbent.version, incumbent.record, incumbent.correct, same),
        comparison=comparison,
    )
    found = checks(comparison, settings)
    if one_answer:
        text = f"it answers {one_answer!r} to each of the {len(known):,} validation rows, whatever is right"
        found.append(Check(name="tells_apart", passed=False, text=text))
    return _concluded(verdict, incumbent.version, found)


def _students(scores: Sequence[Score], rows: Sequence[Example]) -> list[dict[str, bool]]:
    """What the student of each iteration answers right on validation."""
    right = [set(score.correct_ids) for score in scores if score.split == "validation"]
    return [{row.id: row.id in one for row in rows} for one in right]


def _measures(
    incumbent: Incumbent, answers: Answers, scores: Sequence[Score], validation: Sequence[Example], task: Task
) -> MeasuresByRow | None:
    """What the metric keeps of all answers; None for the accuracy.

    Raises:
        UserError: The candidate's were measured by another metric.
    """
    if metric_of(task) is None:
        return None
    if answers.metric != task.metric:
        raise UserError(
            f"promote: the candidate was stored under the metric {answers.metric}, and this is {task.metric}: "
            "task.metric must be the same in the whole run"
        )
    ids = sorted(row.id for row in validation)
    students = []
    for score in scores:
        if score.split == "validation" and score.metric == task.metric and score.measures:
            width = len(score.measures) // len(ids)
            rows = [score.measures[start : start + width] for start in range(0, len(score.measures), width)]
            students.append(dict(zip(ids, rows, strict=True)))
    return MeasuresByRow(incumbent.measures, answers.measures, students)


def _first(candidate: Contender, one_answer: str) -> Check:
    figures = f"{candidate.correct:,} of {candidate.n:,} validation rows right"
    figures += f", and answers {one_answer!r} to each of them" if one_answer and candidate.correct else ""
    return Check(name="first", passed=candidate.correct > 0, text=f"it is the first, with {figures}")


def _concluded(verdict: Verdict, incumbent: str | None, found: list[Check]) -> Verdict:
    """The verdict with its outcome and its reason."""
    assert verdict.candidate is not None, "a verdict on nothing"
    name, failed = verdict.candidate.version, [check.text for check in found if not check.passed]
    if failed:
        stays = f"{incumbent} stays in production" if incumbent else "nothing enters production"
        return replace(verdict, outcome="kept", checks=found, reason=f"{stays}: {'; '.join(failed)}")
    if verdict.mode == "report_only":
        reason = f"{name} would be promoted, and mode report_only leaves production as it is: {found[0].text}"
        return replace(verdict, outcome="would_promote", checks=found, reason=reason)
    return replace(verdict, outcome="promoted", checks=found, reason=f"{name} is in production: {found[0].text}")


def _contender(version: str, record: Record, correct: Mapping[str, bool], rows: set[str]) -> Contender:
    right = sum(correct[row] for row in rows)
    low, high = wilson_interval(right, len(rows))
    return Contender(
        version=version,
        iteration=record.iteration,
        training_rows=record.training.n,
        n=len(rows),
        correct=right,
        accuracy=right / len(rows),
        low=low,
        high=high,
    )


def _settle(registry: str, run: str, version: str) -> None:
    """Ends a promotion: the version is whole, so the candidate, which is the same folder, can go.

    Before the pointer named the version, it was nobody's, and `llm2llm clean` could have taken an old one away.
    """
    versions.enter(registry, run, version)
    delete_folder(versions.candidate_uri(registry, run))


def _answers(predictions: Sequence[Prediction], validation: Sequence[Example], iteration: int) -> dict[str, bool]:
    correct = {
        row.example_id: row.outcome == "correct"
        for row in predictions
        if row.split == "validation" and row.iteration == iteration
    }
    if correct.keys() != {row.id for row in validation}:
        raise UserError(
            f"promote: {len(correct):,} answers of iteration {iteration} on validation do not fit its "
            f"{len(validation):,} rows: predictions and validation_set must be of the same iteration of the same run"
        )
    return dict(sorted(correct.items()))


def _rows(rows: Sequence[Example]) -> Rows:
    return Rows(
        n=len(rows), generated=sum(row.generated for row in rows), digest=digests.of_ids(row.id for row in rows)
    )


def _threshold(
    predictions: Sequence[Prediction], validation: Sequence[Example], config: Mapping[str, Any]
) -> Threshold | None:
    wanted = (config.get("evaluate") or {}).get("threshold")
    if not wanted:
        return None
    settings = ThresholdSettings.load(wanted, "evaluate.threshold")
    asked = [one for one in predictions if one.split == "validation"]
    positives, negatives = probabilities(settings.label, validation, asked)
    if not negatives:
        return None
    threshold = choose_threshold(negatives, positives, settings.max_false_positive_rate)
    found = flagged(settings.label, threshold, positives, negatives)
    return Threshold(
        label=settings.label,
        threshold=threshold,
        max_false_positive_rate=settings.max_false_positive_rate,
        recall=found.recall,
        false_positive_rate=found.false_positive_rate,
    )


def _accuracies(history: Sequence[Score], iteration: int) -> dict[str, Accuracy]:
    return {
        score.split: Accuracy(
            n=score.n,
            correct=score.correct,
            unparseable=score.unparseable,
            accuracy=score.accuracy,
            low=score.low,
            high=score.high,
        )
        for score in history
        if score.iteration == iteration
    }


def _teaching(calls: Sequence[Call]) -> list[Teaching]:
    by_model: defaultdict[tuple[str, str], list[Call]] = defaultdict(list)
    for call in calls:
        by_model[call.teacher, call.model].append(call)
    return [
        Teaching(
            teacher=teacher,
            model=model,
            calls=len(asked),
            input_tokens=sum(call.input_tokens or 0 for call in asked),
            output_tokens=sum(call.output_tokens or 0 for call in asked),
            usd=None if any(call.usd is None for call in asked) else round(sum(call.usd or 0 for call in asked), 6),
        )
        for (teacher, model), asked in sorted(by_model.items())
    ]
