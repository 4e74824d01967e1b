"""A run's config: typed, from YAML, and as the parameters of the compiled pipeline."""

import json
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from llm2llm.components import images
from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.filter_errors.settings import FilterErrorsSettings
from llm2llm.components.prepare.settings import PrepareSettings
from llm2llm.components.problems import UserError, nearest
from llm2llm.components.settings import Settings
from llm2llm.components.stage import HasPath, stage
from llm2llm.components.students.settings import SCRATCH, AnswerSettings, FineTuneSettings
from llm2llm.components.tasks import Task, load_task
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.whole import write_text
from llm2llm.pipelines.placement import PlacementSettings, load_placement


class DataSettings(Settings):
    """The `data` section: files (JSON lines, JSON, CSV, Parquet), Hugging Face dataset names, or `builtin:...`."""

    seeds: str
    """Labelled rows to draw the seeds from."""
    validation: str = ""
    """Rows to decide by; empty: a share of the seed rows is split off."""
    test: str = ""
    """Rows to report on; never used to decide."""
    pool: str = ""
    """Further labelled rows for the teacher `pool`."""


class ImageSettings(Settings):
    """The `images` section: one image for each dependency world."""

    cpu: str = images.CPU
    """prepare, filter_errors, teacher_augment, dedupe, report."""
    train: str = images.TRAIN
    """train, evaluate, out_of_fold."""


class Config(Settings):
    """Everything that a run is asked to do."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?$")
    """The pipeline's name: lower-case letters, digits and dashes."""
    max_iterations: int = Field(3, ge=1, le=50)
    """Iterations after iteration 0, the one that is trained on the seeds alone. The pipeline is compiled this deep."""
    random_seed: int = Field(0, ge=0)
    """Decides every draw: which rows are seeds, folds, weights, order of rows."""
    student: str
    """The model to fine-tune: a Hugging Face name, a folder, or `scratch`."""
    task: Task
    """A shipped task's name (gsm8k, casehold, snips, trec, sst2), or a task of your own."""
    data: DataSettings
    prepare: PrepareSettings = PrepareSettings()
    train: FineTuneSettings = FineTuneSettings()
    evaluate: AnswerSettings = AnswerSettings()
    filter_errors: FilterErrorsSettings = FilterErrorsSettings()
    teacher_augment: TeacherAugmentSettings
    dedupe: DedupeSettings = DedupeSettings()
    images: ImageSettings = ImageSettings()
    placement: PlacementSettings = PlacementSettings()
    """Where the stages run in a cluster; says nothing to a run on this machine."""

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if self.student == SCRATCH and self.train.method == "lora":
            raise ValueError(
                "train.method 'lora' adapts a pretrained model, and student 'scratch' has random weights: "
                "set train.method: full, or name a pretrained student"
            )
        augment = self.teacher_augment
        draws = self.prepare.seed_count > 0 or self.prepare.seed_fraction < 1
        if augment.strategy != "eda" and augment.teacher == "pool" and not self.data.pool and not draws:
            raise ValueError(
                "teacher_augment.teacher 'pool' has nothing to draw from: set data.pool, or draw some of the rows as "
                "seeds with prepare.seed_count, so that the rest is the pool"
            )
        simple = self.task.form in ("classification", "text") or (
            self.task.form == "numeric" and not self.task.rationale
        )
        if augment.strategy != "eda" and augment.teacher == "grammar" and not simple:
            raise ValueError(
                f"teacher_augment.teacher 'grammar' writes a question and its answer only, and task {self.task.name!r} "
                "needs choices or a rationale: use the teacher openai or pool"
            )
        return self


# The parameters of the compiled pipeline that stand for one key of the config each. Their order is the form's order in
# the Kubeflow UI. What is left of a stage's section is one dict parameter, `<section>_settings`.
KNOBS: dict[str, tuple[str, str]] = {
    "seeds": ("data", "seeds"),
    "validation": ("data", "validation"),
    "test": ("data", "test"),
    "pool": ("data", "pool"),
    "student": ("", "student"),
    "seed_count": ("prepare", "seed_count"),
    "max_iterations": ("", "max_iterations"),
    "patience": ("filter_errors", "patience"),
    "epochs": ("train", "epochs"),
    "learning_rate": ("train", "learning_rate"),
    "teacher": ("teacher_augment", "teacher"),
    "teacher_model": ("teacher_augment", "model"),
    "teacher_url": ("teacher_augment", "url"),
    "examples_per_error": ("teacher_augment", "examples_per_error"),
    "random_seed": ("", "random_seed"),
}
SECTIONS = ("prepare", "train", "evaluate", "filter_errors", "teacher_augment", "dedupe")


def to_parameters(config: Config) -> dict[str, Any]:
    """The config as the pipeline's run-time parameters; `from_parameters` is the inverse."""
    values = config.model_dump(mode="json")
    parameters = {knob: values[section][key] if section else values[key] for knob, (section, key) in KNOBS.items()}
    parameters["task"] = config.task.model_dump(mode="json", exclude_defaults=True)
    for section in SECTIONS:
        taken = {key for where, key in KNOBS.values() if where == section}
        settings = getattr(config, section).model_dump(mode="json", exclude_defaults=True)
        parameters[f"{section}_settings"] = {key: value for key, value in settings.items() if key not in taken}
    return parameters


