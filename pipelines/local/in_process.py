"""The loop in plain Python: the same stages in the same order, with the same decisions, as in `pipeline`; no KFP.

    configure, prepare, (detect_changes)
    for each iteration:
        teacher_augment, dedupe                     from the second on: new examples, written from the last errors
        train, (answer,) evaluate, (out_of_fold,) filter_errors, (promote,) report
        end where filter_errors says so

What is in brackets is there only if the config asks for it, as in `pipeline`.

Each stage runs in this process, one after the other. What it leaves is kept with the hashes of what it was handed, so a
run that is started again takes over what it has finished, as long as the same goes in and nothing is damaged:

    artifacts/train-1/model/            an output, under its name
    artifacts/train-1/done.json         written last: what went in, the outputs' metadata, what the stage returned
"""

import gc
import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llm2llm.components.answer.run import run as answer
from llm2llm.components.dedupe.run import run as dedupe
from llm2llm.components.detect_changes.run import run as detect_changes
from llm2llm.components.evaluate.run import run as evaluate
from llm2llm.components.filter_errors.run import run as filter_errors
from llm2llm.components.out_of_fold.run import run as out_of_fold
from llm2llm.components.prepare.run import run as prepare
from llm2llm.components.promote.run import run as promote
from llm2llm.components.report.run import run as report
from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.data.artifacts import LocalArtifact
from llm2llm.components.shared.lineage.embedded import content_hash
from llm2llm.components.shared.lineage.records import SHA256
from llm2llm.components.teacher_augment.run import run as teacher_augment
from llm2llm.components.train.run import run as train
from llm2llm.pipelines.config.config import Config, compiled_settings, configure_run, to_parameters


@dataclass(frozen=True)
class Done:
    """A stage that has ended well."""

    outputs: Mapping[str, LocalArtifact]
    returned: Any = None

    def __getitem__(self, name: str) -> LocalArtifact:
        return self.outputs[name]


def run_process(config: Config, artifacts: Path) -> None:
    """Runs the loop of a config, and leaves what its stages write in `artifacts`.

    Raises:
        SystemExit: A stage refused its input (2) or was terminated (143); it has said so in an event.
        Exception: Whatever else a stage raises, likewise.
    """

    def do(stage: str, run: Callable[..., Any], outputs: str, **inputs: Any) -> Done:
        return _done(artifacts, stage, run, outputs.split(), inputs)

    # As the compiled pipeline hands them to its stages.
    given = json.loads(json.dumps(to_parameters(config)))
    task, student, random_seed = given["task"], given["student"], given["random_seed"]
    training = {"epochs": given["epochs"], "learning_rate": given["learning_rate"], "random_seed": random_seed}
    shards, selection = config.evaluate.shards, config.filter_errors.selection
    folds = config.filter_errors.folds if selection in ("out_of_fold", "auto") else 0

    configured = do(
        "configure",
        configure,
        "config",
        name=config.name,
        compiled=compiled_settings(config),
        parameters=given,
    )
    prepared = do(
        "prepare",
        prepare,
        "seeds_set validation_set test_set pool_set rejects replay_set",
        **{name: given[name] for name in ("seeds", "validation", "test", "pool", "replay", "seed_count")},
        task=task,
        random_seed=random_seed,
        settings=given["prepare_settings"],
    )
    protected = {name: prepared[name] for name in ("validation_set", "test_set")}
    if config.promote.only_if_new:
        something_new = do(
            "detect_changes",
            detect_changes,
            "notes",
            seeds_set=prepared["seeds_set"],
            validation_set=prepared["validation_set"],
            config=configured["config"],
            settings=given["promote_settings"],
        )
        if not something_new.returned:
            return
    training_set, rejects = prepared["seeds_set"], prepared["rejects"]
    # What the iteration before hands on; nothing to iteration 0.
    trained = evaluated = first = found = deduped = written = promoted = reported = None
    for iteration in range(config.max_iterations + 1):
        if found is not None:
            written = do(
                "teacher_augment",
                teacher_augment,
                "candidates rejects calls",
                errors=found["errors"],
                training_set=training_set,
                pool_set=prepared["pool_set"],
                task=task,
                previous_rejects=rejects,
                previous_calls=left_by(written, "calls"),
                student_model=left_by(trained, "model") if config.teacher_augment.needs_student else None,
                iteration=iteration,
                **{name: given[name] for name in ("teacher", "teacher_model", "teacher_url", "examples_per_error")},
                random_seed=random_seed,
                settings=given["teacher_augment_settings"],
            )
            deduped = do(
                "dedupe",
                dedupe,
                "next_training_set all_rejects index",
                candidates=written["candidates"],
                training_set=training_set,
                **protected,
                rejects=written["rejects"],
                previous_index=left_by(deduped, "index"),
                task=task,
                iteration=iteration,
                settings=given["dedupe_settings"],
            )
            training_set, rejects = deduped["next_training_set"], deduped["all_rejects"]
        trained = do(
            "train",
            train,
            "model metrics",
            training_set=training_set,
            student=student,
            task=task,
            previous=left_by(trained, "model") if config.train.start_from == "previous" else None,
            replay_set=prepared["replay_set"] if config.data.replay else None,
            iteration=iteration,
            **training,
            settings=given["train_settings"],
        )
        asked = {
            "seeds_set": prepared["seeds_set"],
            **protected,
            "task": task,
            "iteration": iteration,
            "settings": given["evaluate_settings"],
        }
        parts = [
            do("answer", answer, "predictions", model=trained["model"], shard=shard, shards=shards, **asked)[
                "predictions"
            ]
            for shard in range(shards if shards > 1 else 0)
        ]
        evaluated = do(
            "evaluate",
            evaluate,
            "predictions history metrics confusion",
            model=None if parts else trained["model"],
            shard_predictions=parts or None,
            first_predictions=left_by(first, "predictions"),
            previous_history=left_by(evaluated, "history"),
            **asked,
        )
        first = first or evaluated
        answered = [
            do(
                "out_of_fold",
                out_of_fold,
                "predictions",
                training_set=training_set,
                # With `auto` the folds are for a student that solves most of its seeds; each asks for itself.
                history=evaluated["history"] if selection == "auto" else None,
                only_above=config.filter_errors.auto_above if selection == "auto" else 0.0,
                replay_set=prepared["replay_set"] if config.data.replay else None,
                student=student,
                task=task,
                fold=fold,
                folds=folds,
                iteration=iteration,
                **training,
                train_settings=given["train_settings"],
                evaluate_settings=given["evaluate_settings"],
            )["predictions"]
            for fold in range(folds if iteration < config.max_iterations else 0)
        ]
        found = do(
            "filter_errors",
            filter_errors,
            "errors decisions reference",
            training_set=training_set,
            predictions=evaluated["predictions"],
            history=evaluated["history"],
            fold_predictions=answered or None,
            previous_errors=left_by(found, "errors"),
            previous_decisions=left_by(found, "decisions"),
            previous_reference=left_by(found, "reference"),
            rejects=rejects,
            task=task,
            iteration=iteration,
            max_iterations=given["max_iterations"],
            patience=given["patience"],
            random_seed=random_seed,
            settings=given["filter_errors_settings"],
        )
        if config.promote.registry:
            promoted = do(
                "promote",
                promote,
                "verdict metrics",
                model=trained["model"],
                predictions=evaluated["predictions"],
                decisions=found["decisions"],
                history=evaluated["history"],
                training_set=training_set,
                validation_set=prepared["validation_set"],
                config=configured["config"],
                task=task,
                calls=left_by(written, "calls"),
                iteration=iteration,
                random_seed=random_seed,
                settings=given["promote_settings"],
            )
        reported = do(
            "report",
            report,
            "html markdown summary metrics manifest",
            config=configured["config"],
            training_set=training_set,
            **protected,
            history=evaluated["history"],
            errors=found["errors"],
            decisions=found["decisions"],
            rejects=rejects,
            calls=left_by(written, "calls"),
            predictions=evaluated["predictions"],
            training_metrics=trained["metrics"],
            promotion=left_by(promoted, "verdict"),
            previous_manifest=left_by(reported, "manifest"),
            iteration=iteration,
        )
        if not found.returned:
            break


