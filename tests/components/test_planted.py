"""A new entry of a table is all that it takes: a form, a strategy, an offline teacher, a selection, a backend.

Each is made up here, planted in its table, and goes through the real code without any other edit.
"""

import ast
import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from llm2llm.components.dedupe.dedupe import dedupe
from llm2llm.components.dedupe.settings import DedupeSettings
from llm2llm.components.evaluate.evaluate import confusion_of
from llm2llm.components.filter_errors.filter_errors import filter_errors
from llm2llm.components.filter_errors.selections import SELECTIONS, Chosen, SeedAnswers, Selection
from llm2llm.components.filter_errors.settings import FilterErrorsSettings, needs
from llm2llm.components.prepare.prepare import prepare
from llm2llm.components.prepare.settings import PrepareSettings
from llm2llm.components.shared import tasks
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.schemas import Example, Prediction, Score, StudentError
from llm2llm.components.shared.ingest.sources import read_examples
from llm2llm.components.shared.judge.settings import JudgeSettings
from llm2llm.components.shared.leakage.firewall import find_leaks
from llm2llm.components.shared.leakage.settings import LeakSettings
from llm2llm.components.shared.llm import backends
from llm2llm.components.shared.llm.backends import BACKENDS, Backend
from llm2llm.components.shared.llm.budget import SpendTracker
from llm2llm.components.shared.llm.client import open_teacher
from llm2llm.components.shared.llm.requests import LLMRequest, request_key
from llm2llm.components.shared.llm.settings import ModelSettings, TeacherSettings
from llm2llm.components.shared.models.label_scoring import labels_of
from llm2llm.components.shared.tasks import FORMS, Form, Task, load_task
from llm2llm.components.teacher_augment import parsing
from llm2llm.components.teacher_augment.augment import teacher_augment
from llm2llm.components.teacher_augment.context import Context, reply
from llm2llm.components.teacher_augment.offline import OFFLINE
from llm2llm.components.teacher_augment.offline.base import OfflineTeacher
from llm2llm.components.teacher_augment.prompt_files import SHIPPED, about, render
from llm2llm.components.teacher_augment.replies import Draft, Reply
from llm2llm.components.teacher_augment.settings import TeacherAugmentSettings
from llm2llm.components.teacher_augment.strategies import STRATEGIES
from llm2llm.components.teacher_augment.strategies.base import Strategy
from llm2llm.components.teacher_augment.until_usable import Query, query_until_usable
from llm2llm.pipelines.config.config import Config
from tests.support.fake_teacher import answered, examples, opened

STARS = ["1", "2", "3", "4", "5"]


def _normalise(task: Task, answer: Any, choices: list[str], rationale: str | None) -> tuple[str, str | None]:
    text = str(answer).strip()
    if text not in STARS:
        raise ValueError(f"the answer {text!r} is no number of stars")
    return text, None


RATING = Form(
    about="a number of stars",
    target=lambda task, answer, rationale: "*" * int(answer),
    parse=lambda task, completion: str(n) if 1 <= (n := completion.count("*")) <= 5 else None,
    matches=lambda task, parsed, answer: parsed == answer,
    normalise=_normalise,
    teacher_properties=lambda task: {"answer": {"type": "string", "enum": STARS}},
    classes=lambda task, choices: STARS,
    masks_numbers=True,
    leak_rouge_l=0.5,
)
"""How many stars a review gives, which the student writes as such."""


@pytest.fixture
def rating(monkeypatch: pytest.MonkeyPatch) -> Task:
    monkeypatch.setitem(FORMS, "rating", RATING)
    return Task(name="reviews", form="rating", description="How many stars does the review give?")


@pytest.fixture
def reviews(rating: Task, tmp_path: Path) -> list[Example]:
    """A user's rows."""
    words = ["bread", "cheese", "soup", "fish", "rice", "cake", "tea", "wine"]
    rows = [
        {"question": f"The {word} of the {other} house, {n}", "answer": 1 + (i + n) % 5}
        for i, word in enumerate(words)
        for n, other in enumerate(words)
    ]
    file = tmp_path / "reviews.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_examples(str(file), rating)


@pytest.fixture
def mistake_of() -> Any:
    return lambda seed: StudentError(
        iteration=0, example_id=seed.id, question=seed.question, answer=seed.answer, completion="no", parsed=None,
        outcome="wrong",
    )  # fmt: skip


