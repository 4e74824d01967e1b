"""An OpenAI-compatible endpoint: its address, key, and the parameters that it accepts.

Servers differ: some refuse a JSON schema, ignore it or break on it, some models take no temperature, or only
`max_completion_tokens`. `adapt` learns this from a refusal, `answered` from an answer; `body` makes use of it.
"""

import re
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any
from urllib.parse import urlencode, urlsplit

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.data.jsonl import parse_json
from llm2llm.components.shared.llm.backends.openai_http import Response, find_proxy
from llm2llm.components.shared.llm.chat_completion import chat_request, decode_body, said_in
from llm2llm.components.shared.llm.json_answers import holds_json
from llm2llm.components.shared.llm.rate_limit.limiter import RateLimiter
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse
from llm2llm.components.shared.llm.settings import SHORTEST_KEY, ModelSettings, api_key, headers_of

DETAIL = 500
"""Characters of what went wrong that are kept."""
MOST_LOGPROBS = 20
"""The most likely tokens that OpenAI and vLLM tell at one place."""
FORBIDDEN = 403
"""The key is refused, or, by some gateways, what this one request says (moderation)."""


class Endpoint:
    """An endpoint. What is learned about it is kept from one batch of requests to the next."""

    def __init__(self, settings: ModelSettings) -> None:
        self.settings = settings
        self.identity = settings.identity("openai")
        self.proxy = find_proxy(settings.url)
        self.rate_limiter = RateLimiter(settings.concurrency, settings.requests_per_minute, settings.tokens_per_minute)
        self.chat_url, self.models_url = urls_of(settings)
        # Servers in a cluster often need no key, and some insist on seeing one.
        key = api_key(settings) or "none"
        extra, secrets = headers_of(settings)
        self._secrets = [secret for secret in (key, *secrets) if len(secret) >= SHORTEST_KEY]
        self.headers = {"Authorization": f"Bearer {key}", "Accept-Encoding": "identity"}
        if settings.api_version or str(urlsplit(settings.url).hostname).endswith(".azure.com"):
            self.headers["api-key"] = key
        self.headers |= extra
        self.models_checked = False
        self.hint = ""
        """What the list of models says against the model, until it has answered."""
        self.takes_schema = settings.structured != "words"
        """Until it refuses, ignores or breaks on a JSON schema and takes the same request without one."""
        self.schema_use = "" if self.takes_schema else "not sent"
        """`taken`, `refused`, `ignored` or `breaks`; empty until it shows."""
        self.breaks = 0
        """How many requests it failed on with a JSON schema, and answered in words."""
        self.takes_temperature = settings.temperature is not None
        self.limit_name = "max_tokens"
        """Newer models of some providers take only `max_completion_tokens`."""
        self.most_logprobs = MOST_LOGPROBS
        """Some servers tell fewer."""
        self.forbidden = 0
        """How often in a row it has answered with `FORBIDDEN`, since it last answered a request."""
        self.notes: list[str] = []
        """What a person should know about it."""

    def body(self, request: LLMRequest, in_words: bool) -> dict[str, Any]:
        """The body of a request, with the parameters that the endpoint takes."""
        return chat_request(
            request,
            self.settings.model,
            in_words=in_words or not self.takes_schema,
            limit_name=self.limit_name,
            temperature=self.takes_temperature,
            most_logprobs=self.most_logprobs,
            extra=self.settings.extra_body,
        )

    def may_drop_schema(self, body: Mapping[str, Any]) -> bool:
        """Whether a request that failed may be asked in words instead."""
        return "response_format" in body and self.settings.structured == "auto" and self.schema_use != "taken"

    def adapt(self, body: Mapping[str, Any], detail: str) -> bool:
        """Learns from a refusal which parameter to leave out or to rename; whether there is one."""
        said = detail.lower()
        if "max_tokens" in body and "max_completion_tokens" in said:
            self.limit_name = "max_completion_tokens"
        elif "temperature" in body and "temperature" in said:
            if self.takes_temperature:
                self.takes_temperature = False
                self.note(f"takes no temperature {body['temperature']:g}; it is left out, and the model's own counts")
        elif "logprob" in said and (most := _smaller(said, body.get("top_logprobs", 0))):
            self.most_logprobs = min(self.most_logprobs, most)
            self.note(f"tells the log-probabilities of {most} tokens at most")
        else:
            return False
        return True

    def refused_logprobs(self, body: Mapping[str, Any], detail: str) -> UserError | None:
        """The error of an endpoint that tells no log-probabilities, by its refusal; None where it refused something
        else, or tells fewer."""
        said = detail.lower()
        if "logprobs" not in body or "logprob" not in said or _smaller(said, body["top_logprobs"]):
            return None
        return self.no_logprobs(f"refuses to ({detail})")

    def no_logprobs(self, why: str) -> UserError:
        """The error of an endpoint that tells no log-probabilities."""
        return UserError(
            f"teacher {self.settings.url}: model {self.settings.model!r} tells no log-probabilities: it {why}; set "
            "teacher_augment.verification.logprobs: false, so that samples vote, or name a verifier that tells them "
            "(verification.by)"
        )

    def answered(self, body: Mapping[str, Any], answer: LLMResponse, broke_on_schema: bool = False) -> None:
        """Learns from an answer.

        Args:
            body: The request.
            answer: What came.
            broke_on_schema: Whether the endpoint had failed on the same request with a JSON schema.
        """
        self.forbidden = 0
        if self.hint:
            self.note(self.hint)
            self.hint = ""
        if self.settings.structured != "auto" or answer.request.schema is None or not self.takes_schema:
            return
        if "response_format" not in body:
            self.schema_use = self.schema_use or ("breaks" if broke_on_schema else "refused")
            self.breaks += broke_on_schema
            # One failure may have had another cause.
            if self.schema_use == "refused" or (self.schema_use == "breaks" and self.breaks > 1):
                self._drop_schema(self.schema_use)
        elif self.schema_use != "taken":
            text = answer.answer
            if holds_json(text):
                self.schema_use = "taken"
            elif not (answer.truncated or answer.refusal) and text.strip():
                self._drop_schema("ignored")

    def _drop_schema(self, why: str) -> None:
        self.takes_schema, self.schema_use = False, why
        what = {"refused": "takes no", "breaks": "breaks on a", "ignored": "ignores the"}[why]
        self.note(f"{what} JSON schema; the form is asked for in words")

    def note(self, text: str) -> None:
        """Says something once."""
        if text not in self.notes:
            self.notes.append(text)
            print(f"teacher: {self.settings.url} {text}", flush=True)

    def waits(self, seconds: float, why: str) -> None:
        """Says what a long wait is for, also where standard output is not shown."""
        print(f"teacher: {self.settings.url} waits {seconds:,.0f} s: {why}", file=sys.stderr, flush=True)

    # what it says

    def without_key(self, text: str) -> str:
        """Some servers and proxies repeat the key in what they answer."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text

    def cleaned(self, value: Any) -> Any:
        """A JSON value without the key."""
        if not self._secrets:
            return value
        if isinstance(value, str):
            return self.without_key(value)
        if isinstance(value, list):
            return [self.cleaned(item) for item in value]
        if isinstance(value, dict):
            return {self.without_key(name): self.cleaned(item) for name, item in value.items()}
        return value

    def said(self, response: Response) -> str:
        """What a response that is no answer says, on one line and without the key."""
        text = response.body.decode("utf-8", "replace")
        with suppress(ValueError):  # it is shown as it came
            text = said_in(parse_json(text.lstrip("\ufeff"))) or text
        text = " ".join(self.without_key(text).split())
        return f"HTTP {response.status}{': ' if text else ''}{text}"[:DETAIL]

    # its models

    def look_at_models(self, response: Response) -> None:
        """Keeps what a list of models says against the model: a list may name tags, deployments or base models, so only
        a question shows whether the model is there."""
        try:
            known = _names(self.cleaned(decode_body(response.body)))
        except (ValueError, RecursionError):
            known = None
        model = self.settings.model
        if known is None:
            self.hint = "gives no list of models that can be read"
        elif known and not any(_same_model(model, name) for name in known):
            shown = ", ".join(known[:10]) + (", ..." if len(known) > 10 else "")
            self.hint = f"does not list model {model!r}{did_you_mean(model, known)}; it lists {shown}"

    def hopeless(self, response: Response, detail: str) -> UserError:
        """Why nothing can succeed: one line that names the endpoint and the fix, and never the key."""
        start, status = f"teacher {self.settings.url}:", response.status
        hint = f"; it {self.hint}" if self.hint else ""
        if status in (401, FORBIDDEN):
            return UserError(
                f"{start} refuses the key ({detail}); set the environment variable {self.settings.api_key_env}"
            )
        if status == 404:
            return UserError(
                f"{start} HTTP 404 for model {self.settings.model!r}; check url (it usually ends in /v1) and model"
                f"{hint}"
            )
        if status == 407:
            return UserError(f"{start} the proxy wants a user name and password (HTTP 407); set them in HTTP_PROXY")
        if status < 300:
            return UserError(f"{start} answers with a web page; check the url (it usually ends in /v1)")
        if status < 400:
            where = self.without_key(response.headers.get("Location", "elsewhere"))[:DETAIL]
            return UserError(f"{start} sends requests on to {where} (HTTP {status}); set url to where it really is")
        if status in (402, 429):
            return UserError(f"{start} the account cannot pay ({detail})")
        return UserError(f"{start} refuses model {self.settings.model!r} ({detail}){hint}")


def urls_of(settings: ModelSettings) -> tuple[str, str]:
    """(where questions go, where the list of models is). With an API version as Azure has them: the model is the
    deployment, unless the URL names one."""
    url = settings.url.rstrip("/")
    if not settings.api_version:
        return f"{url}/chat/completions", f"{url}/models"
    base, found, deployment = url.partition("/openai/deployments/")
    base = base.removesuffix("/openai")
    version = urlencode({"api-version": settings.api_version})
    name = deployment if found else settings.model
    return f"{base}/openai/deployments/{name}/chat/completions?{version}", f"{base}/openai/models?{version}"


def _smaller(said: str, most: int) -> int:
    """The largest number below `most` in what a refusal says, which is then what it takes; 0: none."""
    return max(
        (number for one in re.findall(r"(?<![\w.-])\d{1,2}(?![\w-])", said) if 0 < (number := int(one)) < most),
        default=0,
    )


def _names(value: Any) -> list[str] | None:
    """The names in a list of models, in one of the forms that servers have; None where it is no such list."""
    if isinstance(value, Mapping):
        value = value.get("data", value.get("models"))
    if value is None or not isinstance(value, Sequence) or isinstance(value, str):
        return None
    names = set()
    for item in value:
        found = item if isinstance(item, str) else None
        if isinstance(item, Mapping):
            found = next((item[key] for key in ("id", "name", "model") if isinstance(item.get(key), str)), None)
        if found is not None:
            names.add(found)
    return sorted(names)


def _same_model(model: str, listed: str) -> bool:
    """Whether a list names a model, with a folder before it or a tag behind it (`tiny` and `tiny:latest`)."""
    bare = listed.removeprefix("models/")
    return model in (listed, bare) or f"{model}:latest" == bare or bare == model.rpartition(":")[0]