def from_parameters(name: str, parameters: Mapping[str, Any], images: ImageSettings | None = None) -> Config:
    """The config that a run's parameters stand for, checked as a whole.

    Raises:
        UserError: Unknown keys, wrong values, contradictions, a key given both as a parameter and in a dict.
    """
    values: dict[str, Any] = {"name": name, "task": parameters["task"], "data": {}}
    if images is not None:
        values["images"] = images.model_dump()
    for section in SECTIONS:
        values[section] = dict(parameters[f"{section}_settings"])
    for knob, (section, key) in KNOBS.items():
        if not section:
            values[key] = parameters[knob]
        elif key in values[section]:
            raise UserError(
                f"{section}_settings.{key}: set the parameter {knob} instead; it is {parameters[knob]!r} now"
            )
        else:
            values[section][key] = parameters[knob]
    return check_config(values, name)


def compiled_settings(config: Config) -> dict[str, Any]:
    """What is fixed when the pipeline is compiled, for `configure_run` to hold the run's parameters against."""
    return {
        "max_iterations": config.max_iterations,
        "selection": config.filter_errors.selection,
        "folds": config.filter_errors.folds,
        "start_from": config.train.start_from,
        "images": config.images.model_dump(),
    }


def configure_run(name: str, compiled: Mapping[str, Any], parameters: Mapping[str, Any], artifact: HasPath) -> None:
    """The body of the component `configure`: checks a run's parameters and writes the config to `artifact`, as JSON.

    Raises:
        SystemExit: For anything that `from_parameters` finds, and for a parameter that asks for more than was compiled.
    """
    with stage("configure", outputs={"config": artifact}):
        config = from_parameters(name, parameters, ImageSettings.load(compiled["images"], "images"))
        if config.max_iterations > compiled["max_iterations"]:
            raise UserError(
                f"max_iterations: {config.max_iterations} is more than the {int(compiled['max_iterations'])} that the "
                "pipeline was compiled with; lower it, or compile the config again with a higher max_iterations"
            )
        for where, now, then in (
            ("filter_errors_settings.selection", config.filter_errors.selection, compiled["selection"]),
            ("filter_errors_settings.folds", config.filter_errors.folds, compiled["folds"]),
            ("train_settings.start_from", config.train.start_from, compiled["start_from"]),
        ):
            if now != then:
                raise UserError(f"{where}: {now!r}, but the pipeline was compiled with {then!r}; compile it again")
        write_text(artifact.path, json.dumps(config.model_dump(mode="json"), indent=2) + "\n")


def check_config(values: Mapping[str, Any], where: str) -> Config:
    """A typed config from plain values.

    Raises:
        UserError: Names every wrong key, its value and the fix.
    """
    values = dict(values)
    if isinstance(values.get("task"), str | Mapping):
        values["task"] = load_task(values["task"])
    elif "task" in values:
        raise UserError(f"{where}.task: a shipped task's name or a mapping, got {values['task']!r}")
    if isinstance(values.get("placement"), Mapping):
        values["placement"] = load_placement(values["placement"], f"{where}.placement")
    return Config.load(values, where)


def shipped_configs() -> dict[str, Path]:
    """The configs that come with llm2llm, by name."""
    folder = Path(str(resources.files("llm2llm.pipelines"))) / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_config(source: str, overrides: Iterable[str] = (), resolve: bool = False) -> Config:
    """Reads a config.

    Args:
        source: A YAML file, or the name of a shipped config.
        overrides: `section.key=value` each, the value as YAML.
        resolve: Whether to make relative paths in the config absolute, as seen from the config's folder. Off when
            compiling: a path of this machine means nothing in a cluster.

    Raises:
        UserError: No such file, not YAML, or anything that `check_config` finds.
    """
    path = Path(source)
    if not path.exists():
        shipped = shipped_configs()
        if source not in shipped:
            raise UserError(
                f"{source}: no such file, and no shipped config ({', '.join(shipped)}){nearest(source, shipped)}"
            )
        path = shipped[source]
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as problem:
        raise UserError(f"cannot read {source}: {problem.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise UserError(f"{source}: not YAML: {problem}") from None
    if not isinstance(values, dict):
        raise UserError(f"{source}: a config is a mapping of keys to values")
    for override in overrides:
        _override(values, override)
    if resolve:
        _resolve_paths(values, path.resolve().parent)
    return check_config(values, path.name)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise UserError(f"--set {override}: expected section.key=value, such as train.epochs=2")
    try:
        value = yaml.safe_load(text) if text else ""
    except yaml.YAMLError as problem:
        raise UserError(f"--set {override}: the value is not YAML: {problem}") from None
    *sections, last = key.split(".")
    place = values
    for section in sections:
        if section == "task" and isinstance(place.get("task"), str):
            place["task"] = {"name": place["task"]}
        place = place.setdefault(section, {})
        if not isinstance(place, dict):
            raise UserError(f"--set {override}: {section!r} is no section, it is {place!r}")
    place[last] = value


_PATHS = (("data", "seeds"), ("data", "validation"), ("data", "test"), ("data", "pool"),
          ("teacher_augment", "grammar"), ("teacher_augment", "eda_synonyms"), ("", "student"))  # fmt: skip


def _resolve_paths(values: dict[str, Any], folder: Path) -> None:
    """Makes relative paths absolute; a name on the hub, which has no such file here, stays."""
    for section, key in _PATHS:
        place = values.get(section, {}) if section else values
        value = place.get(key) if isinstance(place, dict) else None
        if isinstance(value, str) and value and not value.startswith(("builtin:", "/", "~")):
            path = folder / value
            if path.exists() or value.startswith(("./", "../")) or (section and Path(value).suffix):
                place[key] = str(path)
