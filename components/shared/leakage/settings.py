"""Settings of the firewall and of comparing by meaning."""

from typing import Any

from pydantic import Field, model_validator

from llm2llm.components.shared.base.settings import Settings
from llm2llm.components.shared.tasks.forms import FORMS, forms_with
from llm2llm.components.shared.tasks.forms.base import ROUGE_L


class SemanticSettings(Settings):
    """Comparing by meaning. It never decides alone: of two rows with close embeddings the words must be alike as well,
    and in a numeric task the numbers the same, or one is no copy of the other."""

    model: str
    """Folder of an embedding model: sentence-transformers (needs the extra `train`) or Model2Vec. In a cluster it lies
    in the model cache, and `placement.stages.dedupe.image` names an image with the library, such as `train`."""
    threshold: float = Field(0.9, gt=0, le=1)
    """Cosine of two embeddings from which on they are close."""
    rouge_l: float = Field(0.5, gt=0, le=1)
    """The second evidence: ROUGE-L F1 that two rows with close embeddings must have as well."""


class LeakSettings(Settings):
    """The firewall against validation and test; a row leaks if any check catches it. `leak: 0.9` is short for
    `leak: {rouge_l: 0.9}`."""

    rouge_l: float | None = Field(
        None,
        gt=0,
        le=1,
        description="ROUGE-L F1 from which a row leaks; None: "
        + ", ".join(f"{form.leak_rouge_l} for {name}" for name, form in FORMS.items())
        + f". In {' and '.join(forms_with('masks_numbers'))} tasks numbers are masked: a test question with other "
        "numbers in it leaks. There a row of fewer than 8 words besides its numbers is compared as it stands, from "
        f"{ROUGE_L} on.",
    )
    ngram: int = Field(13, ge=0, le=100)
    """Words in a row that two texts share only if one has it from the other; fewer for short rows. 0: not looked
    for."""
    ngram_share: float = Field(0.2, gt=0, le=1)
    """A row leaks if it holds this share of the n-grams of a validation or test row, wherever they stand in it."""
    semantic: SemanticSettings | None = None
    """Compares by meaning as well; None: not."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, value: Any) -> Any:
        return {"rouge_l": value} if isinstance(value, (int, float)) and not isinstance(value, bool) else value

    def rouge_l_for(self, form: str | None, is_template: bool) -> float:
        """The threshold for a row that is a template without its numbers, or is none; form None: no task is known."""
        if self.rouge_l is not None:
            return self.rouge_l
        if form is None or (FORMS[form].masks_numbers and not is_template):
            return ROUGE_L
        return FORMS[form].leak_rouge_l
