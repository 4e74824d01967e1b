"""A run's config: typed, from YAML, and as the parameters of the compiled pipeline."""

import json
import os
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Self

import yaml
from pydantic import Field, model_validator

from llm2llm.components import images
from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.filter_errors.settings import FilterErrorsSettings, needs
from llm2llm.components.prepare.settings import PrepareSettings
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.shared.base.atomic import write_text
from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.data.artifacts import Artifact
from llm2llm.components.shared.judge.settings import check_judge
from llm2llm.components.shared.llm.settings import IN_POD, ModelSettings
from llm2llm.components.shared.stage import stage_lifecycle
from llm2llm.components.shared.tasks import Task, load_task
from llm2llm.components.shared.training.settings import SCRATCH, AnswerSettings, FineTuneSettings, check_mode
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings, check_task
from llm2llm.pipelines.kubeflow.placement import PlacementSettings, check_devices, load_placement


class DataSettings(Settings):
    """The `data` section: files (JSON lines, JSON, CSV, Parquet), Hugging Face dataset names, or `builtin:...`."""

    seeds: str = Field(min_length=1)
    """Labelled rows to draw the seeds from."""
    validation: str = ""
    """Rows to decide by; empty: a share of the seed rows is split off."""
    test: str = ""
    """Rows to report on; never used to decide."""
    pool: str = ""
    """Further labelled rows for the teacher `pool`."""
    replay: str = ""
    """General rows to mix into training, so that the student keeps what it knew; `train.replay_fraction` says how
    many."""


class ImageSettings(Settings):
    """The `images` section: one image for each dependency world."""

    cpu: str = images.CPU
    """prepare, filter_errors, teacher_augment, dedupe, report."""
    train: str = images.TRAIN
    """train, evaluate, answer, out_of_fold, promote; teacher_augment when its teacher is a model that transformers
    loads."""
    vllm: str = images.VLLM
    """evaluate and answer with `evaluate.backend: vllm`; teacher_augment when its teacher is a model that vLLM
    loads."""


