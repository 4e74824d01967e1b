"""Blind solutions, agreement of several teachers, and the judge."""

from collections import Counter
from typing import Any

import pytest

from llm2llm.components.shared.data.schemas import content_id
from llm2llm.components.shared.llm.requests import LLMRequest
from llm2llm.components.teacher_augment.augment import teacher_augment
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from tests.support.fake_teacher import answered, examples, opened, shown

RESOLVE = {"verify": "resolve"}
JUDGE = {"verify": "judge"}


def writer(request: LLMRequest, n: int) -> Any:
    return examples((f"a new blue cup, number {n}", "blue"))


def solving(*answers: str):
    """Writes, and solves with these answers by turns."""

    def writes(request: LLMRequest, n: int) -> Any:
        return writer(request, n) if request.purpose == "write" else {"answer": answers[request.sample % len(answers)]}

    return writes


def judging(*verdicts: Any):
    """Writes, and judges with these verdicts by turns: (right, confidence, answer)."""

    def writes(request: LLMRequest, n: int) -> Any:
        if request.purpose == "write":
            return writer(request, n)
        verdict = verdicts[request.sample % len(verdicts)]
        if not isinstance(verdict, tuple):
            return verdict
        return dict(zip(("right", "confidence", "answer"), verdict, strict=True))

    return writes