class TestForm:
    def test_from_a_users_rows_to_a_grade(self, rating: Task, reviews: list[Example]) -> None:
        prepared = prepare(reviews, [], [], [], rating, PrepareSettings(leak=1.0, seed_count=20), 0)
        assert (len(prepared.seeds), {row.answer for row in prepared.seeds} - set(STARS)) == (20, set())
        for row in prepared.seeds:
            completion = tasks.target(rating, row.answer, row.rationale)
            assert tasks.grade(rating, f" {completion}\nQuestion: next", row.answer) == (row.answer, "correct")
            assert labels_of(rating, row) == STARS
        assert tasks.grade(rating, "no idea", "3") == (None, "unparseable")
        assert tasks.teacher_schema(rating, 2)["properties"]["examples"]["items"]["properties"]["answer"]["enum"]

    def test_it_is_scored_by_class(self, rating: Task, reviews: list[Example]) -> None:
        row = reviews[0]
        said = Prediction(
            example_id=row.id, split="seeds", iteration=0, completion="***", parsed="3", outcome="wrong", samples=1
        )
        counted = confusion_of(rating, {"seeds": [row]}, [said])
        assert counted is not None
        categories, matrix = counted
        assert categories[:5] == STARS
        assert matrix[STARS.index(row.answer)][2] == 1

    def test_leaks_and_copies_by_what_it_declares(self, rating: Task, example: Any) -> None:
        text = "the bread that came with the soup was cold and hard on day 7"
        row, other = example(text, "1"), example(text.replace("7", "9"), "1", parent_id="seed")
        assert [leak.check for leak in find_leaks([other], [row], [], "rating", LeakSettings()) if leak] == ["rouge_l"]
        kept = dedupe([other], [row], [], [], DedupeSettings(max_per_template=1), 1, "rating")
        assert [one.reason for one in kept.rejects] == ["template"]

    def test_a_teacher_writes_for_it(self, rating: Task, reviews: list[Example], mistake_of: Any) -> None:
        teacher, _ = opened(lambda ask, n: examples((f"A new review of the place, number {n}", "4")))
        settings = TeacherAugmentSettings(model=teacher.model)
        got = teacher_augment([mistake_of(reviews[0])], reviews, [], set(), rating, settings, 1, 0, [teacher])
        assert [row.answer for row in got.candidates] == ["4"]

    def test_a_config_and_its_contradictions(self, rating: Task) -> None:
        values = {
            "name": "reviews", "student": "scratch", "task": {"name": "reviews", "form": "rating"},
            "data": {"seeds": "reviews.jsonl"}, "train": {"class_weights": "balanced"},
            "evaluate": {"mode": "score", "hardness": True}, "teacher_augment": {"model": "m"},
            "filter_errors": {"selection": "hard", "hard_by": "el2n"},
        }  # fmt: skip
        assert Config.load(values, "config").task == Task(name="reviews", form="rating")
        with pytest.raises(UserError, match=r"labels: only for form 'classification', this is form 'rating'"):
            load_task({"name": "reviews", "form": "rating", "labels": STARS})
        with pytest.raises(UserError, match=r"'numeric', 'text' or 'rating' \(got 'ratings'\)"):
            load_task({"name": "reviews", "form": "ratings"})


