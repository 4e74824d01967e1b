"""Each strategy with a teacher that does well, lies, refuses, or stops in the middle."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example
from llm2llm.components.shared.llm.requests import LLMRequest, request_key
from llm2llm.components.shared.tasks import Task, load_task, prompt, teacher_schema
from llm2llm.components.teacher_augment.strategies import STRATEGIES
from llm2llm.components.teacher_augment.strategies.skills import profile, shares
from tests.support.fake_teacher import answered, asked_count, examples, opened, shown

CHOICE = Task(name="choice", form="multiple_choice")


def reasons(got: Any) -> dict[str, int]:
    return dict(Counter(reject.reason for reject in got.rejects))


def new_sum(n: int) -> dict[str, Any]:
    """A row of GSM8K's form that is right."""
    return {
        "question": f"Bob owns {n} books and finds {n} more. How many books does he own?",
        "rationale": f"Bob owns {n}+{n}=<<{n}+{n}={2 * n}>>{2 * n} books.",
        "answer": str(2 * n),
    }


def solved(request: LLMRequest, right: bool = True, mark: str = "question") -> dict[str, Any]:
    """A solution of a question of the fixture `sums`."""
    n = int(shown(request, mark)["question"].split()[2]) + (0 if right else 1)
    return {"rationale": f"Add them: {n}+2=<<{n}+2={n + 2}>>{n + 2}", "answer": n + 2}


class TestLlm2llm:
    def test_the_teacher_sees_question_right_answer_and_the_wrong_one(self, augment, colours, seeds) -> None:
        got, fake = augment(lambda request, n: examples((f"a new blue cup {n}", "blue")), colours, seeds, 2)
        assert len(got.candidates) == 2
        assert shown(fake.requests[0]) in [
            {"question": seed.question, "right_answer": "blue", "model_answered": "red"} for seed in seeds[:2]
        ]
        request = fake.requests[0]
        assert (request.purpose, request.schema, request.temperature) == ("write", teacher_schema(colours, 1), 0.7)
        assert "Write 1 new example(s)" in request.messages[0]["content"]

    def test_choices_and_rationale_are_shown(self, augment, gsm8k, sums, example) -> None:
        _, fake = augment(lambda request, n: examples(new_sum(n)), gsm8k, sums, 1)
        assert shown(fake.requests[0])["rationale"] == sums[0].rationale
        assert gsm8k.description in fake.requests[0].messages[0]["content"]
        seed = example("Which?", "A", choices=["one", "two"])
        _, fake = augment(lambda request, n: "no", CHOICE, [seed], 1)
        assert shown(fake.requests[0])["choices"] == ["one", "two"]

    def test_an_error_that_was_answered_rightly_shows_no_wrong_answer(self, augment, colours, seeds, mistake) -> None:
        errors = [mistake(seeds[0], outcome="correct", parsed="blue", difficulty="solved", hardness=3.0)]
        _, fake = augment(lambda request, n: examples(("new cup", "blue")), colours, seeds, errors=errors)
        assert "model_answered" not in shown(fake.requests[0])

    def test_many_rows_are_asked_for_in_parts(self, augment, colours, seeds) -> None:
        def writes(request: LLMRequest, n: int) -> object:
            return examples(*[(f"blue cup {n} of {i}", "blue") for i in range(asked_count(request))])

        got, fake = augment(writes, colours, seeds, 2, rows_per_iteration=21, rows_per_call=4)
        assert len(got.candidates) == 21
        assert max(map(asked_count, fake.requests)) == 4
        assert fake.batches == [len(fake.requests)] == [6]
        keys = {call.key for call in got.calls}
        assert {row.call_key for row in got.candidates} == keys
        assert len(keys) == 6

    def test_a_row_says_where_it_comes_from(self, augment, colours, seeds) -> None:
        got, _ = augment(lambda request, n: examples(("a new cup", "blue")), colours, seeds, 1)
        (row,) = got.candidates
        assert (row.parent_id, row.strategy, row.teacher) == (seeds[0].id, "llm2llm", "openai:teacher-8b")
        assert row.call_key == got.calls[0].key
        assert row.checks == ["valid answer", "answer not given away", "no boilerplate", "no control tokens",
                              "usual length", "usual script"]  # fmt: skip
        (call,) = got.calls
        assert (call.purpose, call.strategy, call.teacher, call.model) == ("write", "llm2llm", "openai", "teacher-8b")

    def test_random_writes_from_seeds_that_are_no_errors(self, augment, colours, seeds) -> None:
        got, fake = augment(
            lambda request, n: examples((f"new cup {n}", "blue")), colours, seeds, 6, strategy="random", iteration=4
        )
        assert any(row.parent_id in {seed.id for seed in seeds[6:]} for row in got.candidates)
        assert {row.strategy for row in got.candidates} == {"random"}
        by_error = {"model_answered" in shown(request) for request in fake.requests}
        assert by_error == {True, False}


