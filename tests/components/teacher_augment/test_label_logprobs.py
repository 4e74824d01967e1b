"""Soft labels from the log-probabilities of a verifier, asked at an endpoint on loopback."""

import math
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.llm.backends import openai_attempts
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.chat_completion import read_completion, read_logprobs
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.ledger import list_entries
from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse
from llm2llm.components.shared.llm.settings import ModelSettings
from llm2llm.components.shared.tasks import Task
from llm2llm.components.shared.training.encoding import softened
from llm2llm.components.teacher_augment.augment import Augmented, teacher_augment
from llm2llm.components.teacher_augment.label_logprobs import check_labels, label_shares, soft_label
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.teacher_augment.until_usable import OpenTeacher
from tests.support.loopback_endpoint import MODEL, Endpoint, HTTPResponse, completion, with_logprobs, written

COLOURS = ["red", "green", "blue"]
TRIPS = ["BookFlight", "BookHotel", "PlayMusic"]
SURE = {"blue": 0.9, "red": 0.06, "green": 0.03}
ONCE = {"verify": "resolve", "verification": {"logprobs": True, "min_agreement": 0.5}}


@pytest.fixture
def endpoint(monkeypatch: pytest.MonkeyPatch) -> Iterator[Endpoint]:
    monkeypatch.setattr(openai_attempts, "FIRST_WAIT", 0.001)
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "OPENAI_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    server = Endpoint()
    yield server
    server.close()


Verifies = Callable[[dict[str, Any], int], HTTPResponse]


@pytest.fixture
def verify(
    endpoint: Endpoint, colours: Task, seeds: Any, mistake: Any
) -> Callable[..., tuple[Augmented, SpendTracker]]:
    """Has two rows written and verified, each of the answers by what a test says."""

    def go(verifies: Verifies, task: Task = colours, ledger: str | None = None, **settings: Any) -> Any:
        def answer(body: dict[str, Any], number: int) -> HTTPResponse:
            if "response_format" in body:
                return written((f"a new blue cup, number {number}", "blue"))
            return verifies(body, number)

        endpoint.answer = answer
        values = {"model": MODEL, "url": endpoint.url, "concurrency": 1, "max_failed_fraction": 1, **ONCE, **settings}
        checked = TeacherAugmentSettings.load(values, "teacher_augment")
        own = ModelSettings(**{name: getattr(checked, name) for name in ModelSettings.model_fields})
        tracker = SpendTracker(run="r", budget=checked.budget, ledger=ledger)
        with open_teacher(own, "openai", tracker) as ask:
            teacher = OpenTeacher("openai", MODEL, own, ask)
            errors = [mistake(seed) for seed in seeds[:2]]
            return teacher_augment(errors, seeds, [], set(), task, checked, 1, 0, [teacher]), tracker

    return go


def response(answer: HTTPResponse) -> LLMResponse:
    request = LLMRequest(messages=[], temperature=0.0, max_tokens=16, top_logprobs=20)
    return LLMResponse(
        request=request,
        key="k",
        outcome="answered",
        logprobs=read_logprobs(answer.body),
        **read_completion(answer.body),
    )


def shares(labels: list[str], content: str, *places: dict[str, float], as_bytes: bool = True) -> dict[str, float]:
    found = label_shares(response(with_logprobs(content, *places, as_bytes=as_bytes)), labels)
    return {label: round(share, 6) for label, share in found.items()}


