"""What can be set about `teacher_augment`."""

from typing import Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from llm2llm.components.settings import Settings


class TeacherAugmentSettings(Settings):
    """The `teacher_augment` section of a config."""

    teacher: Literal["grammar", "pool", "openai"] = "openai"
    """Who writes: `openai` (any OpenAI-compatible chat endpoint), `grammar` (a YAML file of patterns and slots; offline
    and deterministic) or `pool` (takes the most similar unused rows of a labelled pool: the stand-in for an ideal
    teacher in experiments)."""
    strategy: Literal["llm2llm", "random", "eda"] = "llm2llm"
    """What to write from: `llm2llm` the errors (the paper); `random` the same number of seeds drawn at random, the
    control; `eda` edits of the errors' own words without a teacher (Wei and Zou 2019), the baseline."""
    examples_per_error: int = Field(1, ge=1, le=100)
    """New rows for each error (the paper: 1)."""
    rows_per_iteration: int = Field(0, ge=0)
    """When above 0: write exactly this many rows, spread evenly over the errors, instead of `examples_per_error` each,
    so that runs can be compared at the same number of added rows."""
    max_failed_fraction: float = Field(0.1, ge=0, le=1)
    """The stage fails when more than this share of the requested rows did not come back usable."""

    grammar: str | dict[str, Any] | None = None
    """`grammar` only: the YAML file, `builtin:...`, or its content."""

    model: str = ""
    """`openai` only: the model's name at the endpoint."""
    url: str = "https://api.openai.com/v1"
    """`openai` only: the endpoint's base URL."""
    api_key_env: str = "OPENAI_API_KEY"
    """`openai` only: the environment variable that holds the key. The key itself is never a setting."""
    temperature: float = Field(0.7, ge=0, le=2)
    """`openai` only: sampling temperature."""
    max_tokens: int = Field(2048, ge=16)
    """`openai` only: the longest answer, in tokens."""
    concurrency: int = Field(16, ge=1, le=1024)
    """`openai` only: requests in flight at once."""
    timeout: float = Field(120, gt=0)
    """`openai` only: seconds until a request counts as failed."""
    attempts: int = Field(4, ge=1)
    """`openai` only: how often a request is made before it counts as failed; 429 and 5xx are waited out."""

    eda_share: float = Field(0.1, gt=0, le=1)
    """`eda` only: the share of words that one edit changes (the paper's alpha)."""
    eda_synonyms: str | None = None
    """`eda` only: a YAML file `word: [synonyms]`. Without one only swaps and deletions are made."""

    @model_validator(mode="after")
    def _teacher_has_what_it_needs(self) -> Self:
        if self.strategy == "eda":
            return self
        if self.teacher == "grammar" and self.grammar is None:
            raise ValueError("grammar: missing; teacher 'grammar' needs a grammar file")
        if self.teacher == "openai":
            if not self.model:
                raise ValueError("model: missing; teacher 'openai' needs the name of a model at the endpoint")
            if not self.url.startswith(("http://", "https://")):
                raise ValueError(f"url: must begin with http:// or https://, got {self.url!r}")
            if "@" in urlsplit(self.url).netloc:
                raise ValueError(
                    "url: holds a user name or password, which would be shown in logs and reports; remove it, and put "
                    f"the key into the environment variable {self.api_key_env}"
                )
        return self