class TestResolve:
    @pytest.mark.parametrize(
        ("answers", "confidence"),
        [(["blue"], 1.0), (["blue", "blue", "red"], 2 / 3), (["Blue ", "teal", "purple"], None)],
    )
    def test_the_share_of_solutions_with_its_answer_is_the_confidence(
        self, augment, colours, seeds, answers, confidence
    ):
        got, fake = augment(solving(*answers), colours, seeds, 2, **RESOLVE)
        assert Counter(call.purpose for call in got.calls)["write"] == 2
        solutions = [request for request in fake.requests if request.purpose == "resolve" and request.attempt == 0]
        assert sorted(request.sample for request in solutions) == [0, 0, 1, 1, 2, 2]
        assert all(shown(request, "question").keys() == {"question"} for request in solutions), (
            "the answer is not shown"
        )
        if confidence is None:  # "Blue " is the label; "teal" and "purple" are none
            assert [r.reason for r in got.rejects] == ["disagrees"] * 2
            assert got.rejects[0].detail == (
                "1 of 3 blind solutions have the answer 'blue'; they are 2 x 'none', 1 x 'blue'"
            )
        else:
            assert [row.confidence for row in got.candidates] == [confidence] * 2
            assert all(row.checks[-1] == "solved again" for row in got.candidates)
            shares = {answer: answers.count(answer) / len(answers) for answer in sorted(set(answers))}
            assert all(dict(zip(row.votes, row.vote_shares, strict=True)) == shares for row in got.candidates)

    def test_the_drafts_of_a_verifier_that_thinks_are_no_solutions(self, augment, colours, seeds) -> None:
        def writes(request: LLMRequest, n: int) -> Any:
            drafted = '<think>{"answer": "red"}? No.</think>\n{"answer": "blue"}'
            return writer(request, n) if request.purpose == "write" else drafted

        got, _ = augment(writes, colours, seeds, 2, **RESOLVE)
        assert [row.confidence for row in got.candidates] == [1.0, 1.0]

    def test_a_row_whose_solutions_disagree_is_kept_as_a_reject(self, augment, colours, seeds) -> None:
        got, _ = augment(solving("red", "green", "blue"), colours, seeds, 1, **RESOLVE)
        (reject,) = got.rejects
        assert (reject.reason, reject.question, reject.answer) == ("disagrees", "a new blue cup, number 0", "blue")
        assert reject.id == content_id(reject.question, [], None, "blue")
        assert reject.call_key == got.calls[0].key

    def test_disagreement_is_no_failure_of_the_teacher(self, augment, colours, seeds) -> None:
        got, _ = augment(solving("red"), colours, seeds, 3, max_failed_fraction=0, **RESOLVE)
        assert len(got.rejects) == 3

    def test_numbers_agree_as_numbers(self, augment, gsm8k, sums) -> None:
        row = {
            "question": "Bob has 4 big books and finds 4 more. How many?",
            "rationale": "He has 4+4=8.",
            "answer": "8",
        }

        def writes(request: LLMRequest, n: int) -> Any:
            return (
                examples(row)
                if request.purpose == "write"
                else {"rationale": "x", "answer": ["8.0", 8, "$8"][request.sample]}
            )

        got, _ = augment(writes, gsm8k, sums, 1, **RESOLVE)
        assert [row.confidence for row in got.candidates] == [1.0]
        assert [row.votes for row in got.candidates] == [[]], "open answers have no distribution"

    def test_solutions_without_a_label_have_no_vote(self, augment, colours, seeds) -> None:
        got, _ = augment(
            solving("blue", "red", "purple"), colours, seeds, 1, verification={"min_agreement": 0.3}, **RESOLVE
        )
        assert [(row.votes, row.vote_shares) for row in got.candidates] == [(["blue", "red"], [0.5, 0.5])]

    @pytest.mark.parametrize(("outcome", "reason"), [("over_budget", "over_budget"), ("failed", "call_failed")])
    def test_what_could_not_be_solved_is_not_verified(self, augment, colours, seeds, outcome: str, reason: str) -> None:
        def writes(request: LLMRequest, n: int) -> Any:
            return writer(request, n) if request.purpose == "write" else answered("", outcome=outcome)

        got, _ = augment(writes, colours, seeds, 1, **RESOLVE)
        assert got.rejects[0].reason == reason
        assert got.rejects[0].detail.startswith("could not be verified: ")

    def test_somebody_else_may_verify(self, augment, colours, seeds) -> None:
        verifier, other = opened(lambda request, n: {"answer": "blue"}, model="judge-70b")
        got, fake = augment(
            writer,
            colours,
            seeds,
            1,
            verifier=verifier,
            verification={"by": {"model": "judge-70b"}, "samples": 2},
            **RESOLVE,
        )
        assert (len(fake.requests), len(other.requests)) == (1, 2)
        assert [call.model for call in got.calls] == ["teacher-8b", "judge-70b", "judge-70b"]
        assert got.candidates[0].teacher == "openai:teacher-8b"

    def test_rows_of_an_offline_teacher_may_be_verified_too(self, colours, seeds, mistake, example) -> None:
        pool = [example("the sea at noon", "blue"), example("the sea at night", "blue")]
        verifier, fake = opened(
            lambda request, n: {"answer": "blue" if "noon" in shown(request, "question")["question"] else "red"},
            model="judge-70b",
        )
        settings = TeacherAugmentSettings(
            teacher="pool", examples_per_error=2, verify="resolve", verification={"by": {"model": "judge-70b"}}
        )
        got = teacher_augment([mistake(seeds[0])], seeds, pool, set(), colours, settings, 1, 0, verifier=verifier)
        assert [(row.question, row.confidence, row.checks) for row in got.candidates] == [
            ("the sea at noon", 1.0, ["valid answer", "solved again"])
        ]
        assert [reject.reason for reject in got.rejects] == ["disagrees"]
        assert [call.teacher for call in got.calls] == ["pool"] + ["openai"] * 6
        assert len(fake.requests) == 6

    def test_as_in_an_earlier_iteration_costs_nothing_again(self, augment, colours, seeds) -> None:
        first, _ = augment(solving("blue"), colours, seeds, 1, ledger="x", **RESOLVE)
        keys = frozenset(call.key for call in first.calls if call.purpose == "resolve")
        second, _ = augment(solving("blue"), colours, seeds, 1, ledger="x", earlier=keys, **RESOLVE)
        assert [call.purpose for call in second.calls] == ["write"]


class TestAgree:
    def go(self, augment, colours, seeds, agree: int, **answers: str):
        def of(name: str):
            return lambda request, n: (
                examples((f"{name} writes of cup {n}", answers[name]))
                if request.purpose == "write"
                else {"answer": answers[name]}
            )

        trio = [opened(of(name), model=name) for name in answers]
        settings = {"teachers": [{"model": name} for name in answers], "agree": agree}
        return augment(None, colours, seeds, fakes=trio, **settings)[0], trio

    def test_a_row_needs_its_writer_and_others(self, augment, colours, seeds) -> None:
        got, trio = self.go(augment, colours, seeds, 2, a="blue", b="blue", c="red")
        assert {row.answer for row in got.candidates} == {"blue"}
        assert {row.confidence for row in got.candidates} == {0.5}
        assert {reject.reason for reject in got.rejects} == {"disagrees"}
        assert {reject.teacher for reject in got.rejects} == {"openai:c"}
        for _, fake in trio:
            written = sum(request.purpose == "write" for request in fake.requests)
            assert sum(request.purpose == "resolve" for request in fake.requests) == len(seeds) - written

    def test_all_of_three(self, augment, colours, seeds) -> None:
        assert not self.go(augment, colours, seeds, 3, a="blue", b="blue", c="red")[0].candidates
        got, _ = self.go(augment, colours, seeds, 3, a="blue", b="blue", c="blue")
        assert len(got.candidates) == len(seeds)
        assert {row.confidence for row in got.candidates} == {1.0}
        assert got.candidates[0].checks[-1] == "agreed"


