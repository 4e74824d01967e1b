"""Opens a language model. Responses come from the ledger where it has them, and from the model otherwise.

with open_teacher(settings, "openai", tracker) as teacher:
    responses = teacher(requests)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module

from llm2llm.components.shared.llm import backends
from llm2llm.components.shared.llm.backends import BACKENDS
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, Teacher, request_key
from llm2llm.components.shared.llm.settings import ModelSettings

Send = Callable[[Sequence[LLMRequest], ModelSettings, SpendTracker], list[LLMResponse]]
"""A backend: asks the model. Returns one `LLMResponse` for each `LLMRequest`, in order.

A backend is never given the same key twice at once, nor a request that the ledger has. It calls `tracker.reserve`
before each try, `settle` or `release` after it, and `store` as soon as an answer is there."""


@contextmanager
def open_teacher(settings: ModelSettings, teacher: str, tracker: SpendTracker) -> Iterator[Teacher]:
    """Opens a model. It is loaded, or its endpoint looked at, when the first request is not in the ledger.

    Args:
        settings: Which model, and how to ask it.
        teacher: The backend, a key of `BACKENDS`.
        tracker: Ledger, budget and prices.

    Returns:
        A function that answers requests; see `Teacher`. What does not fit the budget comes back as `over_budget`.

    Raises:
        UserError: A budget in dollars for a model without a price. While it answers: the model cannot work at all, or
            the ledger cannot be read or written. What was paid for until then is in the ledger.
    """
    tracker.check(settings.model)
    settings = with_revision(settings, teacher)
    identity = settings.identity(teacher)
    with ExitStack() as opened:
        send: Send | None = None

        def answer(requests: Sequence[LLMRequest]) -> list[LLMResponse]:
            nonlocal send
            keys = [request_key(identity, request) for request in requests]
            known = {found.key: found for found in tracker.find(identity, requests, keys) if found is not None}
            missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in known}
            if known:
                print(f"teacher: {len(known):,} of {len(set(keys)):,} answers are in the ledger", flush=True)
            if missing:
                if send is None:
                    send = opened.enter_context(_backend(settings, teacher))
                known |= {came.key: came for came in send(list(missing.values()), settings, tracker)}
            answers, seen = [], set()
            for key, request in zip(keys, requests, strict=True):
                response = known[key]
                if response.request is not request or key in seen:  # the same request twice is one call
                    response = replace(response, request=request, paid=response.paid and key not in seen)
                answers.append(response)
                seen.add(key)
            return answers

        yield answer


def with_revision(settings: ModelSettings, teacher: str) -> ModelSettings:
    """The settings with what is in a local model's folder as its revision, so that the ledger does not answer for
    weights that have changed since; others are as they were."""
    if not BACKENDS[teacher].in_pod:
        return settings
    from llm2llm.components.shared.llm.backends.in_process import fingerprint

    return fingerprint(settings)


def _backend(settings: ModelSettings, teacher: str) -> AbstractContextManager[Send]:
    # Each brings libraries that the others do without.
    module = import_module(f"{backends.__name__}.{BACKENDS[teacher].module}")
    opened: AbstractContextManager[Send] = module.opened(settings)
    return opened