class TestShares:
    def test_the_first_token_tells_labels_apart_that_begin_differently(self) -> None:
        assert shares(COLOURS, "blue", {"bl": 0.9, "r": 0.06, "gre": 0.03, "I": 0.01}, {"ue": 1.0}) == {
            "blue": 0.9, "red": 0.06, "green": 0.03,
        }  # fmt: skip

    def test_of_labels_that_begin_alike_the_next_tokens_tell(self) -> None:
        first = {"Book": 0.8, "Play": 0.1, " Play": 0.05, "Bo": 0.05}
        assert shares(TRIPS, "BookFlight", first, {"Fl": 0.75, "Hotel": 0.25}, {"ight": 1.0}) == {
            "BookFlight": 0.6, "BookHotel": 0.2, "PlayMusic": 0.15,
        }, "what Bo would have become is nobody's"  # fmt: skip

    @pytest.mark.parametrize("as_bytes", [True, False])
    def test_white_space_marks_and_case_before_or_in_a_label_count_for_it(self, as_bytes: bool) -> None:
        found = shares(COLOURS, ' "Blue".', {' "': 1.0}, {"Blue": 0.7, "blue": 0.2, "BLUE": 0.1}, {'".': 1.0},
                       as_bytes=as_bytes)  # fmt: skip
        assert found == {"blue": 1.0}

    def test_a_word_that_only_begins_with_a_label_is_none(self) -> None:
        assert shares(COLOURS, "blue", {"blue": 0.6, "bluebell": 0.4}) == {"blue": 0.6}

    def test_a_token_may_hold_a_part_of_a_character(self) -> None:
        answer = with_logprobs("été", {"x": 0.9}, {"t\u00e9": 1.0})
        half = {"token": "\\xc3", "bytes": [0xC3], "logprob": math.log(0.9)}
        rest = {"token": "\\xa9", "bytes": [0xA9], "logprob": 0.0, "top_logprobs": []}
        tokens = [{**half, "top_logprobs": [half, {"token": "hi", "bytes": None, "logprob": math.log(0.1)}]}, rest]
        answer.body["choices"][0]["logprobs"]["content"][:1] = tokens
        found = label_shares(response(answer), ["été", "hiver"])
        assert {label: round(share, 6) for label, share in found.items()} == {"été": 0.9, "hiver": 0.1}

    @pytest.mark.parametrize("thoughts", ["<think>red? blue?</think>\n\n", "Is it red?\n</think>\n"])
    def test_thoughts_are_passed_over(self, thoughts: str) -> None:
        content = f"{thoughts}blue"
        places = [{thoughts: 1.0}, {"blue": 0.7, "red": 0.3}, {"<|im_end|>": 1.0}]
        assert shares(COLOURS, content, *places) == {"blue": 0.7, "red": 0.3}
        # A server that parses thoughts away tells their tokens all the same.
        assert shares(COLOURS, "blue", *places) == {"blue": 0.7, "red": 0.3}
        assert shares(COLOURS, content, {f"{thoughts}bl": 1.0}, {"ue": 1.0}) == {}, "begins inside a token"

    @given(st.lists(st.floats(0.001, 1), min_size=3, max_size=3), st.integers(0, 2), st.integers(1, 5))
    def test_whatever_the_tokens_the_shares_are_the_models_own(self, weights, written_one, cut) -> None:
        """A model that writes each label in pieces: of those that begin alike the common beginning is one token."""
        chances = {label: weight / math.fsum(weights) for label, weight in zip(TRIPS, weights, strict=True)}
        label = TRIPS[written_one]
        pieces = ["Book", label[4:]] if label.startswith("Book") else [label[:cut], label[cut:]]
        first = {"Book": chances["BookFlight"] + chances["BookHotel"], "PlayMusic"[:cut]: chances["PlayMusic"]}
        then = {"Flight": chances["BookFlight"] / first["Book"], "Hotel": chances["BookHotel"] / first["Book"]}
        places = [first, then if label.startswith("Book") else {pieces[1]: 1.0}]
        ordered = [{piece: place[piece], **place} for piece, place in zip(pieces, places, strict=True)]
        found = label_shares(response(with_logprobs(label, *ordered)), TRIPS)
        if label.startswith("Book"):
            assert found == pytest.approx(chances)
        else:
            assert found == pytest.approx({"PlayMusic": chances["PlayMusic"]}), "Book may be either"

    def test_small_shares_are_left_out_and_the_others_are_one(self) -> None:
        kept, told = soft_label({"blue": 0.891, "red": 0.099, "green": 0.001})
        assert (kept, round(told, 6)) == ({"blue": pytest.approx(0.9), "red": pytest.approx(0.1)}, 0.991)
        assert soft_label({}) == ({}, 0.0)


class TestRows:
    def test_the_probabilities_are_the_soft_label_for_one_call_a_row(self, verify, endpoint, tmp_path) -> None:
        ledger = str(tmp_path / "ledger")
        got, tracker = verify(lambda body, number: with_logprobs("blue", SURE), ledger=ledger)
        asked = [body for body in endpoint.requests if "response_format" not in body]
        assert len(asked) == 2
        assert all((body["logprobs"], body["top_logprobs"], body["temperature"]) == (True, 20, 0.0) for body in asked)
        assert "blue" in asked[0]["messages"][-1]["content"]
        for row in got.candidates:
            assert row.votes == ["blue", "green", "red"]
            assert row.vote_shares == pytest.approx([0.9 / 0.99, 0.03 / 0.99, 0.06 / 0.99])
            assert row.confidence == pytest.approx(0.9 / 0.99, abs=1e-6)
            assert row.checks[-1] == "solved again"
        twins, weights = softened(got.candidates[:1])
        assert [row.answer for row in twins] == ["blue", "green", "red"]
        assert weights == pytest.approx([0.9 / 0.99, 0.03 / 0.99, 0.06 / 0.99])
        # The same again is answered by the ledger, probabilities and all.
        again, free = verify(lambda body, number: HTTPResponse(500), ledger=ledger)
        assert again.candidates == got.candidates
        assert (tracker.paid.calls, free.paid.calls) == (4, 0)

    def test_a_row_whose_answer_is_improbable_is_rejected(self, verify) -> None:
        got, _ = verify(lambda body, number: with_logprobs("red", {"red": 0.7, "blue": 0.3}))
        assert [one.reason for one in got.rejects] == ["disagrees"] * 2
        assert got.rejects[0].detail == (
            "the verifier gives the answer 'blue' 30.0%; it gives 'red' 70.0%, 'blue' 30.0%"
        )

    @pytest.mark.parametrize(
        ("answer", "detail"),
        [
            (with_logprobs("blue", {"blue": 0.6, "Well": 0.4}), "60.0% of the verifier's probability is on answers"),
            (with_logprobs("I think blue", {"I": 1.0}, {" think": 1.0}, {" blue": 1.0}), "0.0% of the verifier's"),
        ],
    )
    def test_a_verifier_that_writes_other_things_tells_no_label(self, verify, answer, detail) -> None:
        got, _ = verify(lambda body, number: answer)
        assert {one.reason for one in got.rejects} == {"disagrees"}
        assert detail in got.rejects[0].detail

    def test_thoughts_that_do_not_end_are_asked_again_and_then_no_label(self, verify, endpoint) -> None:
        cut = with_logprobs("<think>hm", {"<think>": 1.0}, {"hm": 1.0})
        cut.body["choices"][0]["finish_reason"] = "length"
        got, _ = verify(lambda body, number: cut, attempts=2)
        assert [one.detail for one in got.rejects] == [
            "the verifier's answer tells no label: the answer hit max_tokens"
        ] * 2
        assert sum("response_format" not in body for body in endpoint.requests) == 4

    def test_what_the_budget_has_no_room_for_is_not_verified(self, verify) -> None:
        got, tracker = verify(lambda body, number: with_logprobs("blue", SURE), budget={"calls": 3})
        assert (len(got.candidates), [one.reason for one in got.rejects]) == (1, ["over_budget"])
        assert tracker.paid.calls == 3


