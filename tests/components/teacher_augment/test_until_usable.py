"""CallLog until an answer can be used, in rounds over the whole batch."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.llm.requests import LLMRequest, LLMResponse, request_key
from llm2llm.components.teacher_augment.until_usable import CallLog, OpenTeacher, Query, Unusable, query_until_usable
from tests.support.fake_teacher import answered, opened

FAILED = answered("", outcome="failed", detail="no answer within 120 s")
BROKE = answered("", outcome="over_budget")


def read(answer: LLMResponse) -> str:
    if answer.text != "good":
        raise Unusable("unparseable", "not good")
    return answer.text


def request(text: str = "hello") -> LLMRequest:
    return LLMRequest(messages=[{"role": "user", "content": text}], temperature=0.7, max_tokens=16)


def questions(teacher: OpenTeacher, *texts: str, fresh: bool = True) -> list[Query[str]]:
    return [Query(teacher, request(text), read, fresh) for text in texts]


def new(**fields: object) -> CallLog:
    return replace(CallLog(iteration=1, strategy="llm2llm", attempts=3), **fields)


def test_only_what_cannot_be_used_is_asked_again_and_all_at_once() -> None:
    teacher, fake = opened(
        lambda request, n: "good" if request.messages[0]["content"] == "a" or request.attempt == 2 else "bad"
    )
    call_log = new()
    told = query_until_usable(call_log, questions(teacher, "a", "b", "c"))
    assert [one.value for one in told] == ["good"] * 3
    assert fake.batches == [3, 2, 2]
    assert [(one.messages[0]["content"], one.attempt) for one in fake.requests[3:]] == [
        ("b", 1),
        ("c", 1),
        ("b", 2),
        ("c", 2),
    ]
    assert (len(call_log.calls), call_log.unusable) == (7, 4)
    assert len({call.key for call in call_log.calls}) == 7


def test_the_last_problem_is_kept_after_the_last_attempt() -> None:
    teacher, fake = opened(lambda request, n: f"bad {request.attempt}")
    (told,) = query_until_usable(new(), questions(teacher, "a"))
    assert told.value is None
    assert told.problem is not None
    assert (told.problem.reason, told.problem.raw, len(fake.requests)) == ("unparseable", "bad 2", 3)
    assert told.call is not None
    assert told.call.key == request_key(teacher.identity, fake.requests[-1])


@pytest.mark.parametrize(("came", "reason"), [(FAILED, "call_failed"), (BROKE, "over_budget")])
def test_what_was_not_answered_is_not_asked_again(came: LLMResponse, reason: str) -> None:
    teacher, fake = opened(lambda request, n: came)
    call_log = new()
    (told,) = query_until_usable(call_log, questions(teacher, "a"))
    assert told.problem is not None
    assert told.problem.reason == reason
    assert len(fake.requests) == 1
    assert (told.call is None) == (reason == "over_budget")
    assert len(call_log.calls) == (reason == "call_failed")


def test_an_answer_that_could_not_be_used_is_remembered_when_the_money_ends() -> None:
    teacher, _ = opened(lambda request, n: BROKE if request.attempt else "bad")
    (told,) = query_until_usable(new(), questions(teacher, "a"))
    assert told.problem is not None
    assert (told.problem.reason, told.problem.raw) == ("unparseable", "bad")
    assert told.call is not None


def test_a_refusal_is_asked_again() -> None:
    teacher, fake = opened(lambda request, n: "good" if n else answered("", refusal="I will not."))
    assert query_until_usable(new(), questions(teacher, "a"))[0].value == "good"
    assert len(fake.requests) == 2


def test_equal_questions_get_answers_of_their_own() -> None:
    teacher, fake = opened(lambda request, n: "good")
    query_until_usable(new(), questions(teacher, "a", "a", "b", "a"))
    assert [one.sample for one in fake.requests] == [0, 1, 0, 2]


def test_a_question_of_an_earlier_iteration_gets_a_new_answer() -> None:
    teacher, fake = opened(lambda request, n: "good")
    first = new()
    query_until_usable(first, questions(teacher, "a", "a"))
    query_until_usable(new(earlier=frozenset(call.key for call in first.calls)), questions(teacher, "a", "b"))
    assert [(one.messages[0]["content"], one.sample) for one in fake.requests[2:]] == [("a", 2), ("b", 0)]


def test_the_same_again_has_the_same_keys() -> None:
    teacher, fake = opened(lambda request, n: "good" if request.attempt else "bad")
    earlier = frozenset({request_key(teacher.identity, request("a"))})
    for _ in range(2):
        query_until_usable(new(earlier=earlier), questions(teacher, "a", "a", "b"))
    keys = [request_key(teacher.identity, one) for one in fake.requests]
    assert keys[:6] == keys[6:]


def test_what_is_asked_the_same_on_purpose_is_one_call() -> None:
    teacher, fake = opened(lambda request, n: "good")
    call_log = new()
    for _ in range(2):
        assert [one.value for one in query_until_usable(call_log, questions(teacher, "a", "a", fresh=False))] == [
            "good",
            "good",
        ]
    assert len(fake.requests) == len(call_log.calls) == 1


def test_a_call_of_an_earlier_iteration_that_the_ledger_answers_has_its_row_already() -> None:
    teacher, _ = opened(lambda request, n: "good")
    earlier = frozenset({request_key(teacher.identity, request("a"))})
    for remembers, rows in ((True, 0), (False, 1)):
        call_log = new(earlier=earlier, remembers=remembers)
        (told,) = query_until_usable(call_log, questions(teacher, "a", fresh=False))
        assert told.call is not None
        assert len(call_log.calls) == rows


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["good", "bad", "mixed", "failed", "broke"]))))
def test_every_question_is_told_a_value_or_a_problem(asked: list[tuple[str, str]]) -> None:
    """Of two teachers, in the order of the questions."""
    kinds = {"good": "good", "bad": "bad", "failed": FAILED, "broke": BROKE}

    def writes(request: LLMRequest, number: int) -> object:
        kind = request.messages[0]["content"].split()[1]
        return kinds["good" if request.attempt else "bad"] if kind == "mixed" else kinds[kind]

    one, two = opened(writes)[0], opened(writes, model="other")[0]
    put = [Query(two if text == "a" else one, request(f"{text} {kind}"), read) for text, kind in asked]
    call_log = new()
    told = query_until_usable(call_log, put)
    assert [("good" if t.value else "none") for t in told] == [
        "good" if kind in ("good", "mixed") else "none" for _, kind in asked
    ]
    assert all(
        (t.value is None) != (t.problem is None) and t.teacher is q.teacher for t, q in zip(told, put, strict=True)
    )
    assert len({call.key for call in call_log.calls}) == len(call_log.calls)
