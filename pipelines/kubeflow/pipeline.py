"""The loop, unrolled into a Kubeflow pipeline.

KFP has no loop. Iteration i + 1 sits inside `dsl.If` on what `filter_errors` returned in iteration i, so iterations
nest, data flows only downwards, and the run ends where the condition is first false:

    configure, prepare, (detect_changes)
    train 0, (answer 0,) evaluate 0, (out_of_fold 0,) filter_errors 0, (promote 0,) report 0
    if go on:
        teacher_augment 1, dedupe 1
        train 1, (answer 1,) evaluate 1, (out_of_fold 1,) filter_errors 1, (promote 1,) report 1
        if go on:
            ...

What is in brackets is there only if the config asks for it: `answer` for several shards, `out_of_fold` for folds,
`promote` for a registry, `detect_changes` for a schedule that trains only when there is something new.

Whatever the run leaves behind is complete at every depth: history, errors, decisions, rejects and calls hold all
iterations so far, and so does each report.
"""

from contextlib import ExitStack
from typing import Any

from kfp import dsl
from kfp.dsl import PipelineTask

from llm2llm.components.answer.component import answer
from llm2llm.components.dedupe.component import dedupe
from llm2llm.components.detect_changes.component import detect_changes
from llm2llm.components.evaluate.component import evaluate
from llm2llm.components.filter_errors.component import filter_errors
from llm2llm.components.out_of_fold.component import out_of_fold
from llm2llm.components.prepare.component import prepare
from llm2llm.components.promote.component import promote
from llm2llm.components.report.component import report
from llm2llm.components.teacher_augment.component import teacher_augment
from llm2llm.components.train.component import train
from llm2llm.pipelines.config.config import Config, compiled_settings
from llm2llm.pipelines.kubeflow.configure import configure
from llm2llm.pipelines.kubeflow.placement import judged, placed


