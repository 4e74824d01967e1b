"""What can be set about `dedupe`."""

from pydantic import Field

from llm2llm.components.settings import Settings


class DedupeSettings(Settings):
    """The `dedupe` section of a config."""

    near_copy: float = Field(0.95, gt=0, le=1)
    """ROUGE-L F1 from which a generated row is a near copy of a training row or another generated row (the paper's)."""
    leak: float = Field(0.9, gt=0, le=1)
    """ROUGE-L F1 from which a generated row matches a validation or test row; stricter than `near_copy`, because a
    leak spoils every score."""