class TestFaults:
    FAULTS = ("refuses", "stops", "babbles", "is empty", "lies", "copies")

    def write(self, kind: str, request: LLMRequest) -> Any:
        return {
            "refuses": answered("", refusal="I will not"),
            "stops": answered('{"examples": [{"que', truncated=True),
            "babbles": "Once upon a time",
            "is empty": "",
            "lies": examples(("the sea", "purple")),
            "copies": examples(
                (shown(request)["question"] if "<example>" in request.messages[-1]["content"] else "", "blue")
            ),
        }[kind]

    @pytest.mark.parametrize(
        ("kind", "reason", "times"),
        [("refuses", "refused", 3), ("stops", "truncated", 3), ("babbles", "unparseable", 3), ("is empty", "empty", 3),
         ("lies", "invalid", 3), ("copies", "copy", 1)],
    )  # fmt: skip
    def test_each_is_asked_again_and_then_a_reject(self, augment, colours, seeds, kind, reason, times) -> None:
        got, fake = augment(lambda request, n: self.write(kind, request), colours, seeds, 1, examples_per_error=3)
        assert reasons(got) == {reason: 3 if kind != "copies" else 1, **({"missing": 2} if kind == "copies" else {})}
        assert len(fake.requests) == len(got.calls) == times
        assert [request.attempt for request in fake.requests] == list(range(times))
        assert {reject.call_key for reject in got.rejects} == {got.calls[-1].key}
        assert {reject.teacher for reject in got.rejects} == {"openai:teacher-8b"}

    def test_a_second_answer_is_as_good_as_a_first(self, augment, colours, seeds) -> None:
        for kind in self.FAULTS[:5]:
            got, _ = augment(
                lambda request, n, kind=kind: (
                    examples(("a new cup", "blue")) if request.attempt else self.write(kind, request)
                ),
                colours, seeds, 1, max_failed_fraction=0,
            )  # fmt: skip
            assert len(got.candidates) == 1
            assert len(got.calls) == 2

    def test_no_money_is_no_failure_of_the_teacher(self, augment, colours, seeds) -> None:
        def writes(request: LLMRequest, n: int) -> object:
            return examples((f"a new cup {n}", "blue")) if n < 2 else answered("", outcome="over_budget")

        got, _ = augment(writes, colours, seeds, 5, max_failed_fraction=0)
        assert len(got.candidates) == len(got.calls) == 2
        assert reasons(got) == {"over_budget": 3}
        assert {reject.call_key for reject in got.rejects} == {None}

    @pytest.mark.parametrize(
        "strategy",
        [
            name
            for name, one in STRATEGIES.items()
            if one.asks != "nobody" and name != "self" and not one.unfit(load_task("gsm8k"))
        ],
    )
    @given(data=st.data())
    def test_every_requested_row_is_accounted_for(self, augment, gsm8k, sums, strategy, data) -> None:
        """Whatever mix of faults comes, of whatever strategy."""
        kinds = st.sampled_from(["good", "wrong", "babble", "stop", "refuse", "empty", "failed", "broke", "odd"])

        def writes(request: LLMRequest, n: int) -> object:
            kind = data.draw(kinds)
            if request.schema is None:
                good: Any = "Add: 3+2=<<3+2=5>>5\n#### 5"
            elif "examples" in request.schema["properties"]:
                good = examples(*[new_sum(10 * n + i) for i in range(data.draw(st.integers(0, 5)))])
            elif "skills" in request.schema["properties"]:
                good = {"skills": [{"name": "adding"}, {"name": "reading"}]}
            elif "labels" in request.schema["properties"]:
                good = {"labels": [{"number": i, "skills": ["adding"]} for i in range(4)]}
            else:
                good = solved(request)
            return {
                "good": good, "wrong": {**good, "answer": 999} if isinstance(good, dict) else "#### 999",
                "babble": "Once upon", "stop": answered('{"ex', truncated=True),
                "refuse": answered("", refusal="no"), "empty": "", "odd": {"examples": 5, "answer": [], "skills": {}},
                "failed": answered("", outcome="failed"), "broke": answered("", outcome="over_budget"),
            }[kind]  # fmt: skip

        rows = data.draw(st.integers(1, 14))
        got, _ = augment(
            writes, gsm8k, sums, data.draw(st.integers(1, 6)), strategy=strategy, rows_per_iteration=rows,
            attempts=data.draw(st.integers(1, 3)), rows_per_call=data.draw(st.integers(1, 5)),
            **({"teacher": "transformers"} if strategy == "star" else {}),
        )  # fmt: skip
        assert len(got.candidates) + len(got.rejects) == got.requested
        assert len(got.candidates) <= rows == got.wanted <= got.requested
        assert len({row.id for row in got.candidates}) == len(got.candidates)
        assert all(reject.reason and reject.teacher for reject in got.rejects)
        assert len({call.key for call in got.calls}) == len(got.calls)