class TestStrategy:
    def test_it_is_asked_for_and_marks_its_rows(
        self, monkeypatch: pytest.MonkeyPatch, colours: Task, example: Any, mistake_of: Any
    ) -> None:
        def write(context: Context) -> list[Reply]:
            parts, teacher = context.single_rows(), context.teachers[0]
            questions = []
            for part in parts:
                messages = render(context.prompt("riddle"), task=about(context.task), question=part.parent.question)
                request = teacher.request(messages, tasks.teacher_schema(context.task, 1), "write", part.parent.id)
                questions.append(Query(teacher, request, partial(parsing.read_drafts, task=context.task, count=1)))
            told = query_until_usable(context.call_log, questions)
            return [reply(part, one) for part, one in zip(parts, told, strict=True)]

        only_labels = "needs labels; choose another strategy"
        monkeypatch.setitem(
            STRATEGIES,
            "riddle",
            Strategy(
                about="each error as a riddle",
                write=write,
                draws_parents=True,
                unfit=lambda task: "" if FORMS[task.form].has_labels else only_labels,
            ),
        )
        monkeypatch.setitem(SHIPPED, "riddle", "# system\nWrite a riddle. {{task}}\n\n# user\n{{question}}\n")
        seeds = [example(f"a blue thing, number {n}", "blue") for n in range(4)]
        teacher, fake = opened(lambda ask, n: examples((f"What is as wide as the sea, {n}?", "blue")))
        settings = TeacherAugmentSettings.load({"strategy": "riddle", "model": teacher.model}, "teacher_augment")
        got = teacher_augment([mistake_of(seeds[0])], seeds, [], set(), colours, settings, 1, 0, [teacher])
        assert [row.strategy for row in got.candidates] == ["riddle"]
        assert fake.requests[0].messages[0]["content"].startswith("Write a riddle.")
        with pytest.raises(UserError, match=r"strategy: 'riddle' needs labels"):
            teacher_augment([], seeds, [], set(), load_task("gsm8k"), settings, 1, 0, [teacher])
        with pytest.raises(UserError, match=r"strategy: 'riddle' needs a language model, and teacher is 'pool'"):
            TeacherAugmentSettings.load({"strategy": "riddle", "teacher": "pool"}, "teacher_augment")

    def test_one_that_keeps_the_question_has_nothing_to_verify(self, monkeypatch: pytest.MonkeyPatch) -> None:
        planted = replace(STRATEGIES["cot"], about="another")
        monkeypatch.setitem(STRATEGIES, "aloud", planted)
        with pytest.raises(UserError, match=r"verify: strategy 'aloud' keeps the question"):
            TeacherAugmentSettings.load({"strategy": "aloud", "model": "m", "verify": "judge"}, "teacher_augment")


def test_an_offline_teacher(monkeypatch: pytest.MonkeyPatch, colours: Task, example: Any, mistake_of: Any) -> None:
    def write(context: Context) -> list[Reply]:
        return [
            Reply(one, None, [Draft(f"{one.parent.question}, again", one.parent.answer)], [], "parrot")
            for one in context.requests
        ]

    def unfit(task: Task) -> str:
        return "says nothing about numbers" if FORMS[task.form].masks_numbers else ""

    monkeypatch.setitem(OFFLINE, "parrot", OfflineTeacher(about="says it again", write=write, unfit=unfit))
    seed = example("a blue thing", "blue")
    settings = TeacherAugmentSettings.load({"teacher": "parrot"}, "teacher_augment")
    got = teacher_augment([mistake_of(seed)], [seed], [], set(), colours, settings, 1, 0)
    assert [(row.question, row.teacher) for row in got.candidates] == [("a blue thing, again", "parrot")]
    values = {"name": "x", "student": "scratch", "task": "gsm8k", "data": {"seeds": "s.jsonl"},
              "teacher_augment": {"teacher": "parrot"}}  # fmt: skip
    with pytest.raises(UserError, match=r"teacher_augment.teacher 'parrot' says nothing about numbers"):
        Config.load({**values, "task": load_task("gsm8k").model_dump()}, "config")


class TestSelection:
    @pytest.fixture(autouse=True)
    def planted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def easiest(answers: SeedAnswers) -> list[Chosen]:
            return [Chosen(row, None) for row in sorted(answers.rows, key=lambda row: row.loss or 0.0)[:2]]

        monkeypatch.setitem(
            SELECTIONS,
            "easiest",
            Selection(
                about="the easiest",
                choose=easiest,
                needs=lambda settings: {"evaluate.hardness": (True,)},
                needs_folds=True,
            ),
        )

    def test_it_chooses(self, example: Any) -> None:
        seeds = [example(f"thing {n}", "blue") for n in range(4)]
        rows = [
            Prediction(
                example_id=seed.id, split="seeds", iteration=0, fold=0, completion="x", parsed="blue",
                outcome="correct", loss=float(n),
            )
            for n, seed in enumerate(seeds)
        ]  # fmt: skip
        history = [
            Score(iteration=0, split="validation", n=1, correct=1, unparseable=0, accuracy=1.0, low=0.2, high=1.0,
                  training_rows=4)
        ]  # fmt: skip
        settings = FilterErrorsSettings.load({"selection": "easiest"}, "filter_errors")
        assert (settings.fold_count, needs(settings)) == (3, {"evaluate.hardness": (True,)})
        found = filter_errors(seeds, [], history, 0, 1, settings, fold_predictions=rows)
        assert {error.example_id for error in found.errors} == {seed.id for seed in seeds[:2]}
        assert found.decision.reason.startswith("2 seeds chosen (easiest)")
        with pytest.raises(UserError, match=r"selection: 'easiest' needs the predictions of all folds"):
            filter_errors(seeds, rows, history, 0, 1, settings)

    def test_a_config_without_what_it_needs(self) -> None:
        values = {"name": "x", "student": "scratch", "task": load_task("snips").model_dump(),
                  "data": {"seeds": "s.jsonl"}, "teacher_augment": {"model": "m"},
                  "filter_errors": {"selection": "easiest"}}  # fmt: skip
        with pytest.raises(UserError, match=r"'easiest' needs evaluate.hardness to be True"):
            Config.load(values, "config")


