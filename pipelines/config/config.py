"""A run's config: one typed class, made of the sections of the stages."""

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from llm2llm.components import images
from llm2llm.components.controls.settings import ControlSettings
from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.filter_errors.settings import FilterErrorsSettings, needs
from llm2llm.components.notify.settings import NotifySettings
from llm2llm.components.prepare.settings import DataSettings, PrepareSettings
from llm2llm.components.promote.settings import PromoteSettings
from llm2llm.components.report.settings import ReportSettings
from llm2llm.components.shared.base.settings import RandomSeed, Settings
from llm2llm.components.shared.inference.settings import AnswerSettings, check_mode
from llm2llm.components.shared.judge.settings import check_judge
from llm2llm.components.shared.llm.backends import BACKENDS
from llm2llm.components.shared.llm.settings import IN_POD, Budget, ModelSettings, TeacherSettings
from llm2llm.components.shared.tasks import FORMS, Task
from llm2llm.components.shared.tasks.threshold import check_threshold
from llm2llm.components.shared.training.settings import CLASSIFIER, SCRATCH, FineTuneSettings
from llm2llm.components.shared.training.settings import check_task as check_training
from llm2llm.components.stages import STAGES
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings, check_task
from llm2llm.components.tune.settings import TuneSettings
from llm2llm.pipelines.config.placement import check_devices
from llm2llm.pipelines.config.placement_settings import PlacementSettings


class ImageSettings(Settings):
    """The `images` section: one image for each dependency world."""

    cpu: str = images.CPU
    """configure, prepare, detect_changes, filter_errors, teacher_augment, dedupe, report."""
    train: str = images.TRAIN
    """train, tune, evaluate, predict, out_of_fold, controls, promote; teacher_augment when its teacher is a model that
    transformers loads."""
    vllm: str = images.VLLM
    """evaluate and predict with `evaluate.backend: vllm`; teacher_augment when its teacher is a model that vLLM
    loads."""