class TestParaphrase:
    def test_only_the_words_change(self, augment, gsm8k, sums) -> None:
        def writes(request: LLMRequest, n: int) -> object:
            words = shown(request)["question"].split()
            return {"examples": [{"question": f"{words[2]} pears are Ann's, and 2 she buys. What is the total?"}]}

        got, fake = augment(writes, gsm8k, sums, strategy="paraphrase")
        by_id = {seed.id: seed for seed in sums}
        assert len(got.candidates) == len(sums)
        for row in got.candidates:
            parent = by_id[row.parent_id]
            assert (row.answer, row.rationale) == (parent.answer, parent.rationale)
            assert row.question != parent.question
        assert fake.requests[0].schema is not None
        assert list(fake.requests[0].schema["properties"]["examples"]["items"]["properties"]) == ["question"]

    def test_a_paraphrase_with_other_numbers_is_none(self, augment, gsm8k, sums) -> None:
        got, _ = augment(
            lambda request, n: {"examples": [{"question": "Ann has 70 pears, and 2 come."}]}, gsm8k, sums, 1,
            strategy="paraphrase",
        )  # fmt: skip
        assert reasons(got) == {"changed_numbers": 1}

    def test_the_same_words_are_a_copy(self, augment, gsm8k, sums) -> None:
        got, _ = augment(
            lambda request, n: {"examples": [{"question": shown(request)["question"].upper()}]}, gsm8k, sums, 1,
            strategy="paraphrase",
        )  # fmt: skip
        assert reasons(got) == {"copy": 1}