class Config(Settings):
    """Everything that a run is asked to do."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?$")
    """The pipeline's name: lower-case letters, digits and dashes."""
    max_iterations: int = Field(3, ge=1, le=50)
    """Iterations after iteration 0, the one that is trained on the seeds alone. The pipeline is compiled this deep."""
    random_seed: int = Field(0, ge=0)
    """Decides every draw: which rows are seeds, folds, weights, order of rows."""
    student: str = Field(min_length=1)
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
    promote: PromoteSettings = PromoteSettings()
    images: ImageSettings = ImageSettings()
    placement: PlacementSettings = PlacementSettings()
    """Where the stages run in a cluster; says nothing to a run on this machine."""

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if self.student == SCRATCH and self.train.adapts:
            raise ValueError(
                f"train.method {self.train.method!r} adapts a pretrained model, and student 'scratch' has random "
                "weights: set train.method: full, or name a pretrained student"
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
        for key, values in needs(self.filter_errors).items():
            section, name = key.split(".")
            found = getattr(getattr(self, section), name)
            if found not in values:
                raise ValueError(
                    f"filter_errors.selection {self.filter_errors.selection!r} needs {key} to be "
                    f"{' or '.join(map(repr, values))}, and it is {found!r}; set it, or choose another selection"
                )
        labels = self.task.form in ("classification", "multiple_choice")
        if self.train.class_weights == "balanced" and not labels:
            raise ValueError(
                f"train.class_weights 'balanced' weighs labels or choices, and task {self.task.name!r} has neither "
                f"(form {self.task.form!r}); use class_weights: none"
            )
        try:
            check_mode(self.task, self.evaluate)
            check_judge(self.task, self.evaluate.judge)
        except ValueError as problem:
            raise ValueError(f"evaluate.{problem}") from None
        if bool(self.data.replay) != (self.train.replay_fraction > 0):
            raise ValueError(
                f"data.replay {self.data.replay!r} and train.replay_fraction {self.train.replay_fraction:g} belong "
                "together: name the rows and how many of them to mix in, or neither"
            )
        try:
            check_task(augment, self.task)
        except ValueError as problem:
            raise ValueError(f"teacher_augment.{problem}") from None
        gpus = self.placement.stages["teacher_augment"].gpus if "teacher_augment" in self.placement.stages else 0
        if self.placement.profile and self.uses_vllm and not gpus:
            raise ValueError(
                "placement.stages.teacher_augment: teacher 'vllm' runs in the stage's own pod and needs a GPU there; "
                "set accelerator and gpus, or serve the model behind an endpoint (teacher openai)"
            )
        engine = self.evaluate.gpus if self.evaluate.backend == "vllm" else 0
        train = self.train
        check_devices(self.placement, train.gpus, train.nodes, train.checkpoint_uri, engine, self.evaluate.shards)
        return self

    @property
    def uses_vllm(self) -> bool:
        """Whether teacher_augment loads a model with vLLM, and so runs in the image `vllm`."""
        return any(teacher == "vllm" for teacher, _ in self.in_pod)

    @property
    def uses_transformers(self) -> bool:
        """Whether teacher_augment loads a model with transformers, and so runs in the image `train`."""
        return any(teacher == "transformers" for teacher, _ in self.in_pod)

    @property
    def evaluate_image(self) -> str:
        """The image of the stages in which the student answers: evaluate, answer."""
        return self.images.vllm if self.evaluate.backend == "vllm" else self.images.train

    @property
    def teacher_image(self) -> str:
        """The image of teacher_augment."""
        if self.uses_vllm:
            return self.images.vllm
        return self.images.train if self.uses_transformers else self.images.cpu

    @property
    def in_pod(self) -> list[tuple[str, ModelSettings]]:
        """The models that teacher_augment loads itself, each with what loads it."""
        augment = self.teacher_augment
        asked: list[tuple[str, ModelSettings]] = [(one.teacher, one) for one in augment.teachers]
        if augment.asks_models and not asked:
            asked.append((augment.teacher, augment))
        if augment.verify != "none" and augment.verification.by is not None:
            asked.append((augment.verification.by.teacher, augment.verification.by))
        return [(teacher, model) for teacher, model in asked if teacher in IN_POD]


# The parameters of the compiled pipeline that stand for one key of the config each. Their order is the form's order in
# the Kubeflow UI. What is left of a stage's section is one dict parameter, `<section>_settings`.
KNOBS: dict[str, tuple[str, str]] = {
    "seeds": ("data", "seeds"),
    "validation": ("data", "validation"),
    "test": ("data", "test"),
    "pool": ("data", "pool"),
    "replay": ("data", "replay"),
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
SECTIONS = ("prepare", "train", "evaluate", "filter_errors", "teacher_augment", "dedupe", "promote")


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
    """What is fixed when the pipeline is compiled, by the words in which a run's parameters are held against it."""
    return {
        "filter_errors_settings.selection": config.filter_errors.selection,
        "filter_errors_settings.folds": config.filter_errors.folds,
        "filter_errors_settings.auto_above": config.filter_errors.auto_above,
        "train_settings.start_from": config.train.start_from,
        "train_settings.nodes": config.train.nodes,
        "evaluate_settings.backend": config.evaluate.backend,
        "evaluate_settings.shards": config.evaluate.shards,
        "promote_settings.only_if_new": config.promote.only_if_new,
        "whether there is a registry": bool(config.promote.registry),
        "whether there are replay rows": bool(config.data.replay),
        "whether the teacher is the student": config.teacher_augment.needs_student,
        "the image that the teacher needs": config.teacher_image,
        "max_iterations": config.max_iterations,
        "images": config.images.model_dump(),
    }


def check_compiled(config: Config, compiled: Mapping[str, Any]) -> None:
    """Holds a run's config against what its pipeline was compiled with.

    Raises:
        UserError: It asks for more iterations, or for anything else that would be another pipeline.
    """
    if config.max_iterations > compiled["max_iterations"]:
        raise UserError(
            f"max_iterations: {config.max_iterations} is more than the {int(compiled['max_iterations'])} that the "
            "pipeline was compiled with; lower it, or compile the config again with a higher max_iterations"
        )
    for where, now in compiled_settings(config).items():
        if where not in ("max_iterations", "images") and now != compiled[where]:
            raise UserError(
                f"{where}: {now!r}, but the pipeline was compiled with {compiled[where]!r}; compile it again"
            )


def configure_run(name: str, compiled: Mapping[str, Any], parameters: Mapping[str, Any], artifact: Artifact) -> None:
    """The body of the component `configure`: checks a run's parameters and writes the config to `artifact`, as JSON.

    Raises:
        SystemExit: For anything that `from_parameters` and `check_compiled` find.
    """
    with stage_lifecycle("configure", outputs={"config": artifact}):
        # Kubeflow hands mappings over in an order of its own; the file is to be the same each time.
        parameters = json.loads(json.dumps(dict(parameters), sort_keys=True))
        config = from_parameters(name, parameters, ImageSettings.load(compiled["images"], "images"))
        check_compiled(config, compiled)
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
    shipped = shipped_configs()
    if source in shipped and not path.is_file():  # an output folder is often called like its config
        path = shipped[source]
    elif not path.exists():
        raise UserError(
            f"{source}: no such file, and no shipped config ({', '.join(shipped)}){did_you_mean(source, shipped)}"
        )
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _KeysOnce)  # noqa: S506  # a SafeLoader
    except OSError as problem:
        raise UserError(f"cannot read {source}: {problem.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise UserError(f"{source}: not YAML: {problem}") from None
    if not isinstance(values, dict):
        raise UserError(f"{source}: a config is a mapping of keys to values")
    for override in overrides:
        _override(values, override)
    _inline_prompts(values, path.resolve().parent)
    if resolve:
        _resolve_paths(values, path.resolve().parent)
    return check_config(values, path.name)


class _KeysOnce(yaml.SafeLoader):
    """Refuses a key that stands twice in one mapping: the last would win, and a budget in the first be lost."""

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            if (key.tag, str(key.value)) in seen:
                raise yaml.composer.ComposerError(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add((key.tag, str(key.value)))
        return node


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


def _inline_prompts(values: dict[str, Any], folder: Path) -> None:
    """Puts the texts of prompts in the place of their files' names: a cluster has no such files, and a changed prompt
    is another config."""
    augment = values.get("teacher_augment")
    prompts = augment.get("prompts") if isinstance(augment, dict) else None
    if not isinstance(prompts, dict):
        return
    for name, prompt in prompts.items():
        if not isinstance(prompt, str) or "\n" in prompt:
            continue
        try:
            prompts[name] = (folder / Path(prompt).expanduser()).read_text(encoding="utf-8")
        except OSError as problem:
            raise UserError(f"teacher_augment.prompts.{name}: cannot read {prompt}: {problem.strerror}") from None
        except UnicodeDecodeError:
            raise UserError(f"teacher_augment.prompts.{name}: {prompt} is not UTF-8 text") from None


_FILES = (("data", "seeds"), ("data", "validation"), ("data", "test"), ("data", "pool"), ("data", "replay"),
          ("teacher_augment", "grammar"), ("teacher_augment", "eda_synonyms"))  # fmt: skip
"""Files, or names of data sets."""
_ASKED = (("teacher_augment",), ("teacher_augment", "verification", "by"), ("evaluate", "judge"))
"""Models that are asked, beside those in `teacher_augment.teachers`."""
_PLACES = (("teacher_augment", "ledger"), ("train", "checkpoint_uri"), ("promote", "registry"),
           ("evaluate", "judge", "ledger"), ("prepare", "leak", "semantic", "model"),
           ("dedupe", "leak", "semantic", "model"), ("dedupe", "semantic", "model"))  # fmt: skip
"""Folders, or places in object storage."""


def _resolve_paths(values: dict[str, Any], folder: Path) -> None:
    """Makes relative paths absolute; a name on the hub, which has no such file here, stays."""

    def resolve(within: Any, key: str, is_file: bool = False) -> None:
        value = within.get(key) if isinstance(within, dict) else None
        if isinstance(value, str) and value.startswith("~"):
            within[key] = os.path.expanduser(value)
        elif isinstance(value, str) and value and not value.startswith(("builtin:", "s3://", "minio://", "/")):
            path = folder / value
            if path.exists() or value.startswith(("./", "../")) or (is_file and path.suffix):
                within[key] = str(path)

    for *sections, key in _FILES:
        resolve(_within(values, sections), key, is_file=True)
    if values.get("student") != SCRATCH:
        resolve(values, "student")
    several = _within(values, ["teacher_augment", "teachers"])
    for asked in [*(_within(values, where) for where in _ASKED), *(several if isinstance(several, list) else [])]:
        if isinstance(asked, dict) and asked.get("teacher") in IN_POD:  # at an endpoint it is a name, not a folder
            named = asked.get("model")
            resolve(asked, "model")
            for prices in (_within(values, (*_ASKED[0], "prices")), _within(values, (*_ASKED[-1], "prices"))):
                if isinstance(prices, dict) and isinstance(named, str) and named in prices:
                    prices.setdefault(asked["model"], prices[named])
    for *sections, key in _PLACES:
        within = _within(values, sections)
        uri = within.get(key) if isinstance(within, dict) else None
        if isinstance(uri, str) and uri and "://" not in uri:
            within[key] = str(folder / Path(uri).expanduser())


def _within(values: Any, sections: Iterable[str]) -> Any:
    """The value of a key inside sections; None where one of them is no mapping."""
    for section in sections:
        values = values.get(section) if isinstance(values, dict) else None
    return values
