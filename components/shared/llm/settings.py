"""What can be set about a language model that is asked, and about what it may cost."""

import os
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings import Settings, in_words, one_of
from llm2llm.components.shared.llm.backends import BACKENDS

IN_POD = tuple(name for name, backend in BACKENDS.items() if backend.in_pod)
"""Teachers that are a model in the stage's own pod."""


class Price(Settings):
    """What a model costs, in US dollars for a million tokens of normal calls; those of a batch cost half."""

    input: float = Field(ge=0)
    """For what it is sent."""
    output: float = Field(ge=0)
    """For what it writes."""


class Budget(Settings):
    """What one run may spend on its teachers, all iterations and strategies together; None: no limit.

    The limit is hard: the most that a request can cost is set aside before it is sent. Only what a killed process had
    in flight, or had lost to timeouts, is on the bill and in no book: the ledger holds answers.
    """

    usd: float | None = Field(None, ge=0)
    """US dollars, by `prices`."""
    tokens: int | None = Field(None, ge=0)
    """Tokens sent and written."""
    calls: int | None = Field(None, ge=0)
    """Requests."""


class ModelSettings(Settings):
    """A language model that is asked."""

    model: str = ""
    """The model's name at the endpoint; for a model in the stage's own pod a Hugging Face name or a folder."""
    revision: str = ""
    """The model's version, where it has one: part of what the ledger knows a call by. Of a folder: any label; without
    one, a hash of its content."""
    url: str = "https://api.openai.com/v1"
    """`openai` and `batch` only: the endpoint's base URL."""
    api_key_env: str = "OPENAI_API_KEY"
    """`openai` and `batch` only: the environment variable that holds the key. The key itself is never a setting."""
    temperature: float = Field(0.7, ge=0, le=2)
    """Sampling temperature."""
    max_tokens: int = Field(2048, ge=16)
    """The longest answer, in tokens."""
    structured: Literal["auto", "json_schema", "words"] = "auto"
    """How the form of an answer is asked for: by JSON schema, in words, or by schema until the server refuses one.
    `batch` takes `auto` for `json_schema`, as a refusal would cost it a day; `transformers` always asks in words."""

    concurrency: int = Field(64, ge=1, le=4096)
    """`openai` only: the most requests in flight at once. How many really are adapts to the server."""
    requests_per_minute: float | None = Field(None, gt=0)
    """`openai` only: the most requests sent in a minute; None: as many as the server takes."""
    tokens_per_minute: float | None = Field(None, gt=0)
    """`openai` only: the most tokens, counted as for the budget; None: as many as the server takes."""
    timeout: float = Field(120, gt=0)
    """`openai` and `batch` only: seconds until one request counts as failed, from its first byte to the answer's
    last."""
    tries: int = Field(6, ge=1, le=100)
    """`openai` and `batch` only: how often a request is sent when the server is broken or silent, or so busy that it
    answers no other request either."""

    trust_remote_code: bool = False
    """`vllm` and `transformers` only: whether to run code that a model repository brings along."""
    batch_size: int = Field(16, ge=1)
    """`transformers` only: requests answered at once."""
    gpus: int = Field(1, ge=1)
    """`vllm` only: how many GPUs of the pod hold the model together (tensor parallel)."""
    max_model_len: int = Field(0, ge=0)
    """`vllm` only: the longest request and answer together, in tokens; 0: as long as the model can."""

    def identity(self, teacher: str) -> str:
        """Who answers, as part of a call's key: the same model at another address is another teacher, and so is another
        revision."""
        where = teacher if BACKENDS[teacher].in_pod else self.url.rstrip("/")
        return f"{where} {self.model}@{self.revision}" if self.revision else f"{where} {self.model}"


def check_model(settings: ModelSettings, teacher: str) -> None:
    """Refuses a model's settings that cannot work.

    Raises:
        ValueError: Names the key and the fix.
    """
    if not settings.model:
        raise ValueError(f"model: missing; teacher {teacher!r} needs the name of a model")
    if BACKENDS[teacher].in_pod:
        return
    if not settings.url.startswith(("http://", "https://")):
        raise ValueError(f"url: must begin with http:// or https://, got {settings.url!r}")
    parts = urlsplit(settings.url)
    if "@" in parts.netloc:
        raise ValueError(
            "url: holds a user name or password, which would be shown in logs and reports; remove it, and put the key "
            f"into the environment variable {settings.api_key_env}"
        )
    if "?" in settings.url or "#" in settings.url:  # without its value, which may be a key
        raise ValueError(
            f"url: holds a '?' or '#', and paths are put behind it; end it at {parts.path or '/v1'}, and put a key "
            f"into the environment variable {settings.api_key_env}"
        )


def api_key(settings: ModelSettings) -> str:
    """The key for an endpoint, from the environment, without white space around it, as a file or a copied line has it;
    empty where there is none.

    Raises:
        UserError: It holds what cannot stand in an HTTP header; the message does not hold the key.
    """
    key = os.environ.get(settings.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise UserError(
            f"the environment variable {settings.api_key_env} holds a line break, or other characters that are in no "
            "key; copy the key again"
        )
    return key


class TeacherSettings(ModelSettings):
    """A language model as a teacher of its own, for where several are asked."""

    teacher: Annotated[str, one_of(BACKENDS)] = Field("openai", description=f"Who answers: {in_words(BACKENDS)}.")
    weight: float = Field(1.0, gt=0)
    """The share of the requests that it is given, beside the other teachers' weights."""

    @model_validator(mode="after")
    def _model_fits(self) -> Self:
        check_model(self, self.teacher)
        return self
