"""The budget is never exceeded, as the endpoint counts it: at any concurrency, with faults."""

import json
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.backends import openai_attempts
from llm2llm.components.shared.llm.budget import Reservation, SpendTracker, Spent, most_input_tokens
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, request_key
from llm2llm.components.shared.llm.settings import Budget, ModelSettings, Price
from tests.support.misbehaving_server import MODEL, Faults, misbehaving

ROWS = [{"question": f"What is {n} and {n}?", "answer": str(2 * n)} for n in range(40)]
SCHEMA = {"type": "object", "properties": {"question": {"type": "string"}, "answer": {"type": "string"}}}
PRICES = {MODEL: Price(input=2.5, output=10.0)}


def requests(count: int) -> list[LLMRequest]:
    shown = [json.dumps({"question": f"{number} {'x' * (number % 7) * 40}"}) for number in range(count)]
    return [
        LLMRequest(messages=[{"role": "user", "content": text}], schema=SCHEMA, temperature=0.7, max_tokens=40)
        for text in shown
    ]


@pytest.fixture(autouse=True)
def quick_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_attempts, "FIRST_WAIT", 0.05)


@pytest.mark.parametrize("concurrency", [1, 8, 128])
@pytest.mark.parametrize("budget", [Budget(usd=0.04), Budget(tokens=9_000), Budget(calls=33)])
def test_it_is_never_exceeded_whatever_breaks(budget: Budget, concurrency: int) -> None:
    faults = Faults(busy=0.1, error=0.1, dropped=0.1, stalled=0.05, truncated=0.1, refusal=0.1)
    tracker = SpendTracker(run="r", budget=budget, prices=PRICES)
    settings = ModelSettings(model=MODEL, url="", concurrency=concurrency, timeout=0.4, tries=4)
    with misbehaving(ROWS, faults, seed=concurrency, latency=0.01) as server:
        settings = settings.model_copy(update={"url": server.url})
        with open_teacher(settings, "openai", tracker) as teacher:
            answers = teacher(requests(120))
        billed = server.stats()["billed"]
    usd = (billed["input_tokens"] * 2.5 + billed["output_tokens"] * 10.0) / 1e6
    tokens = billed["input_tokens"] + billed["output_tokens"]
    if budget.usd is not None:
        assert usd <= tracker.spent.usd <= budget.usd
    if budget.tokens is not None:
        assert tokens <= tracker.spent.tokens <= budget.tokens
    if budget.calls is not None:
        assert billed["calls"] <= tracker.spent.calls <= budget.calls
    outcomes = [answer.outcome for answer in answers]
    assert outcomes.count("over_budget") > 0
    assert outcomes.count("answered") >= 10
    assert tracker.reserved == 0
    assert all(answer.detail for answer in answers if answer.outcome != "answered")


@pytest.mark.parametrize("concurrency", [1, 8, 128])
def test_it_is_used_up_where_nothing_breaks(concurrency: int) -> None:
    tracker = SpendTracker(run="r", budget=Budget(calls=50))
    with misbehaving(ROWS, latency=0.01) as server:
        settings = ModelSettings(model=MODEL, url=server.url, concurrency=concurrency)
        with open_teacher(settings, "openai", tracker) as teacher:
            outcomes = [answer.outcome for answer in teacher(requests(80))]
            assert (outcomes.count("answered"), outcomes.count("over_budget")) == (50, 30)
            assert {answer.outcome for answer in teacher(requests(80))} == {"answered", "over_budget"}
        assert server.stats()["requests"] == tracker.paid.calls == 50


def test_what_fits_once_others_are_settled_waits_for_them() -> None:
    """The worst case of a few fills the budget; what they really cost leaves room for the rest."""
    most = most_input_tokens(requests(1)[0]) + 40
    tracker = SpendTracker(run="r", budget=Budget(tokens=3 * most + 40 * 30))
    with misbehaving(ROWS, latency=0.01) as server:
        with open_teacher(ModelSettings(model=MODEL, url=server.url), "openai", tracker) as teacher:
            assert [answer.outcome for answer in teacher(requests(20))] == ["answered"] * 20
        assert server.stats()["most_in_flight"] <= 8


def test_no_budget_no_request() -> None:
    tracker = SpendTracker(run="r", budget=Budget(usd=0), prices=PRICES)
    settings = ModelSettings(model=MODEL, url="http://nobody.invalid/v1")
    with open_teacher(settings, "openai", tracker) as teacher:
        assert [(answer.outcome, answer.attempts) for answer in teacher(requests(3))] == [("over_budget", 0)] * 3


def test_earlier_stages_count() -> None:
    tracker = SpendTracker(run="r", budget=Budget(calls=50), spent=Spent(calls=48))
    with (
        misbehaving(ROWS) as server,
        open_teacher(ModelSettings(model=MODEL, url=server.url), "openai", tracker) as teacher,
    ):
        assert [answer.outcome for answer in teacher(requests(4))].count("answered") == 2
    assert (tracker.spent.calls, tracker.paid.calls) == (50, 2)