def test_a_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType(f"{backends.__name__}.echo")

    @contextmanager
    def opened_echo(settings: ModelSettings) -> Iterator[Any]:
        def send(asks: Sequence[Any], settings: ModelSettings, account: SpendTracker) -> list[Any]:
            return [replace(answered(ask.messages[-1]["content"]), request=ask, key=ask_key(ask)) for ask in asks]

        yield send

    settings = ModelSettings(model="m")
    monkeypatch.setitem(BACKENDS, "echo", Backend(about="says it again", module="echo", image="train", in_pod=False))

    def ask_key(ask: LLMRequest) -> str:
        return request_key(settings.identity("echo"), ask)

    module.opened = opened_echo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    ask = LLMRequest(messages=[{"role": "user", "content": "hello"}], temperature=0, max_tokens=16)
    with open_teacher(settings, "echo", SpendTracker(run="r")) as teacher:
        assert [answer.text for answer in teacher([ask])] == ["hello"]
    augment = TeacherAugmentSettings.load({"teacher": "echo", "model": "m"}, "teacher_augment")
    assert augment.asks_models
    assert TeacherSettings.load({"teacher": "echo", "model": "m"}, "teachers").teacher == "echo"


@pytest.mark.parametrize(
    ("settings", "key", "tables"),
    [
        (TeacherAugmentSettings, "teacher", [BACKENDS, OFFLINE]),
        (TeacherAugmentSettings, "strategy", [STRATEGIES]),
        (TeacherSettings, "teacher", [BACKENDS]),
        (JudgeSettings, "teacher", [{name: one for name, one in BACKENDS.items() if not one.fills_gpu}]),
        (FilterErrorsSettings, "selection", [SELECTIONS]),
        (Task, "form", [FORMS]),
    ],
)
def test_the_help_names_them_all(settings: Any, key: str, tables: list[dict[str, Any]]) -> None:
    description = settings.model_fields[key].description
    for name, entry in (item for table in tables for item in table.items()):
        assert f"`{name}` ({entry.about})" in description


ASKED = {"form", "strategy", "selection"}
PRODUCT = Path(__file__).resolve().parents[2]


def names_compared(tree: ast.AST) -> list[int]:
    """The lines where a form, strategy or selection is compared with a name of one."""
    lines = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            sides = [node.left, *node.comparators]
            asked = any(isinstance(one, ast.Attribute) and one.attr in ASKED for one in sides) or any(
                isinstance(one, ast.Name) and one.id in ASKED for one in sides
            )
            texts = [one for side in sides for one in ast.walk(side) if isinstance(one, ast.Constant)]
            if asked and any(isinstance(one.value, str) for one in texts):
                lines.append(node.lineno)
    return lines


def test_nobody_asks_which_one_it_is() -> None:
    assert names_compared(ast.parse("if task.form in ('text', 'numeric'): pass\nif form == 'text': pass")) == [1, 2]
    found = [
        f"{file.relative_to(PRODUCT)}:{line}"
        for folder in ("components", "pipelines")
        for file in sorted((PRODUCT / folder).rglob("*.py"))
        for line in names_compared(ast.parse(file.read_text(encoding="utf-8")))
    ]
    assert not found, "ask the entry of the table instead: FORMS, STRATEGIES, SELECTIONS"