class TestCounterfactual:
    def test_the_label_becomes_the_one_that_the_student_saw(self, augment, colours, seeds) -> None:
        got, fake = augment(
            lambda request, n: examples(("a red thing", "red")), colours, seeds, 1, strategy="counterfactual"
        )
        assert shown(fake.requests[0], "new_answer") == "red"
        assert [row.answer for row in got.candidates] == ["red"]

    def test_without_one_it_is_drawn_from_the_others(self, augment, colours, seeds, mistake) -> None:
        errors = [mistake(seed, parsed=None, outcome="unparseable") for seed in seeds]
        _, fake = augment(lambda request, n: "no", colours, seeds, errors=errors, strategy="counterfactual", attempts=1)
        assert {shown(request, "new_answer") for request in fake.requests} == {"red", "green"}

    def test_an_answer_that_stays_is_dropped(self, augment, colours, seeds, gsm8k, sums, example) -> None:
        got, _ = augment(lambda request, n: examples(("a sea", "blue")), colours, seeds, 1, strategy="counterfactual")
        assert reasons(got) == {"same_answer": 1}
        got, fake = augment(
            lambda request, n: examples({**new_sum(4), "answer": "5.0"}), gsm8k, sums, 1, strategy="counterfactual"
        )
        assert reasons(got) == {"same_answer": 1}
        assert shown(fake.requests[0], "new_answer") is None
        seed = example("Which?", "A", choices=["one", "two"])
        row = {"question": "Which one?", "answer": "B", "choices": ["two", "one"]}
        got, _ = augment(lambda request, n: examples(row), CHOICE, [seed], 1, strategy="counterfactual")
        assert reasons(got) == {"same_answer": 1}, "another letter, but the same choice"
        got, _ = augment(
            lambda request, n: examples({**row, "answer": "A"}), CHOICE, [seed], 1, strategy="counterfactual"
        )
        assert len(got.candidates) == 1


class TestCot:
    def test_rationales_that_reach_the_answer_become_rows(self, augment, gsm8k, sums) -> None:
        def writes(request: LLMRequest, n: int) -> object:
            solution = solved(request, right=request.sample != 1)
            return {**solution, "rationale": f"Way {request.sample}. {solution['rationale']}"}

        got, fake = augment(writes, gsm8k, sums, 2, strategy="cot", examples_per_error=3)
        assert len(got.candidates) == 4
        assert reasons(got) == {"wrong_answer": 2}
        by_id = {seed.id: seed for seed in sums}
        for row in got.candidates:
            parent = by_id[row.parent_id]
            assert (row.question, row.answer) == (parent.question, parent.answer)
            assert row.rationale != parent.rationale
            assert "reaches the answer" in row.checks
            assert "right arithmetic" in row.checks
        for request in fake.requests:
            assert shown(request, "question").keys() == {"question"}, "the teacher does not see the answer"
        assert {call.purpose for call in got.calls} == {"rationale"}
        assert "71" not in json.dumps([r.detail for r in got.rejects])

    def test_the_same_rationale_twice_and_the_seeds_own_are_copies(self, augment, gsm8k, sums) -> None:
        got, _ = augment(lambda request, n: solved(request), gsm8k, sums, 1, strategy="cot", examples_per_error=3)
        assert (len(got.candidates), reasons(got)) == (1, {"copy": 2})
        own = {"rationale": sums[0].rationale, "answer": sums[0].answer}
        got, _ = augment(lambda request, n: own, gsm8k, sums, 1, strategy="cot")
        assert reasons(got) == {"copy": 1}

    def test_a_right_answer_by_wrong_arithmetic_is_dropped(self, augment, gsm8k, sums) -> None:
        got, _ = augment(
            lambda request, n: {"rationale": "3+2=<<3+2=6>>6, so 5", "answer": "5"}, gsm8k, sums, 1, strategy="cot"
        )
        assert reasons(got) == {"wrong_arithmetic": 1}
        assert got.rejects[0].detail == "3+2=6 does not hold"

    def test_a_task_without_rationales_is_refused(self, augment, colours, seeds) -> None:
        with pytest.raises(UserError, match=r"teacher_augment\.strategy: 'cot' writes rationales, and the students of"):
            augment(lambda request, n: "", colours, seeds, 1, strategy="cot")


