"""Asking until an answer can be used, in rounds over the whole batch."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.llm.requests import Answer, Ask, call_key
from llm2llm.components.teacher_augment.until_usable import Asking, OpenTeacher, Question, Unusable, ask_until
from tests.support.fake_teacher import answered, opened

FAILED = answered("", outcome="failed", detail="no answer within 120 s")
BROKE = answered("", outcome="over_budget")


def read(answer: Answer) -> str:
    if answer.text != "good":
        raise Unusable("unparseable", "not good")
    return answer.text


def ask(text: str = "hello") -> Ask:
    return Ask(messages=[{"role": "user", "content": text}], temperature=0.7, max_tokens=16)


def questions(teacher: OpenTeacher, *texts: str, fresh: bool = True) -> list[Question[str]]:
    return [Question(teacher, ask(text), read, fresh) for text in texts]


def new(**fields: object) -> Asking:
    return replace(Asking(iteration=1, strategy="llm2llm", attempts=3), **fields)


def test_only_what_cannot_be_used_is_asked_again_and_all_at_once() -> None:
    teacher, fake = opened(lambda ask, n: "good" if ask.messages[0]["content"] == "a" or ask.attempt == 2 else "bad")
    asking = new()
    told = ask_until(asking, questions(teacher, "a", "b", "c"))
    assert [one.value for one in told] == ["good"] * 3
    assert fake.batches == [3, 2, 2]
    assert [(one.messages[0]["content"], one.attempt) for one in fake.asks[3:]] == [
        ("b", 1),
        ("c", 1),
        ("b", 2),
        ("c", 2),
    ]
    assert (len(asking.calls), asking.unusable) == (7, 4)
    assert len({call.key for call in asking.calls}) == 7


def test_the_last_problem_is_kept_after_the_last_attempt() -> None:
    teacher, fake = opened(lambda ask, n: f"bad {ask.attempt}")
    (told,) = ask_until(new(), questions(teacher, "a"))
    assert told.value is None
    assert told.problem is not None
    assert (told.problem.reason, told.problem.raw, len(fake.asks)) == ("unparseable", "bad 2", 3)
    assert told.call is not None
    assert told.call.key == call_key(teacher.identity, fake.asks[-1])


@pytest.mark.parametrize(("came", "reason"), [(FAILED, "call_failed"), (BROKE, "over_budget")])
def test_what_was_not_answered_is_not_asked_again(came: Answer, reason: str) -> None:
    teacher, fake = opened(lambda ask, n: came)
    asking = new()
    (told,) = ask_until(asking, questions(teacher, "a"))
    assert told.problem is not None
    assert told.problem.reason == reason
    assert len(fake.asks) == 1
    assert (told.call is None) == (reason == "over_budget")
    assert len(asking.calls) == (reason == "call_failed")


def test_an_answer_that_could_not_be_used_is_remembered_when_the_money_ends() -> None:
    teacher, _ = opened(lambda ask, n: BROKE if ask.attempt else "bad")
    (told,) = ask_until(new(), questions(teacher, "a"))
    assert told.problem is not None
    assert (told.problem.reason, told.problem.raw) == ("unparseable", "bad")
    assert told.call is not None


def test_a_refusal_is_asked_again() -> None:
    teacher, fake = opened(lambda ask, n: "good" if n else answered("", refusal="I will not."))
    assert ask_until(new(), questions(teacher, "a"))[0].value == "good"
    assert len(fake.asks) == 2


def test_equal_questions_get_answers_of_their_own() -> None:
    teacher, fake = opened(lambda ask, n: "good")
    ask_until(new(), questions(teacher, "a", "a", "b", "a"))
    assert [one.sample for one in fake.asks] == [0, 1, 0, 2]


def test_a_question_of_an_earlier_iteration_gets_a_new_answer() -> None:
    teacher, fake = opened(lambda ask, n: "good")
    first = new()
    ask_until(first, questions(teacher, "a", "a"))
    ask_until(new(earlier=frozenset(call.key for call in first.calls)), questions(teacher, "a", "b"))
    assert [(one.messages[0]["content"], one.sample) for one in fake.asks[2:]] == [("a", 2), ("b", 0)]


def test_the_same_again_has_the_same_keys() -> None:
    teacher, fake = opened(lambda ask, n: "good" if ask.attempt else "bad")
    earlier = frozenset({call_key(teacher.identity, ask("a"))})
    for _ in range(2):
        ask_until(new(earlier=earlier), questions(teacher, "a", "a", "b"))
    keys = [call_key(teacher.identity, one) for one in fake.asks]
    assert keys[:6] == keys[6:]


def test_what_is_asked_the_same_on_purpose_is_one_call() -> None:
    teacher, fake = opened(lambda ask, n: "good")
    asking = new()
    for _ in range(2):
        assert [one.value for one in ask_until(asking, questions(teacher, "a", "a", fresh=False))] == ["good", "good"]
    assert len(fake.asks) == len(asking.calls) == 1


def test_a_call_of_an_earlier_iteration_that_the_ledger_answers_has_its_row_already() -> None:
    teacher, _ = opened(lambda ask, n: "good")
    earlier = frozenset({call_key(teacher.identity, ask("a"))})
    for remembers, rows in ((True, 0), (False, 1)):
        asking = new(earlier=earlier, remembers=remembers)
        (told,) = ask_until(asking, questions(teacher, "a", fresh=False))
        assert told.call is not None
        assert len(asking.calls) == rows


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["good", "bad", "mixed", "failed", "broke"]))))
def test_every_question_is_told_a_value_or_a_problem(asked: list[tuple[str, str]]) -> None:
    """Of two teachers, in the order of the questions."""
    kinds = {"good": "good", "bad": "bad", "failed": FAILED, "broke": BROKE}

    def writes(ask: Ask, number: int) -> object:
        kind = ask.messages[0]["content"].split()[1]
        return kinds["good" if ask.attempt else "bad"] if kind == "mixed" else kinds[kind]

    one, two = opened(writes)[0], opened(writes, model="other")[0]
    put = [Question(two if text == "a" else one, ask(f"{text} {kind}"), read) for text, kind in asked]
    asking = new()
    told = ask_until(asking, put)
    assert [("good" if t.value else "none") for t in told] == [
        "good" if kind in ("good", "mixed") else "none" for _, kind in asked
    ]
    assert all(
        (t.value is None) != (t.problem is None) and t.teacher is q.teacher for t, q in zip(told, put, strict=True)
    )
    assert len({call.key for call in asking.calls}) == len(asking.calls)
