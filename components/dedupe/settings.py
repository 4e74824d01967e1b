"""Settings of `dedupe`."""

from typing import Literal

from pydantic import Field

from llm2llm.components.shared.base.settings import Settings, StageSettings
from llm2llm.components.shared.leakage.settings import LeakSettings, SemanticSettings
from llm2llm.components.shared.tasks import AnyTask


class CoverageSettings(Settings):
    """Of more new rows than are wanted, those that cover most of all new rows are kept. So that there are more, let the
    teacher write more: `teacher_augment.examples_per_error` or `rows_per_iteration`; what is dropped was paid for."""

    keep: int = Field(ge=1)
    """How many new rows join the training set in an iteration, at most."""
    by: Literal["facility_location", "k_center"] = "facility_location"
    """`facility_location`: rows that stand for many (Wei, Iyer and Bilmes 2015); `k_center`: rows farthest from those
    that are there (Sener and Savarese 2018), outliers first. Rows of the training set cover, too."""
    model: str = ""
    """Folder of an embedding model, as in `semantic`; empty: TF-IDF of the words."""
    weigh_by_hardness: bool = False
    """Whether a row matters by the hardness of the seed that it was written for: the loss that the selection ranked it
    by, out of fold where the folds' students were asked. Rows of seeds without one matter as the mean of the others."""


class DedupeSettings(Settings):
    """The `dedupe` section of a config."""

    exact: bool = True
    """Whether a row goes that has the text of another but for case, white space, Unicode form and punctuation at the
    ends."""
    near_copy: float | None = Field(0.95, gt=0, le=1)
    """ROUGE-L F1 from which a generated row is a near copy of a training row or another generated row (the paper's);
    null: not looked for."""
    mask_numbers: bool = True
    """In a numeric task: whether the same text with other numbers is a new example."""
    max_per_template: int = Field(10, ge=1)
    """In a numeric task: how many rows may differ in their numbers only."""
    exact_up_to: int = Field(50_000, ge=0)
    """Up to so many rows every near copy is found. Beyond, MinHash proposes the pairs: at least 99.5% of the copies in
    expectation, measured in each run; what it proposes is compared exactly."""
    semantic: SemanticSettings | None = None
    """Looks for copies by meaning as well; null: not."""
    coverage: CoverageSettings | None = None
    """Keeps, of more new rows than are wanted, those that cover most; null: every row is kept that is no copy."""
    leak: LeakSettings = LeakSettings()
    """What keeps validation and test rows out; a number is its `rouge_l`."""
    max_leak_fraction: float = Field(0.1, ge=0, le=1)
    """If more than this share of one teacher's candidates match validation or test rows, the stage fails: that teacher
    has seen them. Fewer than 5 rows prove nothing."""


class DedupeStage(StageSettings):
    """The settings of stage `dedupe`."""

    task: AnyTask | None = None
    """Numeric ones are compared without their numbers; without a task nothing is."""
    dedupe: DedupeSettings = DedupeSettings()