def test_unknown_usage_is_booked_as_the_most_that_it_can_be() -> None:
    tracker = SpendTracker(run="r", prices=PRICES)
    (one,) = requests(1)
    reservation = tracker.reserve(one, MODEL)
    assert reservation is not None
    tracker.settle(reservation, LLMResponse(request=one, key="k", outcome="answered", input_tokens=5))
    assert tracker.spent == Spent(usd=(5 * 2.5 + 40 * 10) / 1e6, tokens=45, calls=1)


def test_what_came_and_could_not_be_used_counts_after_a_restart_too(tmp_path: Path) -> None:
    (one,) = requests(1)
    tracker = SpendTracker(run="r", ledger=str(tmp_path))
    came = LLMResponse(request=one, key=request_key("who", one), outcome="answered", input_tokens=5, output_tokens=2)
    for outcome in ("failed", "answered"):
        reservation = tracker.reserve(one, MODEL)
        assert reservation is not None
        tracker.settle(reservation, replace(came, outcome=outcome))
    tracker.store("who", replace(came, model=MODEL))
    assert (tracker.paid.tokens, tracker.paid.calls) == (14, 2)
    again = SpendTracker(run="r", ledger=str(tmp_path))
    assert again.find("who", [one]) != [None]
    assert again.spent == tracker.spent


def test_a_budget_in_dollars_needs_a_price() -> None:
    tracker = SpendTracker(run="r", budget=Budget(usd=3), prices={"other": Price(input=1, output=1)})
    with pytest.raises(UserError) as caught, open_teacher(ModelSettings(model="m"), "openai", tracker):
        pass
    assert str(caught.value) == (
        "budget.usd: 3, but the price of model 'm' is not known; give it as prices: "
        '{"m": {input: ..., output: ...}}, '
        "in US dollars for a million tokens, or set budget.tokens or budget.calls instead"
    )
    assert SpendTracker(run="r").reserve(requests(1)[0], "m") is not None


def test_a_batch_is_reckoned_at_its_share_of_the_price() -> None:
    (one,) = requests(1)
    tracker = SpendTracker(run="r", prices=PRICES)
    for share in (1.0, 0.5):
        reservation = tracker.reserve(one, MODEL, share)
        assert reservation is not None
        tracker.settle(
            reservation, LLMResponse(request=one, key="k", outcome="answered", input_tokens=10, output_tokens=10)
        )
    assert tracker.spent.usd == pytest.approx(1.5 * 125e-6, abs=1e-12)


@given(
    limit=st.integers(0, 3000),
    steps=st.lists(
        st.tuples(st.sampled_from(["reserve", "settle", "lose", "release"]), st.integers(0, 40)), max_size=80
    ),
)
def test_booked_and_set_aside_together_never_exceed_it(limit: int, steps: list[tuple[str, int]]) -> None:
    tracker = SpendTracker(run="r", budget=Budget(tokens=limit, calls=limit // 600))
    reservations: list[Reservation] = []
    for step, number in steps:
        (one,) = requests(1)
        if step == "reserve":
            if (reservation := tracker.reserve(one, "m")) is not None:
                reservations.append(reservation)
        elif reservations:
            reservation = reservations.pop(number % len(reservations))
            if step == "settle":
                tokens = {"input_tokens": min(number, reservation.input_tokens), "output_tokens": number}
                tracker.settle(reservation, LLMResponse(request=one, key="k", outcome="answered", **tokens))
            elif step == "lose":
                tracker.settle(reservation, None)
            else:
                tracker.release(reservation)
        reserved = sum(reservation.input_tokens + reservation.output_tokens for reservation in reservations)
        assert tracker.spent.tokens + reserved <= limit
        assert tracker.spent.calls + len(reservations) <= limit // 600
        assert tracker.reserved == len(reservations)


def test_threads_together_never_exceed_it() -> None:
    tracker, over = SpendTracker(run="r", budget=Budget(calls=300)), []

    def work() -> None:
        for _ in range(100):
            if (reservation := tracker.reserve(requests(1)[0], "m")) is None:
                over.append(1)
                continue
            time.sleep(0.0001)
            tracker.settle(reservation, None)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tracker.spent.calls == 300
    assert len(over) == 500


@given(texts=st.lists(st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=60), min_size=1, max_size=4))
def test_no_tokenizer_makes_more_tokens_than_are_set_aside(texts: list[str]) -> None:
    """The worst there is: one token for each byte, after an expansion of ligatures, with a template's words around."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

    vocabulary = {character: number for number, character in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    one = LLMRequest(messages=[{"role": "user", "content": text} for text in texts], temperature=0.0, max_tokens=16)
    for normalizer in (None, normalizers.NFKC()):
        if normalizer is not None:
            tokenizer.normalizer = normalizer
        tokens = sum(len(tokenizer.encode(f"<|user|>{text}<|end|>").ids) for text in texts)
        assert tokens <= most_input_tokens(one)