def left_by(done: Done | None, name: str) -> LocalArtifact | None:
    """An output of a stage that may not have run yet."""
    return done[name] if done else None


def configure(*, name: str, compiled: Mapping[str, Any], parameters: Mapping[str, Any], config: LocalArtifact) -> None:
    """See the component."""
    configure_run(name, compiled, parameters, config)


def _done(artifacts: Path, stage: str, run: Callable[..., Any], outputs: list[str], inputs: dict[str, Any]) -> Done:
    """Runs a stage, unless it has ended well before with the same inputs."""
    numbers = [str(inputs[name]) for name in ("iteration", "fold", "shard") if name in inputs]
    folder = artifacts / "-".join([stage, *numbers])
    going_in = json.loads(json.dumps({name: _known_by(value) for name, value in sorted(inputs.items())}))
    if before := _before(folder, outputs, going_in):
        return before
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    written = {name: LocalArtifact(str(folder / name)) for name in outputs}
    returned = run(**inputs, **written)
    kept = {
        "inputs": going_in,
        "outputs": {name: artifact.metadata for name, artifact in written.items()},
        "sha256": {name: content_hash(artifact.path) for name, artifact in written.items()},
        "returned": returned,
    }
    write_text(folder / "done.json", json.dumps(kept, indent=1) + "\n")
    _free_memory()
    return Done(written, returned)


def _before(folder: Path, outputs: list[str], going_in: Mapping[str, Any]) -> Done | None:
    """What the stage has left, when it was handed the same and every output is as it was."""
    file = folder / "done.json"
    if not file.is_file():
        return None
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        print(f"{file} is damaged: its stage runs again", flush=True)
        return None
    if kept["inputs"] != going_in:
        return None
    found = {name: LocalArtifact(str(folder / name), kept["outputs"][name]) for name in outputs}
    for name, artifact in found.items():
        path = Path(artifact.path)
        if not path.exists() or content_hash(path) != kept["sha256"][name]:
            print(f"{path} is damaged, or was changed, since it was written: its stage runs again", flush=True)
            return None
    return Done(found, kept["returned"])


def _known_by(value: Any) -> Any:
    """What an input is compared by: an artifact's hash; a plain value itself."""
    if isinstance(value, LocalArtifact):
        return value.metadata.get(SHA256) or content_hash(value.path)  # figures have no hash in their metadata
    return [_known_by(one) for one in value] if isinstance(value, list) else value


def _free_memory() -> None:
    """What the stage before held, in cycles too, would be missed by the next: on a GPU a whole model."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
