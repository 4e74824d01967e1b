"""Budget, prices and ledger of one run's language models; threads may share a tracker.

    reservation = tracker.reserve(request, model)   reserves the most that one try can cost; None: no room now
    tracker.settle(reservation, response)           books the real cost, or the most where it is not known
    response = tracker.store(identity, response)    the ledger has it, so it is never paid for again

The budget is hard because money is reserved before a request is sent, and booked after it. Bookings and reservations
together never exceed it.
"""

import json
import threading
import unicodedata
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm import ledger as ledgers
from llm2llm.components.shared.llm.chat_completion import read_logprobs
from llm2llm.components.shared.llm.ledger import Entry
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, request_key, without_control_tokens
from llm2llm.components.shared.llm.settings import Budget, Price

PICO = 10**12
"""Money is counted in whole trillionths of a dollar: sums are exact, and a cent for a million tokens is
10,000 of them for one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """An amount that was paid."""

    usd: float = 0.0
    """By `prices`; calls of a model without a price count nothing here."""
    tokens: int = 0
    calls: int = 0
    """Requests that were answered, or that broke after they were sent, so that they may be on the bill."""


@dataclass(frozen=True, slots=True, eq=False)
class Reservation:
    """The most that one try can cost."""

    request: LLMRequest
    model: str
    share: float
    input_tokens: int
    output_tokens: int
    pico: int


def most_input_tokens(request: LLMRequest) -> int:
    """The most tokens that a request can be read as.

    No tokenizer makes more tokens than there are UTF-8 bytes. A few first expand ligatures and the like (NFKC), and
    chat templates add words of their own, for which there is room.
    """
    texts = [without_control_tokens(message["content"]) for message in request.messages]
    if request.schema is not None:
        texts.append(json.dumps(request.schema))
    return sum(map(_most_bytes, texts)) + 32 * len(request.messages) + 512


def _most_bytes(text: str) -> int:
    if text.isascii():
        return len(text)
    return max(len(form.encode("utf-8", "surrogatepass")) for form in (text, unicodedata.normalize("NFKC", text)))


class SpendTracker:
    """See the module.

    Args:
        run: The run's id: what it has paid for itself is told from what others have by it.
        ledger: A local folder or `s3://` prefix; None: remember within this process only.
        budget: What the run may spend.
        prices: US dollars per million tokens, by model.
        spent: What the run's earlier stages have spent.
        counted: The keys of the calls that `spent` counts already.
        cache: False: nothing that other runs paid for is used. The run then has a ledger of its own inside the ledger,
            `run-<id>`, so that its retries still pay for nothing twice.
    """

    def __init__(
        self,
        *,
        run: str,
        ledger: str | None = None,
        budget: Budget | None = None,
        prices: Mapping[str, Price] | None = None,
        spent: Spent | None = None,
        counted: Collection[str] = (),
        cache: bool = True,
    ) -> None:
        self.run = run
        self.ledger = ledger if cache or ledger is None else f"{ledger.rstrip('/')}/run-{quote(run, safe='')}"
        self.budget = budget or Budget()
        self.prices = dict(prices or {})
        self._lock = threading.Lock()
        before = spent or Spent()
        self._before = round(before.usd * PICO), before.tokens, before.calls
        self._paid = 0, 0, 0
        self._recovered = 0, 0, 0
        self._reservations: set[Reservation] = set()
        self._reserved = 0, 0, 0
        self._lost: dict[str, tuple[int, int, int]] = {}
        self._counted = set(counted)
        self._memory: dict[str, Entry] = {}
        self._answers: Counter[str] = Counter()
        """By identity."""

    def check(self, model: str) -> None:
        """Refuses a model that cannot be accounted for.

        Raises:
            UserError: The budget is in dollars, and the model has no price.
        """
        if self.budget.usd is not None and model not in self.prices:
            raise UserError(
                f"budget.usd: {self.budget.usd:g}, but the price of model {model!r} is not known; give it as prices: "
                f'{{"{model}": {{input: ..., output: ...}}}}, in US dollars for a million tokens, or set budget.tokens '
                "or budget.calls instead"
            )

    def usd(self, model: str, input_tokens: int | None, output_tokens: int | None, share: float = 1.0) -> float | None:
        """The price of a call's tokens; None when the price or the tokens are not known."""
        if model not in self.prices or input_tokens is None or output_tokens is None:
            return None
        return self._pico(model, input_tokens, output_tokens, share) / PICO

    def _pico(self, model: str, input_tokens: int, output_tokens: int, share: float) -> int:
        price = self.prices.get(model)
        if price is None:
            return 0
        in_full = input_tokens * round(price.input * 10**6) + output_tokens * round(price.output * 10**6)
        return round(in_full * share) if share != 1.0 else in_full

    def find(
        self, identity: str, requests: Sequence[LLMRequest], keys: Sequence[str] | None = None
    ) -> list[LLMResponse | None]:
        """What the ledger holds for these requests, in their order; None where it holds nothing.

        An answer that this run has paid for itself, in an attempt that ended early, counts as spent.

        Args:
            identity: Who is asked, `ModelSettings.identity`.
            requests: What is asked.
            keys: Their keys, where they are known already.

        Raises:
            UserError: The ledger cannot be read, or an entry is damaged.
        """
        keys = keys or [request_key(identity, request) for request in requests]
        unique = list(dict.fromkeys(keys))
        if self.ledger is None:
            with self._lock:
                entries = {key: self._memory[key] for key in unique if key in self._memory}
        else:
            entries = ledgers.find_entries(self.ledger, unique)
        with self._lock:
            self._answers[identity] += len(entries)
            for entry in entries.values():
                if entry.run == self.run and entry.key not in self._counted:
                    self._counted.add(entry.key)
                    self._recovered = _sum(self._recovered, self._cost(entry))
        return [
            self._answer(entries[key], request) if key in entries else None
            for key, request in zip(keys, requests, strict=True)
        ]

    def answers_of(self, identity: str) -> int:
        """How many answers of a model `find` and `store` have seen: before this process, and in it."""
        with self._lock:
            return self._answers[identity]

    def _cost(self, entry: Entry) -> tuple[int, int, int]:
        """(trillionths of a dollar, tokens, calls) of an entry, with what its broken tries may have cost."""
        worst = most_input_tokens(entry.llm_request())
        tokens_in = worst if entry.input_tokens is None else entry.input_tokens
        tokens_out = entry.request["max_tokens"] if entry.output_tokens is None else entry.output_tokens
        pico = self._pico(entry.model, tokens_in, tokens_out, entry.share) + round(entry.lost_usd * PICO)
        return pico, tokens_in + tokens_out + entry.lost_tokens, 1 + entry.lost_calls

    def _answer(self, entry: Entry, request: LLMRequest, paid: bool | None = None) -> LLMResponse:
        return LLMResponse(
            request=request,
            key=entry.key,
            outcome="answered",
            text=entry.text,
            refusal=entry.refusal,
            truncated=entry.truncated,
            detail=entry.detail,
            logprobs=read_logprobs(entry.raw) if request.top_logprobs else None,
            model=entry.model,
            attempts=entry.attempts,
            input_tokens=entry.input_tokens,
            output_tokens=entry.output_tokens,
            usd=self.usd(entry.model, entry.input_tokens, entry.output_tokens, entry.share),
            paid=entry.run == self.run if paid is None else paid,
        )

    def reserve(self, request: LLMRequest, model: str, share: float = 1.0) -> Reservation | None:
        """Reserves the most that one try of a request can cost.

        Args:
            request: The request.
            model: Whose price counts.
            share: The share of that price that is paid: 0.5 for a batch.

        Returns:
            None when the budget has no room for it now. While `reserved` is above 0, room may come.

        Raises:
            UserError: The budget is in dollars, and the model has no price.
        """
        self.check(model)
        most = most_input_tokens(request)
        reservation = Reservation(
            request, model, share, most, request.max_tokens, self._pico(model, most, request.max_tokens, share)
        )
        with self._lock:
            pico, tokens, calls = _sum(_sum(self._total(), self._reserved), _worst(reservation))
            limit = self.budget
            if (
                (limit.usd is not None and pico > round(limit.usd * PICO))
                or (limit.tokens is not None and tokens > limit.tokens)
                or (limit.calls is not None and calls > limit.calls)
            ):
                return None
            self._reservations.add(reservation)
            self._reserved = _sum(self._reserved, _worst(reservation))
        return reservation

    def settle(self, reservation: Reservation, answer: LLMResponse | None) -> None:
        """Books the cost of a try and closes its reservation.

        Args:
            reservation: Of `reserve`.
            answer: What came; `failed`: nothing that can be used. Tokens that it does not tell are booked as the most
                that they can be. None: nothing came, though it was sent (it timed out, the connection broke), so it may
                be on the bill, and all is booked.
        """
        with self._lock:
            cost = self._end(reservation)
            if answer is not None:
                tokens_in = reservation.input_tokens if answer.input_tokens is None else answer.input_tokens
                tokens_out = reservation.output_tokens if answer.output_tokens is None else answer.output_tokens
                cost = (
                    self._pico(reservation.model, tokens_in, tokens_out, reservation.share),
                    tokens_in + tokens_out,
                    1,
                )
            if answer is None or answer.outcome == "failed":
                lost = self._lost_key(reservation.model, reservation.request)
                self._lost[lost] = _sum(self._lost.get(lost, (0, 0, 0)), cost)
            self._paid = _sum(self._paid, cost)

    def release(self, reservation: Reservation) -> None:
        """Releases a reservation that was never charged: nothing was sent, or the endpoint refused it."""
        with self._lock:
            self._end(reservation)

    def _end(self, reservation: Reservation) -> tuple[int, int, int]:
        self._reservations.remove(reservation)
        worst = _worst(reservation)
        self._reserved = self._reserved[0] - worst[0], self._reserved[1] - worst[1], self._reserved[2] - worst[2]
        return worst

    def store(
        self,
        identity: str,
        answer: LLMResponse,
        *,
        sent: Mapping[str, Any] | None = None,
        raw: Any = None,
        share: float = 1.0,
    ) -> LLMResponse:
        """Writes an answer that came to the ledger; when this returns, it is durable.

        Args:
            identity: Who answered, `ModelSettings.identity`.
            answer: With outcome `answered` and the model whose price counts.
            sent: The request as it was really sent, without the key.
            raw: The answer as it came.
            share: As in `reserve`.

        Returns:
            The answer with its price; where another run was faster, that run's answer. `paid` is True in either case.

        Raises:
            UserError: The ledger cannot be written to.
        """
        assert answer.outcome == "answered", f"only what came goes into the ledger, not {answer.outcome}"
        with self._lock:
            pico, tokens, calls = 0, 0, 0
            if self._lost:
                pico, tokens, calls = self._lost.pop(self._lost_key(answer.model, answer.request), (0, 0, 0))
            self._counted.add(answer.key)
            self._answers[identity] += 1
        entry = Entry(
            key=answer.key,
            identity=identity,
            model=answer.model,
            request=ledgers.request_of(answer.request),
            purpose=answer.request.purpose,
            parent_id=answer.request.parent_id,
            sent=sent,
            text=answer.text,
            refusal=answer.refusal,
            truncated=answer.truncated,
            detail=answer.detail,
            raw=raw,
            input_tokens=answer.input_tokens,
            output_tokens=answer.output_tokens,
            share=share,
            attempts=answer.attempts,
            lost_calls=calls,
            lost_tokens=tokens,
            lost_usd=pico / PICO,
            run=self.run,
            written_at=datetime.now(UTC).isoformat(timespec="milliseconds"),
        )
        if self.ledger is None:
            with self._lock:
                entry = self._memory.setdefault(entry.key, entry)
        elif not ledgers.write_entry(self.ledger, entry):
            entry = ledgers.read_ledger(self.ledger, entry.key)
        return self._answer(entry, answer.request, paid=True)

    @staticmethod
    def _lost_key(model: str, request: LLMRequest) -> str:
        return request_key(model, request)

    def _total(self) -> tuple[int, int, int]:
        return _sum(_sum(self._before, self._recovered), self._paid)

    @property
    def reserved(self) -> int:
        """How many reservations are open."""
        with self._lock:
            return len(self._reservations)

    @property
    def spent(self) -> Spent:
        """What the run has spent: earlier stages, earlier attempts of this one, and this process."""
        with self._lock:
            return _spent(self._total())

    @property
    def paid(self) -> Spent:
        """What this process has spent."""
        with self._lock:
            return _spent(self._paid)


def _worst(reservation: Reservation) -> tuple[int, int, int]:
    return reservation.pico, reservation.input_tokens + reservation.output_tokens, 1


def _sum(one: tuple[int, int, int], other: tuple[int, int, int]) -> tuple[int, int, int]:
    return one[0] + other[0], one[1] + other[1], one[2] + other[2]


def _spent(total: tuple[int, int, int]) -> Spent:
    pico, tokens, calls = total
    return Spent(usd=pico / PICO, tokens=tokens, calls=calls)