def build_pipeline(config: Config) -> Any:
    """The pipeline of a config as KFP's pipeline function.

    The config decides what cannot change at run time: depth, images, whether there are folds, shards, replay rows and a
    registry, whether the student of the iteration before is handed on. Everything else is a parameter;
    `config.to_parameters` gives the defaults.
    """
    shards = config.evaluate.shards
    folds = config.filter_errors.folds if config.filter_errors.selection in ("out_of_fold", "auto") else 0
    hand_on_student = config.train.start_from == "previous"

    judge = config.evaluate.judge
    placement = judged(config.placement, judge.api_key_env) if judge else config.placement

    def on(image: str, task: PipelineTask, name: str) -> PipelineTask:
        task.set_container_image(image).set_display_name(name)
        return placed(task, name.split()[0], placement, config.train.nodes, shards)

    def on_cpu(task: PipelineTask, name: str) -> PipelineTask:
        return on(config.images.cpu, task, name)

    def on_gpu(task: PipelineTask, name: str) -> PipelineTask:
        return on(config.images.train, task, name)

    @dsl.pipeline(
        name=config.name,
        display_name=f"LLM2LLM: {config.name}",
        description=f"Fine-tunes a student on task {config.task.name}, has a teacher write new examples from its "
        f"errors, and repeats, up to {config.max_iterations} times.",
    )
    def llm2llm(
        seeds: str,
        validation: str,
        test: str,
        pool: str,
        replay: str,
        student: str,
        seed_count: int,
        max_iterations: int,
        patience: int,
        epochs: float,
        learning_rate: float,
        teacher: str,
        teacher_model: str,
        teacher_url: str,
        examples_per_error: int,
        random_seed: int,
        task: dict,
        prepare_settings: dict,
        train_settings: dict,
        evaluate_settings: dict,
        filter_errors_settings: dict,
        teacher_augment_settings: dict,
        dedupe_settings: dict,
        promote_settings: dict,
    ):
        """LLM2LLM: error-driven fine-tuning.

        Args:
            seeds: Labelled rows to draw the seeds from: a file or a Hugging Face dataset name[:config][#split].
            validation: Rows to decide by; empty: a share of the seed rows is split off.
            test: Rows to report on, never used to decide; may be empty.
            pool: Further labelled rows for the teacher `pool`; may be empty.
            replay: General rows to mix into training; may be empty.
            student: The model to fine-tune: a Hugging Face name, a folder, or `scratch`.
            seed_count: How many rows to draw as seeds; 0: all, or prepare_settings.seed_fraction of them.
            max_iterations: Iterations after iteration 0; at most as many as the pipeline was compiled with.
            patience: Stop when the best validation accuracy is this many iterations old; 0: never for this reason.
            epochs: Passes over the training set in each iteration.
            learning_rate: Peak learning rate.
            teacher: Who writes new examples: openai (any OpenAI-compatible endpoint), grammar, or pool.
            teacher_model: For the teacher openai: the model's name at the endpoint.
            teacher_url: For the teacher openai: the endpoint's base URL, usually ending in /v1.
            examples_per_error: New examples for each error.
            random_seed: Decides every draw: seeds, folds, weights, order of rows.
            task: The task: {"name": "snips"} for a shipped one, or all its fields.
            prepare_settings: The other keys of the config's prepare section.
            train_settings: The other keys of the config's train section.
            evaluate_settings: The other keys of the config's evaluate section.
            filter_errors_settings: The other keys of the config's filter_errors section.
            teacher_augment_settings: The other keys of the config's teacher_augment section.
            dedupe_settings: The other keys of the config's dedupe section.
            promote_settings: The config's promote section.
        """
        configured = on_cpu(
            configure(
                name=config.name,
                compiled=compiled_settings(config),
                seeds=seeds,
                validation=validation,
                test=test,
                pool=pool,
                replay=replay,
                student=student,
                seed_count=seed_count,
                max_iterations=max_iterations,
                patience=patience,
                epochs=epochs,
                learning_rate=learning_rate,
                teacher=teacher,
                teacher_model=teacher_model,
                teacher_url=teacher_url,
                examples_per_error=examples_per_error,
                random_seed=random_seed,
                task=task,
                prepare_settings=prepare_settings,
                train_settings=train_settings,
                evaluate_settings=evaluate_settings,
                filter_errors_settings=filter_errors_settings,
                teacher_augment_settings=teacher_augment_settings,
                dedupe_settings=dedupe_settings,
                promote_settings=promote_settings,
            ),
            "configure",
        )
        prepared = on_cpu(
            prepare(
                seeds=seeds,
                validation=validation,
                test=test,
                pool=pool,
                replay=replay,
                task=task,
                seed_count=seed_count,
                random_seed=random_seed,
                settings=prepare_settings,
            ),
            "prepare",
        ).after(configured)
        sets = {name: prepared.outputs[name] for name in ("seeds_set", "validation_set", "test_set", "pool_set")}
        training_set = sets["seeds_set"]
        found: Any = None
        reported: Any = None
        # What the iteration before handed on; nothing in iteration 0.
        student_before: dict[str, Any] = {}
        student_for_teacher: dict[str, Any] = {}
        history_before: dict[str, Any] = {}
        found_before: dict[str, Any] = {}
        index_before: dict[str, Any] = {}
        rejects = prepared.outputs["rejects"]
        calls: dict[str, Any] = {}
        first_predictions: dict[str, Any] = {}
        manifest_before: dict[str, Any] = {}
        replayed = {"replay_set": prepared.outputs["replay_set"]} if config.data.replay else {}
        with ExitStack() as nest:
            if config.promote.only_if_new:
                something_new = on_cpu(
                    detect_changes(
                        seeds_set=sets["seeds_set"],
                        validation_set=sets["validation_set"],
                        config=configured.outputs["config"],
                        settings=promote_settings,
                    ),
                    "detect_changes",
                ).set_caching_options(False)  # what it says depends on the registry
                # `== True`, here and below, is what KFP compiles.
                nest.enter_context(dsl.If(something_new.outputs["Output"] == True, name="something new"))  # noqa: E712
            for iteration in range(config.max_iterations + 1):
                if iteration > 0:
                    nest.enter_context(dsl.If(found.outputs["Output"] == True, name=f"iteration {iteration}"))  # noqa: E712
                    written = on(
                        config.teacher_image,
                        teacher_augment(
                            errors=found.outputs["errors"],
                            training_set=training_set,
                            pool_set=sets["pool_set"],
                            task=task,
                            iteration=iteration,
                            teacher=teacher,
                            teacher_model=teacher_model,
                            teacher_url=teacher_url,
                            examples_per_error=examples_per_error,
                            random_seed=random_seed,
                            settings=teacher_augment_settings,
                            previous_rejects=rejects,
                            **({"previous_calls": calls["calls"]} if calls else {}),
                            **student_for_teacher,
                        ),
                        f"teacher_augment {iteration}",
                    ).after(reported)  # a run that fails later leaves the reports of the iterations before
                    deduped = on_cpu(
                        dedupe(
                            candidates=written.outputs["candidates"],
                            training_set=training_set,
                            validation_set=sets["validation_set"],
                            test_set=sets["test_set"],
                            rejects=written.outputs["rejects"],
                            task=task,
                            iteration=iteration,
                            settings=dedupe_settings,
                            **index_before,
                        ),
                        f"dedupe {iteration}",
                    )
                    training_set = deduped.outputs["next_training_set"]
                    index_before = {"previous_index": deduped.outputs["index"]}
                    rejects = deduped.outputs["all_rejects"]
                    calls = {"calls": written.outputs["calls"]}
                trained = on_gpu(
                    train(
                        training_set=training_set,
                        student=student,
                        task=task,
                        iteration=iteration,
                        epochs=epochs,
                        learning_rate=learning_rate,
                        random_seed=random_seed,
                        settings=train_settings,
                        **replayed,
                        **student_before,
                    ),
                    f"train {iteration}",
                )
                asked = {name: sets[name] for name in ("seeds_set", "validation_set", "test_set")}
                asked |= {"task": task, "iteration": iteration, "settings": evaluate_settings}
                answers: dict[str, Any] = {"model": trained.outputs["model"]}
                if shards > 1:
                    with dsl.ParallelFor(items=list(range(shards)), name=f"shards {iteration}") as shard:
                        part = on(
                            config.evaluate_image,
                            answer(model=trained.outputs["model"], shard=shard, shards=shards, **asked),
                            f"answer {iteration}",
                        )
                    answers = {"shard_predictions": dsl.Collected(part.outputs["predictions"])}
                evaluated = on(
                    config.images.cpu if shards > 1 else config.evaluate_image,
                    evaluate(**answers, **asked, **history_before, **first_predictions),
                    f"evaluate {iteration}",
                )
                first_predictions = first_predictions or {"first_predictions": evaluated.outputs["predictions"]}
                if hand_on_student:
                    student_before = {"previous": trained.outputs["model"]}
                if config.teacher_augment.needs_student:
                    student_for_teacher = {"student_model": trained.outputs["model"]}
                history_before = {"previous_history": evaluated.outputs["history"]}
                held_out: dict[str, Any] = {}
                only_if_needed: dict[str, Any] = {}
                if config.filter_errors.selection == "auto":
                    # A condition around the folds could hand nothing on to the outside, so each asks for itself.
                    only_if_needed = {
                        "history": evaluated.outputs["history"],
                        "only_above": config.filter_errors.auto_above,
                    }
                if folds and iteration < config.max_iterations:  # at the limit nothing would be written from them
                    with dsl.ParallelFor(items=list(range(folds)), name=f"folds {iteration}") as fold:
                        answered = on_gpu(
                            out_of_fold(
                                training_set=training_set,
                                student=student,
                                task=task,
                                fold=fold,
                                folds=folds,
                                iteration=iteration,
                                epochs=epochs,
                                learning_rate=learning_rate,
                                random_seed=random_seed,
                                train_settings=train_settings,
                                evaluate_settings=evaluate_settings,
                                **replayed,
                                **only_if_needed,
                            ),
                            f"out_of_fold {iteration}",
                        )
                    held_out = {"fold_predictions": dsl.Collected(answered.outputs["predictions"])}
                found = on_cpu(
                    filter_errors(
                        training_set=training_set,
                        predictions=evaluated.outputs["predictions"],
                        history=evaluated.outputs["history"],
                        rejects=rejects,
                        task=task,
                        iteration=iteration,
                        max_iterations=max_iterations,
                        patience=patience,
                        random_seed=random_seed,
                        settings=filter_errors_settings,
                        **held_out,
                        **found_before,
                    ),
                    f"filter_errors {iteration}",
                )
                found_before = {
                    "previous_errors": found.outputs["errors"],
                    "previous_decisions": found.outputs["decisions"],
                    "previous_reference": found.outputs["reference"],
                }
                promotion: dict[str, Any] = {}
                if config.promote.registry:
                    promoted = on_gpu(
                        promote(
                            model=trained.outputs["model"],
                            predictions=evaluated.outputs["predictions"],
                            history=evaluated.outputs["history"],
                            decisions=found.outputs["decisions"],
                            training_set=training_set,
                            validation_set=sets["validation_set"],
                            config=configured.outputs["config"],
                            task=task,
                            iteration=iteration,
                            random_seed=random_seed,
                            settings=promote_settings,
                            **calls,
                        ),
                        f"promote {iteration}",
                    )
                    promotion = {"promotion": promoted.outputs["verdict"]}
                reported = on_cpu(
                    report(
                        config=configured.outputs["config"],
                        training_set=training_set,
                        validation_set=sets["validation_set"],
                        test_set=sets["test_set"],
                        history=evaluated.outputs["history"],
                        errors=found.outputs["errors"],
                        decisions=found.outputs["decisions"],
                        rejects=rejects,
                        predictions=evaluated.outputs["predictions"],
                        training_metrics=trained.outputs["metrics"],
                        iteration=iteration,
                        **calls,
                        **promotion,
                        **manifest_before,
                    ),
                    f"report {iteration}",
                )
                manifest_before = {"previous_manifest": reported.outputs["manifest"]}

    return llm2llm