class TestStar:
    def go(self, augment, writes, gsm8k, sums, **settings):
        return augment(writes, gsm8k, sums, strategy="star", teacher="transformers", **settings)

    def test_the_student_is_asked_as_in_training_and_once_more_with_a_hint(self, augment, gsm8k, sums) -> None:
        def writes(request: LLMRequest, n: int) -> object:
            text = request.messages[0]["content"]
            count = int(text.split("Ann has ")[1].split()[0])
            right = "right answer" in text or count % 2
            answer = count + 2 if right else 99
            return f"{count}+2=<<{count}+2={count + 2}>>{count + 2}, I think.\n#### {answer}\nQuestion: and now?"

        got, fake = self.go(augment, writes, gsm8k, sums)
        assert fake.batches == [6, 3]
        by_id = {seed.id: seed for seed in sums}
        assert [request.messages[0]["content"] for request in fake.requests[:6]] == [
            prompt(gsm8k, by_id[request.parent_id].question, []) for request in fake.requests[:6]
        ]
        for request in fake.requests[6:]:
            seed = by_id[request.parent_id]
            assert f'(The right answer is "{seed.answer}". Show the steps' in request.messages[0]["content"]
            assert request.messages[0]["content"].endswith("Answer:")
        assert len(got.candidates) == 6
        for row in got.candidates:
            parent = by_id[row.parent_id]
            assert (row.question, row.answer) == (parent.question, parent.answer)
            assert row.rationale == parent.rationale.replace("Ann has ", "").replace(" pears.", ", I think.")
        assert {request.schema for request in fake.requests} == {None}

    def test_what_does_not_reach_the_answer_is_dropped(self, augment, gsm8k, sums) -> None:
        for text in ("no idea", "", "3+2=6\n#### 6", answered("3+2=5\n####", truncated=True)):
            got, fake = self.go(
                augment, lambda request, n, text=text: text, gsm8k, sums, wrong=1, max_failed_fraction=0
            )
            assert reasons(got) == {"wrong_answer": 1}
            assert len(fake.requests) == 2

    def test_a_rationale_that_speaks_of_the_hint_is_dropped(self, augment, gsm8k, sums) -> None:
        got, _ = self.go(augment, lambda request, n: "As the hint says, 3+2=5.\n#### 5", gsm8k, sums, wrong=1)
        assert got.rejects[0].detail == "the rationale speaks of the hint"


class TestSelf:
    def go(self, augment, writes, task, seeds, **settings):
        return augment(writes, task, seeds, strategy="self", teacher="transformers", **settings)

    def test_the_student_writes_questions_and_answers_them_in_its_usual_form(self, augment, colours, seeds) -> None:
        def writes(request: LLMRequest, n: int) -> object:
            return "blue" if request.schema is None else {"question": f"a blue cup, number {n}"}

        got, fake = self.go(augment, writes, colours, seeds, wrong=3)
        assert len(got.candidates) == 3
        assert fake.batches == [3, 3]
        assert [request.messages[-1]["content"] for request in fake.requests[3:]] == [
            prompt(colours, f"a blue cup, number {n}", []) for n in range(3)
        ]
        assert [request.temperature for request in fake.requests] == [0.7] * 3 + [0.0] * 3
        assert sum(seed.question in fake.requests[0].messages[-1]["content"] for seed in seeds) == 4
        assert "right_answer" not in fake.requests[0].messages[-1]["content"]

    @pytest.mark.parametrize(
        ("question", "reason"),
        [("Sorry, I am a student", "noise"), ("as an AI language", "noise"), ("blue " * 8, "unusual_length"),
         ("a blue blue thing " * 20, "noise"), ("x", "unusual_length")],
    )  # fmt: skip
    def test_noise_and_unusual_lengths_are_dropped_before_they_are_answered(
        self, augment, colours, seeds, question: str, reason: str
    ) -> None:
        got, fake = self.go(augment, lambda request, n: {"question": question}, colours, seeds, wrong=1)
        assert (reasons(got), len(fake.requests)) == ({reason: 1}, 1)

    def test_a_question_that_it_cannot_answer_is_dropped(self, augment, colours, seeds) -> None:
        got, _ = self.go(
            augment, lambda request, n: "hm" if request.schema is None else {"question": "a blue cup, number 5"},
            colours, seeds, wrong=1,
        )  # fmt: skip
        assert reasons(got) == {"no_answer": 1}

    @given(data=st.data())
    def test_every_requested_row_is_accounted_for(self, augment, colours, seeds, data) -> None:
        text = st.sampled_from(["blue", "hm", "", '{"question": "a blue cup, number 5"}', '{"question": 5}', "{"])

        def writes(request: LLMRequest, n: int) -> object:
            fields = data.draw(
                st.sampled_from([{}, {}, {"truncated": True}, {"refusal": "no"}, {"outcome": "failed"},
                                 {"outcome": "over_budget"}])
            )  # fmt: skip
            return answered(data.draw(text), **fields)

        rows = data.draw(st.integers(1, 10))
        got, _ = self.go(augment, writes, colours, seeds, wrong=3, rows_per_iteration=rows)
        assert len(got.candidates) + len(got.rejects) == got.requested
        assert len(got.candidates) <= rows == got.wanted


