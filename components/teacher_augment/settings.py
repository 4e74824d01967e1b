"""Settings of `teacher_augment`."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from llm2llm.components.shared.base.settings import RandomSeed, Settings, StageSettings, in_words, one_of
from llm2llm.components.shared.llm.backends import BACKENDS
from llm2llm.components.shared.llm.settings import (
    IN_POD,
    Budget,
    ModelSettings,
    Price,
    TeacherSettings,
    check_model,
    check_prices,
)
from llm2llm.components.shared.tasks import AnyTask, Task
from llm2llm.components.teacher_augment.checks import Check
from llm2llm.components.teacher_augment.label_logprobs import check_labels
from llm2llm.components.teacher_augment.offline import OFFLINE
from llm2llm.components.teacher_augment.offline.base import OfflineTeacher
from llm2llm.components.teacher_augment.prompt_files import check_prompts
from llm2llm.components.teacher_augment.strategies import STRATEGIES
from llm2llm.components.teacher_augment.strategies.base import Strategy


class SkillsSettings(Settings):
    """For strategy `skills`."""

    most: int = Field(12, ge=2, le=50)
    """How many skills the teacher may name."""
    shown: int = Field(30, ge=1, le=200)
    """How many seeds it is shown when it names them."""
    labelled_at_once: int = Field(10, ge=1, le=50)
    """How many seeds it is given in one request to say which skills they need."""
    examples: int = Field(3, ge=1, le=20)
    """How many examples of a skill it is shown when it writes for the skill."""


class ContrastSettings(Settings):
    """For strategy `contrast`."""

    examples: int = Field(3, ge=1, le=50)
    """How many seeds of each of the two labels the teacher is shown."""
    neighbours: int = Field(3, ge=1, le=100)
    """How many seeds of each label, the nearest, say how like the label a row is."""
    margin: float = Field(0.0, ge=0, lt=1)
    """By how much of its cosine a row may be more like another label than like its own without being ambiguous; rows
    on a border are like both."""
    rewrites: int = Field(1, ge=0, le=5)
    """How often a row that is ambiguous is written anew before it is dropped; each time is a call."""


class VerificationSettings(Settings):
    """How generated rows are verified, where `verify` says so."""

    by: TeacherSettings | None = None
    """Who verifies; None: the teacher that wrote the row."""
    samples: int = Field(3, ge=1, le=50)
    """How often it is asked about each row."""
    temperature: float = Field(0.7, ge=0, le=2)
    """Its sampling temperature."""
    logprobs: bool = False
    """`resolve`, of tasks with labels or choices: the verifier is asked once for the label alone, and what it tells of
    the log-probabilities of its tokens gives the probability of each label, in place of the votes of `samples`. A row
    is kept when that of its answer is `min_agreement` or more; it is the row's `confidence`, and with
    `train.soft_labels` all of them are the target. It is asked at temperature 0. Teacher `openai` only: an endpoint
    that tells none ends the run, and preflight finds it. Of a model that thinks first they are those after its
    thoughts. No label may begin another."""
    min_agreement: float = Field(0.6, gt=0, le=1)
    """`resolve`: a row is kept when at least this share of the blind solutions has its answer."""
    min_confidence: float = Field(0.8, gt=0, le=1)
    """`judge`: a row is corrected or dropped when the judge is at least this sure that its answer is wrong."""
    student_unsure: float = Field(1.0, gt=0, le=1)
    """Two-sided gate (LLKD, Li et al. 2024: teacher sure, student unsure): only this share of the errors, those that
    the student is least sure of, are written from. The student's doubt is that about the parent: its `hardness`, as far
    as the selection knows one, and errors whose answers were all right or right but for their form are never
    doubtful."""


class TeacherAugmentSettings(ModelSettings):
    """The `teacher_augment` section of a config."""

    teacher: Annotated[str, one_of(BACKENDS, OFFLINE)] = Field(
        "openai", description=f"Who writes. Language models: {in_words(BACKENDS)}. Offline: {in_words(OFFLINE)}."
    )
    strategy: Annotated[str, one_of(STRATEGIES)] = Field(
        "llm2llm", description=f"What is asked for: {in_words(STRATEGIES)}."
    )
    examples_per_error: int = Field(1, ge=1, le=100)
    """New rows for each error (the paper: 1)."""
    rows_per_iteration: int = Field(0, ge=0)
    """When above 0: this many rows are to be kept, spread evenly over the errors, instead of `examples_per_error` each,
    so that runs can be compared at the same number of added rows. A row counts when it has passed this stage's checks
    and is no copy of one in the training set; a language model is asked again for those that did not, at most
    `attempts` times, within the budget, and never for more. What `dedupe` drops later as a near-duplicate or a leak is
    not asked for again."""
    rows_per_call: int = Field(4, ge=1, le=100)
    """The most rows that a language model is asked for in one request."""
    attempts: int = Field(3, ge=1, le=20)
    """How often a language model is asked for the same until its answer can be used; with `rows_per_iteration` also how
    often rows that were rejected are asked for. An answer that is cut off, empty,
    a refusal or not of the form asked for cannot. Busy and broken servers are another matter: see `tries`."""
    ask_again_above: float | None = Field(None, gt=0, le=1)
    """A language model's row whose question has this ROUGE-L F1 with one of the training set, or one written before it,
    is a near copy and is asked for again, of the same parent, at most `attempts` times (the reference implementation of
    LLM2LLM: above 0.95, until there is one that is none). Numbers are not masked here. Null: near copies are left to
    `dedupe`, and nothing is asked again for them."""
    max_failed_fraction: float = Field(0.1, ge=0, le=1)
    """The stage fails when more than this share of the requested rows did not come in a form that can be used."""

    teachers: list[TeacherSettings] = Field(default=[])
    """Several language models that share the requests by their weights, instead of the one above."""
    agree: int = Field(0, ge=0)
    """With several teachers (Ensemble-Instruct, Lee et al. 2023): keep a row when at least this many of them, its
    writer among them, give its answer, the others without having seen it. 0: do not ask the others."""

    checks: list[Check] = Field(
        default=["arithmetic", "given_away", "boilerplate", "control_tokens", "length", "script"]
    )
    """What a language model's rows are checked for beside a valid answer. `arithmetic`: every annotation and stated
    equation of a numeric rationale holds, and it ends at the answer; `given_away`: the question does not tell its
    answer; `boilerplate`: no "Sure, here is ..."; `control_tokens`: none of a chat template; `length`: within three
    times that of the seeds; `script`: no letters of a script that the seeds do not use."""
    verify: Literal["none", "resolve", "judge"] = "none"
    """`resolve`: the question is solved blind, several times, and the row kept when enough solutions have its answer;
    `judge` (CLEAR, Chen and Mueller 2024): the row is judged, and corrected or dropped where the judge is sure."""
    verification: VerificationSettings = VerificationSettings()
    """How."""

    ledger: str = ""
    """Where answers that were paid for are kept and found again: a folder or an `s3://` prefix, which any number of
    runs may share. Empty: they are forgotten at the end of the stage."""
    cache: bool = True
    """Whether answers that other runs have paid for are used."""
    budget: Budget = Budget()
    """What the run may spend on teachers, in all its iterations."""
    prices: dict[str, Price] = Field(default={})
    """Model -> what it costs; `student` for the student in this pod, which costs nothing unless it stands here."""
    prompts: dict[str, str] = Field(default={})
    """Prompts of your own: the name of a shipped prompt -> a file, or the text itself (which has line breaks)."""

    skills: SkillsSettings = SkillsSettings()
    """`skills` only."""
    contrast: ContrastSettings = ContrastSettings()
    """`contrast` only."""
    grammar: str | dict[str, Any] | None = None
    """`grammar` only: the YAML file, `builtin:...`, or its content."""
    eda_share: float = Field(0.1, gt=0, le=1)
    """`eda` only: the share of words that one edit changes (the paper's alpha)."""
    eda_synonyms: str | None = None
    """`eda` only: a YAML file `word: [synonyms]`. Without one only swaps and deletions are made."""

    @property
    def chosen_strategy(self) -> Strategy:
        """What `strategy` names."""
        return STRATEGIES[self.strategy]

    @property
    def asks_again(self) -> bool:
        """Whether a language model is asked for other rows in the place of those that were rejected."""
        return self.asks_models and (self.rows_per_iteration > 0 or self.ask_again_above is not None)

    @property
    def asks_models(self) -> bool:
        """Whether language models write, rather than an offline teacher or nobody."""
        return self.chosen_strategy.asks != "nobody" and (self.teacher in BACKENDS or bool(self.teachers))

    @property
    def offline_teacher(self) -> OfflineTeacher | None:
        """The teacher without a language model that writes, if one does."""
        return None if self.asks_models or self.chosen_strategy.asks == "nobody" else OFFLINE[self.teacher]

    @property
    def needs_student(self) -> bool:
        """Whether the stage loads the student of the iteration before, to ask it."""
        return self.chosen_strategy.asks == "student" and self.teacher in IN_POD

    @model_validator(mode="after")
    def _fits(self) -> Self:
        check_prompts(self.prompts)
        if self.verify == "none" and self.verification != VerificationSettings():
            raise ValueError("verification: set, but verify is 'none'; set verify to resolve or judge, or remove it")
        if self.chosen_strategy.keeps_question and (self.verify != "none" or self.agree):
            raise ValueError(
                f"verify: strategy {self.strategy!r} keeps the question and the right answer of a seed, so there is "
                "nothing to verify; remove verify and agree"
            )
        if not self.asks_models:
            self._check_offline()
        elif self.teachers:
            self._check_several()
        elif self.needs_student:
            if self.model:
                raise ValueError(
                    f"model: strategy {self.strategy!r} with teacher {self.teacher!r} asks the student of the "
                    f"iteration before, not {self.model!r}; remove model"
                )
        elif self.chosen_strategy.asks == "student" and not self.model:
            raise ValueError(
                f"teacher: strategy {self.strategy!r} asks the student itself; set teacher to {_listed(IN_POD)}, or "
                "set model to the name under which an endpoint serves the student"
            )
        else:
            check_model(self, self.teacher)
        self._check_logprobs()
        if self.agree and not self.teachers:
            raise ValueError("agree: needs several teachers to agree; list them in teachers")
        self._check_graphics_memory()
        billed = [one.model for teacher, one in self._asked() if teacher not in IN_POD]
        check_prices(billed, self.prices, self.budget)
        return self

    def _check_offline(self) -> None:
        if self.ask_again_above is not None:
            raise ValueError(f"ask_again_above: only a language model is asked again, and teacher is {self.teacher!r}")
        if self.offline_teacher is None:
            who = f"strategy {self.strategy!r}"
        else:
            who = f"teacher {self.teacher!r}"
            if not self.chosen_strategy.fits_offline:
                fitting = [name for name, strategy in STRATEGIES.items() if strategy.fits_offline]
                raise ValueError(
                    f"strategy: {self.strategy!r} needs a language model, and teacher is {self.teacher!r}; set teacher "
                    f"to {_listed(BACKENDS)}, or strategy to {_listed(fitting)}"
                )
            self.offline_teacher.check(self)
        if self.verify != "none" and self.verification.by is None:
            raise ValueError(
                f"verify: {self.verify!r}, but {who} is no language model that could verify; set verification.by"
            )

    def _check_several(self) -> None:
        if self.chosen_strategy.asks == "student":
            raise ValueError(f"teachers: strategy {self.strategy!r} asks the student alone; remove teachers")
        if self.teacher in OFFLINE:
            raise ValueError(f"teacher: {self.teacher!r} and teachers are both given; remove one of them")
        if self.model:
            raise ValueError(f"model: {self.model!r} and teachers are both given; remove one of them")
        names = [f"{one.teacher}:{one.model}" for one in self.teachers]
        if twice := [name for name in names if names.count(name) > 1]:
            raise ValueError(
                f"teachers: {twice[0]!r} is listed twice, and rows could not tell one from the other; list it once"
            )
        if self.agree and not 2 <= self.agree <= len(self.teachers):
            raise ValueError(f"agree: from 2 to the number of teachers, {len(self.teachers)}, got {self.agree}")
        if self.agree and self.verify == "resolve":
            raise ValueError("agree: the other teachers solve each row blind, and so does verify 'resolve'; choose one")

    def _asked(self) -> list[tuple[str, ModelSettings]]:
        """(teacher, settings) of every language model that is asked."""
        models: list[tuple[str, ModelSettings]] = [(one.teacher, one) for one in self.teachers]
        if self.asks_models and not self.teachers:
            models.append((self.teacher, self))
        if self.verify != "none" and self.verification.by is not None:
            models.append((self.verification.by.teacher, self.verification.by))
        return models

    @property
    def logprob_tellers(self) -> list[tuple[str, ModelSettings]]:
        """(teacher, settings) of the models that are asked for log-probabilities."""
        if self.verify != "resolve" or not self.verification.logprobs:
            return []
        by = self.verification.by
        return [(by.teacher, by)] if by is not None else self._asked()

    def _check_logprobs(self) -> None:
        wanted = self.verification
        if not wanted.logprobs:
            return
        if self.verify != "resolve":
            raise ValueError(f"verification.logprobs: for verify 'resolve', and verify is {self.verify!r}; remove it")
        if wanted.samples != VerificationSettings().samples:
            raise ValueError("verification.samples: with logprobs each row is asked about once; remove samples")
        for teacher, _ in self.logprob_tellers:
            if not BACKENDS[teacher].tells_logprobs:
                able = _listed([name for name, one in BACKENDS.items() if one.tells_logprobs])
                raise ValueError(
                    f"verification.logprobs: teacher {teacher!r} tells no log-probabilities; serve the model behind an "
                    f"endpoint and ask it as teacher {able}, or set logprobs: false"
                )

    def _check_graphics_memory(self) -> None:
        """An engine takes nearly all memory of a GPU, so a pod has room for one model."""
        filling = {one.identity(teacher): teacher for teacher, one in self._asked() if BACKENDS[teacher].fills_gpu}
        if len(filling) > 1:
            names = _listed([repr(name) for name in BACKENDS if name in filling.values()])
            raise ValueError(
                f"teachers: {len(filling)} different models with teacher {names} do not fit into one pod's GPUs; serve "
                "all but one behind an endpoint (teacher openai), or use transformers"
            )


class TeacherAugmentStage(StageSettings):
    """The settings of stage `teacher_augment`."""

    task: AnyTask
    teacher_augment: TeacherAugmentSettings
    random_seed: RandomSeed = 0
    """Decides which seeds and patterns are drawn."""


def check_task(settings: TeacherAugmentSettings, task: Task) -> None:
    """Refuses a strategy or an offline teacher that has nothing to write for a task.

    Raises:
        ValueError: Names the key and the fix.
    """
    if unfit := settings.chosen_strategy.unfit(task):
        raise ValueError(f"strategy: {settings.strategy!r} {unfit}")
    if settings.verification.logprobs:
        check_labels(task)


def _listed(names: Iterable[str]) -> str:
    """a, b or c."""
    *others, last = names
    return f"{', '.join(others)} or {last}" if others else last