class TestJudge:
    def test_a_row_that_is_held_for_right_stays(self, augment, colours, seeds) -> None:
        got, fake = augment(judging((True, 90, "blue"), (True, 70, "blue")), colours, seeds, 1, **JUDGE)
        (row,) = got.candidates
        assert row.confidence == round((0.9 + 0.7 + 0.9) / 3, 6)
        assert row.checks[-1] == "judged"
        assert shown(fake.requests[1])["claimed_answer"] == "blue"

    def test_a_doubt_that_is_not_sure_changes_nothing(self, augment, colours, seeds) -> None:
        got, _ = augment(judging((False, 79, "red")), colours, seeds, 1, **JUDGE)
        assert [(row.answer, round(row.confidence, 2)) for row in got.candidates] == [("blue", 0.21)]

    def test_a_sure_judge_corrects(self, augment, colours, seeds) -> None:
        got, _ = augment(judging((False, 95, "red")), colours, seeds, 1, **JUDGE)
        (row,) = got.candidates
        assert (row.answer, row.confidence, row.checks[-1]) == ("red", 0.95, "corrected by the judge")
        assert row.id == content_id(row.question, [], None, "red")

    @pytest.mark.parametrize(
        "verdicts",
        [
            [(False, 95, "purple")],  # no label
            [(False, 95, "blue")],  # wrong, but the same
            [(False, 95, "red"), (False, 95, "green"), (False, 95, "blue")],  # no majority
        ],
    )
    def test_and_drops_what_it_cannot_correct(self, augment, colours, seeds, verdicts) -> None:
        got, _ = augment(judging(*verdicts), colours, seeds, 1, **JUDGE)
        assert [reject.reason for reject in got.rejects] == ["judged_wrong"]
        assert got.rejects[0].detail == "the judge is 95% sure that the answer 'blue' is wrong"

    def test_a_correction_is_checked_like_any_row(self, augment, gsm8k, sums) -> None:
        row = {
            "question": "Bob has 4 big books and finds 4 more. How many?",
            "rationale": "He has 4+4=8.",
            "answer": "8",
        }

        def writes(request: LLMRequest, n: int) -> Any:
            if request.purpose == "write":
                return examples(row)
            return {"right": False, "confidence": 99, "rationale": "He has 4+4=9.", "answer": "9"}

        got, _ = augment(writes, gsm8k, sums, 1, **JUDGE)
        assert [(r.reason, r.detail) for r in got.rejects] == [
            ("judged_wrong", "and so is the correction: 4+4=9 does not hold")
        ]

    def test_two_rows_that_are_corrected_to_one_are_a_copy(self, augment, colours, seeds) -> None:
        def writes(request: LLMRequest, n: int) -> Any:
            if request.purpose == "write":
                return examples(("the same new cup", "blue" if n else "green"))
            return {"right": False, "confidence": 99, "answer": "red"}

        got, _ = augment(writes, colours, seeds, 2, **JUDGE)
        assert [row.answer for row in got.candidates] == ["red"]
        assert [reject.reason for reject in got.rejects] == ["copy"]

    def test_a_confidence_beyond_all_bounds_is_full(self, augment, colours, seeds) -> None:
        """10^400 is no float, and Python reads 1e999 as infinite."""
        got, _ = augment(judging((True, 10**400, "blue"), (False, -(10**400), "red")), colours, seeds, 1, **JUDGE)
        assert [row.confidence for row in got.candidates] == [1.0]
        got, _ = augment(judging((False, float("inf"), "red")), colours, seeds, 1, **JUDGE)
        assert [(row.answer, row.confidence) for row in got.candidates] == [("red", 1.0)]

    @pytest.mark.parametrize(
        "verdict",
        ["hm", {"right": "no", "confidence": 5, "answer": "red"}, {"right": True}, (False, float("nan"), "red")],
    )
    def test_without_a_verdict_nothing_is_kept(self, augment, colours, seeds, verdict: Any) -> None:
        got, fake = augment(judging(verdict), colours, seeds, 1, **JUDGE)
        assert [reject.reason for reject in got.rejects] == ["not_judged"]
        assert len(fake.requests) == 1 + 3 * 3
