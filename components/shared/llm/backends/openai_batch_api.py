"""An endpoint's batch API: files, batches and their results. What it says comes without the key."""

import time
from types import TracebackType
from typing import Any, Self

from llm2llm.components.shared.base.errors import UserError, did_you_mean
from llm2llm.components.shared.llm.backends.openai_batch_notes import Note
from llm2llm.components.shared.llm.settings import SHORTEST_KEY, ModelSettings, api_key, headers_of

PATIENCE = 3600.0
"""Seconds without an answer from the endpoint after which waiting ends; the batches go on."""
MOST_LISTED = 10_000
"""Batches of an endpoint's list that are looked through for one of ours."""
DETAIL_LIMIT = 500


class BatchEndpoint:
    """The endpoint's files and batches. What it says comes without the key."""

    def __init__(self, settings: ModelSettings) -> None:
        import openai

        self.settings = settings
        self._key = api_key(settings)
        headers, secrets = headers_of(settings)
        self._secrets = [secret for secret in (self._key, *secrets) if len(secret) >= SHORTEST_KEY]
        self._client = openai.OpenAI(
            base_url=settings.url,
            # Servers in a cluster often need no key, and the client insists on one.
            api_key=self._key or "none",
            default_headers=headers,
            timeout=settings.timeout,
            max_retries=settings.tries - 1,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, where: TracebackType | None
    ) -> None:
        self._client.close()

    def check_models(self) -> None:
        """Asks for the list of models before anything is paid for: whether the endpoint is there, and takes the key.

        A list that does not name the model is no refusal: it may hold tags, deployments or base models.

        Raises:
            UserError: The endpoint cannot be reached, or refuses the key.
        """
        import openai

        try:
            known = [str(model.id) for model in self._client.models.list().data]
        except openai.APIError as problem:
            # Some servers have no list, and some keys may not see it; the first call will show.
            if isinstance(problem, openai.APIStatusError) and problem.status_code in (400, 403, 404, 405, 501):
                return
            raise self._error(problem) from None
        except (AttributeError, TypeError, ValueError):
            known = []
            print(f"teacher: {self.settings.url} gives no list of models that can be read", flush=True)
        if known and self.settings.model not in known:
            hint = did_you_mean(self.settings.model, known)
            shown = self.plain(", ".join(sorted(known)[:10]))
            print(
                f"teacher: {self.settings.url} does not list model {self.settings.model!r}{hint}; it lists {shown}",
                flush=True,
            )

    def make(self, note: Note, data: bytes) -> str:
        """Sends a batch; gives its id. When that breaks, it is looked for before the next try: it may be there."""
        import openai

        tries, wait = self.settings.tries, 1.0
        try:
            file = self._client.files.create(file=(f"llm2llm-{note.tag}.jsonl", data), purpose="batch")
            while True:
                try:
                    batch = self._client.with_options(max_retries=0).batches.create(
                        input_file_id=file.id,
                        endpoint="/v1/chat/completions",
                        completion_window="24h",
                        metadata={"llm2llm": note.tag},
                    )
                    break
                except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError):
                    time.sleep(wait)
                    tries, wait = tries - 1, min(2 * wait, 60.0)
                    if found := self.find(note):
                        return found
                    if not tries:
                        raise
        except openai.APIError as problem:
            raise self._error(problem) from None
        if not isinstance(batch.id, str) or not batch.id:
            raise UserError(f"teacher {self.settings.url}: what it answers is no batch; has it a batch API?")
        return batch.id

    def find(self, note: Note) -> str:
        """The id of the batch with a note's tag in its metadata; empty when there is none."""
        import openai

        try:
            for number, batch in enumerate(self._client.batches.list(limit=100)):
                if (batch.metadata or {}).get("llm2llm") == note.tag:
                    return str(batch.id)
                if number >= MOST_LISTED:
                    break
        except openai.APIError as problem:
            raise self._error(problem) from None
        return ""

    def look(self, batch: str, uri: str, silent: float) -> Any:
        """The state of a batch; None when the endpoint is silent, which is borne for an hour.

        Args:
            batch: Its id.
            uri: Of its note; empty without a ledger.
            silent: Seconds since the endpoint last answered.
        """
        import openai

        try:
            return self._client.batches.retrieve(batch)
        except openai.NotFoundError:
            fix = f"; when it is gone, remove {uri} to have its requests sent, and paid for, again"
            raise UserError(
                f"teacher {self.settings.url}: knows no batch {batch}; is it of another account or project?"
                f"{fix if uri else ''}"
            ) from None
        except (openai.APIConnectionError, openai.InternalServerError, openai.RateLimitError) as problem:
            if silent < PATIENCE:
                return None
            raise UserError(f"{self._error(problem)}; batch {batch} goes on, and the next start collects it") from None
        except openai.APIError as problem:
            raise self._error(problem) from None

    def content(self, file: str) -> bytes:
        """A file of results."""
        import openai

        try:
            data = self._client.files.content(file).content
        except openai.APIError as problem:
            raise self._error(problem) from None
        for secret in self._secrets:
            data = data.replace(secret.encode("utf-8"), b"***")
        return data

    def plain(self, text: str) -> str:
        """A text without the key: some servers and proxies repeat it in what they answer."""
        for secret in self._secrets:
            text = text.replace(secret, "***")
        return text[:DETAIL_LIMIT]

    def _error(self, problem: Any) -> UserError:
        """One line that names the endpoint and the fix, and never the key."""
        import openai

        where = f"teacher {self.settings.url}"
        if isinstance(problem, openai.AuthenticationError | openai.PermissionDeniedError):
            return UserError(
                f"{where}: refuses the key (HTTP {problem.status_code}); set the environment variable "
                f"{self.settings.api_key_env}"
            )
        if isinstance(problem, openai.NotFoundError):
            return UserError(f"{where}: HTTP 404; it has no batch API there; check url (it usually ends in /v1)")
        if isinstance(problem, openai.APIConnectionError):
            cause: BaseException = problem
            while cause.__cause__ is not None:
                cause = cause.__cause__
            return UserError(f"{where}: cannot be reached ({self.plain(str(cause))}); is it up, is the URL right?")
        return UserError(f"{where}: {self.plain(f'{type(problem).__name__}: {problem.message}')}")
