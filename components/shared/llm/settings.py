"""What can be set about a language model that is asked, and about what it may cost."""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, model_validator

from llm2llm.components.shared.base.errors import UserError, did_you_mean
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
    api_version: str = ""
    """`openai` only, for Azure: the API version, such as 2024-10-21. `url` is then the resource's
    (https://NAME.openai.azure.com), `model` the deployment, and the key is sent as `api-key`."""
    extra_body: dict[str, Any] = Field(default={})
    """`openai` and `batch` only: further parameters of every request, such as {reasoning_effort: low}. Other parameters
    are another teacher to the ledger."""
    extra_headers: dict[str, str] = Field(default={})
    """`openai` and `batch` only: further HTTP headers. A secret is never a setting: write env:NAME for the value of the
    environment variable NAME."""
    api_key_env: str = "OPENAI_API_KEY"
    """`openai` and `batch` only: the environment variable that holds the key. The key itself is never a setting."""
    temperature: float | None = Field(0.7, ge=0, le=2)
    """Sampling temperature. null: none is sent, so that the model's own counts. A model that refuses the one that is
    sent is asked without it, which is said."""
    top_p: float = Field(1.0, gt=0, le=1)
    """Nucleus sampling (Holtzman et al. 2020): a token is drawn from the likeliest that have this share of the
    probability together. 1: from all, and nothing is sent."""
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
    longest_wait: float = Field(600, gt=0, le=3600)
    """`openai` only: the most seconds for which a request by the server to wait (Retry-After) is heeded."""
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
        """Who answers, as part of a call's key: the same model at another address, of another revision or with other
        parameters is another teacher."""
        who = f"{self.model}@{self.revision}" if self.revision else self.model
        if self.extra_body:
            who += f" with {hashlib.sha256(json.dumps(self.extra_body, sort_keys=True).encode()).hexdigest()[:8]}"
        where = teacher if BACKENDS[teacher].in_pod else self.url.rstrip("/")
        return f"{where} {who}"


def check_model(settings: ModelSettings, teacher: str) -> None:
    """Refuses a model's settings that cannot work.

    Raises:
        ValueError: Names the key and the fix.
    """
    if not settings.model:
        raise ValueError(f"model: missing; teacher {teacher!r} needs the name of a model")
    if BACKENDS[teacher].in_pod:
        for name in ("api_version", "extra_body", "extra_headers"):
            if getattr(settings, name):
                raise ValueError(f"{name}: is for an endpoint, and teacher is {teacher!r}; remove it")
        if settings.temperature is None:
            raise ValueError(f"temperature: null is for an endpoint, and teacher is {teacher!r}; give a number")
        return
    if settings.api_version and teacher == "batch":
        raise ValueError("api_version: is for teacher 'openai', and teacher is 'batch'; remove it")
    _check_extras(settings)
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


def check_prices(models: Iterable[str], prices: Mapping[str, Price], budget: Budget) -> None:
    """Refuses prices that leave out a model at an endpoint: it is misspelt there, or a budget in dollars cannot hold.

    Args:
        models: At endpoints, whose calls somebody bills.
        prices: By model.
        budget: What may be spent.

    Raises:
        ValueError: Names the key and the fix.
    """
    for model in models:
        if model in prices or not (prices or budget.usd is not None):
            continue
        if prices:
            raise ValueError(
                f"prices: name {', '.join(map(repr, sorted(prices)))}, and the model that is asked is {model!r}"
                f"{did_you_mean(model, prices)}; its calls would cost nothing; give its price, or remove prices"
            )
        raise ValueError(
            f"budget.usd: {budget.usd:g}, but the price of model {model!r} is not known; give it as prices: "
            f'{{"{model}": {{input: ..., output: ...}}}}, in US dollars for a million tokens, or set budget.tokens or '
            "budget.calls instead"
        )


_OURS = ("model", "messages", "temperature", "max_tokens", "max_completion_tokens", "response_format", "stream", "n")
_SECRET_NAME = re.compile(r"authorization|cookie|token$|secret|passw|(^|[-_])api[-_]?key$", re.IGNORECASE)
_SECRET_PARAMETER = re.compile(r"[-_.](api[-_]?key|passw\w*|secret|(access|auth)[-_]?token)$", re.IGNORECASE)
_SECRET = re.compile(
    r"\s*(?:bearer|basic)\s|(?:^|\W)(?:sk|pk|rk|hf|gsk|xai|ghp|gho|glpat|nvapi|key)[-_][\w-]{8,}|AIza[\w-]{20,}|eyJ[\w-]{10,}"
    r"|^(?=[^\s]*\d)(?=[^\s]*[A-Za-z])[\w+/=-]{32,}$",
    re.IGNORECASE,
)
_FROM_ENVIRONMENT = "env:"
SHORTEST_KEY = 8
"""Characters of a key; shorter is a word: "none", "EMPTY"."""


def looks_like_a_key(value: str) -> bool:
    """Whether a text may be a secret, which must not stand in a config."""
    return _SECRET.search(value) is not None


def _check_extras(settings: ModelSettings) -> None:
    for name in _OURS:
        if name in settings.extra_body:
            own = f"; set {name} itself" if name in type(settings).model_fields else ""
            raise ValueError(f"extra_body.{name}: llm2llm sets it{own}; remove it")
    if settings.top_p != 1 and "top_p" in settings.extra_body:
        raise ValueError("extra_body.top_p: top_p is set itself; remove one of the two")
    for name, text in _texts(settings.extra_body, "extra_body"):
        if looks_like_a_key(text) or _SECRET_PARAMETER.search(name):
            raise ValueError(
                f"{name}: looks like a key, which would stand in logs and reports; use extra_headers and env:NAME"
            )
    for name, value in settings.extra_headers.items():
        if not re.fullmatch(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+", name) or not (value.isascii() and value.isprintable()):
            raise ValueError(f"extra_headers: {name!r} is no HTTP header of one line of ASCII; correct it")
        if name.lower() in ("content-length", "content-type", "host", "transfer-encoding", "connection"):
            raise ValueError(f"extra_headers.{name}: the HTTP client sets it; remove it")
        if not value.startswith(_FROM_ENVIRONMENT) and (_SECRET_NAME.search(name) or looks_like_a_key(value)):
            raise ValueError(
                f"extra_headers.{name}: its value looks like a key, which would stand in logs and reports; put it into "
                "an environment variable NAME and write env:NAME"
            )


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every text in a value with the path to it."""
    if isinstance(value, str):
        yield name, value
    for key, inner in value.items() if isinstance(value, dict) else []:
        yield from _texts(inner, f"{name}.{key}")
    for inner in value if isinstance(value, list) else []:
        yield from _texts(inner, name)


def headers_of(settings: ModelSettings) -> tuple[dict[str, str], list[str]]:
    """(the extra headers, the secrets among their values, which no message may show).

    Raises:
        UserError: An environment variable that is named is not set, or holds what cannot stand in a header.
    """
    headers, secrets = dict(settings.extra_headers), []
    for name, value in settings.extra_headers.items():
        if value.startswith(_FROM_ENVIRONMENT):
            variable = value.removeprefix(_FROM_ENVIRONMENT)
            secret = os.environ.get(variable, "").strip()
            if not secret or not (secret.isascii() and secret.isprintable()):
                raise UserError(
                    f"extra_headers.{name}: the environment variable {variable} is not set, or is no header"
                )
            headers[name] = secret
            secrets.append(secret)
    return headers, secrets


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
