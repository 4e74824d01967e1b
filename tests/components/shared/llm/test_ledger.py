"""The ledger: whole or absent, first writer wins, and nothing but what was asked comes out."""

import dataclasses
import gzip
import json
import multiprocessing
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.budget import SpendTracker, Spent
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.ledger import (
    Entry,
    entry_text,
    entry_uri,
    find_entries,
    ledger_summary,
    list_entries,
    read_ledger,
    request_of,
    write_entry,
)
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, request_key
from llm2llm.components.shared.llm.settings import Budget, ModelSettings, Price
from llm2llm.components.shared.storage import NotThere
from tests.support.misbehaving_server import MODEL, misbehaving
from tests.support.rgw import s3_server  # noqa: F401

WHO = "http://endpoint/v1 model"


def request(text: str = "row", **fields: Any) -> LLMRequest:
    return LLMRequest(messages=[{"role": "user", "content": text}], **{"temperature": 0.7, "max_tokens": 64, **fields})


def answer(one: LLMRequest, text: str = "fine", **fields: Any) -> LLMResponse:
    values: dict[str, Any] = {"model": "m", "input_tokens": 10, "output_tokens": 5, **fields}
    return LLMResponse(request=one, key=request_key(WHO, one), outcome="answered", text=text, **values)


def entry(text: str = "row", **fields: Any) -> Entry:
    one = request(text)
    values: dict[str, Any] = {"run": "r", "written_at": "2026-01-01T00:00:00.000+00:00", "text": "fine", **fields}
    return Entry(key=request_key(WHO, one), identity=WHO, model="m", request=request_of(one), **values)


