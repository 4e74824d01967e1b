"""What can be set about `filter_errors`."""

from typing import Literal

from pydantic import Field

from llm2llm.components.settings import Settings


class FilterErrorsSettings(Settings):
    """The `filter_errors` section of a config."""

    selection: Literal["wrong", "out_of_fold"] = "wrong"
    """`wrong`: the seeds that the student gets wrong (the paper). `out_of_fold`: the seeds that students trained
    without their fold get wrong, for a student that has learnt its seeds by heart. Fixed when the pipeline is
    compiled."""
    folds: int = Field(3, ge=2, le=20)
    """`out_of_fold`: how many folds, and so how many more students are trained in each iteration. Fixed when the
    pipeline is compiled."""
    patience: int = Field(0, ge=0)
    """Stop when the best validation accuracy is this many iterations old; 0: never for this reason."""
