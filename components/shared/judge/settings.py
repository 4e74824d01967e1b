"""Settings of a judge."""

from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from llm2llm.components.shared.base.settings import in_words, one_of
from llm2llm.components.shared.llm.backends import BACKENDS
from llm2llm.components.shared.llm.settings import IN_POD, Budget, ModelSettings, Price, check_model, check_prices
from llm2llm.components.shared.tasks import Task

BESIDE_A_STUDENT = {name: backend for name, backend in BACKENDS.items() if not backend.fills_gpu}


class JudgeSettings(ModelSettings):
    """The `evaluate.judge` section of a config: a language model that grades open answers."""

    teacher: Annotated[str, one_of(BESIDE_A_STUDENT)] = Field(
        "openai",
        description=f"Who judges: {in_words(BESIDE_A_STUDENT)}. vLLM would take the memory that the student is in: "
        "serve such a judge behind an endpoint.",
    )
    temperature: float | None = Field(0, ge=0, le=2)
    """0, so that the same answer gets the same grade, as far as the endpoint can. null: none is sent, for a model that
    takes none or only its own; its grades then depend on a draw, but the ledger keeps each of them."""
    attempts: int = Field(3, ge=1, le=20)
    """How often it is asked for the same verdict until one can be read. Busy and broken servers are another matter: see
    `tries`."""
    right_from: float = Field(0.7, gt=0, le=1)
    """`task.metric: judge_score` only: from which score on an answer counts as right, for the accuracy and for which
    seeds are errors."""
    max_failed_fraction: float = Field(0, ge=0, le=1)
    """The stage fails when more than this share of the verdicts did not come. An answer without a verdict counts as
    unparseable."""
    ledger: str = ""
    """Where verdicts that were paid for are kept and found again: a folder or an `s3://` prefix, the teacher's ledger
    or another. Empty: they are forgotten at the end of the stage."""
    budget: Budget = Budget()
    """What the judge may cost in one stage's pod, apart from the teacher's budget. Pods that grade at the same time
    cannot know what the others have spent, so the run's bound is this times their number: in each iteration one for
    every shard of `evaluate`, one for every fold, and `promote`. Without a ledger a pod that is tried again may spend
    it again. `llm2llm plan` says what that comes to; the report says what it came to."""
    prices: dict[str, Price] = Field(default={})
    """Model -> what it costs."""

    @field_validator("temperature")
    @classmethod
    def _not_drawn(cls, value: float | None) -> float | None:
        if value:
            raise ValueError(
                "a judge is asked at temperature 0, so that a grade does not depend on a draw; remove it, or set null "
                "for a model that takes no temperature"
            )
        return value

    @model_validator(mode="after")
    def _model_fits(self) -> Self:
        check_model(self, self.teacher)
        check_prices([] if self.teacher in IN_POD else [self.model], self.prices, self.budget)
        return self


def check_judge(task: Task, judge: JudgeSettings | None) -> None:
    """Refuses a task that needs a judge without one, and a judge that nothing needs.

    Raises:
        ValueError: Names the key and the fix.
    """
    if task.match == "judge" and judge is None:
        raise ValueError(
            f"judge: missing; task {task.name!r} has match 'judge', so name a model that judges: judge: {{model: ...}}"
        )
    if judge is not None and task.match != "judge":
        raise ValueError(
            f"judge: set, but task {task.name!r} has match {task.match!r} and needs none; remove it, or set task.match "
            "to judge and task.rubric"
        )