@pytest.fixture(params=["local", pytest.param("s3", marks=pytest.mark.s3)])
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where a ledger can be."""
    if request.param == "local":
        yield str(tmp_path / "ledger")
    else:
        server = request.getfixturevalue("s3_server")
        server.use(monkeypatch)
        yield f"s3://{server.bucket()}/ledger"


class TestEntries:
    def test_what_is_written_is_read(self, place: str) -> None:
        stored = entry(sent={"model": "m"}, raw={"choices": []}, refusal="no", truncated=True, detail="d", attempts=3)
        assert write_entry(place, stored)
        assert read_ledger(place, stored.key) == stored
        assert entry_uri(place, stored.key).endswith(f"/{stored.key[:2]}/{stored.key}.json.gz")
        with pytest.raises(NotThere):
            read_ledger(place, "0" * 32)

    def test_the_first_writer_wins(self, place: str) -> None:
        assert write_entry(place, entry())
        assert not write_entry(place, dataclasses.replace(entry(), text="another"))
        assert read_ledger(place, entry().key).text == "fine"

    def test_exactly_one_of_many_writers_wins_and_all_get_its_answer(self, place: str) -> None:
        one = request()
        accounts = [SpendTracker(run=f"r{number}", ledger=place) for number in range(16)]
        with ThreadPoolExecutor(16) as threads:
            stored = list(threads.map(lambda a: a.store(WHO, answer(one, text=f"by {a.run}")), accounts))
        assert len({came.text for came in stored}) == 1
        assert all(came.paid for came in stored)
        assert read_ledger(place, stored[0].key).text == stored[0].text

    def test_thousands_are_found_at_once(self, place: str) -> None:
        count = 2_000 if not place.startswith("s3://") else 300
        stored = [entry(f"row {number}") for number in range(count)]
        with ThreadPoolExecutor(16) as threads:
            assert all(threads.map(lambda one: write_entry(place, one), stored))
        keys = [one.key for one in stored] + [f"{number:032x}" for number in range(count)]
        assert find_entries(place, keys) == {one.key: one for one in stored}
        assert [one.key for one in list_entries(place)] == sorted(one.key for one in stored)

    @given(text=st.text(alphabet=st.characters(), max_size=50), raw=st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(alphabet=st.characters()),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=5,
    ))  # fmt: skip
    def test_any_text_comes_back(self, tmp_path_factory: pytest.TempPathFactory, text: str, raw: Any) -> None:
        ledger = str(tmp_path_factory.mktemp("ledger"))
        one = request(text)
        tracker = SpendTracker(run="r", ledger=ledger)
        tracker.store(WHO, answer(one, text=text), raw=raw)
        (found,) = SpendTracker(run="s", ledger=ledger).find(WHO, [one])
        assert found is not None
        assert found.text == text
        assert read_ledger(ledger, found.key).raw == raw

    def test_it_is_gzip_that_any_tool_reads(self, tmp_path: Path) -> None:
        write_entry(str(tmp_path), entry())
        (file,) = tmp_path.rglob("*.json.gz")
        value = json.loads(gzip.decompress(file.read_bytes()))
        assert (value["key"], value["version"], value["text"]) == (entry().key, 1, "fine")
        assert json.loads(entry_text(entry())) == value

    @pytest.mark.parametrize(
        ("damage", "says"),
        [
            (lambda data: data[:-9], "damaged"),
            (lambda data: b"", "is no entry|damaged"),
            (lambda data: b"\x00" * 50, "damaged"),
            (lambda data: data[:30] + bytes([data[30] ^ 255]) + data[31:], "damaged|another call"),
            (lambda data: gzip.compress(b"[]"), "is no entry of a ledger"),
            (lambda data: gzip.compress(b'{"version": 1}'), "is no entry of a ledger"),
            (lambda data: gzip.compress(b"\xff"), "damaged"),
            (lambda data: gzip.compress(b"[" * 10**6), "damaged"),
            (lambda data: gzip.compress(b" " * (64 * 2**20 + 1)), "unpacks to more than"),
            (lambda data: changed(data, version=2), "has version 2"),
            (lambda data: changed(data, identity="another"), "holds another call"),
            (lambda data: changed(data, request={}), "is no entry of a ledger"),
            (lambda data: changed(data, request=None), "is no entry of a ledger"),
            (lambda data: packed(entry("another row")), "holds another call"),
        ],
    )
    def test_a_damaged_or_foreign_entry_is_named_and_never_paid_for_again(self, tmp_path, damage, says) -> None:
        write_entry(str(tmp_path), entry())
        (file,) = tmp_path.rglob("*.json.gz")
        file.write_bytes(damage(file.read_bytes()))
        with misbehaving([{"question": "q", "answer": "a"}]) as server:
            settings = ModelSettings(model="m", url=server.url)
            for look in (
                lambda: read_ledger(str(tmp_path), entry().key),
                lambda: list(list_entries(str(tmp_path))),
                lambda: SpendTracker(run="r", ledger=str(tmp_path)).find(WHO, [request(), request("b")]),
            ):
                with pytest.raises(UserError, match=says) as caught:
                    look()
                assert str(file) in str(caught.value)
                assert "\n" not in str(caught.value)
            assert settings.identity("openai") != WHO
            assert server.stats()["requests"] == 0

    def test_the_summary_counts_calls_and_tokens(self, place: str) -> None:
        with pytest.raises(UserError, match="holds no ledger"):
            ledger_summary(place)
        for number, run in enumerate("aab"):
            write_entry(place, dataclasses.replace(entry(f"{number}"), run=run, input_tokens=1000, output_tokens=1))
        write_entry(place, dataclasses.replace(entry("judge"), purpose="judge", input_tokens=None))
        assert ledger_summary(place).splitlines() == [
            f"{place}: 4 answers, 3,003 tokens",
            f"  {WHO}  judge: 1 answers, 0 tokens, paid for by 1 run",
            f"  {WHO}  write: 3 answers, 3,003 tokens, paid for by 2 runs",
        ]


def packed(one: Entry) -> bytes:
    return gzip.compress(entry_text(one).encode())


def changed(data: bytes, **values: Any) -> bytes:
    return gzip.compress(json.dumps(json.loads(gzip.decompress(data)) | values).encode())


class TestKeys:
    def test_what_the_answer_depends_on_changes_the_key(self) -> None:
        base = request(schema={"type": "object"})
        others = [
            dataclasses.replace(base, messages=[{"role": "user", "content": "other"}]),
            dataclasses.replace(base, messages=[{"role": "system", "content": "row"}]),
            dataclasses.replace(base, schema=None),
            dataclasses.replace(base, temperature=0.5),
            dataclasses.replace(base, max_tokens=65),
            dataclasses.replace(base, sample=1),
            dataclasses.replace(base, attempt=1),
            dataclasses.replace(base, top_p=0.9),
        ]
        keys = {request_key(who, one) for who in (WHO, f"{WHO}@2") for one in (base, *others)}
        assert len(keys) == 18
        assert request_key(WHO, dataclasses.replace(base, purpose="judge", parent_id="p")) == request_key(WHO, base)

    def test_a_nucleus_is_a_part_of_the_call_and_changes_no_key_from_before_there_was_one(self) -> None:
        assert request_key(WHO, request()) == "610abd9347ae9e10a948aad228c99332"
        assert "top_p" not in request_of(request())
        one = request(top_p=0.9)
        stored = dataclasses.replace(entry(), key=request_key(WHO, one), request=request_of(one))
        assert stored.llm_request() == one

    def test_the_endpoint_model_and_revision_are_the_identity(self) -> None:
        settings = ModelSettings(model="m", url="http://a/v1/")
        assert settings.identity("openai") == "http://a/v1 m"
        assert settings.model_copy(update={"revision": "2"}).identity("openai") == "http://a/v1 m@2"


class TestRuns:
    def test_an_answer_of_this_run_counts_as_spent_and_one_of_another_does_not(self, place: str) -> None:
        prices = {"m": Price(input=1.0, output=2.0)}
        first = SpendTracker(run="one", ledger=place, prices=prices)
        reservation = first.reserve(request(), "m")
        assert reservation is not None
        first.settle(reservation, answer(request()))
        first.store(WHO, answer(request()))
        assert first.spent == Spent(usd=20e-6, tokens=15, calls=1)
        after_a_crash = SpendTracker(run="one", ledger=place, prices=prices)
        for _ in range(2):
            (found,) = after_a_crash.find(WHO, [request()])
            assert found is not None
            assert (found.paid, found.usd) == (True, 20e-6)
        assert (after_a_crash.spent, after_a_crash.paid) == (first.spent, Spent())
        another = SpendTracker(run="two", ledger=place, prices=prices)
        (found,) = another.find(WHO, [request()])
        assert found is not None
        assert (found.paid, another.spent) == (False, Spent())
        counted = SpendTracker(run="one", ledger=place, prices=prices, spent=first.spent, counted=[found.key])
        counted.find(WHO, [request()])
        assert counted.spent == first.spent

    def test_tries_that_broke_are_remembered_with_the_answer(self, tmp_path: Path) -> None:
        tracker = SpendTracker(run="one", ledger=str(tmp_path))
        for came in (None, None, answer(request())):
            reservation = tracker.reserve(request(), "m")
            assert reservation is not None
            tracker.settle(reservation, came)
        tracker.store(WHO, answer(request()))
        after_a_crash = SpendTracker(run="one", ledger=str(tmp_path))
        after_a_crash.find(WHO, [request()])
        assert after_a_crash.spent == tracker.spent
        assert tracker.spent.calls == 3

    def test_with_the_cache_off_nothing_of_other_runs_is_used_and_nothing_of_this_run_paid_twice(
        self, tmp_path
    ) -> None:
        with misbehaving([{"question": "q", "answer": "a"}]) as server:
            settings = ModelSettings(model=MODEL, url=server.url)

            def calls(run: str, cache: bool) -> int:
                before = server.stats()["requests"]
                tracker = SpendTracker(run=run, ledger=str(tmp_path), cache=cache, budget=Budget(calls=100))
                with open_teacher(settings, "openai", tracker) as teacher:
                    assert all(came.outcome == "answered" for came in teacher([request(f"{n}") for n in range(5)]))
                return int(server.stats()["requests"] - before)

            made = [calls("a", True), calls("b", True), calls("c", False), calls("c", False), calls("d", True)]
            assert made == [5, 0, 5, 0, 0]

    def test_a_second_run_makes_no_call_a_changed_prompt_only_the_changed_ones(self, place: str) -> None:
        with misbehaving([{"question": "q", "answer": "a"}]) as server:
            settings = ModelSettings(model=MODEL, url=server.url)

            def calls(run: str, texts: list[str], **changed: Any) -> int:
                before = server.stats()["requests"]
                with open_teacher(settings, "openai", SpendTracker(run=run, ledger=place)) as teacher:
                    teacher([request(text, **changed) for text in texts])
                return int(server.stats()["requests"] - before)

            texts = [f"row {number}" for number in range(30)]
            assert calls("a", texts) == 30
            assert calls("b", texts) == 0
            assert calls("c", [*texts[:20], "new", "newer"]) == 2
            assert calls("d", texts, temperature=0.1) == 30


def one_process(url: str, ledger: str, run: str, start: Any, out: Any) -> None:
    start.wait()
    tracker = SpendTracker(run=run, ledger=ledger)
    with open_teacher(ModelSettings(model=MODEL, url=url, concurrency=8), "openai", tracker) as teacher:
        answers = teacher([request(f"row {number}") for number in range(60)])
    out.put((tracker.paid.calls, [came.text for came in answers]))


def test_processes_at_once_are_all_handed_the_answer_that_was_stored_first(place: str) -> None:
    """Two may pay for one key when both ask before either has stored it; after that nobody does."""
    context = multiprocessing.get_context("spawn")
    start, out = context.Event(), context.Queue()
    with misbehaving([{"question": f"q {n}", "answer": f"a {n}"} for n in range(7)], latency=0.02) as server:
        processes = [
            context.Process(target=one_process, args=(server.url, place, f"run {number}", start, out))
            for number in range(8)
        ]
        for process in processes:
            process.start()
        start.set()
        results = [out.get(timeout=120) for _ in processes]
        for process in processes:
            process.join(60)
        stats = server.stats()
    paid = sum(calls for calls, _ in results)
    stored = {came.key: came.text for came in list_entries(place)}
    texts = [stored[request_key(came.identity, came.llm_request())] for came in list_entries(place)]
    assert len(stored) == len(texts) == 60
    assert paid == stats["requests"] == sum(stats["delivered"].values())
    assert len({tuple(came) for _, came in results}) == 1
    with misbehaving([{"question": "q", "answer": "a"}]) as another:
        last = SpendTracker(run="last", ledger=place)
        requests = [request(f"row {number}") for number in range(60)]
        assert all(last.find(ModelSettings(model=MODEL, url=server.url).identity("openai"), requests))
        assert another.stats()["requests"] == 0


def test_a_moved_ledger_is_the_same_ledger(tmp_path: Path) -> None:
    write_entry(str(tmp_path / "a"), entry())
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert read_ledger(f"{tmp_path / 'b'}/", entry().key) == entry()
