"""What can be set about `dedupe`."""

from pydantic import Field

from llm2llm.components.shared.base.settings import Settings, StageSettings
from llm2llm.components.shared.leakage.settings import LeakSettings, SemanticSettings
from llm2llm.components.shared.tasks import AnyTask


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