class TestSkills:
    def writes(self, request: LLMRequest, n: int) -> Any:
        assert request.schema is not None
        if "skills" in request.schema["properties"]:
            return {"skills": [{"name": "Adding up"}, {"name": "adding  up "}, {"name": "Counting"}]}
        if "labels" in request.schema["properties"]:
            batch = shown(request, "examples")
            even = [int(row["question"].split()[2]) % 2 == 0 for row in batch]
            return {
                "labels": [
                    {"number": row["number"], "skills": ["counting" if is_even else "Adding up", "flying"]}
                    for row, is_even in zip(batch, even, strict=True)
                ]
            }
        return examples(*[new_sum(20 + 10 * n + i) for i in range(asked_count(request))])

    def test_rows_are_written_for_the_skills_that_the_student_lacks(self, augment, gsm8k, sums) -> None:
        odd = [seed for seed in sums if int(seed.answer) % 2]
        errors_on = [*odd, next(seed for seed in sums if seed not in odd)]
        got, fake = augment(
            self.writes, gsm8k, [*errors_on, *[seed for seed in sums if seed not in errors_on]], 4, strategy="skills",
            examples_per_error=4, rows_per_call=3, skills={"labelled_at_once": 4},
        )  # fmt: skip
        assert Counter(call.purpose for call in got.calls) == {"skills": 3, "write": 6}
        assert Counter(skill for row in got.candidates for skill in row.skills) == {"Adding up": 12, "Counting": 4}
        for request in fake.requests[3:]:
            numbers = {int(row["question"].split()[2]) % 2 for row in shown(request, "examples")}
            assert numbers == {0 if shown(request, "skill") == "Counting" else 1}
        assert {row.parent_id for row in got.candidates} <= {seed.id for seed in errors_on}
        assert {shown(fake.requests[-1], "examples")[0]["model_answered"]} == {"red"}

    def test_names_and_labels_are_asked_for_alike_in_every_iteration(self, augment, gsm8k, sums) -> None:
        first, fake = augment(self.writes, gsm8k, sums, 3, strategy="skills", ledger="/ledger")
        keys = frozenset(call.key for call in first.calls)
        second, again = augment(
            self.writes, gsm8k, sums, 3, strategy="skills", ledger="/ledger", iteration=2, earlier=keys
        )
        assert fake.requests[:2] == again.requests[:2]
        assert {call.purpose for call in second.calls} == {"write"}, "what the ledger answers has its row already"
        assert not keys & {call.key for call in second.calls}

    def test_a_users_own_skills_need_neither(self, augment, gsm8k, sums, example) -> None:
        seeds: list[Example] = [
            example(seed.question, seed.answer, rationale=seed.rationale, skills=["sums"]) for seed in sums
        ]
        got, _ = augment(self.writes, gsm8k, seeds, 2, strategy="skills")
        assert {call.purpose for call in got.calls} == {"write"}
        assert {tuple(row.skills) for row in got.candidates} == {("sums",)}

    def test_without_names_every_row_is_a_reject(self, augment, gsm8k, sums) -> None:
        got, fake = augment(lambda request, n: "hm", gsm8k, sums, 2, strategy="skills", examples_per_error=3)
        assert reasons(got) == {"unparseable": 6}
        assert len(fake.requests) == 3

    def test_without_labels_rows_are_written_all_the_same(self, augment, gsm8k, sums) -> None:
        def writes(request: LLMRequest, n: int) -> object:
            return "hm" if request.schema and "labels" in request.schema["properties"] else self.writes(request, n)

        got, _ = augment(writes, gsm8k, sums, 2, strategy="skills")
        assert [row.skills for row in got.candidates] == [[], []]

    @given(st.dictionaries(st.text(max_size=3), st.floats(0.01, 100), min_size=1, max_size=8), st.integers(0, 200))
    def test_rows_are_dealt_out_in_proportion(self, weights: dict[str, float], rows: int) -> None:
        counts = shares(weights, rows)
        assert sum(counts.values()) == rows
        total = sum(weights.values())
        for skill, weight in weights.items():
            assert abs(counts.get(skill, 0) - rows * weight / total) < 1

    def test_an_error_with_several_skills_counts_a_part_for_each(self, sums) -> None:
        one, two, three = sums[:3]
        got = profile([one, two, three], {one.id: ["a", "b"], two.id: ["a"]})
        assert got == {"": 1.0, "a": 1.5, "b": 0.5}