class Config(Settings):
    """Everything that a run is asked to do."""

    name: str = Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,60}[a-z0-9])?$")
    """The pipeline's name: lower-case letters, digits and dashes inside, at most 62 of them."""
    max_iterations: int = Field(3, ge=1, le=50)
    """Iterations after iteration 0, the one that is trained on the seeds alone. The pipeline is compiled this deep."""
    random_seed: RandomSeed = 0
    """Decides every draw: which rows are seeds, folds, weights, order of rows."""
    student: str = Field(min_length=1)
    """The model to fine-tune: a Hugging Face name, a folder, or `scratch`."""
    task: Task
    """A shipped task's name (gsm8k, casehold, snips, trec, sst2), or a task of your own."""
    data: DataSettings
    prepare: PrepareSettings = PrepareSettings()
    train: FineTuneSettings = FineTuneSettings()
    tune: TuneSettings = TuneSettings()
    evaluate: AnswerSettings = AnswerSettings()
    filter_errors: FilterErrorsSettings = FilterErrorsSettings()
    teacher_augment: TeacherAugmentSettings
    dedupe: DedupeSettings = DedupeSettings()
    controls: ControlSettings = ControlSettings()
    report: ReportSettings = ReportSettings()
    promote: PromoteSettings = PromoteSettings()
    notify: NotifySettings = NotifySettings()
    images: ImageSettings = ImageSettings()
    placement: PlacementSettings = PlacementSettings()
    """Where the stages run in a cluster; says nothing to a run on this machine."""

    @model_validator(mode="before")
    @classmethod
    def _mode_of_head(cls, values: Any) -> Any:
        """A classifier has labels to score and nothing else: `evaluate.mode` need not be said."""
        if not isinstance(values, Mapping) or not isinstance(train := values.get("train"), Mapping):
            return values
        evaluate = values.get("evaluate", {})
        if train.get("head") != CLASSIFIER or not isinstance(evaluate, Mapping):
            return values
        return {**values, "evaluate": {"mode": "score", **evaluate}}

    @model_validator(mode="after")
    def _sections_fit(self) -> Self:
        if self.student == SCRATCH and self.train.adapts:
            raise ValueError(
                f"train.method {self.train.method!r} adapts a pretrained model, and student 'scratch' has random "
                "weights: set train.method: full, or name a pretrained student"
            )
        augment = self.teacher_augment
        draws = self.prepare.seed_count > 0 or self.prepare.seed_fraction < 1
        if self.draws_from_pool and not self.data.pool and not draws:
            raise ValueError(
                f"teacher_augment.teacher {augment.teacher!r} has nothing to draw from: set data.pool, or draw some of "
                "the rows as seeds with prepare.seed_count, so that the rest is the pool"
            )
        offline = augment.offline_teacher
        if offline is not None and (unfit := offline.unfit(self.task)):
            raise ValueError(f"teacher_augment.teacher {augment.teacher!r} {unfit}")
        for key, values in needs(self.filter_errors).items():
            section, name = key.split(".")
            found = getattr(getattr(self, section), name)
            if found not in values:
                raise ValueError(
                    f"filter_errors.selection {self.filter_errors.selection!r} needs {key} to be "
                    f"{' or '.join(map(repr, values))}, and it is {found!r}; set it, or choose another selection"
                )
        if self.train.class_weights == "balanced" and not FORMS[self.task.form].has_classes:
            raise ValueError(
                f"train.class_weights 'balanced' weighs labels or choices, and task {self.task.name!r} has neither "
                f"(form {self.task.form!r}); use class_weights: none"
            )
        try:
            check_training(self.train, self.task)
        except ValueError as problem:
            raise ValueError(f"train.{problem}") from None
        if self.student == SCRATCH and self.train.distill.model:
            raise ValueError(
                f"train.distill.model: {self.train.distill.model!r} has a vocabulary of its own, and student 'scratch' "
                "learns one from the seeds; name a pretrained student of the teacher's family, or remove it"
            )
        self.tune.check(self.train)
        if self.train.classifies:
            self._check_classifier()
        if self.controls.steps and self.train.nodes > 1:
            raise ValueError(
                f"controls.steps true trains in one pod, and train.nodes is {self.train.nodes}; remove it, or set "
                "train.nodes: 1"
            )
        if self.controls.untrained and self.student == SCRATCH:
            raise ValueError(
                "controls.untrained: a student from scratch knows nothing before its training; name a pretrained one, "
                "or remove the key"
            )
        self._check_ceiling()
        try:
            check_mode(self.task, self.evaluate)
            check_judge(self.task, self.evaluate.judge)
            check_threshold(self.task, self.evaluate.threshold, self.evaluate.mode)
        except ValueError as problem:
            raise ValueError(f"evaluate.{problem}") from None
        if self.promote.guards and self.student == SCRATCH:
            raise ValueError(
                "promote.guards: a student from scratch has nothing to forget; name a pretrained one, or remove them"
            )
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
        filling = next((teacher for teacher, _ in self.in_pod if BACKENDS[teacher].fills_gpu), None)
        if self.placement.profile and filling and not gpus:
            raise ValueError(
                f"placement.stages.teacher_augment: teacher {filling!r} runs in the stage's own pod and needs a GPU "
                "there; set accelerator and gpus, or serve the model behind an endpoint (teacher openai)"
            )
        asking = self.evaluate
        answering = asking.gpus if asking.backend == "vllm" or asking.gpus > 1 else 0
        train = self.train
        check_devices(self.placement, train.gpus, train.nodes, train.checkpoint_uri, answering, asking.shards)
        return self

    def _check_classifier(self) -> None:
        """Refuses what needs a student that writes."""
        augment, evaluate, serve = self.teacher_augment, self.evaluate, self.promote.serve
        for key, found, is_set, fix in (
            ("evaluate.mode", evaluate.mode, evaluate.mode != "score", "set evaluate.mode: score"),
            ("evaluate.backend", evaluate.backend, evaluate.backend == "vllm", "set evaluate.backend: transformers"),
            ("evaluate.max_new_tokens", evaluate.max_new_tokens, evaluate.max_new_tokens > 0, "remove it"),
            ("evaluate.gpus", evaluate.gpus, evaluate.gpus > 1, "set evaluate.gpus: 1, and evaluate.shards if need be"),
            ("controls.untrained", True, self.controls.untrained is True, "remove it"),
            ("promote.guards", "rows of other tasks", bool(self.promote.guards), "remove them"),
            ("promote.serve.kind", serve.kind, serve.kind == "llm_inference_service", "set it to inference_service"),
            (
                "teacher_augment.strategy",
                augment.strategy,
                augment.chosen_strategy.asks == "student",
                "choose a strategy that a teacher writes for",
            ),
        ):
            if is_set:
                raise ValueError(
                    f"{key}: {found!r} needs a student that writes, and train.head is 'classifier'; {fix}, or set "
                    "train.head: language_model"
                )

    def _check_ceiling(self) -> None:
        """Refuses a share of the teacher's budget for a ceiling that cannot be measured."""
        if not self.controls.teacher_share:
            return
        augment, asked = self.teacher_augment, self.ceiling_teacher
        if asked is None:
            raise ValueError(
                f"controls.teacher_share: teacher {augment.teacher!r} and strategy {augment.strategy!r} ask no "
                "language model but the student; remove the key"
            )
        if BACKENDS[asked.teacher].fills_gpu:
            raise ValueError(
                f"controls.teacher_share: teacher {asked.teacher!r} would take the memory of the GPU that the student "
                "is in; serve it behind an endpoint (teacher openai), or remove the key"
            )
        if augment.budget == Budget():
            raise ValueError(
                f"controls.teacher_share: {self.controls.teacher_share:g} of no budget; set teacher_augment.budget"
            )

    @property
    def ceiling_teacher(self) -> TeacherSettings | None:
        """The language model that stage `controls` asks as the ceiling; None where it asks none."""
        augment = self.teacher_augment
        if not self.controls.teacher_share or not augment.asks_models or augment.needs_student:
            return None
        if augment.teachers:
            return max(augment.teachers, key=lambda one: one.weight)
        own = {key: getattr(augment, key) for key in ModelSettings.model_fields}
        return TeacherSettings(teacher=augment.teacher, **own)

    def image_of(self, stage: str) -> str:
        """The image that a stage runs in, unless its placement names one of its own."""
        kind: str = STAGES[stage].image
        if kind == "teacher":
            # vLLM's has transformers as well, and every image has what an endpoint takes.
            needed = {BACKENDS[teacher].image for teacher, _ in self.in_pod}
            kind = next((image for image in ("vllm", "train") if image in needed), "cpu")
        elif kind == "student":
            kind = "vllm" if self.evaluate.backend == "vllm" else "train"
            if stage == "evaluate" and self.evaluate.shards > 1:  # then the shards are asked, in predict
                kind = "cpu"
        return str(getattr(self.images, kind))

    @property
    def notifies(self) -> bool:
        """Whether somebody is told how a run ends."""
        return self.notify.kind != "none"

    @property
    def has_controls(self) -> bool:
        """Whether the loop has stage `controls`."""
        return self.controls.any_wanted(self.train, self.student, self.task)

    @property
    def reports_each_iteration(self) -> bool:
        """Whether the loop has a report after each iteration."""
        return self.report.each_iteration is not False

    @property
    def draws_from_pool(self) -> bool:
        """Whether the teacher is the pool of labelled rows."""
        offline = self.teacher_augment.offline_teacher
        return offline is not None and offline.draws_from_pool

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