class TestServers:
    @pytest.mark.parametrize(
        "said",
        ["logprobs is not supported with this model", "Unrecognized request argument supplied: top_logprobs",
         "'logprobs' is not allowed for gpt-5"],
    )  # fmt: skip
    def test_one_that_refuses_them_is_named_with_the_fix(self, verify, said: str) -> None:
        with pytest.raises(UserError, match=r"tells no log-probabilities: it refuses to .*logprobs: false") as refused:
            verify(lambda body, number: HTTPResponse(400, {"error": {"message": said}}))
        assert said in str(refused.value)

    @pytest.mark.parametrize(
        "said",
        ["Invalid value for 'top_logprobs': must be less than or equal to 5.",
         "Requested sample logprobs of 20, which is greater than max allowed: 5"],
    )  # fmt: skip
    def test_one_that_tells_fewer_is_asked_for_fewer(self, verify, endpoint, said: str) -> None:
        def answer(body: dict[str, Any], number: int) -> HTTPResponse:
            if body["top_logprobs"] > 5:
                return HTTPResponse(400, {"error": {"message": said}})
            return with_logprobs("blue", SURE)

        got, _ = verify(answer)
        assert len(got.candidates) == 2
        assert [body["top_logprobs"] for body in endpoint.requests if "top_logprobs" in body] == [20, 5, 5]

    def test_one_that_ignores_them_ends_the_run_and_leaves_no_such_answer(self, verify, tmp_path) -> None:
        with pytest.raises(UserError, match="tells no log-probabilities: it answers without them"):
            verify(lambda body, number: completion("blue"), ledger=str(tmp_path / "ledger"))
        assert {entry.purpose for entry in list_entries(str(tmp_path / "ledger"))} == {"write"}

    @pytest.mark.parametrize(
        "broken",
        [{"content": None}, {"content": [{"token": "blue"}]}, {"content": [{"token": "blue", "logprob": 7}]}, None, []],
    )
    def test_what_is_none_counts_as_not_told(self, broken: Any) -> None:
        answer = completion("blue")
        answer.body["choices"][0]["logprobs"] = broken
        assert read_logprobs(answer.body) is None


class TestSettings:
    @pytest.mark.parametrize(
        ("settings", "named"),
        [
            ({"verify": "judge", "verification": {"logprobs": True}}, "for verify 'resolve', and verify is 'judge'"),
            ({"verify": "resolve", "verification": {"logprobs": True, "samples": 5}}, "each row is asked about once"),
            (
                {"teacher": "transformers", "verify": "resolve", "verification": {"logprobs": True}},
                "teacher 'transformers' tells no log-probabilities",
            ),
            (
                {"verify": "resolve",
                 "verification": {"logprobs": True, "by": {"teacher": "batch", "model": "m"}}},
                "teacher 'batch' tells no log-probabilities",
            ),
        ],
    )  # fmt: skip
    def test_contradictions_are_refused(self, settings: dict[str, Any], named: str) -> None:
        with pytest.raises(ValidationError, match=named):
            TeacherAugmentSettings(**{"model": "m", **settings})

    @pytest.mark.parametrize(
        ("task", "named"),
        [
            (Task(name="t", form="classification", labels=["artist", "art", "x"]), "'art' begins label 'artist'"),
            (Task(name="t", form="classification", labels=["Art", "art"]), "begins label"),
            (Task(name="t", form="text"), "has neither labels nor choices"),
        ],
    )
    def test_labels_that_tokens_do_not_tell_apart_are_refused(self, task: Task, named: str) -> None:
        with pytest.raises(ValueError, match=named):
            check_labels(task)

    def test_letters_of_choices_can_be_told(self) -> None:
        check_labels(Task(name="choice", form="multiple_choice"))
