"""Opens a model that answers: what the ledger holds comes from there, and the rest is asked for.

with open_teacher(settings, "openai", account) as teacher:
    answers = teacher(asks)
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from importlib import import_module

from llm2llm.components.shared.llm import backends
from llm2llm.components.shared.llm.backends import BACKENDS
from llm2llm.components.shared.llm.budget import Account
from llm2llm.components.shared.llm.requests import Answer, Ask, Teacher, call_key
from llm2llm.components.shared.llm.settings import ModelSettings

Send = Callable[[Sequence[Ask], ModelSettings, Account], list[Answer]]
"""A backend: asks the model, with one `Answer` for each `Ask`, in order. It is never given the same key twice at once,
nor what the ledger holds already. Before each try it calls `account.reserve`, after it `settle` or `release`, and
`store` as soon as an answer is there."""


@contextmanager
def open_teacher(settings: ModelSettings, teacher: str, account: Account) -> Iterator[Teacher]:
    """Opens a model. It is loaded, or its endpoint looked at, when the first request is not in the ledger.

    Args:
        settings: Which model, and how to ask it.
        teacher: The backend, a key of `BACKENDS`.
        account: Ledger, budget and prices.

    Returns:
        A function that answers requests; see `Teacher`. What does not fit the budget comes back as `over_budget`.

    Raises:
        UserError: A budget in dollars for a model without a price. While it answers: the model cannot work at all, or
            the ledger cannot be read or written. What was paid for until then is in the ledger.
    """
    account.check(settings.model)
    settings = with_revision(settings, teacher)
    identity = settings.identity(teacher)
    with ExitStack() as opened:
        send: Send | None = None

        def answer(asks: Sequence[Ask]) -> list[Answer]:
            nonlocal send
            keys = [call_key(identity, ask) for ask in asks]
            known = {found.key: found for found in account.find(identity, asks) if found is not None}
            missing = {key: ask for key, ask in zip(keys, asks, strict=True) if key not in known}
            if known:
                print(f"teacher: {len(known):,} of {len(set(keys)):,} answers are in the ledger", flush=True)
            if missing:
                if send is None:
                    send = opened.enter_context(_backend(settings, teacher))
                known |= {came.key: came for came in send(list(missing.values()), settings, account)}
            answers, seen = [], set()
            for key, ask in zip(keys, asks, strict=True):
                # The same request twice is one call.
                answers.append(replace(known[key], ask=ask, paid=known[key].paid and key not in seen))
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
