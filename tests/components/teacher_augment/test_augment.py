"""From errors to candidates: every requested row is a candidate or a reject."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.base.settings_text import settings_text
from llm2llm.components.shared.data.artifacts import LocalArtifact, write_artifact
from llm2llm.components.shared.data.journal import Journal, read_journal, write_journal
from llm2llm.components.shared.data.parquet import read_rows, write_rows
from llm2llm.components.shared.data.schemas import Call, Example, Reject, content_id
from llm2llm.components.shared.tasks import Task, load_task
from llm2llm.components.teacher_augment import augment as stage_module
from llm2llm.components.teacher_augment.augment import MAX_TEXT, Augmented, TooManyFailures, teacher_augment
from llm2llm.components.teacher_augment.component import teacher_augment as augment_stage
from llm2llm.components.teacher_augment.context import Context
from llm2llm.components.teacher_augment.offline import OFFLINE
from llm2llm.components.teacher_augment.replies import Draft, Problem, Reply, Request
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from tests.support.builders import artifacts
from tests.support.registry_makers import files

CHOICE = Task(name="choice", form="multiple_choice")
GRAMMAR = {
    "patterns": {"blue": ["the {thing} is like the {place}"], "green": ["a leaf"]},
    "slots": {"thing": ["bowl", "cup", "plate", "car"], "place": ["sky", "sea", "lake", "river", "sky at noon"]},
}


@pytest.fixture
def offline(seeds, mistake, colours, monkeypatch):
    """Has a teacher that returns these drafts and problems write from the first seed."""

    def go(drafts: list[Draft], problems: Sequence[Problem] = (), task: Task = colours, parent: Example = seeds[0],
           **settings: Any) -> Augmented:  # fmt: skip
        def write(context: Context) -> list[Reply]:
            (request,) = context.requests
            call = Call(
                key="k", iteration=1, parent_id=parent.id, teacher="pool", model="", outcome="answered", attempts=1
            )
            return [Reply(request, call, drafts, list(problems), "pool")]

        monkeypatch.setitem(OFFLINE, "pool", replace(OFFLINE["pool"], write=write))
        count = max(1, len(drafts) + len(problems))
        checked = TeacherAugmentSettings(
            teacher="pool", rows_per_iteration=count, max_failed_fraction=settings.pop("max_failed_fraction", 1.0)
        )
        return teacher_augment([mistake(parent)], [*seeds, parent], [parent], set(), task, checked, 1, 0)

    return go


class TestChecks:
    def test_a_candidate_knows_where_it_comes_from(self, offline, seeds) -> None:
        (candidate,) = offline([Draft(" the sea\n", " blue ")]).candidates
        assert candidate == Example(
            id=content_id("the sea", [], None, "blue"),
            question="the sea",
            answer="blue",
            source="teacher",
            parent_id=seeds[0].id,
            iteration=1,
            strategy="llm2llm",
            teacher="pool",
            call_key="k",
            checks=["valid answer"],
        )

    def test_a_row_written_from_a_generated_one_names_it_beside_its_seed(self, offline, seeds) -> None:
        shown = replace(seeds[0], id="shown", question="the lake", source="teacher", parent_id=seeds[0].id, iteration=1)
        found = offline([Draft("the sea", "blue"), Draft("the lake", "blue")], parent=shown)
        (candidate,), (reject,) = found.candidates, found.rejects
        assert (candidate.parent_id, candidate.by_way_of, candidate.written_from) == (seeds[0].id, "shown", "shown")
        assert (reject.parent_id, reject.by_way_of, reject.reason) == (seeds[0].id, "shown", "copy")
        assert reject.detail == "the question is the shown row's own"

    @pytest.mark.parametrize(
        ("draft", "detail"),
        [
            (Draft(" \n", "blue"), "the question is empty"),
            (Draft("x" * (MAX_TEXT + 1), "blue"), "the question has 20,001 characters, more than 20,000"),
            (Draft("x", "x" * (MAX_TEXT + 1)), "the answer has 20,001 characters, more than 20,000"),
            (Draft("x", "blue", [], "x" * (MAX_TEXT + 1)), "the rationale has 20,001 characters, more than 20,000"),
            (Draft("the sea", "purple"), "the answer 'purple' is not in the label set ['red', 'green', 'blue']"),
            (Draft("the sea", ""), "the answer '' is not in the label set ['red', 'green', 'blue']"),
            (Draft("the \ud800 sea", "blue"), "holds half a surrogate pair, which is no valid text"),
        ],
    )
    def test_a_draft_that_is_invalid_becomes_a_reject(self, offline, tmp_path: Path, draft: Draft, detail: str) -> None:
        got = offline([draft])
        assert got.candidates == []
        (reject,) = got.rejects
        assert (reject.stage, reject.reason, reject.detail) == ("teacher_augment", "invalid", detail)
        assert (reject.question, reject.answer) == (draft.question.replace("\ud800", "?"), draft.answer)
        write_rows(tmp_path / "rejects", "rejects", got.rejects)
        assert read_rows(tmp_path / "rejects", "rejects", Reject) == got.rejects

    @pytest.mark.parametrize(
        ("choices", "answer", "detail"),
        [
            (["one", "one "], "A", "two of the choices are the same"),
            (["one", " "], "A", "a choice is empty"),
            (["one"], "A", "expected 2 to 26 choices, got 1"),
            (["one", "two"], "C", "the answer 'C' is none of the choices"),
            (["one", "two \udfff"], "A", "holds half a surrogate pair"),
        ],
    )
    def test_choices_are_checked(self, offline, example, tmp_path: Path, choices, answer: str, detail: str) -> None:
        parent = example("Which?", "A", choices=["x", "y"])
        got = offline([Draft("Which one?", answer, choices)], task=CHOICE, parent=parent)
        assert got.rejects[0].detail.startswith(detail)
        write_rows(tmp_path / "rejects", "rejects", got.rejects)

    def test_a_rationale_where_the_parent_has_one(self, offline, example) -> None:
        parent = example("2+2?", "4", rationale="2+2=4")
        drafts = [Draft("3+3?", "6", [], why) for why in (None, " ", "3+3=6")]
        got = offline(drafts, task=load_task("gsm8k"), parent=parent)
        assert [row.rationale for row in got.candidates] == ["3+3=6"]
        assert [reject.detail for reject in got.rejects] == ["the rationale is missing"] * 2

    def test_an_empty_text_answer(self, offline, example) -> None:
        got = offline([Draft("Who?", " ")], task=Task(name="t", form="text"), parent=example("Who?", "me"))
        assert got.rejects[0].detail == "the answer is empty"

    def test_the_same_row_twice_is_a_copy(self, offline) -> None:
        got = offline([Draft("the sea", "blue"), Draft(" the sea", "blue"), Draft("the sea", "green")])
        assert len(got.candidates) == 2
        assert [reject.reason for reject in got.rejects] == ["copy"]

    def test_what_came_instead_is_kept(self, offline) -> None:
        got = offline([], [Problem("unparseable", "no JSON", "I will \ud800 not"), Problem("refused", "no")] * 2)
        assert [reject.question for reject in got.rejects] == ["I will ? not", ""] * 2
        assert len({reject.id for reject in got.rejects}) == 4

    @given(data=st.data())
    def test_drafts_and_problems_are_all_accounted_for(self, colours, seeds, mistake, data) -> None:
        text = st.sampled_from(["the sea", " the sea", "sky", "", "\ud800", "x" * 20_001])
        draft = st.builds(Draft, text, st.sampled_from(["blue", "green", "purple", ""]))
        problem = st.builds(Problem, st.sampled_from(["missing", "refused", "exhausted"]), text)
        drafts, problems = data.draw(st.lists(draft, max_size=5)), data.draw(st.lists(problem, min_size=1, max_size=5))
        request = Request(seeds[0], mistake(seeds[0]), len(drafts) + len(problems))
        call = Call(key="k", iteration=1, parent_id=None, teacher="pool", model="", outcome="answered", attempts=1)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stage_module, "_write", lambda *_: [Reply(request, call, drafts, problems, "pool")])
            settings = TeacherAugmentSettings(teacher="pool", max_failed_fraction=1, rows_per_iteration=request.count)
            got = teacher_augment([mistake(seeds[0])], seeds, [], set(), colours, settings, 1, 0)
        assert len(got.candidates) + len(got.rejects) == request.count
        assert len({row.id for row in got.candidates}) == len(got.candidates)
        assert all(reject.reason for reject in got.rejects)


class TestFailures:
    def test_too_many_are_a_failure_with_the_reasons(self, offline) -> None:
        drafts = [Draft(f"the sea {n}", "blue") for n in range(7)] + [Draft("x", "purple"), Draft("y", "purple")]
        with pytest.raises(TooManyFailures) as caught:
            offline(drafts, [Problem("refused", "no")], max_failed_fraction=0.2)
        assert str(caught.value) == (
            "teacher_augment: 3 of 10 requested rows are not usable (2 invalid, 1 refused; for example: no), more than "
            "max_failed_fraction 0.2"
        )

    def test_as_many_as_allowed_are_not(self, offline) -> None:
        drafts = [Draft(f"the sea {n}", "blue") for n in range(8)] + [Draft("x", "purple"), Draft("y", "purple")]
        assert len(offline(drafts, max_failed_fraction=0.2).candidates) == 8

    def test_an_exhausted_teacher_has_not_failed(self, offline) -> None:
        got = offline([], [Problem("exhausted", "no more")] * 5, max_failed_fraction=0.0)
        assert [reject.reason for reject in got.rejects] == ["exhausted"] * 5

    def test_copies_are_not_failures(self, offline) -> None:
        assert len(offline([Draft("the sea", "blue")] * 5, max_failed_fraction=0.0).rejects) == 4

    def test_exhausted_rows_are_not_counted_as_failed(self, offline) -> None:
        problems = [Problem("exhausted", "no more")] * 5 + [Problem("refused", "no")] * 2
        with pytest.raises(TooManyFailures, match="2 of 7 requested rows are not usable"):
            offline([], problems, max_failed_fraction=0.2)

    def test_errors_of_no_seed_are_refused(self, seeds, mistake, colours, example) -> None:
        settings = TeacherAugmentSettings(teacher="pool")
        other = example("of another run", "blue")
        with pytest.raises(UserError, match="1 errors are of no row of the training set, as "):
            teacher_augment([mistake(other)], seeds, seeds, set(), colours, settings, 1, 0)

    def test_a_pool_without_rows_is_refused(self, seeds, mistake, colours) -> None:
        settings = TeacherAugmentSettings(teacher="pool")
        with pytest.raises(
            UserError, match=r"teacher_augment\.teacher: 'pool' has no rows to draw from; set data\.pool"
        ):
            teacher_augment([mistake(seeds[0])], seeds, [], set(), colours, settings, 1, 0)


class TestTeachers:
    def test_without_errors_nobody_is_asked(self, seeds, colours) -> None:
        settings = TeacherAugmentSettings(model="m", url="http://127.0.0.1:1/v1")
        assert teacher_augment([], seeds, [], set(), colours, settings, 1, 0) == Augmented([], [], [], 0)

    def test_parents_are_seeds_never_generated_rows(self, seeds, mistake, colours, example) -> None:
        generated = example("written before", "blue", parent_id=seeds[0].id)
        settings = TeacherAugmentSettings(teacher="grammar", grammar=GRAMMAR, strategy="random", rows_per_iteration=12)
        got = teacher_augment(
            [mistake(seed) for seed in seeds], [*seeds, generated], [], set(), colours, settings, 1, 0
        )
        assert {row.parent_id for row in got.candidates} == {seed.id for seed in seeds}

    def test_the_pool_gives_no_row_of_the_training_set_and_none_rejected_before(
        self, seeds, mistake, colours, example
    ) -> None:
        rows = [example(f"another blue thing, number {n}", "blue") for n in range(5)]
        settings = TeacherAugmentSettings(teacher="pool", rows_per_iteration=5)
        got = teacher_augment(
            [mistake(seeds[0])], [*seeds, rows[0]], [*seeds, *rows], {rows[1].id}, colours, settings, 1, 0
        )
        assert {row.id for row in got.candidates} == {row.id for row in rows[2:]}
        assert [reject.reason for reject in got.rejects] == ["exhausted", "exhausted"]

    def test_eda_names_itself(self, seeds, mistake, colours) -> None:
        settings = TeacherAugmentSettings(strategy="eda")
        (row,) = teacher_augment([mistake(seeds[0])], seeds, [], set(), colours, settings, 1, 0).candidates
        assert (row.teacher, row.strategy) == ("eda", "eda")


class TestRun:
    def go(self, folder: Path, inputs: dict[str, Any], task: Task, **keywords: Any) -> dict[str, LocalArtifact]:
        outputs = artifacts(folder, "candidates", "journal")
        more = {key: keywords.pop(key) for key in ("iteration", "previous_journal") if key in keywords}
        own = {"teacher": "grammar", "examples_per_error": 2, "grammar": GRAMMAR, **keywords}
        text = settings_text({"task": task.model_dump(), "teacher_augment": own, "random_seed": 0})
        augment_stage.python_func(**{**inputs, **more}, settings=text, **outputs)
        return outputs

    @pytest.fixture
    def inputs(self, tmp_path: Path, seeds, mistake) -> dict[str, Any]:
        given = artifacts(tmp_path, "previous_journal", "training_set")
        errors = [mistake(seeds[0]), mistake(seeds[1], iteration=1), mistake(seeds[2], iteration=1)]
        write_journal(given["previous_journal"], Journal(errors=errors))
        write_artifact(given["training_set"], "examples", seeds)
        return dict(given)

    def test_twice_gives_the_same_bytes(self, tmp_path: Path, inputs, colours) -> None:
        self.go(tmp_path / "one", inputs, colours)
        self.go(tmp_path / "two", inputs, colours)
        one, two = files(tmp_path / "one"), files(tmp_path / "two")
        assert one == two
        assert {"candidates", "journal/rejects.parquet", "journal/calls.parquet"} <= one.keys()

    def test_writes_from_the_errors_of_the_iteration_before(self, tmp_path: Path, inputs, colours, seeds) -> None:
        for iteration, parents in ((1, seeds[:1]), (2, seeds[1:3])):
            made = self.go(tmp_path / str(iteration), inputs, colours, iteration=iteration)
            rows = read_rows(made["candidates"].path, "candidates", Example)
            assert {row.parent_id for row in rows} == {parent.id for parent in parents}
            assert {row.iteration for row in rows} == {iteration}
            assert len(rows) == 2 * len(parents)

    def test_extends_the_journal(self, tmp_path: Path, inputs, colours) -> None:
        one = self.go(tmp_path / "one", inputs, colours, examples_per_error=30)["journal"]
        more = {"previous_journal": one, "iteration": 2}
        first, second = (
            read_journal(one),
            read_journal(self.go(tmp_path / "two", inputs, colours, examples_per_error=30, **more)["journal"]),
        )
        assert first.rejects
        assert list(second.rejects)[: len(first.rejects)] == list(first.rejects)
        assert [call.iteration for call in second.calls] == [1, 2, 2]
        assert list(second.errors) == list(read_journal(inputs["previous_journal"]).errors)

    def test_a_setting_that_is_not_known_is_refused(self, tmp_path: Path, inputs, colours, capfd) -> None:
        with pytest.raises(SystemExit):
            self.go(tmp_path / "out", inputs, colours, example_per_error=3)
        assert "teacher_augment.example_per_error: unknown key; did you mean 'examples_per_error'" in (
            capfd.readouterr().err
        )
        assert not (tmp_path / "out").exists()
