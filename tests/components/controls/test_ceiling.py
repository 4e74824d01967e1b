"""The teacher as a ceiling: asked the validation questions, out of the ledger, within its share of the budget."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from llm2llm.components.controls.ceiling import ask_teacher, limit
from llm2llm.components.controls.controls import scored
from llm2llm.components.controls.settings import ControlsStage
from llm2llm.components.report.controls import count_controls
from llm2llm.components.report.cost import teacher_costs
from llm2llm.components.shared.base.errors import UserError
from llm2llm.components.shared.data.journal import Journal, Spending
from llm2llm.components.shared.llm.settings import Budget
from llm2llm.components.shared.tasks import Task
from llm2llm.pipelines.config import load_config
from llm2llm.pipelines.config.stage_settings import stage_settings, stage_values
from llm2llm.pipelines.kubeflow.fit_placement import fit_placement
from tests.support.builders import call, example, score
from tests.support.loopback_endpoint import MODEL, Endpoint, HTTPResponse, completion

ROWS = [example(f"text number {number}", "yes" if number % 2 else "no") for number in range(12)]
TASK = Task(name="parity", form="classification", labels=["yes", "no"], description="Whether a number is odd.")


def question(body: dict[str, Any]) -> dict[str, Any]:
    text = body["messages"][-1]["content"]
    shown: dict[str, Any] = json.loads(text.split("<question>\n")[1].split("\n</question>")[0])
    return shown


def knows(body: dict[str, Any], number: int) -> HTTPResponse:
    """A teacher that is right but for text number 3."""
    of_text = int(question(body)["question"].split()[-1])
    return completion({"answer": "yes" if of_text % 2 and of_text != 3 else "no"})


@pytest.fixture
def endpoint() -> Iterator[Endpoint]:
    one = Endpoint()
    one.answer = knows
    yield one
    one.close()


@pytest.fixture
def stage(endpoint: Endpoint, tmp_path: Path) -> Callable[..., ControlsStage]:
    def made(share: float = 1.0, budget: dict[str, Any] | None = None, **ceiling: Any) -> ControlsStage:
        values = {
            "task": TASK.model_dump(mode="json"),
            "student": "scratch",
            "controls": {"teacher_share": share},
            "ceiling": {
                "teacher": {"model": MODEL, "url": endpoint.url, "concurrency": 1, "tries": 1},
                "ledger": str(tmp_path / "ledger"),
                "budget": budget or {"calls": 100},
                "prices": {MODEL: {"input": 1, "output": 1}},
                **ceiling,
            },
        }
        return ControlsStage.load(values, "controls")

    return made


def test_the_teacher_is_graded_as_the_student_is_and_its_calls_are_counted(
    endpoint: Endpoint, stage: Callable[..., ControlsStage]
) -> None:
    before = Journal(calls=[call("k1")], spent=Spending(usd=0.5, tokens=100, calls=5))
    found = ask_teacher(ROWS, stage(), before, 2)
    (one,) = scored("teacher", 1, found.answered, part=True)
    assert (one.split, one.n, one.correct, one.unparseable) == ("validation", 12, 11, 0)
    assert one.asked_ids == sorted(row.id for row in ROWS)
    assert {ROWS[3].id} == set(one.asked_ids) - set(one.correct_ids)
    assert len(endpoint.requests) == 12
    assert all("answer" not in question(body) for body in endpoint.requests), "blind"
    assert {(one.purpose, one.strategy, one.iteration, one.outcome) for one in found.calls} == {
        ("ceiling", "ceiling", 2, "answered")
    }
    assert found.spent == Spending(usd=pytest.approx(0.5 + 12 * 18e-6), tokens=100 + 12 * 18, calls=5 + 12)


def test_what_is_in_the_ledger_is_not_paid_again(endpoint: Endpoint, stage: Callable[..., ControlsStage]) -> None:
    first = ask_teacher(ROWS, stage(), Journal(), 2)
    again = ask_teacher(ROWS, stage(share=0.01), Journal(), 2)
    assert len(endpoint.requests) == 12
    assert again.answered == first.answered
    assert again.calls == first.calls


def test_the_share_of_the_budget_bounds_it_and_it_is_compared_on_the_rows_that_were_asked(
    endpoint: Endpoint, stage: Callable[..., ControlsStage], capsys: pytest.CaptureFixture[str]
) -> None:
    found = ask_teacher(ROWS, stage(share=0.25, budget={"calls": 20}), Journal(spent=Spending(calls=10)), 2)
    assert len(endpoint.requests) == 5
    assert "7 of 12 validation rows are left out: 7 that controls.teacher_share 0.25 does not pay for" in (
        capsys.readouterr().out
    )
    (one,) = scored("teacher", 1, found.answered, part=True)
    assert one.n == len(one.asked_ids) == 5
    delivered = score(1, "validation", 12, 12)
    delivered.correct_ids.clear()
    delivered.correct_ids.extend(row.id for row in ROWS)
    (counted,) = count_controls([one], [delivered], 1)
    assert counted["gain"]["validation"]["value"] == pytest.approx(1 - one.correct / 5)
    assert 0 <= counted["gain"]["validation"]["value"] <= 1 / 5


def test_what_the_loop_has_left_bounds_it_too(endpoint: Endpoint, stage: Callable[..., ControlsStage]) -> None:
    found = ask_teacher(ROWS, stage(share=1.0, budget={"calls": 20}), Journal(spent=Spending(calls=18)), 2)
    assert len(endpoint.requests) == 2 == len(found.answered)
    assert found.spent.calls == 20


@pytest.mark.parametrize(
    ("share", "spent", "left"),
    [
        (0.1, Spending(), Budget(usd=1.0, tokens=100, calls=10)),
        (0.1, Spending(usd=5, tokens=500, calls=50), Budget(usd=6.0, tokens=600, calls=60)),
        (0.5, Spending(usd=9, tokens=900, calls=90), Budget(usd=10.0, tokens=1000, calls=100)),
    ],
)
def test_the_limit(share: float, spent: Spending, left: Budget) -> None:
    assert limit(Budget(usd=10.0, tokens=1000, calls=100), share, spent) == left
    assert limit(Budget(), share, spent) == Budget()


def test_an_answer_that_cannot_be_used_is_asked_for_again_and_a_failed_request_is_no_answer(
    endpoint: Endpoint, stage: Callable[..., ControlsStage], capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(body: dict[str, Any], number: int) -> HTTPResponse:
        of_text = int(question(body)["question"].split()[-1])
        if of_text == 1:
            return completion({"answer": "perhaps"})
        if of_text == 2:
            return HTTPResponse(500, {"error": {"message": "broken"}})
        return knows(body, number)

    endpoint.answer = answer
    found = ask_teacher(ROWS[:5], stage(attempts=2), Journal(), 1)
    outcomes = {one.example_id: one.outcome for one in found.answered}
    assert outcomes == {
        ROWS[0].id: "correct", ROWS[1].id: "unparseable", ROWS[3].id: "wrong", ROWS[4].id: "correct",
    }  # fmt: skip
    assert sum(question(body)["question"] == ROWS[1].question for body in endpoint.requests) == 2
    assert "1 of 5 validation rows are left out: 0 that" in capsys.readouterr().out


def test_its_calls_are_on_the_bill_but_no_part_of_what_a_row_costs() -> None:
    made = [call("a", usd=1.0), call("b", purpose="ceiling", usd=4.0)]
    costs = teacher_costs(made, 1, [{"iteration": 0, "accuracy": {}}], 0)
    assert costs["usd"] == 5.0
    assert costs["per_kept_row"]["usd"] == 1.0
    assert {one["purpose"] for one in costs["by_purpose"]} == {"write", "ceiling"}


ASKED = ["teacher_augment={teacher: openai, model: m, budget: {calls: 50}}", "controls.teacher_share=0.1"]


def test_the_stage_is_handed_the_teacher_and_its_money_only_where_it_asks() -> None:
    config = load_config("quickstart", [*ASKED, "teacher_augment.ledger=s3://bucket/ledger"])
    assert stage_values(config, "controls")["ceiling"] == {
        "teacher": {"model": "m"}, "ledger": "s3://bucket/ledger", "budget": {"calls": 50},
    }  # fmt: skip
    ControlsStage.load(json.loads(stage_settings(config)["controls"]), "controls")
    assert "ceiling" not in stage_values(load_config("quickstart", ASKED[:1]), "controls")
    two = "teacher_augment={teachers: [{model: a}, {model: b, weight: 2}], budget: {calls: 50}}"
    assert stage_values(load_config("quickstart", [two, ASKED[1]]), "controls")["ceiling"]["teacher"]["model"] == "b"


def test_only_a_teacher_with_a_budget_can_be_asked() -> None:
    with pytest.raises(UserError, match=r"controls\.teacher_share: teacher 'grammar' .* remove the key"):
        load_config("quickstart", ASKED[1:])
    with pytest.raises(UserError, match=r"controls\.teacher_share: 0\.1 of no budget; set teacher_augment\.budget"):
        load_config("quickstart", ["teacher_augment={teacher: openai, model: m}", ASKED[1]])
    with pytest.raises(UserError, match="serve it behind an endpoint"):
        load_config("quickstart", ["teacher_augment={teacher: vllm, model: m, budget: {calls: 50}}", ASKED[1]])
    with pytest.raises(UserError, match=r"controls\.untrained: a student from scratch knows nothing"):
        load_config("quickstart", ["controls.untrained=true"])


def test_its_pod_gets_the_teachers_key() -> None:
    def with_key(*overrides: str) -> set[str]:
        placement = fit_placement(load_config("quickstart", [ASKED[0], "placement.profile=kind", *overrides]))
        (found,) = [one for one in placement.secrets if one.env == "OPENAI_API_KEY"]
        return set(found.stages)

    assert with_key(ASKED[1]) - with_key() == {"controls"}