class TestSeveralTeachers:
    def test_they_share_the_requests_by_weight_and_always_alike(self, augment, colours, example) -> None:
        seeds = [example(f"a blue thing, number {n}", "blue") for n in range(300)]

        def writes(name: str):
            return lambda request, n: examples((f"{name} cup {n}", "blue"))

        def go(wrong: int) -> dict[str, list[str]]:
            pair = [opened(writes("a"), model="a", weight=3), opened(writes("b"), model="b", weight=1)]
            got, _ = augment(None, colours, seeds, wrong, fakes=pair, **settings)
            assert {row.teacher for row in got.candidates} == {"openai:a", "openai:b"}
            return {
                name: [request.parent_id for request in fake.requests]
                for name, (_, fake) in zip("ab", pair, strict=True)
            }

        settings = {"teachers": [{"model": "a", "weight": 3}, {"model": "b", "weight": 1}]}
        one, same = go(300), go(300)
        assert one == same
        assert 0.65 < len(one["a"]) / 300 < 0.85

    @pytest.mark.parametrize("strategy", ["llm2llm", "paraphrase", "counterfactual", "cot"])
    def test_what_else_went_wrong_changes_no_request(self, augment, gsm8k, example, mistake, strategy: str) -> None:
        """Next week's run has some other errors, and pays for those only."""
        task = gsm8k if strategy == "cot" else Task(name="c", form="classification", labels=list("ABCDEFG"))
        seeds = [example(f"how many is {n}", "7" if strategy == "cot" else "A", rationale="") for n in range(30)]

        def asked(wrong: list[Example]) -> dict[str, list[tuple[str, str]]]:
            pair = [opened(lambda request, n: "no", model=name) for name in "ab"]
            errors = [mistake(seed, parsed=None, outcome="unparseable") for seed in wrong]
            augment(
                None, task, seeds, fakes=pair, errors=errors, strategy=strategy, attempts=1, examples_per_error=6,
                teachers=[{"model": "a"}, {"model": "b"}],
            )  # fmt: skip
            by_parent: dict[str, list[tuple[str, str]]] = {seed.id: [] for seed in wrong}
            for name, (_, fake) in zip("ab", pair, strict=True):
                for request in fake.requests:
                    by_parent[request.parent_id].append((name, request_key("", request)))
            return {parent: sorted(requests) for parent, requests in by_parent.items()}

        everything, some = asked(seeds), asked(seeds[7:23])
        assert all(len(requests) > 1 for requests in some.values())
        assert some == {parent: everything[parent] for parent in some}

    def test_a_later_iteration_asks_others(self, augment, colours, seeds) -> None:
        def go(iteration: int) -> set[str]:
            pair = [opened(lambda request, n: examples((f"cup {n}", "blue")), model=name) for name in "ab"]
            augment(None, colours, seeds, fakes=pair, iteration=iteration, **settings)
            return {request.parent_id for request in pair[0][1].requests}

        settings = {"teachers": [{"model": "a"}, {"model": "b"}]}
        assert len({frozenset(go(iteration)) for iteration in range(1, 5)}) > 1
